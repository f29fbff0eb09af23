"""
Building or opening: what a registry with a store does where another one would build.

A class that is shareable is opened from its snapshot, if there is one. If not, one process builds
and the others wait, and open what it stored. The one that built hands out what it stored, too,
where that is mapped: so there is one physical copy, and everybody has the same.

A store that cannot be used, a snapshot that cannot be opened, an instance that cannot be stored:
all that costs a build and a line in the log, never an error of the look-up.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from threading import RLock, local
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _logs
from ..errors import MethodRegistryError
from ..resolver import told
from .errors import DamagedError, StoreBusyError, StoreError
from .keys import NotShareableError, requirements, snapshot_key, unmet
from .pickling import dump, load
from .sealing import seal, unseal

if TYPE_CHECKING:
    from ..builder import Flight
    from ..lifecycle.options import ClassOptions
    from ..registry import Registry
    from .protocol import Blob, Claim, Store

__all__ = ["Sharing", "SnapshotStats"]

_NOTHING: Any = object()
_WRITABLE = "copy_on_write"


class SnapshotStats(NamedTuple):
    """What came of snapshots, since the registry was made."""

    opened: int
    """Instances that came from a snapshot."""
    opened_seconds: float
    """Spent on that."""
    stored: int
    """Snapshots that were made."""
    stored_bytes: int
    """Their bytes."""
    waited: int
    """Times that another one was waited for."""
    damaged: int
    """Snapshots that were altered, cut short, or could not be opened."""
    outdated: int
    """Snapshots that were made of other versions than there are."""
    unused: int
    """Builds of shareable classes that could not be shared, for whatever reason."""


class Sharing:
    """
    Opens and stores the instances of one registry.

    Args:
        store: A store, or what makes one: the path of a directory, or a URL.

    Raises:
        StoreError: The store cannot be used, or is not to be trusted.

    Safe under threads.
    """

    def __init__(self, store: Store | str) -> None:
        self._own = isinstance(store, str)  # whose connections are closed with the registry
        if isinstance(store, str):
            from .opening import open_store

            store = open_store(store)
        self._store: Store = store
        self._lock = RLock()  # re-entrant: a finaliser may come in
        self._counts = {what: 0 for what in SnapshotStats._fields if what != "opened_seconds"}
        self._seconds = 0.0
        self._unshareable: dict[str, Any] = {}  # class name -> the options under which it was found
        self._said: set[str] = set()

    def _reset_after_fork(self) -> None:
        self._lock = RLock()

    def close(self) -> None:
        """Close the connections of a store that was made here."""
        close = getattr(self._store, "close", None)
        if self._own and close is not None:
            close()

    @property
    def store(self) -> Store:
        """Where snapshots are kept."""
        return self._store

    def stats(self) -> SnapshotStats:
        """Tell what came of snapshots."""
        with self._lock:
            return SnapshotStats(opened_seconds=self._seconds, **self._counts)

    def _count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self._counts[what] += number

    # -- the way of a build ----------------------------------------------------------------------

    def make(self, registry: Registry, flight: Flight) -> Any:
        """
        Give a new instance: opened, or built and stored.

        Args:
            registry: Builds.
            flight: The build.

        Returns:
            The instance.

        Raises:
            Exception: What the build raises; nothing of the store's.
        """
        slot = flight.slot
        options = registry._options.get(slot.name)
        if options is None or not options.shareable:
            return registry._build_here(slot)
        key = self._key(registry, slot.name, slot.path, options)
        if key is None:
            self._count("unused")
            return registry._build_here(slot)
        instance, claim = self._open_or_claim(registry, slot.name, options, key)
        if instance is not _NOTHING:
            flight.opened = True
            return instance
        if claim is None:
            self._count("unused")
            return registry._build_here(slot)
        _held.count = getattr(_held, "count", 0) + 1
        with ExitStack() as stack:
            stack.callback(_one_less)
            stack.enter_context(claim)
            began = time.perf_counter()
            instance = registry._build_here(slot)
            if instance is None:  # the builder says what is wrong with that
                return None
            seconds = time.perf_counter() - began
            kept = self._keep(registry, slot.name, options, key, claim, instance, seconds)
        if kept is None:
            self._count("unused")
            return instance
        if not kept.shared:
            return instance
        opened = self._opened(registry, slot.name, options, key, kept)
        if opened is _NOTHING:
            self._count("unused")
            self._not_shareable(slot.name, options, "what was stored cannot be opened again")
            return instance
        registry._close_unclaimed(slot, instance)
        return opened

    def _key(
        self, registry: Registry, class_name: str, class_path: str | None, options: ClassOptions
    ) -> str | None:
        """What the class is kept under; None if it cannot be shared."""
        if self._unshareable.get(class_name) is options:
            return None
        try:
            cls = registry._resolve(class_name)
        except MethodRegistryError:
            return None  # the build says so
        rule = registry._rules.get(class_name)
        of, version = registry._rule_versions.get(class_name, (None, None))
        try:
            return snapshot_key(
                str(class_path),
                cls,
                options,
                rule,
                version if of is rule else None,
                self._store.secret,
            )
        except NotShareableError as why:
            self._not_shareable(class_name, options, str(why))
            return None

    def _open_or_claim(
        self, registry: Registry, class_name: str, options: ClassOptions, key: str
    ) -> tuple[Any, Claim | None]:
        """The instance, if it can be opened; else a claim to build it; neither, if it cannot."""
        # Who builds under a claim does not wait for another one's: the two could wait for each
        # other, in two processes that build two classes which ask for each other at times.
        wait = not getattr(_held, "count", 0)
        damaged = False
        try:
            while True:
                blob = None if damaged else self._store.fetch(key)
                if blob is not None:
                    instance = self._opened(registry, class_name, options, key, blob)
                    if instance is not _NOTHING:
                        return instance, None
                    damaged = True
                claim = self._store.claim(key, wait=False)
                if claim is None:
                    if not wait:
                        return _NOTHING, None
                    self._count("waited")
                    claim = self._store.claim(key, wait=True)
                    # What it has put there is another one than was found damaged.
                    damaged = False
                if claim is None:
                    continue
                if damaged:
                    return _NOTHING, claim
                # It may have been stored between the look and the claim. It is opened without it,
                # so that all who wait can open at once.
                try:
                    found = self._store.fetch(key)
                except BaseException:
                    claim.__exit__(None, None, None)
                    raise
                if found is None:
                    return _NOTHING, claim
                claim.__exit__(None, None, None)
                instance = self._opened(registry, class_name, options, key, found)
                if instance is not _NOTHING:
                    return instance, None
                damaged = True
        except StoreBusyError as error:
            self._say("busy", class_name, f"{error}: it is built here, too")
        except StoreError as error:
            self._say("store", class_name, f"the store cannot be used: {error}")
        return _NOTHING, None

    def _opened(
        self, registry: Registry, class_name: str, options: ClassOptions, key: str, blob: Blob
    ) -> Any:
        """The instance in a snapshot; nothing, if it cannot be trusted or cannot be opened."""
        began = time.perf_counter()
        try:
            sealed = unseal(key, blob.view, self._store.secret)
        except DamagedError as error:
            self._damaged(class_name, key, str(error))
            return _NOTHING
        other = unmet(sealed.facts["requires"])
        if other is not None:
            self._count("outdated")
            _logs.info(
                "share",
                "the snapshot of %r is of other versions, it is built anew: %s",
                class_name,
                other,
                fields={"class_name": class_name},
            )
            return _NOTHING
        written = set(sealed.facts["written"])
        buffers = [
            _buffer(view, at in written or options.shareable == _WRITABLE)
            for at, view in enumerate(sealed.buffers)
        ]
        # What is asked for meanwhile is built, or opened, in the course of this build.
        try:
            instance = load(sealed.pickled, buffers, registry.get_instance)
            if options.restore is not None:
                instance = options.restore(registry._resolve(class_name), instance)
        except MethodRegistryError as error:
            if error.stage == "cycle":
                raise
            self._say("needs", class_name, f"what its snapshot needs cannot be had: {error}")
            return _NOTHING
        except Exception as error:
            self._damaged(class_name, key, told(error))
            return _NOTHING
        if instance is None:
            self._damaged(class_name, key, "it gave None, expected an instance")
            return _NOTHING
        seconds = time.perf_counter() - began
        with self._lock:
            self._counts["opened"] += 1
            self._seconds += seconds
        return instance

    def _keep(
        self,
        registry: Registry,
        class_name: str,
        options: ClassOptions,
        key: str,
        claim: Claim,
        instance: Any,
        seconds: float,
    ) -> Blob | None:
        """Store what was built; what of it was stored."""
        # Kept alive: by its number an instance is known only as long as it lives.
        alive = [(slot.name, registry._instance_in(slot)) for slot in registry._warm_slots()]
        others = {id(each): name for name, each in alive if each is not instance}
        try:
            state = instance if options.snapshot is None else options.snapshot(instance)
            pickled = dump(state, others)
            requires = requirements(pickled.modules)
        except NotShareableError as error:
            self._not_shareable(class_name, options, str(error))
            return None
        except Exception as error:
            self._not_shareable(class_name, options, f"it cannot be pickled: {told(error)}")
            return None
        facts = {
            "class_name": class_name,
            "build_seconds": seconds,
            "requires": requires,
            "written": sorted(pickled.written),
        }
        try:
            pieces = seal(key, facts, pickled.pickled, pickled.buffers, self._store.secret)
            claim.put(pieces)
            blob = self._store.fetch(key)
        except StoreError as error:
            self._say("store", class_name, f"it was not stored: {error}")
            return None
        with self._lock:
            self._counts["stored"] += 1
            self._counts["stored_bytes"] += sum(memoryview(piece).nbytes for piece in pieces)
        return blob  # `None`, if another process removed it for room

    # -- saying it -------------------------------------------------------------------------------

    def _not_shareable(self, class_name: str, options: ClassOptions, why: str) -> None:
        self._unshareable[class_name] = options
        self._say(f"unshareable {why}", class_name, f"it is not shared: {why}")

    def _damaged(self, class_name: str, key: str, why: str) -> None:
        self._count("damaged")
        with suppress(StoreError):
            self._store.discard(key)
        _logs.warning(
            "share",
            "the snapshot of %r cannot be used, it is built anew: %s",
            class_name,
            why,
            fields={"class_name": class_name},
        )

    def _say(self, what: str, class_name: str, text: str) -> None:
        known = f"{what} {class_name}"
        with self._lock:
            if known in self._said:
                return
            self._said.add(known)
        _logs.warning("share", "%r: %s", class_name, text, fields={"class_name": class_name})


# How many claims this thread builds under, of whatever registry.
_held = local()


def _one_less() -> None:
    _held.count -= 1


def _buffer(view: memoryview, writable: bool) -> memoryview | bytearray:
    if not writable:
        return view.toreadonly()
    return bytearray(view) if view.readonly else view
