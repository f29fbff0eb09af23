"""
The private names that the pipeline's own code and tests use.

Nothing else in the package knows this module. It adds names to the registry and the executor; a
look-up does not pass through it.

Wall-clock seconds
    A `CacheEntry` shows times as `time.time()` does, the core keeps monotonic ones. The difference
    is read once for each registry, so that an entry does not change while it is only read.
"""

from __future__ import annotations

from _collections_abc import MutableMapping, MutableSet
from time import time
from weakref import ReferenceType

from .api import Registry
from .assigned_limits import AssignedLimits
from .codes import CACHED, DISCARDED, WEAK
from .errors import BuildError, ClosedError
from .executor import MethodExecutor as _MethodExecutor
from .resolver import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ._core import Entry, Slot
    from .builds import Holder
    from .family_keys import FamilyKey

__all__ = ["CacheEntry", "MethodExecutor", "MethodRegistry"]


class CacheEntry:
    """
    An instance with its times and its count.

    Args:
        instance: The instance.
        created_at: When it was built, in seconds of `time.time()`.
        last_accessed: When it was last used, likewise.
        access_count: How often it was used.

    An entry that was read from or written to ``registry._cache`` is live: it shows what the
    registry knows, and what is assigned to it takes effect there, until its instance is removed.
    After that it keeps what it showed last.
    """

    __slots__ = ("_entry", "_facts", "_instance", "_registry")

    def __init__(
        self, instance: Any, created_at: float, last_accessed: float, access_count: int = 0
    ) -> None:
        self._instance = instance
        self._facts = (created_at, last_accessed, _count(access_count))
        self._registry: MethodRegistry | None = None
        self._entry: Entry | None = None

    def _attach(self, registry: MethodRegistry, entry: Entry | None) -> CacheEntry:
        self._registry, self._entry = registry, entry
        return self

    def _read(self) -> tuple[float, float, int]:
        entry, registry = self._entry, self._registry
        if entry is not None and registry is not None:
            offset = registry._wall_offset
            facts = entry.built_at + offset, entry.last_used + offset, entry.uses
            if entry.state == CACHED:
                self._facts = facts
            else:
                self._entry = self._registry = None
        return self._facts

    def _write(self, created_at: float, last_accessed: float, access_count: int) -> None:
        self._facts = (created_at, last_accessed, _count(access_count))
        entry, registry = self._entry, self._registry
        if entry is not None and registry is not None:
            offset = registry._wall_offset
            # The system's clock may be ahead of the coarse one: no use is in the future.
            last_used = min(last_accessed - offset, registry.now())
            registry.amend(entry, created_at - offset, last_used, access_count)

    @property
    def instance(self) -> Any:
        """The instance; where the entry is live, assigning another one replaces it."""
        return self._instance

    @instance.setter
    def instance(self, value: Any) -> None:
        facts = self._read()
        entry, registry = self._entry, self._registry
        self._instance = value
        if entry is not None and registry is not None:
            registry._cache[entry.name] = self
            self._facts = facts

    @property
    def created_at(self) -> float:
        """When the instance was built, in seconds of `time.time()`."""
        return self._read()[0]

    @created_at.setter
    def created_at(self, value: float) -> None:
        _, last_accessed, access_count = self._read()
        self._write(value, last_accessed, access_count)

    @property
    def last_accessed(self) -> float:
        """When the instance was last used, in seconds of `time.time()`."""
        return self._read()[1]

    @last_accessed.setter
    def last_accessed(self, value: float) -> None:
        created_at, _, access_count = self._read()
        self._write(created_at, value, access_count)

    @property
    def access_count(self) -> int:
        """How often the instance was used; its build is the first time."""
        return self._read()[2]

    @access_count.setter
    def access_count(self, value: int) -> None:
        created_at, last_accessed, _ = self._read()
        self._write(created_at, last_accessed, value)

    def is_expired(self, ttl_seconds: float) -> bool:
        """
        Tell whether the instance was idle for longer than a TTL.

        Args:
            ttl_seconds: The TTL; 0 or less: never.

        Returns:
            Whether it was.
        """
        return ttl_seconds > 0 and time() - self.last_accessed > ttl_seconds

    def touch(self) -> None:
        """Count a use, now."""
        created_at, _, access_count = self._read()
        self._write(created_at, time(), access_count + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CacheEntry):
            return NotImplemented
        return bool(self.instance == other.instance) and self._read() == other._read()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        created_at, last_accessed, access_count = self._read()
        return (
            f"CacheEntry(instance={self.instance!r}, created_at={created_at!r}, "
            f"last_accessed={last_accessed!r}, access_count={access_count!r})"
        )


def _count(value: int) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"access_count must be an int of 0 or more, got {value!r}")
    return value


