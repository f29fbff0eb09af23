"""
Plans which steps of a pipeline run in one task, and on which workers.

The classes are divided into groups, and each group is given workers. A chain is a set of steps of
one group that can run one after the other without a result from another group, so that it is one
task for a batch of documents: the classes of a chain are warm together, and results within it do
not leave the worker.

A plan is chosen by the completion that it leads to. Each class is built by one worker of its group,
which is unavoidable; a copy on another worker counts as in `affinity`, six times. So a class gets
one more worker when the work that is left costs more than that, and a small pipeline is divided by
classes. While durations are unknown, the classes stay where the router assigned them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .affinity import BUILD_WEIGHT, MIN_BUILD_SECONDS, duration_name

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from ..family_keys import SlotKey

__all__ = ["Chain", "ChainStep", "Costs", "Group", "Plan", "batch_size", "plan_chains"]

# A new division replaces the present one only if it is expected to take at most this part of its
# time: moving a class to another process costs an import and memory there.
_GAIN = 0.9
_GAIN_SECONDS = 0.2  # and by at least this much
_BATCHES_PER_WORKER = 3  # a batch is this part of what is left: the last ones are small
_SHORTEST_SECONDS = 0.05  # a shorter task costs more to send than to execute
_LONGEST_SECONDS = 10.0  # what a lost worker costs
_BUILDS_PER_SWITCH = 2.0  # with more classes than fit: calls between two builds, in build seconds
_ALWAYS_TRIED = 8  # numbers of groups up to this are all tried, above only powers of two


class ChainStep(NamedTuple):
    """A step of a pipeline, as the planner sees it."""

    name: str
    target: SlotKey
    """The class, or the key of a family; for a key of each document, the family."""
    needs: frozenset[str] = frozenset()
    """The names of the steps whose results it uses."""
    key: Hashable = None
    """If the key of the family depends on the document: identifies how it is determined."""
    per_document: bool = True
    """False: it is called once, before all documents."""


class Costs:
    """
    The durations known so far, by step and by class or family.

    Not thread-safe.
    """

    __slots__ = ("build_seconds", "call_seconds")

    def __init__(self) -> None:
        self.call_seconds: dict[str, float] = {}
        """Step -> seconds for one document."""
        self.build_seconds: dict[str, float] = {}
        """Class or family -> seconds of its last build; a class that was never built is missing."""

    def build(self, target: SlotKey) -> float:
        """Return the seconds of a build; 0 if unknown."""
        return self.build_seconds.get(duration_name(target), 0.0)


class Group(NamedTuple):
    """Classes that are warm together, and the workers on which they are."""

    targets: tuple[SlotKey, ...]
    workers: tuple[str, ...]


class Chain(NamedTuple):
    """Steps that run one after the other in one task."""

    number: int
    steps: tuple[int, ...]
    """The indexes of its steps, in the order of the pipeline."""
    after: tuple[int, ...]
    """The numbers of the chains that must have ended before it starts."""
    group: int | None
    """The index of its group; None if each document has a key, by which it is routed."""


class Plan(NamedTuple):
    """The chains of a pipeline."""

    groups: tuple[Group, ...]
    run_chains: tuple[Chain, ...]
    """Of the steps that are called once, before all documents."""
    chains: tuple[Chain, ...]
    """Of the steps that are called for each document."""
    seconds: float
    """The expected completion; 0.0 while durations are unknown."""
    known: bool
    """Whether the durations of all steps were known."""


def plan_chains(
    steps: Sequence[ChainStep],
    workers: Sequence[str],
    *,
    documents: int,
    costs: Costs,
    placements: Mapping[SlotKey, tuple[str, ...]],
    warm: Collection[SlotKey] = (),
    max_classes: int | None = None,
    previous: Plan | None = None,
) -> Plan:
    """
    Divide the steps of a pipeline into chains and choose the workers of each.

    Args:
        steps: The steps, each after the steps that it needs.
        workers: The workers, at least one.
        documents: The number of documents that are left.
        costs: The durations known so far.
        placements: Class or key -> the workers that it is assigned to, the first worker first. It
            contains each target whose key does not depend on the document.
        warm: The targets that are warm where they are placed; the others have to be built anyway.
        max_classes: The most classes that one worker keeps warm; None for no limit.
        previous: The present plan, which is kept unless another one is expected to take much less
            time.

    Returns:
        The plan. Each step is in one chain. A step comes after the steps that it needs and after
        earlier steps of its class, whose instance may keep state of the document.

    A pure function; O(groups tried x classes x groups + workers).
    """
    targets = list(dict.fromkeys(step.target for step in steps if step.key is None))
    known = all(step.name in costs.call_seconds for step in steps)
    limit = max(1, len(targets) if max_classes is None else max_classes)
    groups = _present_groups(targets, workers, placements, previous, limit)
    seconds = 0.0
    if known and targets:
        estimate = _Estimate(steps, targets, documents, costs, placements, warm)
        present = estimate.completion(groups)
        seconds = min(present * _GAIN, present - _GAIN_SECONDS)
        best = None
        for count in _counts(min(len(targets), len(workers)), math.ceil(len(targets) / limit)):
            division = estimate.divide(count, workers, limit)
            expected = estimate.completion(division)
            if expected < seconds:
                best, seconds = division, expected
        if best is None:
            seconds = present
        else:
            groups = best
    once = [index for index, step in enumerate(steps) if not step.per_document]
    each = [index for index, step in enumerate(steps) if step.per_document]
    return Plan(groups, _chains(steps, once, groups), _chains(steps, each, groups), seconds, known)


def _counts(most: int, least: int) -> Iterable[int]:
    counts = {*range(1, min(most, _ALWAYS_TRIED) + 1), most, least}
    counts.update(1 << power for power in range(3, most.bit_length()))
    return sorted(count for count in counts if least <= count)


def _present_groups(
    targets: Sequence[SlotKey],
    workers: Sequence[str],
    placements: Mapping[SlotKey, tuple[str, ...]],
    previous: Plan | None,
    limit: int,
) -> tuple[Group, ...]:
    """Return the groups of the previous plan or, without one, of the first worker of each class."""
    present = set(workers)
    by_workers: dict[tuple[str, ...], list[SlotKey]] = {}
    for group in () if previous is None else previous.groups:
        remaining = tuple(worker for worker in group.workers if worker in present)
        if remaining:
            by_workers.setdefault(remaining, []).extend(group.targets)
    grouped = {target for each in by_workers.values() for target in each}
    for target in targets:
        if target not in grouped:
            first = next((each for each in placements[target] if each in present), workers[0])
            by_workers.setdefault((first,), []).append(target)
    return tuple(
        Group(tuple(each[start : start + limit]), chosen)
        for chosen, each in by_workers.items()
        for start in range(0, len(each), limit)
    )


class _Estimate:
    """The expected completion of divisions of the classes."""

    def __init__(
        self,
        steps: Sequence[ChainStep],
        targets: Sequence[SlotKey],
        documents: int,
        costs: Costs,
        placements: Mapping[SlotKey, tuple[str, ...]],
        warm: Collection[SlotKey],
    ) -> None:
        self._placements = placements
        self._warm = warm
        self._builds = {target: costs.build(target) for target in targets}
        self._calls = dict.fromkeys(targets, 0.0)
        self._neighbours: dict[SlotKey, set[SlotKey]] = {target: set() for target in targets}
        by_name = {step.name: step for step in steps}
        for step in steps:
            if step.key is not None:
                continue
            calls = documents if step.per_document else 1
            self._calls[step.target] += calls * costs.call_seconds.get(step.name, 0.0)
            for need in step.needs:
                other = by_name.get(need)
                if other is not None and other.key is None:
                    self._neighbours[step.target].add(other.target)
                    self._neighbours[other.target].add(step.target)

    def _copy(self, target: SlotKey) -> float:
        """Return what an additional copy of a class costs."""
        return BUILD_WEIGHT * max(self._builds[target], MIN_BUILD_SECONDS)

    def _first(self, target: SlotKey) -> float:
        """Return what the first instance of a class costs."""
        return 0.0 if target in self._warm else self._builds[target]

    def completion(self, groups: Iterable[Group]) -> float:
        """Return the seconds after which the last worker is expected to be done."""
        busy: dict[str, float] = {}
        for targets, workers in groups:
            calls = sum(self._calls.get(target, 0.0) for target in targets) / len(workers)
            missing = dict.fromkeys(workers, 0.0)
            for target in targets:
                if target not in self._builds:
                    continue  # of a previous plan, for other steps
                there = self._placements.get(target, ()) if target in self._warm else ()
                has_first = bool(there)
                for worker in workers:
                    if worker not in there:
                        missing[worker] += self._copy(target) if has_first else self._first(target)
                        has_first = True
            for worker, builds in missing.items():
                busy[worker] = busy.get(worker, 0.0) + calls + builds
        return max(busy.values(), default=0.0)

    # -- a new division --------------------------------------------------------------------------

    def divide(self, count: int, workers: Sequence[str], limit: int) -> tuple[Group, ...]:
        """Divide the classes into groups of about the same cost, and give each its workers."""
        costs = {target: self._first(target) + calls for target, calls in self._calls.items()}
        # Up to this load, a class joins those that it exchanges results with.
        bound = max(sum(costs.values()) / count, *costs.values())
        members: list[list[SlotKey]] = [[] for _ in range(count)]
        loads = [0.0] * count
        for target in sorted(costs, key=costs.__getitem__, reverse=True):
            near = self._neighbours[target]
            best = min(
                (index for index in range(count) if len(members[index]) < limit),
                key=lambda index: (
                    max(bound, loads[index] + costs[target]),
                    -len(near.intersection(members[index])),
                    loads[index],
                ),
            )
            members[best].append(target)
            loads[best] += costs[target]
        used = [each for each in members if each]
        return self._with_workers(used, workers)

    def _with_workers(
        self, members: Sequence[Sequence[SlotKey]], workers: Sequence[str]
    ) -> tuple[Group, ...]:
        counts = self._worker_counts(members, len(workers))
        position = {worker: index for index, worker in enumerate(workers)}
        given = dict.fromkeys(workers, 0)
        chosen: list[tuple[str, ...]] = [()] * len(members)
        for index in sorted(range(len(members)), key=lambda each: -self._weight(members[each])):
            there: dict[str, float] = {}
            for target in members[index]:
                weight = self._builds[target] + MIN_BUILD_SECONDS
                for worker in self._placements.get(target, ()):
                    there[worker] = there.get(worker, 0.0) + weight
            ranked = sorted(
                workers, key=lambda each: (given[each], -there.get(each, 0.0), position[each])
            )
            chosen[index] = tuple(ranked[: counts[index]])
            for worker in chosen[index]:
                given[worker] += 1
        return tuple(Group(tuple(m), c) for m, c in zip(members, chosen, strict=True))

    def _weight(self, targets: Iterable[SlotKey]) -> float:
        return sum(self._builds[target] + self._calls[target] for target in targets)

    def _worker_counts(self, members: Sequence[Sequence[SlotKey]], total: int) -> list[int]:
        """Return the number of workers for each group, by the earliest completion."""
        firsts = [sum(map(self._first, targets)) for targets in members]
        copies = [sum(map(self._copy, targets)) for targets in members]
        calls = [sum(self._calls[target] for target in targets) for targets in members]

        def needed(seconds: float) -> list[int]:
            counts = []
            for first, copy, work in zip(firsts, copies, calls, strict=True):
                if first + work <= seconds:
                    counts.append(1)
                elif copy < seconds:
                    counts.append(max(2, math.ceil(work / (seconds - copy))))
                else:
                    counts.append(total + 1)
            return counts

        high = max(first + work for first, work in zip(firsts, calls, strict=True))
        best, low = [1] * len(members), 0.0
        for _ in range(30):
            middle = (low + high) / 2
            counts = needed(middle)
            if sum(counts) <= total:
                best, high = counts, middle
            else:
                low = middle
        return best


def _chains(
    steps: Sequence[ChainStep], indexes: Sequence[int], groups: Sequence[Group]
) -> tuple[Chain, ...]:
    """
    Form the chains of some of the steps.

    Each step gets a level: that of the steps it comes after, or one more if one of those belongs to
    another group. The steps of a group on one level form a chain. Only chains on lower levels come
    before it, so there are no cycles.
    """
    group_of = {target: at for at, group in enumerate(groups) for target in group.targets}
    levels: dict[int, int] = {}
    members: dict[int, Hashable] = {}
    before: dict[int, set[int]] = {}
    index_of: dict[str, int] = {}
    last_of: dict[SlotKey, int] = {}
    for index in indexes:
        step = steps[index]
        member: Hashable = group_of[step.target] if step.key is None else (step.target, step.key)
        earlier = {index_of[need] for need in step.needs if need in index_of}
        if step.target in last_of:
            earlier.add(last_of[step.target])
        levels[index] = max(
            (levels[other] + (members[other] != member) for other in earlier), default=0
        )
        members[index], before[index] = member, earlier
        index_of[step.name] = last_of[step.target] = index
    by_chain: dict[tuple[int, Hashable], list[int]] = {}
    for index in sorted(indexes, key=levels.__getitem__):
        by_chain.setdefault((levels[index], members[index]), []).append(index)
    number_of = {index: at for at, each in enumerate(by_chain.values()) for index in each}
    return tuple(
        Chain(
            number,
            tuple(own),
            tuple(sorted({number_of[other] for at in own for other in before[at]} - {number})),
            member if isinstance(member, int) else None,
        )
        for number, ((_, member), own) in enumerate(by_chain.items())
    )


def batch_size(plan: Plan, steps: Sequence[ChainStep], *, documents: int, costs: Costs) -> int:
    """
    Choose the size of the next batch.

    Args:
        plan: The plan.
        steps: The steps.
        documents: The number of documents that are left, at least one.
        costs: The durations known so far.

    Returns:
        A part of what is left for each worker, so that the last batches are small and the workers
        end together, but enough that a task takes longer than it costs to send it.
    """
    most = max((len(group.workers) for group in plan.groups), default=1)
    levels = 1 if all(not chain.after for chain in plan.chains) else 2
    size = math.ceil(documents / (_BATCHES_PER_WORKER * most * levels))
    longest = max(
        sum(costs.call_seconds.get(steps[index].name, 0.0) for index in chain.steps)
        for chain in plan.chains
    )
    if longest <= 0.0 or not plan.known:
        return size
    shortest = _SHORTEST_SECONDS
    users = [worker for group in plan.groups for worker in group.workers]
    if len(set(users)) < len(users):  # groups share a worker, as their classes do not fit
        builds = max(sum(map(costs.build, group.targets)) for group in plan.groups)
        shortest = max(shortest, _BUILDS_PER_SWITCH * builds)
    size = max(size, math.ceil(shortest / longest))
    return max(1, min(size, int(max(shortest, _LONGEST_SECONDS) / longest), documents))
