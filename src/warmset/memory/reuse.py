"""
When a class is used next: learned from the gaps between uses, for all classes together.

Two things are learned. Each class has its mean gap. The *hit density* tells how likely a use is per
unit of time, by how long an instance is idle now in units of that gap, as in LHD (Beckmann, Chen
and Cidon, "LHD: Improving Cache Hit Rate by Maximizing Hit Density", 2018): it is constant where
uses are independent of each other, rises with idle time in a loop, and falls after a burst. What
an instance is worth at an idle time is the largest quotient of expected uses and expected time
that any later moment of giving it up yields (Gittins, "Bandit Processes and Dynamic Allocation
Indices", 1979), so that an instance is kept through a burst and not until the next one.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["ReuseModel"]

_WINDOWS = (4.0, 16.0, 64.0)  # numbers of last gaps of which a mean gap is formed
_RANGE = range(len(_WINDOWS))
_SHRINKAGE = 1.0  # gaps of the usual length that are added to those of a class
_MIN_GAP_SECONDS = 1e-3  # less than a tick of the coarse clock
_LOSS_MEMORY = 2_000.0  # gaps over which the windows are compared
_USUAL_MEMORY = 1_000.0  # gaps of which the usual gap is formed
_MOST_SAMPLES = 8  # of the uses of an instance between two looks at it
_BINS = 24
_OFFSET = 12  # bin b holds idle times from 2 ** (b - _OFFSET) mean gaps on; the first from 0 on
_EDGES = (0.0, *(2.0 ** (b - _OFFSET) for b in range(1, _BINS)), 2.0 ** (_BINS - _OFFSET))
_WIDTHS = tuple(_EDGES[b + 1] - _EDGES[b] for b in range(_BINS))
_LOWEST = _EDGES[1]
_IDLE_WEIGHT = 0.3  # initially, the expected time is the mean gap and this part of the idle time
_INITIAL_WEIGHT = 4.0  # of the initial density in each bin, in mean gaps
_NEW_WEIGHT, _NEW_SHARE = 50.0, 0.1  # the same for new classes, and their share of the density
_MOST_HITS = 4_000.0  # at this number all counts are halved
_RENEWED = 256  # observations, after which the densities are determined anew
_TREND = 2.0**0.5  # quotient of a class's short and long mean gap from which on they differ
_MAX_NAMES = 100_000

_NEW, _ONE_GAP, _STEADY, _STAGES = 0, 1, 3, 5  # indices of the densities, and their number


class _Record:
    """What is known of a class."""

    __slots__ = ("built_at", "cached", "gap", "gaps", "last_used", "queued", "recent", "seconds",
                 "seen", "stage", "uses")  # fmt: skip

    def __init__(self, built_at: float) -> None:
        self.built_at = self.last_used = built_at
        self.seen = built_at  # the time until which uses were looked for
        self.uses = 1  # of this residence, so far
        self.gaps = [0.0] * len(_WINDOWS)  # faded number of gaps, for each window
        self.seconds = [0.0] * len(_WINDOWS)  # faded sum of these gaps
        self.gap = 0.0  # the mean gap by the best window; 0 if none is known
        self.stage = _NEW
        self.cached = self.recent = True
        self.queued = False  # among the ghosts of the model


class _Density:
    """
    The density of uses by idle time in units of the mean gap.

    Args:
        weight: Mean gaps of imagined observation.
        share: The density imagined there, relative to that of a class with steady use.
    """

    __slots__ = ("_ends", "_hits", "_parts", "_share", "_weight", "values")

    def __init__(self, weight: float, share: float) -> None:
        self._weight, self._share = weight, share
        self._hits = [0.0] * _BINS
        # The time observed in a bin follows from where the observations ended and began: so an
        # observation costs the same however many bins it covers.
        self._ends = [0.0] * _BINS
        self._parts = [0.0] * _BINS
        self.values = [0.0] * _BINS
        self.renew()

    def observe(self, begin: float, end: float, hit: bool) -> None:
        """Count an idle time between two values, and whether a use ended it."""
        if end > begin:
            if begin > 0.0:
                at = _bin(begin)
                self._ends[at] -= 1.0
                self._parts[at] -= begin - _EDGES[at]
            at = _bin(end)
            self._ends[at] += 1.0
            self._parts[at] += end - _EDGES[at]
        if hit:
            self._hits[_bin(end)] += 1.0

    def fade(self) -> None:
        """Halve all counts."""
        for counts in (self._hits, self._ends, self._parts):
            counts[:] = [count / 2.0 for count in counts]

    def renew(self) -> None:
        """Determine the values from the counts, from the longest idle time to the shortest."""
        beyond = 0.0  # observations that reached beyond the bin
        ahead: list[tuple[float, float, float]] = []  # uses, time, and the chance of none
        for at in range(_BINS - 1, -1, -1):
            width = _WIDTHS[at]
            observed = max(0.0, self._parts[at] + width * beyond)
            beyond += self._ends[at]
            middle = _EDGES[at] + width / 2.0
            imagined = self._share * (1.0 + _IDLE_WEIGHT) / (1.0 + _IDLE_WEIGHT * middle)
            weight = self._weight * min(1.0, width) if self._share < 1.0 else self._weight
            density = (self._hits[at] + weight * imagined) / (observed + weight)
            none = math.exp(-density * width) if at < _BINS - 1 else 0.0
            uses, time = 1.0 - none, (1.0 - none) / density
            while ahead and ahead[-1][0] * time > uses * ahead[-1][1]:  # waiting on pays
                more_uses, more_time, more_none = ahead.pop()
                uses += none * more_uses
                time += none * more_time
                none *= more_none
            ahead.append((uses, time, none))
            self.values[at] = uses / time

    def at(self, idle: float) -> float:
        """Return the value at an idle time, interpolated between the middles of the bins."""
        if idle < _LOWEST:
            return self.values[0]
        place = math.log2(idle) + _OFFSET - 0.5
        at = int(place)
        if at >= _BINS - 1:
            return self.values[-1] * math.pow(2.0, _BINS - 1 - place)
        part = place - at
        return self.values[at] * (1.0 - part) + self.values[at + 1] * part


def _bin(idle: float) -> int:
    if idle < _LOWEST:
        return 0
    return min(math.frexp(idle)[1] - 1 + _OFFSET, _BINS - 1)


class ReuseModel:
    """
    Learns when classes are used again.

    A class is looked at when the worth of its instance is determined, and, while it is not cached,
    in turn with the others. So times without uses count, too. Between two looks only the number of
    uses and the last one are known; the gaps within are taken to be spread as those of independent
    uses, up to eight of them.

    A class has three mean gaps, of about the last 4, 16 and 64. The one that predicts best is used,
    for all classes: the one with the lowest loss under exponential gaps, lately ("follow the
    leader", with fading). A class that was used once has the usual gap; there is a density for
    these, one for classes with one known gap, and three for the others, by whether the gaps become
    shorter or longer. What was used once has shown nothing yet: initially its density is a tenth.

    Thread-safe in that nothing fails and at worst an observation is lost; each call is O(1)
    amortised. It remembers at most 100,000 classes.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._ghosts: deque[str] = deque()  # not cached, or were not when they were last looked at
        self._losses = [0.0] * len(_WINDOWS)
        self._best = 0
        self._usual_sum = self._usual_weight = 0.0  # of logarithms
        self._usual = 1.0
        self._densities = [
            _Density(*((_NEW_WEIGHT, _NEW_SHARE) if stage == _NEW else (_INITIAL_WEIGHT, 1.0)))
            for stage in range(_STAGES)
        ]
        self._hits = 0.0
        self._observed = 0
        self._renewal = 16  # it doubles up to `_RENEWED`
        self._now = -math.inf

    def density(self, name: str, uses: int, built_at: float, last_used: float, now: float) -> float:
        """
        Return the worth of keeping an instance, in uses per second.

        Args:
            name: The class name.
            uses: The number of uses, including the build.
            built_at: The time of the build.
            last_used: The time of the last use.
            now: The current time.
        """
        record = self._look(name, uses, built_at, last_used, now)
        gap = record.gap or self._usual
        idle = now - last_used
        return self._densities[record.stage].at(idle / gap if idle > 0.0 else 0.0) / gap

    def rate(self, gap: float, idle: float) -> float:
        """
        Return the worth of keeping an instance of a class with steady use, in uses per second.

        Args:
            gap: The mean gap of the class in seconds; below 0 if none is known.
            idle: The seconds since its last use.
        """
        stage, gap = (_NEW, self._usual) if gap < 0.0 else (_STEADY, gap)
        return self._densities[stage].at(idle / gap) / gap

    def mean_gap(self, name: str) -> float | None:
        """Return the mean gap of a class in seconds; None if none is known."""
        record = self._records.get(name)
        return None if record is None or record.stage == _NEW else record.gap

    def left(self, name: str, uses: int, built_at: float, last_used: float) -> None:
        """
        Note that an instance was removed, and look at the next of the classes that are not cached.

        Args:
            name: The class name.
            uses: The number of uses, including the build.
            built_at: The time of the build.
            last_used: The time of the last use.
        """
        record = self._look(name, uses, built_at, last_used, max(last_used, self._now))
        if record.built_at != built_at:  # another instance has taken its place
            return
        record.cached = False
        if not record.queued:
            record.queued = True
            self._ghosts.append(name)
        for _ in range(2):
            self._look_at_ghost()

    def _look_at_ghost(self) -> None:
        try:
            name = self._ghosts.popleft()
        except IndexError:
            return
        record = self._records.get(name)
        if record is None:
            return
        if record.cached:
            record.queued = False
            return
        self._observe_idle(record, self._now)
        if not record.recent and len(self._records) > _MAX_NAMES:
            self._records.pop(name, None)
            return
        record.recent = False
        self._ghosts.append(name)

    def _look(self, name: str, uses: int, built_at: float, last_used: float, now: float) -> _Record:
        """Observe what happened to a cached class since it was looked at."""
        self._now = max(self._now, now)
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record(built_at)
        elif built_at < record.built_at:  # an earlier instance, which somebody still holds
            return record
        elif built_at > record.built_at:
            if uses > 0 and built_at >= record.seen:  # else it was recycled, which is no use
                self._observe_gaps(record, built_at, 1)
                record.last_used = record.seen = built_at
            record.built_at = built_at
            record.uses = min(uses, 1)
        elif uses < record.uses:  # it was built again within a tick of the clock
            record.uses = uses
        if not record.cached:
            record.cached = record.recent = True
        if uses > record.uses:
            self._observe_gaps(record, last_used, uses - record.uses)
            record.last_used = last_used
            record.seen = max(record.seen, last_used)
            record.uses = uses
        self._observe_idle(record, now)
        return record

    def _observe_idle(self, record: _Record, now: float) -> None:
        if now > record.seen:
            gap, last_used = record.gap or self._usual, record.last_used
            begin, end = (record.seen - last_used) / gap, (now - last_used) / gap
            self._densities[record.stage].observe(begin, end, hit=False)
            record.seen = now
        self._observed += 1
        if self._observed >= self._renewal:
            self._renew()

    def _observe_gaps(self, record: _Record, last_used: float, count: int) -> None:
        """Count the gaps since the last look; the first of them began before it."""
        since = max(0.0, last_used - record.seen)
        waited = max(0.0, record.seen - record.last_used)
        samples = _spread(count)
        middle = len(samples) // 2
        first = waited + since * samples[middle]
        gap = record.gap or self._usual
        self._densities[record.stage].observe(waited / gap, first / gap, hit=True)
        self._learn(record, waited + since, count)
        gap, density = record.gap, self._densities[record.stage]
        for at, sample in enumerate(samples):
            if at != middle:
                density.observe(0.0, since * sample / gap, hit=True)
        self._hits += len(samples)

    def _learn(self, record: _Record, seconds: float, count: int) -> None:
        """Update the mean gaps of a class, the losses of the windows, and the usual gap."""
        mean = max(seconds / count, _MIN_GAP_SECONDS)
        samples = min(count, _MOST_SAMPLES)
        kept = (1.0 - 1.0 / _LOSS_MEMORY) ** samples
        for at in _RANGE:
            gap = self._gap(record, at)
            self._losses[at] = kept * self._losses[at] + samples * (math.log(gap) + mean / gap)
            window = _WINDOWS[at]
            faded = (1.0 - 1.0 / window) ** count
            added = window * (1.0 - faded)
            record.gaps[at] = faded * record.gaps[at] + added
            record.seconds[at] = faded * record.seconds[at] + added * mean
        self._best = min(_RANGE, key=self._losses.__getitem__)
        kept = (1.0 - 1.0 / _USUAL_MEMORY) ** samples
        self._usual_sum = kept * self._usual_sum + (1.0 - kept) * math.log(mean)
        self._usual_weight = kept * self._usual_weight + (1.0 - kept)
        self._usual = math.exp(self._usual_sum / self._usual_weight)
        record.gap = self._gap(record, self._best)
        if record.gaps[0] < 2.0:
            record.stage = _ONE_GAP
        else:
            trend = self._gap(record, 0) / self._gap(record, -1)
            record.stage = _STEADY + (trend >= _TREND) - (trend < 1.0 / _TREND)

    def _gap(self, record: _Record, window: int) -> float:
        seconds = record.seconds[window] + _SHRINKAGE * self._usual
        return max(_MIN_GAP_SECONDS, seconds / (record.gaps[window] + _SHRINKAGE))

    def _renew(self) -> None:
        self._observed = 0
        self._renewal = min(2 * self._renewal, _RENEWED)
        fades = self._hits > _MOST_HITS
        if fades:
            self._hits /= 2.0
        for density in self._densities:
            if fades:
                density.fade()
            density.renew()


def _spread(count: int) -> list[float]:
    """Return the expected parts, in ascending order, of up to eight parts of a broken stick."""
    parts, total, most = [], 0.0, min(count, _MOST_SAMPLES)
    for at in range(most):
        total += 1.0 / (most - at)
        parts.append(total / count)
    return parts
