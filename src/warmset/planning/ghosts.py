"""
Ghosts: a registry remembers what it evicted, and what would have avoided each later build.

Under LRU the answer is exact: a build of an evicted instance would have been a hit with as many
more places, or bytes, as those evicted after it take (see `stack_distances`). For a policy with a
method ``prospect``, the table follows which ghosts would still be cached within certain multiples
of the bound, by the worth that the policy gives them. A hit pays nothing: everything happens at
builds and removals.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from .._event_accumulator import EventAccumulator
from ..codes import AGED, CLEARED, IDLE, MEMORY, SIZE
from ..extension import Extension
from .ghost_table import Ghost, GhostTable
from .miss_log import FIRST, LEVELS, Miss, MissLog, level_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._core import Entry
    from ..builder import Build
    from ..registry import BaseRegistry

__all__ = ["MOST_GHOSTS", "Ghosts", "Recalled", "Totals", "ghosts_of", "prospects_of"]

MOST_GHOSTS = 4096  # a power of two, see `_lowest`
_REMEMBERED = (IDLE, SIZE, MEMORY, AGED)
_SIZE_BITS = (1 << len(LEVELS)) - 1
_BYTE_BITS = _SIZE_BITS << len(LEVELS)
_TWICE = LEVELS.index(2.0)
_SEARCHED = 64  # ghosts that are compared to find one of the lowest worth


class _Bounds(NamedTuple):
    """The bounds of a registry and what is within them, at one moment."""

    now: float
    cached: int
    known_bytes: int
    max_size: int
    max_bytes: int
    used: list[tuple[float, int]] | None
    """The last use and the bytes of each cached instance, if one may exceed the budget alone."""

    @classmethod
    def of(cls, registry: BaseRegistry, *, has_large: bool = False) -> _Bounds:
        max_bytes = registry.settings.max_cache_bytes
        known = registry.known_bytes
        used = None
        if has_large or 0 < max_bytes < known:
            used = [(entry.last_used, max(0, entry.bytes)) for entry in registry.warm_entries()]
        return cls(registry.now(), registry.cached, known, registry.max_size, max_bytes, used)


class _Removed(NamedTuple):
    ghosts: list[Ghost]
    cleared: bool
    bounds: _Bounds


class _Looked:
    """A miss: what was found when its build began."""

    __slots__ = ("affordable", "bounds", "ghost", "idle_limit", "miss", "name", "name_hash")

    def __init__(self, name: str, name_hash: int, idle_limit: float, bounds: _Bounds) -> None:
        self.name = name
        self.name_hash = name_hash
        self.idle_limit = idle_limit
        self.bounds = bounds
        self.ghost: Ghost | None = None
        self.affordable = False
        self.miss: Miss | None = None


class _Built(NamedTuple):
    looked: _Looked
    seconds: float | None
    """None if the build failed."""


class Recalled(NamedTuple):
    """What is remembered, at one moment."""

    start: float
    misses: list[Miss]
    """The builds since `start`, the latest first."""
    sizes: list[int] | None
    """The bytes of the ghosts, the newest first; None if the table was being changed."""


class Totals(NamedTuple):
    """The builds of evicted instances since they are remembered."""

    causes: dict[int, tuple[int, float]]
    """Cause of the eviction -> builds and seconds; not to be changed."""
    avoidable_builds: int
    """Those that at most twice a bound would have avoided."""
    avoidable_seconds: float


class Ghosts(Extension):
    """
    Remembers the evicted instances of one registry and judges its builds.

    Args:
        registry: Its builds and removals are followed from now on.

    Thread-safe, also in finalisers and after a fork; it never waits.
    """

    def __init__(self, registry: BaseRegistry) -> None:
        self.began = registry.now()
        self.memory = _Memory()

    def removed(self, registry: BaseRegistry, entries: list[Entry]) -> None:
        policy = prospects_of(registry)
        self.memory.rate = _rate_of(policy)
        self.memory(
            _Removed(
                [_ghost(entry, policy) for entry in entries if entry.cause in _REMEMBERED],
                any(entry.cause == CLEARED for entry in entries),
                _Bounds.of(registry),
            )
        )

    def before_build(self, registry: BaseRegistry, build: Build) -> None:
        if build.replaces is not None:  # recycled, and warm
            return
        slot = build.slot
        bounds = _Bounds.of(registry, has_large=self.memory.table.has_large)
        looked = _Looked(slot.name, hash(slot.key), slot.idle_limit, bounds)
        build.notes[self] = looked
        self.memory(looked)

    def built(self, registry: BaseRegistry, build: Build) -> None:
        looked = build.notes.get(self)
        if looked is not None:
            own = max(0.0, build.seconds - build.elsewhere)
            self.memory(_Built(looked, own if build.error is None else None))


class _Memory(EventAccumulator["_Removed | _Looked | _Built"]):
    """The table of ghosts and the log of builds; events are processed one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.table = GhostTable(MOST_GHOSTS)
        self.log = MissLog()
        self.totals = Totals({}, 0, 0.0)  # replaced as a whole, for readers in other threads
        # Takes each build, and whether it is one of an instance that was evicted for the size bound
        # and that the budget of bytes would have kept.
        self.on_miss: Callable[[Miss, bool], None] | None = None
        self.rate: Callable[[float, float], float] = _usual_rate
        self._random = 1

    def settle(self) -> None:
        """Process what another thread has queued, unless it is doing so."""
        self._settle()

    def recall(self, start: float) -> Recalled:
        """
        Return what is remembered.

        Args:
            start: The beginning of the window.
        """

        sizes = self._read(lambda: self.table.newest_sizes())
        # A full log does not reach back further than its oldest record.
        oldest = self.log.forgotten_before
        start = start if oldest is None else max(start, oldest)
        return Recalled(start, list(self.log.since(start)), sizes)

    def _recover(self) -> None:
        self.table = GhostTable(MOST_GHOSTS)  # the log has only whole records

    def _add(self, event: _Removed | _Looked | _Built) -> None:
        if isinstance(event, _Removed):
            if event.cleared:  # a cache of any bound would be empty now
                self.table.clear()
            for ghost in event.ghosts:
                self._remember(ghost, event.bounds)
        elif isinstance(event, _Looked):
            self._look(event)
        else:
            self._record(event)

    # -- evictions -------------------------------------------------------------------------------

    def _remember(self, ghost: Ghost, bounds: _Bounds) -> None:
        if not ghost.levels:
            large = 0 < bounds.max_bytes < ghost.bytes
            self.table.add(ghost, large=large)
            return
        levels = ghost.levels
        if not bounds.max_bytes:
            levels &= _SIZE_BITS
        for level, bound in enumerate(level_bounds(bounds.max_bytes)):
            if ghost.bytes > bound:  # it would never be kept
                levels &= ~(1 << len(LEVELS) + level)
        self.table.add(ghost._replace(levels=levels))
        counts, sums = self.table.level_counts, self.table.level_bytes
        if levels & _SIZE_BITS:
            for level, bound in enumerate(level_bounds(bounds.max_size)):
                while counts[level] > max(0, bound - bounds.cached):
                    if not self._evict(level, bounds.now):
                        break
        if levels & _BYTE_BITS:
            for level, bound in enumerate(level_bounds(bounds.max_bytes), len(LEVELS)):
                while sums[level] > max(0, bound - bounds.known_bytes):
                    if not self._evict(level, bounds.now):
                        break

    def _evict(self, level: int, now: float) -> bool:
        """Take the level from a ghost of low worth."""
        bit, table = 1 << level, self.table
        capacity, found, lowest, least = table.capacity, 0, -1, 0.0
        self._random = (self._random * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        start, stride = self._random >> 8, self._random >> 4 | 1  # odd: it reaches all positions
        for step in range(capacity):
            position = (start + step * stride) % capacity
            if not table.has_level(position, bit):
                continue
            worth = table.worth(position, now, self.rate)
            if lowest < 0 or worth < least:
                lowest, least = position, worth
            found += 1
            if found == _SEARCHED:
                break
        if lowest < 0:
            return False
        table.drop_level(lowest, bit)
        return True

    # -- builds ----------------------------------------------------------------------------------

    def _look(self, looked: _Looked) -> None:
        table, bounds = self.table, looked.bounds
        position = table.find(looked.name_hash)
        if position < 0:
            looked.miss = Miss(bounds.now, looked.name, FIRST, 0.0, 0, 0, 0.0)
            return
        ghost = looked.ghost = table.at(position)
        need = self._need(position, bounds)
        table.pop(ghost.name_hash)
        gap = max(0.0, bounds.now - ghost.last_used)
        found = Miss(bounds.now, looked.name, ghost.cause, 0.0, 0, 0, 0.0, 0, bounds.max_bytes)
        if ghost.cause == IDLE:
            if need.places <= bounds.max_size and need.fits(bounds.max_bytes):
                found = found._replace(idle_seconds=gap)
        elif gap > looked.idle_limit or ghost.cause == AGED:  # no bound would have kept it
            pass
        elif ghost.value > 0.0:
            by_size, by_bytes = ghost.levels & _SIZE_BITS, ghost.levels >> len(LEVELS)
            found = found._replace(
                places=_smallest(level_bounds(bounds.max_size), by_size),
                bytes=_smallest(level_bounds(bounds.max_bytes), by_bytes),
                byte_levels=_from_lowest(by_bytes),
            )
        elif ghost.cause == SIZE and need.fits(bounds.max_bytes):
            found = found._replace(places=need.places)
        elif ghost.cause == MEMORY and bounds.max_bytes and need.places <= bounds.max_size:
            found = found._replace(
                bytes=need.smallest_budget(bounds.max_bytes),
                byte_levels=_bits(need.fits(each) for each in level_bounds(bounds.max_bytes)),
            )
        looked.miss = found
        # By a policy an estimate: those evicted later need not be those that are worth more.
        looked.affordable = (
            ghost.cause == SIZE and gap <= looked.idle_limit and need.fits(bounds.max_bytes)
        )

    def _need(self, position: int, bounds: _Bounds) -> _Need:
        """Return what the instance at a position of the table needed in order to be warm."""
        table = self.table
        count, size = table.newer(position)
        places, own = bounds.cached + count + 1, table.size(position)
        used = bounds.used
        if used is None:
            return _Need(places, bounds.known_bytes + size + own, own, [])
        if table.is_large(position):
            # It was evicted before others that had been used less recently.
            last_used = table.at(position).last_used
            since = [each for at, each in used if at > last_used] + table.used_since(last_used)
            return _Need(places, own, own, since)
        large = [each for _, each in used if each > bounds.max_bytes]
        base = bounds.known_bytes - sum(large) + size + own
        return _Need(places, base, own, large + table.newer_large(position))

    def _record(self, built: _Built) -> None:
        looked, seconds = built
        if looked.miss is None:
            return
        if seconds is None:  # it is not cached, so what would have avoided the next build is kept
            if looked.ghost is not None:
                self._remember(looked.ghost, looked.bounds)
            return
        miss = looked.miss._replace(seconds=seconds)
        self.log.add(miss)
        causes, builds, total = self.totals
        count, before = causes.get(miss.cause, (0, 0.0))
        if _within_twice(miss, looked.bounds):
            builds, total = builds + 1, total + seconds
        self.totals = Totals({**causes, miss.cause: (count + 1, before + seconds)}, builds, total)
        if self.on_miss is not None:
            self.on_miss(miss, looked.affordable)


class _Need(NamedTuple):
    """What an evicted instance needed in order to be warm, under LRU."""

    places: int
    base: int  # its bytes and those used since, without those that exceed the budget alone
    own: int
    large: list[int]

    def fits(self, budget: int) -> bool:
        """Whether it would be warm with a budget of bytes; 0: none."""
        if not budget:
            return True
        kept = sum(size for size in self.large if size <= budget)
        return self.own <= budget and self.base + kept <= budget

    def smallest_budget(self, above: int) -> int:
        """Return the smallest budget above another one with which it would be warm."""
        # What exceeds a budget alone is never kept, and takes nothing of it.
        sums = accumulate(sorted(self.large), initial=self.base)
        return next(budget for each in sums if self.fits(budget := max(each, above + 1)))


def _within_twice(miss: Miss, bounds: _Bounds) -> bool:
    """Whether at most twice a bound would have avoided a build."""
    return bounds.max_size < miss.places <= level_bounds(bounds.max_size)[
        _TWICE
    ] or miss.avoided_by_bytes(bounds.max_bytes, _TWICE)


def _bits(flags: Iterable[bool]) -> int:
    return sum(1 << level for level, flag in enumerate(flags) if flag)


def _from_lowest(bits: int) -> int:
    """Return all bits of the levels from the lowest one of some bits on."""
    return -(bits & -bits) & _SIZE_BITS


def _smallest(bounds: list[int], bits: int) -> int:
    """Return the smallest of some bounds that have a bit; 0 if none has."""
    return next((bound for level, bound in enumerate(bounds) if bits >> level & 1), 0)


def _ghost(entry: Entry, policy: Any) -> Ghost:
    value = gap = 0.0
    if policy is not None and entry.cause in (SIZE, MEMORY):
        with suppress(Exception):  # as any policy may fail; the entry is judged by its last use
            value, gap = policy.prospect(entry)
    levels = 0 if value <= 0.0 else _SIZE_BITS if entry.cause == SIZE else _BYTE_BITS
    return Ghost(
        hash(entry.slot.key), entry.bytes, entry.last_used, entry.cause, value, gap, levels
    )


def _usual_rate(gap: float, idle: float) -> float:
    """Return the uses per second to be expected, where the policy does not tell."""
    return 1.0 / (1.0 + (idle if gap < 0.0 else gap + 0.3 * idle))


def _rate_of(policy: Any) -> Callable[[float, float], float]:
    told = getattr(policy, "expected_rate", None)
    if told is None:
        return _usual_rate

    def rate(gap: float, idle: float) -> float:
        try:
            return float(told(gap, idle))
        except Exception:  # as any policy may fail
            return _usual_rate(gap, idle)

    return rate


def prospects_of(registry: BaseRegistry) -> Any:
    """Return the policy, if it determines the eviction order and can judge evicted instances."""
    for extension in registry.extensions:
        policy = getattr(extension, "policy", None)
        if hasattr(policy, "prospect"):
            return policy
    return None


def ghosts_of(registry: BaseRegistry) -> Ghosts:
    """Return the ghosts of a registry, attached at the first call."""
    # Attached first: the hook of the policy's extension drops what is known of a removed instance.
    return registry.extension(Ghosts) or registry.attach(Ghosts(registry), first=True)
