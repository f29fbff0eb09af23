"""
Builds of a registry with a store: opens a snapshot, or builds and stores one.

A shareable class is opened from its snapshot if there is one. Otherwise one process builds, and the
others wait and open the stored snapshot. If the store maps snapshots, the builder also returns the
stored copy, so that all processes share one physical copy; the built instance is closed.

An unusable store, a damaged snapshot or an instance that cannot be stored costs a build and a log
line; the look-up never raises because of it. After a failure that the build did not repair, the
class is built without the store for a minute. So it is if snapshots are damaged again and again.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from threading import RLock, local
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _logs
from .._locks import locked
from ..errors import MethodRegistryError
from ..extension import Extension
from ..family_keys import FamilyKey
from ..resolver import error_text
from .envelope import Facts, pack, unpack
from .errors import DamagedError, StoreBusyError, StoreError
from .keys import NotShareableError, found_by_name, requirements, snapshot_key, unmet
from .pickling import dump, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import Slot
    from ..builder import Build
    from ..family_keys import SlotKey
    from ..options import ClassOptions
    from ..registry import BaseRegistry
    from .protocol import Blob, Claim, Store

__all__ = ["Sharing", "SnapshotStats"]

_NOTHING: Any = object()
_WRITABLE = "copy_on_write"
_MOST_ATTEMPTS = 10  # to get a claim, each after another process had it
_RETRY_SECONDS = 60.0  # of the registry's clock
_MOST_KEYS = 10_000  # classes, and keys of families, of which something is noted


class SnapshotStats(NamedTuple):
    """Statistics of snapshots, since the registry was made."""

    opened: int
    """Instances opened from a snapshot."""
    opened_seconds: float
    """Seconds spent on opening them."""
    stored: int
    """Snapshots stored."""
    stored_bytes: int
    """The bytes of the stored snapshots."""
    waited: int
    """Waits for a build in another process."""
    damaged: int
    """Snapshots that were altered or truncated, or could not be opened."""
    outdated: int
    """Snapshots made with other versions of their modules."""
    unused: int
    """Builds of shareable classes whose instances were not shared, for any reason."""


class Sharing(Extension):
    """
    Opens and stores the instances of one registry.

    Args:
        store: A store, or its address: the path of a directory, or a URL.

    Raises:
        StoreError: The store cannot be used or is not trusted.

    Safe under threads.
    """

    def __init__(self, store: Store | str) -> None:
        self._own = isinstance(store, str)  # its connections are closed with the registry
        if isinstance(store, str):
            from .addresses import open_store

            store = open_store(store)
        self._store: Store = store
        first = store.secret
        self._secrets = tuple(getattr(store, "secrets", () if first is None else (first,)))
        self._version: str = getattr(store, "version", "")
        self._max_age: float = getattr(store, "max_age_seconds", 0.0)
        self._lock = RLock()  # re-entrant: a finaliser may run while it is held
        self._counts = {what: 0 for what in SnapshotStats._fields if what != "opened_seconds"}
        self._seconds = 0.0
        # By class name or key of a family: the options at that time; when it was last logged that
        # a snapshot is damaged; when the store is used again.
        self._unshareable: dict[SlotKey, Any] = {}
        self._damaged_at: dict[SlotKey, float] = {}
        self._retry_at: dict[SlotKey, float] = {}
        self._logged: set[tuple[str, str]] = set()

    def after_fork(self, registry: BaseRegistry) -> None:
        self._lock = RLock()

    def close(self, registry: BaseRegistry) -> None:
        """Close the connections of a store that was opened from an address."""
        close = getattr(self._store, "close", None)
        if self._own and close is not None:
            close()

    @property
    def store(self) -> Store:
        """The store of the snapshots."""
        return self._store

    @locked
    def snapshot_stats(self) -> SnapshotStats:
        """Read the statistics of snapshots."""
        return SnapshotStats(opened_seconds=self._seconds, **self._counts)

    @locked
    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] += number

    @locked
    def _count_opened(self, seconds: float) -> None:
        self._counts["opened"] += 1
        self._seconds += seconds

    @locked
    def _count_stored(self, size: int) -> None:
        self._counts["stored"] += 1
        self._counts["stored_bytes"] += size

    @locked
    def _is_first(self, text: tuple[str, str]) -> bool:
        """Whether a text was not logged yet; it counts as logged now."""
        if text in self._logged:
            return False
        self._logged.add(text)
        return True

    # -- building or opening -----------------------------------------------------------------------

    def build(self, registry: BaseRegistry, build: Build, make: Callable[[Slot], Any]) -> Any:
        """Open the snapshot of a class; or build, and store what was built."""
        slot = build.slot
        options = slot.options
        if options is None or not options.shareable:
            return make(slot)
        keys = self._keys(registry, slot, options)
        if not keys or registry.now() < self._retry_at.get(slot.key, 0.0):
            self._count("unused")
            return make(slot)
        key = keys[0]
        instance, claim = self._open_or_claim(registry, slot.key, options, keys)
        if instance is not _NOTHING:
            build.opened = True
            return instance
        if claim is None:
            self._count("unused")
            return make(slot)
        _claims_held.count = getattr(_claims_held, "count", 0) + 1
        with ExitStack() as stack:
            stack.callback(_release_one)
            stack.enter_context(claim)
            began = time.perf_counter()
            instance = make(slot)
            if instance is None:  # the builder raises an error for that
                return None
            seconds = time.perf_counter() - began
            opened = _NOTHING
            # If this is interrupted, the registry closes what the constructor returned.
            stored = self._store_instance(
                registry, slot.key, options, key, claim, instance, seconds
            )
            stack.close()  # before it is opened: other processes may open it at the same time
            if stored is None:
                self._count("unused")
            elif stored.shared:
                opened = self._opened(registry, slot.key, options, key, stored)
                if opened is _NOTHING:
                    self._count("unused")
                    self._not_shareable(slot.key, options, "its snapshot cannot be opened again")
        if opened is _NOTHING:
            return instance
        build.made.clear()
        registry.close_unused(slot, instance)
        return opened

    def _keys(self, registry: BaseRegistry, slot: Slot, options: ClassOptions) -> list[str]:
        """The key of a class for each signing key, the one to store under first; or none."""
        whose = slot.key
        if self._unshareable.get(whose) is options:
            return []
        try:
            cls = registry.classes.resolve(registry, whose)
        except MethodRegistryError:
            return []  # the build raises the same error
        of_family = isinstance(whose, FamilyKey)
        target = slot.target.target if of_family else slot.target
        if not isinstance(target, str) and not found_by_name(cls):
            self._not_shareable(whose, options, f"{cls!r} is not found by its name in its module")
            return []
        rule = registry.classes.rules.get(whose)
        versioned_rule, version = registry.classes.rule_versions.get(whose, (None, None))
        try:
            return [
                snapshot_key(
                    str(slot.path),
                    cls,
                    options,
                    rule,
                    version if versioned_rule is rule else None,
                    secret,
                    self._version,
                    whose.key_text if of_family else None,
                )
                for secret in self._secrets or (None,)
            ]
        except NotShareableError as error:
            self._not_shareable(whose, options, str(error))
            return []

    def _open_or_claim(
        self, registry: BaseRegistry, whose: SlotKey, options: ClassOptions, keys: list[str]
    ) -> tuple[Any, Claim | None]:
        """Open the instance, or claim the right to build it; neither if the store is unusable."""
        # A build under one claim does not wait for another claim. Two processes could otherwise
        # wait for each other while they build classes that request each other.
        wait = not getattr(_claims_held, "count", 0)
        key, *older = keys
        try:
            damaged = False
            for attempt in range(_MOST_ATTEMPTS):
                if not damaged:
                    instance, damaged = self._fetched(registry, whose, options, key)
                    if instance is not _NOTHING:
                        return instance, None
                for each in older if attempt == 0 else ():
                    instance, _ = self._fetched(registry, whose, options, each)
                    if instance is not _NOTHING:
                        return instance, None
                claim = self._store.claim(key, wait=False)
                if claim is None:
                    if not wait:
                        return _NOTHING, None
                    self._count("waited")
                    claim = self._store.claim(key, wait=True)
                    # The other process has replaced the damaged snapshot.
                    damaged = False
                if claim is None:
                    continue
                if damaged:
                    return _NOTHING, claim
                # Another process may have stored it between the fetch and the claim. It is opened
                # without the claim, so that all waiting processes can open it at once.
                try:
                    found = self._blob(registry, whose, key)
                except BaseException:
                    claim.__exit__(None, None, None)
                    raise
                if found is None:
                    return _NOTHING, claim
                claim.__exit__(None, None, None)
                instance = self._opened(registry, whose, options, key, found)
                if instance is not _NOTHING:
                    return instance, None
                damaged = True
            raise StoreBusyError(f"others got the claim of {key} {_MOST_ATTEMPTS} times")
        except StoreBusyError as error:
            self._suspend(registry, whose)
            self._log_once("busy", whose, f"{error}: it is built in this process, too")
        except StoreError as error:
            self._suspend(registry, whose)
            self._log_once("store", whose, f"the store cannot be used: {error}")
        return _NOTHING, None

    def _fetched(
        self, registry: BaseRegistry, whose: SlotKey, options: ClassOptions, key: str
    ) -> tuple[Any, bool]:
        """Fetch and open a snapshot; and whether there is one that cannot be opened."""
        try:
            blob = self._store.fetch(key)
        except DamagedError as error:
            self._damaged(registry, whose, key, str(error))
            return _NOTHING, True
        if blob is None:
            return _NOTHING, False
        instance = self._opened(registry, whose, options, key, blob)
        return instance, instance is _NOTHING

    def _blob(self, registry: BaseRegistry, whose: SlotKey, key: str) -> Blob | None:
        """Fetch a snapshot, which is removed if it is damaged."""
        try:
            return self._store.fetch(key)
        except DamagedError as error:
            self._damaged(registry, whose, key, str(error))
            return None

    def _suspend(self, registry: BaseRegistry, whose: SlotKey) -> None:
        _put(self._retry_at, whose, registry.now() + _RETRY_SECONDS)

    def _opened(
        self, registry: BaseRegistry, whose: SlotKey, options: ClassOptions, key: str, blob: Blob
    ) -> Any:
        """Open a snapshot; return `_NOTHING` if it is damaged, outdated or cannot be opened."""
        began = time.perf_counter()
        try:
            envelope = unpack(key, blob.view, self._secrets)
        except (DamagedError, MemoryError) as error:
            self._damaged(registry, whose, key, error_text(error) if not str(error) else str(error))
            return _NOTHING
        # The time in the snapshot is signed, unlike that of a file: the maximum age also rejects an
        # older snapshot that was put back.
        difference = None
        if self._max_age and time.time() - envelope.facts.made > self._max_age:
            difference = f"it is older than {self._max_age:.0f} s"
        difference = difference or unmet(envelope.facts.requires)
        if difference is not None:
            self._count("outdated")
            _logs.info(
                "share",
                "the snapshot of %r is outdated, rebuilding: %s",
                whose,
                difference,
                fields={"class_name": str(whose)},
            )
            return _NOTHING
        writable = set(envelope.facts.written)
        buffers = [
            _buffer(view, at in writable or options.shareable == _WRITABLE)
            for at, view in enumerate(envelope.buffers)
        ]
        # Other instances that the snapshot references are looked up as part of this build.
        try:
            instance = load(envelope.pickled, buffers, partial(_instance_of, registry))
            if options.restore is not None:
                instance = options.restore(registry.classes.resolve(registry, whose), instance)
        except MethodRegistryError as error:
            if error.stage == "cycle":
                raise
            self._log_once(
                "needs", whose, f"an instance that its snapshot references failed: {error}"
            )
            return _NOTHING
        except Exception as error:
            self._damaged(registry, whose, key, error_text(error))
            return _NOTHING
        if instance is None:
            self._damaged(registry, whose, key, "it returned None, expected an instance")
            return _NOTHING
        seconds = time.perf_counter() - began
        self._count_opened(seconds)
        return instance

    def _store_instance(
        self,
        registry: BaseRegistry,
        whose: SlotKey,
        options: ClassOptions,
        key: str,
        claim: Claim,
        instance: Any,
        seconds: float,
    ) -> Blob | None:
        """Store a built instance; return the stored bytes, None if that failed."""
        # The references keep the instances alive, as an `id` is unique only among live objects.
        alive = [(entry.slot.key, entry.instance) for entry in registry.warm_entries()]
        others = {id(each): _plain(key) for key, each in alive if each is not instance}
        try:
            state = instance if options.snapshot is None else options.snapshot(instance)
            pickled = dump(state, others)
            requires = requirements(pickled.modules)
        except NotShareableError as error:
            self._not_shareable(whose, options, str(error))
            return None
        except Exception as error:
            self._not_shareable(whose, options, f"it cannot be pickled: {error_text(error)}")
            return None
        facts = Facts(
            class_name=str(whose),
            made=time.time(),
            build_seconds=seconds,
            requires=requires,
            written=sorted(pickled.written),
        )
        try:
            pieces = pack(key, facts, pickled.pickled, pickled.buffers, self._store.secret)
            claim.put(pieces)
            blob = self._store.fetch(key)
        except StoreError as error:
            self._suspend(registry, whose)
            self._log_once("store", whose, f"it was not stored: {error}")
            return None
        self._count_stored(sum(memoryview(piece).nbytes for piece in pieces))
        return blob  # None if another process has already evicted it from the store

    # -- logging -----------------------------------------------------------------------------------

    def _not_shareable(self, whose: SlotKey, options: ClassOptions, why: str) -> None:
        _put(self._unshareable, whose, options)
        self._log_once(f"unshareable {why}", whose, f"it is not shared: {why}")

    def _damaged(self, registry: BaseRegistry, whose: SlotKey, key: str, why: str) -> None:
        self._count("damaged")
        with suppress(StoreError):
            self._store.discard(key)
        now = registry.now()
        if now < self._damaged_at.get(whose, -inf) + _RETRY_SECONDS:
            # What replaced a damaged snapshot is damaged, too: somebody damages each.
            self._suspend(registry, whose)
            return
        _put(self._damaged_at, whose, now)
        _logs.warning(
            "share",
            "the snapshot of %r cannot be used, rebuilding: %s",
            whose,
            why,
            fields={"class_name": str(whose)},
        )

    def _log_once(self, what: str, whose: SlotKey, text: str) -> None:
        # Once for each family: its keys, which the text may tell of, are without number.
        known = what, str(whose)
        if isinstance(whose, FamilyKey):
            known = what.partition(" ")[0], whose.family
        if not self._is_first(known):
            return
        _logs.warning("share", "%r: %s", whose, text, fields={"class_name": str(whose)})


def _put(table: dict[SlotKey, Any], whose: SlotKey, value: Any) -> None:
    """Note something of a class or a key; what was noted first is forgotten."""
    table.pop(whose, None)
    table[whose] = value
    if len(table) > _MOST_KEYS:
        with suppress(RuntimeError, StopIteration, KeyError):  # another thread came in between
            del table[next(iter(table))]


def _plain(key: SlotKey) -> tuple[Any, ...]:
    """Return a key as arguments of `_instance_of`, in objects of built-in types."""
    return (key.family, key.key) if isinstance(key, FamilyKey) else (key,)


def _instance_of(registry: BaseRegistry, name: str, *keys: Any) -> Any:
    whose: Any = FamilyKey(name, keys[0]) if keys else name
    return registry.get_instance(whose)


# The number of claims under which this thread builds, for all registries together.
_claims_held = local()


def _release_one() -> None:
    _claims_held.count -= 1


def _buffer(view: memoryview, writable: bool) -> memoryview | bytearray:
    if not writable:
        return view.toreadonly()
    return bytearray(view) if view.readonly else view
