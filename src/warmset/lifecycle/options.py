"""What a class may ask for when it is registered."""

from __future__ import annotations

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

    Raises:
        TypeError: The closer is none of what it may be.
        ValueError: `after_fork` is none of the three.
    """

    __slots__ = ("after_fork", "close_when_removed", "closer")

    def __init__(
        self,
        class_name: str,
        closer: Callable[[Any], Any] | str | None,
        close_when_removed: bool,
        after_fork: str,
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
        self.closer = closer
        self.close_when_removed = close_when_removed
        self.after_fork = after_fork