class _Entries(MutableMapping[str, "Any"]):
    """The cached entries of one kind as a mapping that can be written to, in build order."""

    __slots__ = ("_registry",)
    _state = CACHED

    def __init__(self, registry: MethodRegistry) -> None:
        self._registry = registry

    def _entry(self, class_name: object) -> Entry | None:
        slot = self._registry.slots.get(class_name) if isinstance(class_name, str) else None
        entry = None if slot is None else slot.entry
        return entry if entry is not None and entry.state == self._state else None

    def _write(self, class_name: str, write: Callable[[Slot], Entry | None]) -> Entry:
        """Write into the slot of a name, made anew if it is dropped at the same moment."""
        registry = self._registry
        class_name = check_name(class_name)
        while not registry.closed:
            slot = registry.slots.get(class_name)
            if slot is None:
                slot, _ = registry.add_slot(class_name, None)
            entry = write(slot)
            if entry is not None:
                return entry
        raise ClosedError(f"the registry is closed: {class_name!r} is not kept")

    def __contains__(self, class_name: object) -> bool:
        return self._entry(class_name) is not None

    def __iter__(self) -> Iterator[str]:
        entries = [slot.entry for slot in list(self._registry.slots.values())]
        mine = [entry for entry in entries if entry is not None and entry.state == self._state]
        mine.sort(key=lambda entry: entry.serial)
        return iter([entry.name for entry in mine])

    def __delitem__(self, class_name: str) -> None:
        entry = self._entry(class_name)
        if entry is None or not self._registry.remove_from(entry.slot, DISCARDED):
            raise KeyError(class_name)
        if entry.slot.target is None:
            self._registry.forget_slot(entry.slot, DISCARDED)

    def pop(self, class_name: str, *default: Any) -> Any:
        # In place of the mixin's, which does not expect another thread to be quicker.
        try:
            found = self[class_name]
            del self[class_name]
        except KeyError:
            if default:
                return default[0]
            raise
        return found

    def clear(self) -> None:
        for class_name in list(self):
            self.pop(class_name, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


class _Cache(_Entries):
    """The instances that are kept strongly, as `CacheEntry`."""

    __slots__ = ()

    def __getitem__(self, class_name: str) -> CacheEntry:
        entry = self._entry(class_name)
        if entry is None:
            raise KeyError(class_name)
        shown = CacheEntry(entry.instance, 0.0, 0.0)._attach(self._registry, entry)
        shown._read()
        return shown

    def __setitem__(self, class_name: str, entry: CacheEntry) -> None:
        if not isinstance(entry, CacheEntry):
            raise TypeError(f"_cache[{class_name!r}] takes a CacheEntry, got {entry!r}")
        registry = self._registry
        created_at, last_accessed, access_count = entry._read()
        offset = registry._wall_offset
        # The system's clock may be ahead of the coarse one: no use is in the future.
        last_used = min(last_accessed - offset, registry.now())
        written = self._write(
            class_name,
            lambda slot: registry.write(
                slot, entry.instance, created_at - offset, last_used, access_count
            ),
        )
        entry._attach(registry, written)

    def __len__(self) -> int:
        return self._registry.cached


class _WeakCache(_Entries):
    """The instances that are kept weakly, as weak references, dead ones included."""

    __slots__ = ()
    _state = WEAK

    def __getitem__(self, class_name: str) -> ReferenceType[Any]:
        entry = self._entry(class_name)
        if entry is None:
            raise KeyError(class_name)
        return entry.content  # type: ignore[no-any-return]

    def __setitem__(self, class_name: str, reference: ReferenceType[Any]) -> None:
        # Exactly that type: the core calls it at each look-up, and a subclass may be foreign code.
        if type(reference) is not ReferenceType:
            raise TypeError(
                f"_weakref_cache[{class_name!r}] takes a weakref.ref, got {reference!r}"
            )
        self._write(class_name, lambda slot: self._registry.write_weak(slot, reference))

    def __len__(self) -> int:
        return self._registry.weakly_kept


class _ClassPaths(MutableMapping[str, str]):
    """The class paths by name."""

    __slots__ = ("_registry",)

    def __init__(self, registry: MethodRegistry) -> None:
        self._registry = registry

    def __getitem__(self, class_name: str) -> str:
        slot = self._registry.slots.get(class_name)
        if slot is None or slot.path is None:
            raise KeyError(class_name)
        return slot.path

    def __setitem__(self, class_name: str, class_path: str) -> None:
        self._registry.register(class_name, class_path)

    def __delitem__(self, class_name: str) -> None:
        if not self._registry.unregister(class_name):
            raise KeyError(class_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.class_names())

    def __len__(self) -> int:
        return len(self._registry)

    def __repr__(self) -> str:
        return repr(dict(self))


class _FailedClasses(MutableSet[str]):
    """The names of the classes whose build failed, as a set."""

    __slots__ = ("_registry",)

    def __init__(self, registry: MethodRegistry) -> None:
        self._registry = registry

    @classmethod
    def _from_iterable(cls, names: Any) -> Any:
        return set(names)  # what an operation on it gives is a plain set

    def __contains__(self, class_name: object) -> bool:
        return class_name in self._registry.builder.failures.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.builder.failures.names())

    def __len__(self) -> int:
        return len(self._registry.builder.failures.names())

    def add(self, class_name: str) -> None:
        if class_name not in self:
            error = BuildError(f"class {class_name!r} was marked as failed", class_name=class_name)
            self._registry.builder.failures.remember(class_name, error, seconds=float("inf"))

    def discard(self, class_name: str) -> None:
        self._registry.builder.failures.forget(class_name)

    def __repr__(self) -> str:
        return repr(set(self))


