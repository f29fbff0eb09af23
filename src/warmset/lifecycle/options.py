"""What a class may ask for when it is registered."""

from __future__ import annotations

from ..setting_rules import RULES, check_setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ClassOptions"]


class ClassOptions:
    """
    The options of one class; see `Registry.register_class`.

    Args:
        class_name: For the text of the errors.
        closer: A callable, None or "auto".
        close_when_removed: Whether to close what others may still refer to.
        after_fork: "keep", "drop" or "rebuild".
        cache_ttl_seconds: Its own idle TTL; 0: none; None: the registry's.
        max_age_seconds: Its own maximum age; 0: none; None: the registry's.
        priority: Who has less leaves before who has more.
        pin: Whether its instance stays, whatever the bounds.
        sizer: Its own sizer; None: the registry's.
        shareable: Whether its snapshot is kept in the registry's store; "copy_on_write" lets its
            arrays be written.
        snapshot: Takes an instance and gives what is to be stored.
        restore: Takes the class and what was stored, and gives an instance.
        recycle_after_uses: Uses after which it is built anew; 0: never.
        recycle_after_seconds: Seconds after which it is built anew; 0: never.
        recycle_after_growth_bytes: Bytes of growth after which it is built anew; 0: never.

    Raises:
        TypeError: One of them is of a wrong type.
        ValueError: One of them is out of range, or none of what it may be.
    """

    __slots__ = (
        "after_fork",
        "cache_ttl_seconds",
        "close_when_removed",
        "closer",
        "max_age_seconds",
        "pin",
        "priority",
        "recycle_after_growth_bytes",
        "recycle_after_seconds",
        "recycle_after_uses",
        "restore",
        "shareable",
        "sizer",
        "snapshot",
    )

    def __init__(
        self,
        class_name: str,
        *,
        closer: Callable[[Any], Any] | str | None = "auto",
        close_when_removed: bool = False,
        after_fork: str = "keep",
        cache_ttl_seconds: float | None = None,
        max_age_seconds: float | None = None,
        priority: int = 0,
        pin: bool = False,
        sizer: Any = None,
        shareable: bool | str = False,
        snapshot: Callable[[Any], Any] | None = None,
        restore: Callable[[type, Any], Any] | None = None,
        recycle_after_uses: int = 0,
        recycle_after_seconds: float = 0.0,
        recycle_after_growth_bytes: int = 0,
    ) -> None:
        if not (closer is None or callable(closer) or closer == "auto"):
            raise TypeError(
                f"the closer of {class_name!r} must be a callable, None or 'auto', got {closer!r}"
            )
        if after_fork not in ("keep", "drop", "rebuild"):
            raise ValueError(
                f"after_fork of {class_name!r} must be 'keep', 'drop' or 'rebuild', "
                f"got {after_fork!r}"
            )

        def checked(option: str, value: object) -> Any:
            try:
                return check_setting(option, value)
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"{option} of {class_name!r} must be {RULES[option][1]}, got {value!r}"
                ) from error

        self.closer = closer
        self.close_when_removed = close_when_removed
        self.after_fork = after_fork
        self.cache_ttl_seconds: float | None = None
        if cache_ttl_seconds is not None:
            self.cache_ttl_seconds = checked("cache_ttl_seconds", cache_ttl_seconds)
        self.max_age_seconds: float | None = None
        if max_age_seconds is not None:
            self.max_age_seconds = checked("max_age_seconds", max_age_seconds)
        self.priority: int = checked("priority", priority)
        self.pin: bool = checked("pin", pin)
        self.sizer = checked("sizer", sizer)
        self.snapshot: Callable[[Any], Any] | None = checked("snapshot", snapshot)
        self.restore: Callable[[type, Any], Any] | None = checked("restore", restore)
        if (snapshot is None) is not (restore is None):
            missing = "snapshot" if snapshot is None else "restore"
            raise ValueError(
                f"snapshot and restore of {class_name!r} go together: {missing} is missing"
            )
        self.shareable: bool | str = checked("shareable", shareable)
        if snapshot is not None and not self.shareable:
            self.shareable = True
        self.recycle_after_uses: int = checked("recycle_after_uses", recycle_after_uses)
        self.recycle_after_seconds: float = checked("recycle_after_seconds", recycle_after_seconds)
        self.recycle_after_growth_bytes: int = checked(
            "recycle_after_growth_bytes", recycle_after_growth_bytes
        )

    @property
    def recycles(self) -> bool:
        """Whether the class is built anew for any reason."""
        return bool(
            self.recycle_after_uses or self.recycle_after_seconds or self.recycle_after_growth_bytes
        )

    @property
    def managed(self) -> bool:
        """Whether it takes a memory manager."""
        return bool(self.priority) or self.sizer is not None or self.recycles
