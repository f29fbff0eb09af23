"""
Notes what left the registry during a run, in memory that does not grow with it.

What the report draws must not show up in what it draws: all numbers lie in arrays, the largest of
which is made before run 1 and kept at its size by joining spans that are close together.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, NamedTuple

from warmset.events import RemovalCause

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from warmset import MethodRegistry
    from warmset.events import RemovalEvent

__all__ = ["CAUSES", "ClassTally", "Recorder", "Span", "join_spans"]

CAUSES = tuple(RemovalCause)
_SPANS_KEPT = 20_000
# What revives shows the time of its first build again, up to the resolution of the clocks.
_SAME_BUILD_SECONDS = 0.05


class Span(NamedTuple):
    """
    A time during which instances of a class were warm, in seconds since the first run began.
    """

    class_index: int
    begin: float
    end: float


class ClassTally(NamedTuple):
    """
    What was seen of one class.

    `warm_seconds` is the sum over its instances; `removals` has a number for each of `CAUSES`.
    """

    builds: int
    build_seconds: float
    longest_build_seconds: float
    warm_seconds: float
    uses: int
    removals: tuple[int, ...]


class Recorder:
    """
    Listens to the registry of a run.

    Args:
        class_names: The names in the pipeline file.
        per_run: Whether the registry's names have the number of the run behind them; they count as
            one class.
        timer: Gives monotonic seconds.
        spans_kept: How many spans are kept before those that are close together are joined.

    A build is known from the removal of what it built, which `close` guarantees for every instance
    that was cached; so numbers are complete once the registry is closed.
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
        # One run: when it began, and how many left by each cause, clearing after it included.
        self._begun = array("d")
        self._run_removals = array("q")
        # No fewer than two for each class, or joining could not make room.
        self._capacity = max(spans_kept, 2 * count)
        self._span_class = array("q", bytes(8 * self._capacity))
        self._span_begin = array("d", bytes(8 * self._capacity))
        self._span_end = array("d", bytes(8 * self._capacity))
        self._spans = 0
        # The longest gap that was closed by joining.
        self._joined_seconds = 0.0
        self._ended = 0.0
        # Instances that left while they were held, and may come back: when they were built.
        self._held: dict[str, float] = {}

    # -- during the runs -------------------------------------------------------------------------

    def watch(self, registry: MethodRegistry) -> None:
        """
        Listen to a registry, until it is closed.

        Args:
            registry: The registry; it tells of one removal at a time.
        """
        registry.add_listener(self._removed)

    def on_run(self, number: int) -> None:
        """
        Note that a run begins.

        Args:
            number: Its number; they come in order.
        """
        self._begun.append(self._timer())
        self._run_removals.extend(bytes(len(CAUSES)))

    def _removed(self, event: RemovalEvent) -> None:
        now = self._timer()
        name = event.class_name
        at = self._index.get(name.rpartition("@")[0] if self._per_run else name)
        if at is None or not self._begun:
            return
        begin = now - event.age_seconds
        self._ended = now
        self._class_removals[at * len(CAUSES) + event.cause] += 1
        self._run_removals[event.cause - len(CAUSES)] += 1  # counted from the end: of this run
        known = self._held.pop(name, None)
        if event.held:
            self._held[name] = begin
        if known is None or abs(known - begin) > _SAME_BUILD_SECONDS:
            self._builds[at] += 1
            self._build_seconds[at] += event.build_seconds
            self._longest[at] = max(self._longest[at], event.build_seconds)
            self._uses[at] += event.uses
            self._warm[at] += event.age_seconds
        if self._spans == self._capacity:
            self._make_room()
        self._span_class[self._spans] = at
        self._span_begin[self._spans] = begin
        self._span_end[self._spans] = now
        self._spans += 1

    def _make_room(self) -> None:
        joined, self._joined_seconds = join_spans(
            self._raw_spans(0.0), self._capacity // 2, self._joined_seconds
        )
        for at, span in enumerate(joined):
            self._span_class[at], self._span_begin[at], self._span_end[at] = span
        self._spans = len(joined)

    # -- after them ------------------------------------------------------------------------------

    def run_begins(self) -> list[float]:
        """
        Tell when each run began.

        Returns:
            Seconds since the first one did.
        """
        return [begun - self._begun[0] for begun in self._begun]

    def seconds(self) -> float:
        """
        Tell how long it was from the beginning of run 1 to the last removal.

        Returns:
            Seconds; 0.0 where nothing was removed.
        """
        return max(0.0, self._ended - self._begun[0]) if self._begun else 0.0

    def removals_by_run(self) -> list[tuple[int, ...]]:
        """
        Count what left in each run that began, and in the clearing after it.

        Returns:
            A number for each of `CAUSES`, for each run; what the end of all closed is in the last.
        """
        width = len(CAUSES)
        counts = self._run_removals
        return [tuple(counts[at : at + width]) for at in range(0, len(counts), width)]

    def class_tallies(self) -> list[ClassTally]:
        """
        Sum up each class.

        Returns:
            One for each class name, in the order in which they were given.
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
        Tell which class was warm when.

        Args:
            most: How many spans at most, if that is no fewer than there are classes.
            only: The indices of the classes that are asked for.

        Returns:
            Spans by class and time that do not overlap, and the longest gap in seconds that was
            closed to have no more of them.
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
        spans: In any order.
        most: How many may be left, if that is no fewer than there are classes.
        closed_gap: The longest gap in seconds that was closed before.

    Returns:
        The spans by class and time, and the longest gap in seconds that has been closed.
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
