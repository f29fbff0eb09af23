"""
How big an instance is: measured at its build, walked through, or said by itself.

A size is a number with its method and its time, and says where it is an estimate. What cannot be
told is not known; a sizer that fails is said once for its class, and fails no build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .. import _logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Slot
    from ..registry import Registry
    from .growth import Growth, Mark

__all__ = ["Size", "SizeHooks", "Sizing", "declared_size"]


class Size(NamedTuple):
    """How big an instance is."""

    bytes: int
    method: str
    """"measured", "deep", "declared", or the name of one's own sizer."""
    measured_at: float
    """When, by the registry's clock."""
    estimate: bool = False
    """Whether it was told from the growth of the process while it was built."""
    at_least: bool = False
    """Whether the walk was cut short by its time limit."""


class SizeHooks:
    """
    Who tells the size of objects of a type, and of types that are derived from it.

    Types may be named, so that a package need not be imported for its hook.
    """

    def __init__(self) -> None:
        self._hooks: dict[str, Callable[[Any], int]] = dict(_BUILT_IN)

    def add(self, kind: type | str, hook: Callable[[Any], int]) -> None:
        """
        Let a hook tell the size of objects of a type.

        Args:
            kind: The type, or its module and qualified name with a dot between them.
            hook: Takes the object and gives bytes.

        Raises:
            TypeError: The kind is no type and no name, or the hook is not callable.
        """
        if not isinstance(kind, (type, str)):
            raise TypeError(f"a size hook is for a type or its dotted name, got {kind!r}")
        if not callable(hook):
            raise TypeError(f"the size hook for {kind!r} must be callable, got {hook!r}")
        self._hooks[kind if isinstance(kind, str) else _name(kind)] = hook

    def find(self, kind: type) -> Callable[[Any], int] | None:
        """Give the hook of the nearest base that has one."""
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
    # Shared weights are one and the same tensor.
    tensors = {id(t): t for part in (module.parameters(), module.buffers()) for t in part}
    return sum(map(_tensor, tensors.values()))


def _estimator(estimator: Any) -> int:
    from .walking import deep_size

    return deep_size(estimator)[0]


_BUILT_IN: dict[str, Callable[[Any], int]] = {
    "numpy.ndarray": _array,
    "torch.Tensor": _tensor,
    "torch.nn.modules.module.Module": _module,
    "sklearn.base.BaseEstimator": _estimator,
}


def declared_size(instance: Any, hooks: SizeHooks) -> int:
    """
    Tell what an object says of itself: by the hook of its type, its `nbytes`, or `__sizeof__`.

    Args:
        instance: The object.
        hooks: The hooks.

    Returns:
        Bytes.

    Raises:
        ValueError: What it says is no number of bytes.
        Exception: What the object, or the hook, raises.
    """
    hook = hooks.find(type(instance))
    if hook is not None:
        return _bytes(hook(instance), f"the size hook {hook!r}")
    if hasattr(type(instance), "nbytes") or "nbytes" in getattr(instance, "__dict__", ()):
        return _bytes(instance.nbytes, "nbytes")
    import sys

    return sys.getsizeof(instance)


def _bytes(value: Any, source: str) -> int:
    if isinstance(value, bool) or not hasattr(type(value), "__index__") or int(value) < 0:
        raise ValueError(f"{source} gave {value!r}, expected a whole number of bytes, 0 or more")
    return int(value)


