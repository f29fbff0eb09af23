"""
Instance sizes: measured during the build, computed by traversal, or declared by the instance.

A size carries its method and time, and states whether it is an estimate. If a sizer fails, the size
is unknown and the error is logged once per class; the build does not fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..foreign import MISSING, SIZER, contain, find_in_type, find_own

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Entry, Slot
    from ..registry import BaseRegistry
    from .growth import Growth, Mark

__all__ = ["Size", "SizeHooks", "Sizing", "declared_size"]

_MOST_NAMES = 10_000  # above this, sizes of removed instances are forgotten


class Size(NamedTuple):
    """The size of an instance."""

    bytes: int
    method: str
    """"measured", "deep", "declared", or the name of a custom sizer."""
    measured_at: float
    """The time of the measurement on the timer of the registry."""
    estimate: bool = False
    """Whether it was derived from the growth of the process during the build."""
    at_least: bool = False
    """Whether the traversal reached its time limit, so that the size is a lower bound."""


class SizeHooks:
    """
    Functions that return the size of objects of a type and its subtypes.

    A type may be given by name, so that its package is not imported for the hook.
    """

    def __init__(self) -> None:
        self._hooks: dict[str, Callable[[Any], int]] = dict(_BUILT_IN)

    def add(self, kind: type | str, hook: Callable[[Any], int]) -> None:
        """
        Add a hook for a type.

        Args:
            kind: The type, or its name in the form ``module.qualname``.
            hook: Called with the object; returns its size in bytes.

        Raises:
            TypeError: The kind is neither a type nor a name, or the hook is not callable.
        """
        if not isinstance(kind, (type, str)):
            raise TypeError(f"a size hook needs a type or its dotted name, got {kind!r}")
        if not callable(hook):
            raise TypeError(f"the size hook for {kind!r} must be callable, got {hook!r}")
        self._hooks[kind if isinstance(kind, str) else _name(kind)] = hook

    def find(self, kind: type) -> Callable[[Any], int] | None:
        """Return the hook of the first class in the method resolution order that has one."""
        for base in type.mro(kind) if kind is not type else ():
            hook = self._hooks.get(_name(base))
            if hook is not None:
                return hook
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _array(array: Any) -> int:
    return int(array.nbytes)


def _tensor(tensor: Any) -> int:
    return int(tensor.nelement()) * int(tensor.element_size())


def _module(module: Any) -> int:
    # By identity, because shared weights appear as the same tensor.
    tensors = {id(t): t for part in (module.parameters(), module.buffers()) for t in part}
    return sum(map(_tensor, tensors.values()))


def _estimator(estimator: Any) -> int:
    from .deep_size import deep_size

    return deep_size(estimator)[0]


_BUILT_IN: dict[str, Callable[[Any], int]] = {
    "numpy.ndarray": _array,
    "torch.Tensor": _tensor,
    "torch.nn.modules.module.Module": _module,
    "sklearn.base.BaseEstimator": _estimator,
}


def declared_size(instance: Any, hooks: SizeHooks) -> int:
    """
    Return the size that an object declares: by the hook of its type, `nbytes` or `__sizeof__`.

    Args:
        instance: The object.
        hooks: The hooks by type.

    Returns:
        The size in bytes.

    Raises:
        ValueError: The declared size is not a number of bytes.
        Exception: Any error of the object or the hook.
    """
    hook = hooks.find(type(instance))
    if hook is not None:
        return _bytes(hook(instance), f"the size hook {hook!r}")
    kind = type(instance)
    if find_in_type(kind, "nbytes") is not MISSING or find_own(instance, "nbytes") is not MISSING:
        return _bytes(instance.nbytes, "nbytes")
    import sys

    return sys.getsizeof(instance)


def _bytes(value: Any, source: str) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or int(value) < 0:
        raise ValueError(
            f"{source} returned {value!r}, expected a whole number of bytes, 0 or more"
        )
    return int(value)


class Sizing:
    """
    Determines the sizes of the instances of one registry.

    Args:
        default: The sizer of classes without one of their own: a name, a callable, an object with
            a method `size`, or None.
    """

    def __init__(self, default: Any) -> None:
        self.hooks = SizeHooks()
        self._default = default
        self._growth: Growth | None = None
        # Class name -> the serial number of its last measured entry, and the size of that.
        self._known: dict[str, tuple[int, Size]] = {}
        self._most_known = _MOST_NAMES
        self._failed: set[str] = set()  # classes whose sizer failure has been logged

    def reset_after_fork(self) -> None:
        """Replace the locks, which threads of the parent may have held."""
        if self._growth is not None:
            self._growth.reset_after_fork()

    # -- builds ----------------------------------------------------------------------------------

    def begins(self, slot: Slot) -> Mark | None:
        """Record the start of a build; must be called in the building thread."""
        if self._sizer(slot) != "measured":
            return None
        if self._growth is None:
            from .growth import Growth

            self._growth = Growth()
        return self._growth.begin()

    def ends(self, mark: Mark | None) -> None:
        """Record the end of a build, successful or not."""
        if mark is not None and self._growth is not None:
            self._growth.end(mark)

    def built(self, registry: BaseRegistry, entry: Entry, mark: Mark | None) -> None:
        """
        Determine the size of a new instance.

        Args:
            registry: The registry.
            entry: The entry of the instance, which its builder holds.
            mark: The result of `begins`.
        """
        sizer = self._sizer(entry.slot)
        if mark is not None:
            if mark.bytes is not None:
                size = Size(mark.bytes, "measured", registry.now(), estimate=True)
                self._record(registry, entry, size)
        elif sizer not in (None, "measured"):
            self._record(registry, entry, self._size_of(registry, entry, sizer, None))

    # -- on demand -------------------------------------------------------------------------------

    def measure(self, registry: BaseRegistry, entry: Entry) -> Size | None:
        """
        Measure a warm instance by the sizer of its class, or by "deep" if that has none.

        Args:
            registry: The registry.
            entry: The entry of the instance.

        Returns:
            The size, which is also recorded in the entry; with the sizer "measured" the one
            determined at the build. None if it cannot be determined.

        The instance is held meanwhile; that is not counted as a use.
        """
        return self._measure(registry, entry, None)

    def measure_all(self, registry: BaseRegistry) -> dict[str, Size]:
        """
        Measure all warm instances; the sizer "deep" counts what they share once.

        Args:
            registry: The registry.

        Returns:
            Class name -> size, the most recently used instance first.
        """
        seen: dict[int, Any] = {}
        sizes = {}
        for entry in registry.warm_entries():
            size = self._measure(registry, entry, seen)
            if size is not None:
                sizes[entry.name] = size
        return sizes

    def measure_anew(self, registry: BaseRegistry, entry: Entry) -> Size | None:
        """
        Measure a warm instance in its current state: by "deep" if its sizer measures builds only.

        Args:
            registry: The registry.
            entry: The entry of the instance.

        Returns:
            The size; None if it cannot be determined. It is recorded in the entry, unless "deep"
            stands in for "measured".
        """
        if self._sizer(entry.slot) != "measured":
            return self._measure(registry, entry, None)
        return self._size_while_held(registry, entry, "deep", None)

    def last(self, entry: Entry) -> Size | None:
        """Return the last known size of an instance."""
        known = self._known.get(entry.slot.key)
        return known[1] if known is not None and known[0] == entry.serial else None

    def expected(self, slot: Slot) -> int | None:
        """Return the last known size of what a slot has, in bytes, whether or not it is cached."""
        known = self._known.get(slot.key)
        return None if known is None else known[1].bytes

    def _sizer(self, slot: Slot) -> Any:
        options = slot.options
        own = None if options is None else options.sizer
        return self._default if own is None else own

    def _measure(
        self, registry: BaseRegistry, entry: Entry, seen: dict[int, Any] | None
    ) -> Size | None:
        """Measure a warm instance; `seen` has the objects that were counted already, by id."""
        sizer = self._sizer(entry.slot)
        if sizer == "measured":
            return self.last(entry)
        size = self._size_while_held(registry, entry, "deep" if sizer is None else sizer, seen)
        self._record(registry, entry, size)
        return size

    def _size_while_held(
        self, registry: BaseRegistry, entry: Entry, sizer: Any, seen: dict[int, Any] | None
    ) -> Size | None:
        """Measure an instance that must not be closed by another thread meanwhile."""
        if not registry.hold(entry):
            return None
        try:
            return self._size_of(registry, entry, sizer, seen)
        finally:
            registry.release(entry, None)

    def _size_of(
        self, registry: BaseRegistry, entry: Entry, sizer: Any, seen: dict[int, Any] | None
    ) -> Size | None:
        # The instance is referenced here only: at the release, other references are counted.
        instance = entry.instance
        if instance is None:  # kept weakly, and collected
            return None
        sized = contain(
            SIZER, self._ask, instance, sizer, seen, class_name=entry.name, logged=self._failed
        )
        if sized is None:
            return None
        self._failed.discard(entry.name)
        size, method, at_least = sized
        return Size(size, method, registry.now(), at_least=at_least)

    def _ask(self, instance: Any, sizer: Any, seen: dict[int, Any] | None) -> tuple[int, str, bool]:
        """Return bytes, the method, and whether they are a lower bound."""
        if sizer == "deep":
            from .deep_size import deep_size

            size, at_least = deep_size(instance, seen=seen)
            return size, "deep", at_least
        if sizer == "declared":
            return declared_size(instance, self.hooks), "declared", False
        result = sizer.size(instance) if hasattr(sizer, "size") else sizer(instance)
        method = str(getattr(sizer, "__name__", type(sizer).__name__))
        return _bytes(result, f"the sizer {method!r}"), method, False

    def _record(self, registry: BaseRegistry, entry: Entry, size: Size | None) -> None:
        if size is None:
            return
        registry.set_bytes(entry, size.bytes)
        self._known[entry.slot.key] = entry.serial, size
        if len(self._known) > self._most_known:
            self._forget_removed(registry)

    def _forget_removed(self, registry: BaseRegistry) -> None:
        """Forget sizes of removed instances, those that were recorded first, down to half."""
        excess = len(self._known) - _MOST_NAMES // 2
        for key in list(self._known):
            slot = registry.slots.get(key)
            if slot is None or slot.entry is None:
                self._known.pop(key, None)
                excess -= 1
                if excess <= 0:
                    break
        self._most_known = max(_MOST_NAMES, 2 * len(self._known))