def _counter(name: str) -> Any:
    def get(self: MethodRegistry) -> int:
        return getattr(self, name)  # type: ignore[no-any-return]

    def assign(self: MethodRegistry, value: int) -> None:
        setattr(self, name, value)

    return property(get, assign)


class MethodRegistry(AssignedLimits):
    __doc__ = Registry.__doc__

    late_attributes = frozenset(("_offset", "_ttl_was_assigned"))

    @property
    def _wall_offset(self) -> float:
        """Wall-clock minus monotonic seconds, from the first time that it is needed."""
        kept = self.__dict__
        return kept.get("_offset") or kept.setdefault("_offset", time() - self.now())  # type: ignore[no-any-return]

    _cache_hits = _counter("hits")
    _cache_misses = _counter("misses")
    _total_instantiations = _counter("builds")

    @property
    def _cache(self) -> _Cache:
        return _Cache(self)

    @property
    def _weakref_cache(self) -> _WeakCache:
        return _WeakCache(self)

    @property
    def _class_paths(self) -> _ClassPaths:
        return _ClassPaths(self)

    @property
    def _failed_classes(self) -> _FailedClasses:
        return _FailedClasses(self)

    @property
    def _special_instantiation(self) -> dict[str, Callable[[type], Any]]:
        return self.classes.rules

    def _get_instance(self, class_name: str) -> Any:
        return self.get_instance(class_name)

    def _evict_if_full(self) -> None:
        self.make_capacity()

    _evictions = _counter("evictions")

    def build(self, class_name: str, holder: Holder) -> Any:
        try:
            return super().build(class_name, holder)
        except BaseException:
            slot = self.slots.get(class_name)
            if slot is not None and slot.target is None:
                self.forget_slot(slot, DISCARDED)  # the loader does not know the name either
            raise

    def slot_to_build(self, class_name: str) -> Slot:
        slot = self.slots.get(class_name)
        unknown = (slot is None or slot.target is None) and type(class_name) is str
        if unknown and self._loads_itself() and not self.closed:
            return slot or self.add_slot(class_name, None)[0]
        return super().slot_to_build(class_name)

    def expects_method(self, class_name: str | type | FamilyKey, method_name: str) -> bool:
        unknown = type(class_name) is str and class_name not in self.slots
        if unknown and self._loads_itself():
            return class_name not in self._failed_classes
        return super().expects_method(class_name, method_name)

    def _loads_itself(self) -> bool:
        """Whether `_load_class` was replaced, and may know classes that are not registered."""
        return (
            "_load_class" in self.__dict__
            or type(self)._load_class is not MethodRegistry._load_class
        )

    # The two hooks: replaced on an instance, or overridden in a subclass.

    def build_hooks(self) -> dict[str, Any]:
        mine = vars(MethodRegistry)
        return {name: mine[name] for name in ("_load_class", "_instantiate_class")}

    def _load_class(self, class_name: str) -> type:
        return self.resolve_class(class_name)  # type: ignore[no-any-return]

    def _instantiate_class(self, class_name: str, cls: type) -> Any:
        return self.classes.instantiate(self, class_name, cls)

    def construct_instance(self, slot: Slot) -> Any:
        if type(slot.key) is not str:  # of a family
            return super().construct_instance(slot)
        return self._instantiate_class(slot.name, self._load_class(slot.name))


class MethodExecutor(_MethodExecutor):
    __doc__ = _MethodExecutor.__doc__

    _registry_type = MethodRegistry

    def __init__(
        self,
        dispatcher: Any = None,
        signal_registry: Any = None,
        method_registry: Registry | None = None,
        *,
        arguments: str | None = None,
    ) -> None:
        if isinstance(dispatcher, Registry):
            if method_registry is not None:
                raise TypeError("two registries were given")
            method_registry, dispatcher = dispatcher, None
        elif dispatcher is not None and method_registry is None:
            raise TypeError(
                f"expected a registry as the first argument, got {dispatcher!r}; "
                "pass another object with get_method and has_method as method_registry="
            )
        # The pipeline's own, kept for it and not used.
        self.dispatcher = dispatcher
        super().__init__(method_registry=method_registry, arguments=arguments)
        self.signal_registry = signal_registry

    @property
    def _method_registry(self) -> Registry:
        return self.registry

    def get_routing_metrics(self) -> dict[str, Any]:
        metrics = super().get_routing_metrics()
        # The pipeline reports on routes that are special to a method. There are none here.
        return {
            **metrics,
            "special_routes_hit": 0,
            "special_route_hit_rate": 0.0,
            "default_routes_hit": metrics["total_routes"],
        }
