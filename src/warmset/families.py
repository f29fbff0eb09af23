"""
Families: one factory for many keys, with a bound of its own.

The instance of a key has a slot like that of a class, which is found by a `FamilyKey`. So leases,
handles, single flight, expiry, eviction, budgets, failures and reports are those of classes. What
the registry keeps of a family is a `FamilyRecord`.
"""

from __future__ import annotations

from ._core import FamilyCore, Handle, Lease
from ._generic import K, T
from .codes import DISCARDED, REPLACED
from .family_keys import FamilyKey
from .family_records import Families, FamilyRecord
from .resolver import check_method_name
from .targets import same_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .options import ClassOptions
    from .registry import BaseRegistry
    from .stats import FamilyStats

__all__ = ["Family", "make_family"]


class Family(FamilyCore[K, T]):
    """
    Builds instances by key with one factory, and keeps some of them warm; see `Registry.family`.

    Args:
        registry: The registry that keeps them.
        record: What it keeps of the family.

    Its methods are those of the registry, with a key in place of the class name, and as safe under
    threads. It keeps its registry alive; it can be pickled, by its name, with its registry.
    """

    def __init__(self, registry: BaseRegistry, record: FamilyRecord) -> None:
        super().__init__(registry, record.keys)
        self._registry = registry
        self._record = record

    @property
    def name(self) -> str:
        """The name of the family."""
        return self._record.name

    def key(self, key: K) -> FamilyKey:
        """
        Return what stands for one instance wherever a class name is taken.

        Args:
            key: A str, an int, or a tuple of them.

        Returns:
            The key, for `MethodExecutor.execute`, `AsyncMethodExecutor.use` and all others.

        Raises:
            TypeError: The key is of another type.
        """
        return FamilyKey(self._record.name, key)

    def use(self, key: K) -> Lease[T]:
        """
        Look up and hold the instance of a key for the time of a ``with`` block.

        Args:
            key: A str, an int, or a tuple of them.

        Returns:
            As `Registry.use`.
        """
        return Lease(self._registry, self.key(key))

    def bind(self, key: K, method_name: str) -> Handle[..., Any]:
        """
        Return a handle on a method of the instance of a key.

        Args:
            key: A str, an int, or a tuple of them.
            method_name: The method that each call runs.

        Returns:
            As `Registry.bind`.
        """
        return Handle(self._registry, self.key(key), check_method_name(method_name))

    def get_method(self, key: K, method_name: str) -> Callable[..., Any]:
        """
        Return a bound method of the instance of a key.

        Args:
            key: A str, an int, or a tuple of them.
            method_name: The attribute of the instance.

        Returns:
            As `Registry.get_method`.
        """
        name: Any = self.key(key)
        return self._registry.get_method(name, method_name)

    def discard(self, key: K) -> bool:
        """
        Remove the instance of a key.

        Args:
            key: A str, an int, or a tuple of them.

        Returns:
            Whether there was one.
        """
        return self._registry.classes.discard(self._registry, self.key(key))

    def clear(self) -> int:
        """
        Remove all instances of the family.

        Returns:
            How many there were.
        """
        slots = list(self._record.slots.values())
        return sum(self._registry.remove_from(slot, DISCARDED) for slot in slots)

    def warm_up(self, keys: Iterable[K]) -> list[K]:
        """
        Build the instances of some keys ahead, one after the other.

        Args:
            keys: The keys, the most valuable first.

        Returns:
            The keys that are warm afterwards. No more are built than the family's bound allows, and
            a key whose build fails stops no other: the failure is logged.

        Raises:
            TypeError: A key is of another type, or it is one str.
            ClosedError: The registry is closed.
        """
        from .errors import MethodRegistryError

        if isinstance(keys, (str, bytes)):
            raise TypeError(
                f"warm_up takes an iterable of keys, got {type(keys).__name__} {keys!r}"
            )
        self._registry.refuse_if_closed("warm up", self.name)
        bound = self._record.max_cache_size
        for count, key in enumerate(keys):
            if bound is not None and count >= bound:
                break
            try:
                with self.use(key):
                    pass
            except MethodRegistryError:
                pass  # it is logged, counted, and remembered
        return list(self)

    def stats(self) -> FamilyStats:
        """
        Return the statistics of the family.

        Returns:
            A `warmset.stats.FamilyStats`; O(its instances).
        """
        from .stats import family_stats

        return family_stats(self._record)

    def __contains__(self, key: object) -> bool:
        try:
            wanted = self.key(key)  # type: ignore[arg-type]
        except TypeError:
            return False
        slot = self._record.slots.get(wanted)
        slots = [slot, *self._registry.classes.loop_slots.of_name(wanted)]
        return any(
            each is not None and self._registry.instance_in(each) is not None for each in slots
        )

    def __iter__(self) -> Iterator[K]:
        return iter(self._record.warm_keys())

    def __len__(self) -> int:
        return len(self._record.warm_keys())

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> Any:
        return _family_of, (self._registry, self._record.name)

    def __repr__(self) -> str:
        return repr(self._record)


def _family_of(registry: Any, name: str) -> Family[Any, Any]:
    return Family(registry, registry.families[name])


def make_family(
    registry: BaseRegistry,
    name: str,
    target: Any,
    options: ClassOptions,
    max_cache_size: int | None,
) -> Family[Any, Any]:
    """
    Register a family, or give a registered one another factory.

    Args:
        registry: The registry.
        name: A checked name.
        target: A checked target.
        options: Of all its instances.
        max_cache_size: Its bound; None: that of the registry alone.

    Returns:
        The family. Instances of another factory, or of other arguments, have been removed.
    """
    registry.attach(Families())
    fresh = FamilyRecord(name, target, options, max_cache_size)
    record = registry.families.setdefault(name, fresh)
    if record is not fresh:
        changed = record.target is not target and record.target != target
        changed = changed or not same_arguments(record.options, options)
        record.set(target, options, max_cache_size)
        for slot in list(record.slots.values()) if changed else ():
            registry.remove_from(slot, REPLACED)
        registry.builder.failures.forget_family(name)
    return Family(registry, record)