class Sizing:
    """
    Tells the sizes of one registry's instances.

    Args:
        default: The sizer of classes that have none of their own: a name, a callable, an object
            with a method `size`, or None.
    """

    def __init__(self, default: Any) -> None:
        self.hooks = SizeHooks()
        self._default = default
        self._growth: Growth | None = None
        self._known: dict[str, tuple[int, Size]] = {}  # name -> epoch, and the last size
        self._failed: set[str] = set()  # classes of which it was said that their sizer fails

    def reset_after_fork(self) -> None:
        """Have locks that no thread of the parent holds."""
        if self._growth is not None:
            self._growth.reset_after_fork()

    # -- at a build ------------------------------------------------------------------------------

    def begins(self, registry: Registry, class_name: str) -> Mark | None:
        """Note how much memory the process has; in the thread that builds."""
        if self._sizer(registry, class_name) != "measured":
            return None
        if self._growth is None:
            from .growth import Growth

            self._growth = Growth()
        return self._growth.begin()

    def ends(self, mark: Mark | None) -> None:
        """The build has ended, well or not."""
        if mark is not None and self._growth is not None:
            self._growth.end(mark)

    def built(
        self, registry: Registry, slot: Slot, epoch: int, instance: Any, mark: Mark | None
    ) -> None:
        """Tell the size of what was built, which is cached under this epoch."""
        if mark is not None:
            if mark.bytes is not None:
                size = Size(mark.bytes, "measured", registry._now(), estimate=True)
                self._note(registry, slot, epoch, size)
            return
        sizer = self._sizer(registry, slot.name)
        if sizer not in (None, "measured"):
            self._measure(registry, slot, epoch, instance, sizer)

    # -- on demand -------------------------------------------------------------------------------

    def measure(
        self, registry: Registry, slot: Slot, *, walk: bool = False, seen: Any = None
    ) -> Size | None:
        """
        Tell how big a warm instance is now.

        Args:
            registry: The registry.
            slot: Where the instance is.
            walk: Whether to walk through what can be measured at a build only.
            seen: What was counted already, by its id; None: nothing.

        Returns:
            The size, noted in the slot; None if it cannot be told.
        """
        epoch, instance = slot.epoch, registry._instance_in(slot)
        if instance is None:
            return None
        sizer = self._sizer(registry, slot.name)
        if sizer == "measured":
            if not walk:
                return self.last(slot.name, epoch)
            return self._told(registry, slot, instance, "deep", seen)
        if sizer is None:
            sizer = "deep"
        return self._measure(registry, slot, epoch, instance, sizer, seen)

    def last(self, class_name: str, epoch: int) -> Size | None:
        """Give the size that was told last of what has this epoch."""
        known = self._known.get(class_name)
        return known[1] if known is not None and known[0] == epoch else None

    def expected(self, class_name: str) -> int | None:
        """Give the bytes that an instance of a class had the last time, cached now or not."""
        known = self._known.get(class_name)
        return None if known is None else known[1].bytes

    def _sizer(self, registry: Registry, class_name: str) -> Any:
        options = registry._options.get(class_name)
        own = None if options is None else options.sizer
        return self._default if own is None else own

    def _measure(
        self,
        registry: Registry,
        slot: Slot,
        epoch: int,
        instance: Any,
        sizer: Any,
        seen: Any = None,
    ) -> Size | None:
        size = self._told(registry, slot, instance, sizer, seen)
        if size is not None:
            self._note(registry, slot, epoch, size)
        return size

    def _told(
        self, registry: Registry, slot: Slot, instance: Any, sizer: Any, seen: Any
    ) -> Size | None:
        at_least = False
        try:
            if sizer == "deep":
                from .walking import deep_size

                size, at_least = deep_size(instance, seen=seen)
                method = "deep"
            elif sizer == "declared":
                size, method = declared_size(instance, self.hooks), "declared"
            else:
                told = sizer.size(instance) if hasattr(sizer, "size") else sizer(instance)
                method = getattr(sizer, "__name__", type(sizer).__name__)
                size = _bytes(told, f"the sizer {method!r}")
        except Exception as error:
            self._say(slot.name, error)
            return None
        self._failed.discard(slot.name)
        return Size(size, method, registry._now(), at_least=at_least)

    def _note(self, registry: Registry, slot: Slot, epoch: int, size: Size) -> None:
        self._known[slot.name] = epoch, size
        registry._set_bytes(slot, epoch, size.bytes)

    def _say(self, class_name: str, error: Exception) -> None:
        if class_name in self._failed:
            return
        self._failed.add(class_name)
        _logs.warning(
            "memory",
            "the size of %r cannot be told: %s",
            class_name,
            error,
            fields={"class_name": class_name, "error_type": type(error).__qualname__},
            error=error,
        )
