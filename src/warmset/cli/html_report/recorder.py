"""
Records the removals of the registry during the runs, in memory of a fixed size.

The recorder must not contribute to the growth that the report shows. All numbers are in arrays. The
largest array is allocated before run 1 and never grows, because spans that are close together are
joined.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, NamedTuple

from warmset.events import RemovalCause
from warmset.planning.advice import (
    MAX_THRASHING,
    MAX_UNUSED,
    MIN_BUILDS,
    UNUSED_AFTER_SECONDS,
    thrashing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from warmset import MethodRegistry
    from warmset.events import RemovalEvent

__all__ = ["CAUSES", "ClassTally", "Recorder", "Span", "join_spans"]

CAUSES = tuple(RemovalCause)
_SPANS_KEPT = 20_000


class Span(NamedTuple):
    """
    A period during which an instance of a class was warm, in seconds since the first run began.
    """

    class_index: int
    begin: float
    end: float


class ClassTally(NamedTuple):
    """
    The counts and times of one class.

    `warm_seconds` is the sum over its instances; `removals` has a count for each of `CAUSES`.
    """

    builds: int
    build_seconds: float
    longest_build_seconds: float
    warm_seconds: float
    uses: int
    removals: tuple[int, ...]


class Recorder:
    """
    Records the removal events of a registry.

    Args:
        class_names: The class names in the pipeline file.
        per_run: Whether the class names in the registry end with the number of the run; all of them
            count as one class.
        timer: Returns monotonic seconds.
        spans_kept: The number of spans from which on spans that are close together are joined.

    Builds are derived from removal events. Closing the registry removes every cached instance, so
    the counts are complete once the registry is closed.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        per_run: bool = False,
        timer: Callable[[], float] = time.perf_counter,
        spans_kept: int = _SPANS_KEPT,
    ) -> None:
        count = len(class_names)
        self._index = {name: at for at, name in enumerate(class_names)}
        self._per_run = per_run
        self._timer = timer
        self._builds = array("q", bytes(8 * count))
        self._uses = array("q", bytes(8 * count))
        self._build_seconds = array("d", bytes(8 * count))
        self._longest = array("d", bytes(8 * count))
        self._warm = array("d", bytes(8 * count))
        self._class_removals = array("q", bytes(8 * count * len(CAUSES)))
        # For each run: its start, and its removals by cause, including those of the final clearing.
        self._begun = array("d")
        self._run_removals = array("q")
        # At least two for each class, because joining cannot reduce the spans to fewer.
        self._capacity = max(spans_kept, 2 * count)
        self._span_class = array("q", bytes(8 * self._capacity))
        self._span_begin = array("d", bytes(8 * self._capacity))
        self._span_end = array("d", bytes(8 * self._capacity))
        self._spans = 0
        # The longest gap between two spans that were joined.
        self._joined_seconds = 0.0
        self._ended = 0.0
        self._began = 0.0  # by the clock of the registry
        self._registry: MethodRegistry | None = None
        self._unused = array("q")  # for each run, the instances that were unused at its end

    # -- during the runs -------------------------------------------------------------------------

    def watch(self, registry: MethodRegistry) -> None:
        """
        Record the removals of a registry until it is closed.

        Args:
            registry: The registry. It calls its listeners for one removal at a time.
        """
        registry.add_listener(self._removed)
        self._began = registry.now()
        registry.plan()  # remembers evicted instances from now on
        self._registry = registry

    def on_run(self, number: int) -> None:
        """
        Record the start of a run.

        Args:
            number: The number of the run; runs begin in order.
        """
        self._begun.append(self._timer())
        self._run_removals.extend(bytes(len(CAUSES)))
        self._unused.append(0)

    def _removed(self, event: RemovalEvent) -> None:
        now = self._timer()
        name = event.family or event.class_name  # a family has one row, for all its keys
        at = self._index.get(name.rpartition("@")[0] if self._per_run else name)
        if at is None or not self._begun:
            return
        begin = now - event.age_seconds
        self._ended = now
        if not event.cause.evicted and event.idle_seconds > UNUSED_AFTER_SECONDS:
            self._unused[-1] += 1
        self._class_removals[at * len(CAUSES) + event.cause] += 1
        self._run_removals[event.cause - len(CAUSES)] += 1  # negative index: the last run
        self._builds[at] += 1
        self._build_seconds[at] += event.build_seconds
        self._longest[at] = max(self._longest[at], event.build_seconds)
        self._uses[at] += event.uses
        self._warm[at] += event.age_seconds
        if self._spans == self._capacity:
            self._join_spans()
        self._span_class[self._spans] = at
        self._span_begin[self._spans] = begin
        self._span_end[self._spans] = now
        self._spans += 1

    def _join_spans(self) -> None:
        joined, self._joined_seconds = join_spans(
            self._raw_spans(0.0), self._capacity // 2, self._joined_seconds
        )
        for at, span in enumerate(joined):
            self._span_class[at], self._span_begin[at], self._span_end[at] = span
        self._spans = len(joined)

    # -- after the runs --------------------------------------------------------------------------

    def advice(self) -> list[str]:
        """
        Judge the bounds of the registry over all runs.

        Returns:
            One sentence for a bound that was too small, and one for a bound that was too large.
        """
        registry = self._registry
        if registry is None:
            return []
        plan = registry.plan(window_seconds=max(1.0, registry.now() - self._began))
        found = []
        small = thrashing(plan)
        if small is not None and small.figure > MAX_THRASHING and plan.builds >= MIN_BUILDS:
            found.append(f"Thrashing: {small.text}.")
        unused = max(self._unused, default=0)
        if unused > MAX_UNUSED * registry.max_size:
            found.append(
                f"Oversized: {unused:,} of {registry.max_size:,} places had not been used for an"
                " hour at the end of a run: lower max_cache_size, or cache_ttl_seconds below an"
                " hour."
            )
        return found

    def run_begins(self) -> list[float]:
        """
        Return when each run began.

        Returns:
            Seconds since the first run began, for each run.
        """
        return [begun - self._begun[0] for begun in self._begun]

    def seconds(self) -> float:
        """
        Return the time from the beginning of run 1 to the last removal.

        Returns:
            Seconds; 0.0 if there was no removal.
        """
        return max(0.0, self._ended - self._begun[0]) if self._begun else 0.0

    def removals_by_run(self) -> list[tuple[int, ...]]:
        """
        Return the removals in each run, including those when the cache was cleared after it.

        Returns:
            For each run, a count for each of `CAUSES`; closing the registry belongs to the
            last run.
        """
        width = len(CAUSES)
        counts = self._run_removals
        return [tuple(counts[at : at + width]) for at in range(0, len(counts), width)]

    def class_tallies(self) -> list[ClassTally]:
        """
        Return the counts and times of each class.

        Returns:
            A tally for each class name, in the order given to the constructor.
        """
        width = len(CAUSES)
        return [
            ClassTally(
                self._builds[at],
                self._build_seconds[at],
                self._longest[at],
                self._warm[at],
                self._uses[at],
                tuple(self._class_removals[at * width : (at + 1) * width]),
            )
            for at in range(len(self._index))
        ]

    def spans(self, most: int, *, only: Container[int]) -> tuple[list[Span], float]:
        """
        Return the periods during which classes were warm.

        Args:
            most: The most spans to return; must not be smaller than the number of classes.
            only: The indices of the requested classes.

        Returns:
            Spans that do not overlap, sorted by class and time, and the longest gap in seconds
            between two spans that were joined to stay within the limit.
        """
        if not self._spans:
            return [], 0.0
        spans = self._raw_spans(self._begun[0])
        wanted = [span for span in spans if span.class_index in only]
        return join_spans(wanted, most, self._joined_seconds)

    def _raw_spans(self, origin: float) -> list[Span]:
        return [
            Span(self._span_class[at], self._span_begin[at] - origin, self._span_end[at] - origin)
            for at in range(self._spans)
        ]


def join_spans(spans: list[Span], most: int, closed_gap: float) -> tuple[list[Span], float]:
    """
    Join the spans of one class that overlap, and then those that are close together.

    Args:
        spans: The spans in any order.
        most: The most spans to return; must not be smaller than the number of classes.
        closed_gap: The longest gap in seconds that earlier calls have closed.

    Returns:
        The spans sorted by class and time, and the longest gap in seconds that has been closed.
    """
    joined = _join(sorted(spans), 0.0)
    if len(joined) <= most:
        return joined, closed_gap
    width = max(span.end for span in joined) - min(span.begin for span in joined)
    gap = max(closed_gap, width / 10_000)
    while len(joined) > most and gap <= 2.0 * width:
        joined = _join(joined, gap)
        closed_gap = gap
        gap *= 2.0
    return joined, closed_gap


def _join(spans: list[Span], gap: float) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and last.class_index == span.class_index and span.begin - last.end <= gap:
            joined[-1] = last._replace(end=max(last.end, span.end))
        else:
            joined.append(span)
    return joined
