"""
What is registered: names, paths, rules, and the options of classes.
"""

from __future__ import annotations

from ._core import RegistryCore
from .resolver import check_name, check_path, imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._core import Slot
    from .builder import Builder
    from .lifecycle.options import ClassOptions

__all__ = ["Registration"]

_WEAK = 2  # a slot's kind
_NO_LIMIT = float("inf")
_NO_OPTIONS = {
    "closer": "auto",
    "close_when_removed": False,
    "after_fork": "keep",
    "cache_ttl_seconds": None,
    "max_age_seconds": None,
    "priority": 0,
    "pin": False,
    "sizer": None,
    "shareable": False,
    "snapshot": None,
    "restore": None,
    "recycle_after_uses": 0,
    "recycle_after_seconds": 0.0,
    "recycle_after_growth_bytes": 0,
}
_DISCARDED, _REPLACED = 7, 8  # values of `events.RemovalCause`


class Registration(RegistryCore):
    """The part of a registry that knows what may be built."""

    _builder: Builder
    _options: dict[str, ClassOptions]
    _rules: dict[str, Callable[[type], Any]]
    _rule_versions: dict[str, tuple[Callable[[type], Any], str | None]]

    def register_class(
        self,
        class_name: str,
        class_path: str,
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
        """
        Register a class, or give a registered one another path.

        Args:
            class_name: The name to ask for it by.
            class_path: ``package.module.Class``; it is checked for its shape, and imported at first
                use. Where it differs from the path that the name had, the instance leaves the
                cache and a remembered failure is forgotten.
            closer: How a removed instance is closed: a callable that takes it, None for not at
                all, or "auto" for its `close()`, else its `__exit__`.
            close_when_removed: True closes a removed instance even if somebody to whom it was
                handed without a lease still refers to it.
            after_fork: What a forked child does with a warm instance: "keep" it; "drop" it,
                unclosed, for it is the parent's, and build another at its next use; "rebuild" it
                at once.
            cache_ttl_seconds: Its own idle TTL; 0: it has none; None: the registry's, or what
                `adaptive_ttl` gives.
            max_age_seconds: Its own maximum age; 0: it has none; None: the registry's.
            priority: Who has less leaves before who has more, whatever the policy.
            pin: Its instance does not leave for want of use, room or memory; see `pin`.
            sizer: Its own sizer, as the registry's; None: the registry's.
            shareable: Keep a snapshot of its instance in the registry's `store`, and open that
                instead of building. Arrays are read-only then; "copy_on_write" lets them be
                written, and what is written is this process's own.
            snapshot: Takes the instance and gives what is stored in its place; makes the class
                shareable.
            restore: Takes the class and what was stored, and gives an instance; goes with
                `snapshot`.
            recycle_after_uses: Build it anew when it was used so often; 0: never. This and the next
                two are looked at by `sweep`, which goes on by itself where
                `sweep_interval_seconds` is set; the new one is built in the background, takes the
                place of the old one, and the old one is closed when nobody holds it any more.
            recycle_after_seconds: Build it anew when it is so old; 0: never.
            recycle_after_growth_bytes: Build it anew when it has grown by so much since its build,
                as its sizer tells; 0: never.

        Raises:
            TypeError: The name or the path is not a string, or an option is of a wrong type.
            ValueError: An option is out of range.
            ClassPathError: The path has not the shape of one.
        """
        class_name = check_name(class_name)
        class_path = check_path(class_name, class_path)
        options = None
        given = {
            "closer": closer,
            "close_when_removed": close_when_removed,
            "after_fork": after_fork,
            "cache_ttl_seconds": cache_ttl_seconds,
            "max_age_seconds": max_age_seconds,
            "priority": priority,
            "pin": pin,
            "sizer": sizer,
            "shareable": shareable,
            "snapshot": snapshot,
            "restore": restore,
            "recycle_after_uses": recycle_after_uses,
            "recycle_after_seconds": recycle_after_seconds,
            "recycle_after_growth_bytes": recycle_after_growth_bytes,
        }
        if given != _NO_OPTIONS:
            from .lifecycle.options import ClassOptions

            options = ClassOptions(class_name, **given)
        slot, before = self._add_slot(class_name, class_path)
        if before != class_path:
            if before is not None:
                self._remove(slot, _REPLACED)  # closed in the way of its own class
            self._builder.forget(class_name)
        if options is not None or class_name in self._options:
            self._set_options(slot, options)

    def _set_options(self, slot: Slot, options: ClassOptions | None) -> None:
        """Let a class have these options, and no others."""
        idle = age = None
        if options is None:
            self._options.pop(slot.name, None)
        else:
            idle, age = options.cache_ttl_seconds, options.max_age_seconds
            self._options[slot.name] = options
        # 0 is none.
        self._set_limits(slot, _NO_LIMIT if idle == 0.0 else idle, _NO_LIMIT if age == 0.0 else age)
        self._set_pinned(slot, options is not None and options.pin)

    def unregister_class(self, class_name: str) -> bool:
        """
        Forget a class; its instance leaves the cache.

        Args:
            class_name: The name.

        Returns:
            Whether it was registered.
        """
        slot = self._slots.get(check_name(class_name))
        if slot is None or not self._drop_slot(slot, _DISCARDED):
            return False
        self._builder.forget(slot.name)
        return slot.path is not None

    def class_names(self) -> list[str]:
        """
        Give the registered names, in the order in which they were registered.

        Returns:
            A new list; O(names).
        """
        return [slot.name for slot in list(self._slots.values()) if slot.path is not None]

    def __contains__(self, class_name: object) -> bool:
        slot = self._slots.get(class_name) if type(class_name) is str else None
        return slot is not None and slot.path is not None

    def __len__(self) -> int:
        return self._registered

    def __bool__(self) -> bool:
        return True  # an empty registry is a registry: `registry or default` must not drop it

    def register_instantiation_rule(
        self, class_name: str, rule: Callable[[type], Any], *, version: str | None = None
    ) -> None:
        """
        Let a rule build the instances of a class, in place of the bare constructor.

        Args:
            class_name: The name; it may be registered later.
            rule: Takes the class and gives the instance. It may ask this registry for others. None
                is no instance.
            version: Another one whenever the rule builds something else than before: snapshots of
                instances that were built by another version are not opened. Without it, what this
                rule builds is not shared.

        Raises:
            TypeError: The name is not a string, the rule is not callable, or the version is neither
                None nor a string.

        The rule is used from the next build on; a remembered failure of the class is forgotten.
        """
        class_name = check_name(class_name)
        if not callable(rule):
            raise TypeError(f"the rule of {class_name!r} must be callable, got {rule!r}")
        if not (version is None or type(version) is str):
            raise TypeError(
                f"the version of the rule of {class_name!r} must be a str, got {version!r}"
            )
        self._rules[class_name] = rule
        self._rule_versions[class_name] = rule, version
        self._builder.forget(class_name)

    def has_method(self, class_name: str, method_name: str) -> bool:
        """
        Tell whether a method can be expected, without building or importing anything.

        Args:
            class_name: A name.
            method_name: A method name.

        Returns:
            True for an injected method. False for a name that is unknown or whose build failed.
            For a warm instance, whether it has such a callable. For any other, what the class says
            if its module is imported already and no rule may build something else; else True.
        """
        class_name = check_name(class_name)
        if self._is_injected(class_name, method_name):
            return True
        slot = self._slots.get(class_name)
        if slot is None or self._builder.failure(class_name) is not None:
            return False
        target = self._instance_in(slot)
        if target is None:
            if slot.path is None:
                return False
            # A rule may build something else than the class.
            target = None if class_name in self._rules else imported(slot.path)
            if target is None or hasattr(target, "__getattr__"):
                return True
            # In the class itself: its metaclass's methods are not its instances'.
            if not any(method_name in vars(base) for base in target.__mro__):
                return False
        return callable(getattr(target, method_name, None))

    def _instance_in(self, slot: Slot) -> Any:
        """The instance that a slot holds, not used by this; None if there is none."""
        content = slot.instance
        return content() if slot.kind == _WEAK and content is not None else content
