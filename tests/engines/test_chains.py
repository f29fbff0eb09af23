"""Tests of the planner and of the schedule of batches, without a cluster."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset import FamilyKey
from warmset.engines.affinity import Router
from warmset.engines.batches import RUN_ITEM, Batches, Task
from warmset.engines.chains import ChainStep, Costs, Plan, plan_chains

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEMO = [
    ChainStep("all", "Tfidf", per_document=False),
    ChainStep("sentences", "Segmenter"),
    ChainStep("language", "Language"),
    ChainStep("vector", "Tfidf"),
    ChainStep("topic", "Topics", frozenset({"vector"})),
    ChainStep("embedding", "Embedder"),
]


def costs_of(calls: dict[str, float], builds: dict[str, float]) -> Costs:
    costs = Costs()
    costs.call_seconds.update(calls)
    costs.build_seconds.update(builds)
    return costs


def plan(
    steps: Sequence[ChainStep], workers: Sequence[str], costs: Costs, **options: Any
) -> tuple[Plan, Router]:
    router = Router(dict.fromkeys(workers, 1))
    for step in steps:
        if step.key is None:
            router.place(step.target)
    options = {"documents": 80, "placements": router.placements(), **options}
    return plan_chains(steps, list(workers), costs=costs, **options), router


def names_of(steps: Sequence[ChainStep], plan: Plan) -> list[list[str]]:
    return [[steps[index].name for index in chain.steps] for chain in plan.chains]


# -- the planner ---------------------------------------------------------------------------------


def test_without_durations_classes_stay_where_the_router_put_them() -> None:
    made, router = plan(DEMO, ["a", "b", "c"], Costs())
    assert not made.known
    placements = router.placements()
    for group in made.groups:
        assert {placements[target] for target in group.targets} == {group.workers}


def test_a_slow_build_gets_a_worker_of_its_own() -> None:
    """The others share the second worker, in one chain: their results stay there."""
    calls = {step.name: 0.005 for step in DEMO}
    builds = {"Language": 2.0, "Tfidf": 0.1, "Topics": 0.1, "Segmenter": 0.1, "Embedder": 0.1}
    made, _ = plan(DEMO, ["a", "b"], costs_of(calls, builds))
    assert sorted(len(group.targets) for group in made.groups) == [1, 4]
    assert sorted(names_of(DEMO, made)) == [
        ["language"],
        ["sentences", "vector", "topic", "embedding"],
    ]
    assert all(len(group.workers) == 1 for group in made.groups)
    assert made.seconds == pytest.approx(2.0 + 80 * 0.005)


def test_with_much_work_every_worker_gets_every_class() -> None:
    """The documents are divided then: a copy of each class costs less than waiting."""
    calls = {step.name: 0.05 for step in DEMO}
    builds = {"Language": 2.0, "Tfidf": 0.1, "Topics": 0.1, "Segmenter": 0.1, "Embedder": 0.1}
    workers = [f"w{number}" for number in range(20)]
    made, _ = plan(DEMO, workers, costs_of(calls, builds), documents=100_000)
    assert sum(len(group.workers) for group in made.groups) == 20
    total = 100_000 * 5 * 0.05
    assert made.seconds <= 1.1 * total / 20


def test_a_plan_is_kept_unless_another_one_is_much_better() -> None:
    calls = {step.name: 0.005 for step in DEMO}
    builds = {"Language": 0.5, "Tfidf": 0.4, "Topics": 0.4, "Segmenter": 0.4, "Embedder": 0.4}
    costs = costs_of(calls, builds)
    first, _ = plan(DEMO, ["a", "b"], costs)
    costs.build_seconds["Tfidf"] = 0.5
    again, _ = plan(DEMO, ["a", "b"], costs, previous=first)
    assert again.groups == first.groups
    costs.build_seconds.update(Language=2.0, Topics=1.5)
    changed, _ = plan(DEMO, ["a", "b"], costs, previous=first)
    (group,) = [group for group in changed.groups if "Language" in group.targets]
    assert changed.groups != first.groups
    assert "Topics" not in group.targets
    # Where the classes are warm, moving them would cost more than the imbalance does.
    warm = [step.target for step in DEMO]
    kept, _ = plan(DEMO, ["a", "b"], costs, previous=first, warm=warm)
    assert kept.groups == first.groups


def test_a_lost_worker_leaves_the_plan() -> None:
    calls = {step.name: 0.005 for step in DEMO}
    first, _ = plan(DEMO, ["a", "b"], costs_of(calls, {"Language": 2.0}))
    for costs in (Costs(), costs_of(calls, {"Language": 2.0})):
        made, _ = plan(DEMO, ["b"], costs, previous=first)
        assert {worker for group in made.groups for worker in group.workers} == {"b"}


def test_steps_of_a_class_stay_in_order() -> None:
    """Also without results between them, because the instance may keep state of a document."""
    steps = [
        ChainStep("load", "A"),
        ChainStep("other", "B", frozenset({"load"})),
        ChainStep("use", "A", frozenset({"other"})),
        ChainStep("end", "A"),
    ]
    router = Router({"a": 1, "b": 1})
    placements = {"A": ("a",), "B": ("b",)}
    made = plan_chains(steps, ["a", "b"], documents=9, costs=Costs(), placements=placements)
    assert names_of(steps, made) == [["load"], ["other"], ["use", "end"]]
    assert [chain.after for chain in made.chains] == [(), (0,), (0, 1)]
    assert router.workers() == ["a", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_group_has_no_more_classes_than_a_worker_keeps(limit: int) -> None:
    calls = {step.name: 0.005 for step in DEMO}
    for costs in (Costs(), costs_of(calls, {"Language": 2.0})):
        made, _ = plan(DEMO, ["a", "b"], costs, max_classes=limit)
        assert max(len(group.targets) for group in made.groups) <= limit
        assert sorted(t for group in made.groups for t in group.targets) == sorted(
            {step.target for step in DEMO}, key=str
        )


# -- the schedule --------------------------------------------------------------------------------


@st.composite
def pipelines(draw: st.DrawFn) -> list[ChainStep]:
    steps: list[ChainStep] = []
    count = draw(st.integers(1, 7))
    once = draw(st.integers(0, min(2, count)))
    for number in range(count):
        earlier = [step.name for step in steps if number >= once or not step.per_document]
        needs = draw(st.frozensets(st.sampled_from(earlier), max_size=3)) if earlier else ()
        key, target = None, draw(st.sampled_from("ABCD"))
        if number >= once and draw(st.integers(0, 5)) == 0:
            key, target = "key", "Family"
        steps.append(ChainStep(f"s{number}", target, frozenset(needs), key, number >= once))
    return steps


class Checker:
    """Executes tasks and checks that each document passes each step once and in order."""

    def __init__(self, steps: Sequence[ChainStep], documents: int) -> None:
        self.steps, self.documents = steps, documents
        self.passed: dict[int, list[int]] = {item: [] for item in range(documents)}
        self.passed[RUN_ITEM] = []

    def execute(self, task: Task) -> Any:
        kept: dict[int, set[str]] = {}
        for item in task.items:
            visible = set()
            for each in task.inputs:
                visible |= each.get(item, set()) | each.get(RUN_ITEM, set())
            for index in task.steps:
                step = self.steps[index]
                before = self.passed[item]
                assert index not in before
                assert step.per_document == (item != RUN_ITEM)
                assert step.needs <= visible, (step, visible)
                same = [
                    other
                    for other in range(index)
                    if self.steps[other].target == step.target
                    and self.steps[other].per_document == step.per_document
                ]
                assert set(same) <= set(before)
                if item != RUN_ITEM:  # each step of the run comes before all documents
                    assert len(self.passed[RUN_ITEM]) == sum(
                        not each.per_document for each in self.steps
                    )
                before.append(index)
                visible.add(step.name)
            kept[item] = visible & task.keep
        return kept

    def check(self) -> None:
        each = [index for index, step in enumerate(self.steps) if step.per_document]
        once = [index for index, step in enumerate(self.steps) if not step.per_document]
        assert sorted(self.passed.pop(RUN_ITEM)) == once
        assert all(sorted(passed) == each for passed in self.passed.values())


def run(
    batches: Batches, checker: Checker, choose: Callable[[int], int], **events: Any
) -> list[Task]:
    """Execute the tasks in any order; `choose` returns a number below its argument."""
    sent: list[Task] = []
    history: list[Task] = []
    while not batches.finished:
        new = batches.take()
        sent += new
        history += new
        assert sent, "nothing to wait for, and not finished"
        task = sent.pop(choose(len(sent)))
        if events.get("fail", lambda task: False)(task) and batches.split(task):
            continue
        kept = checker.execute(task)
        seconds = {index: 0.001 * (index + 1) for index in task.steps}
        batches.done(task, call_seconds=seconds, build_seconds={"A": 0.3}, kept=kept)
        events.get("between", lambda: None)()
    checker.check()
    return history


@settings(deadline=None)
@given(
    steps=pipelines(),
    documents=st.integers(0, 40),
    workers=st.integers(1, 5),
    threads=st.integers(1, 2),
    limit=st.sampled_from([None, 1, 2]),
    max_tasks=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 1000),
)
def test_each_document_passes_each_step_once_and_in_order(
    steps: list[ChainStep],
    documents: int,
    workers: int,
    threads: int,
    limit: int | None,
    max_tasks: int | None,
    seed: int,
) -> None:
    """Whatever ends first, whatever fails as a whole, and whichever workers come and go."""
    chance = random.Random(seed)
    router = Router({f"w{number}": threads for number in range(workers)})
    costs, previous = Costs(), None
    for _ in range(2):
        batches = Batches(
            steps,
            documents,
            router,
            costs=costs,
            key_of=lambda step, item: None if item % 5 == 0 else FamilyKey("Family", item % 3),
            max_classes=limit,
            max_tasks=max_tasks,
            previous=previous,
        )

        def come_and_go() -> None:
            if chance.random() < 0.1:
                router.add_worker(f"new{chance.randrange(9)}", threads)
                router.remove_worker(chance.choice(router.workers()[1:] or ["nobody"]))

        run(
            batches,
            Checker(steps, documents),
            chance.randrange,
            between=come_and_go,
            fail=lambda task: chance.random() < 0.1,
        )
        previous = batches.plan
        assert router.longest_wait() == pytest.approx(0.0)


def test_documents_with_the_same_key_go_to_one_worker() -> None:
    steps = [ChainStep("language", "A"), ChainStep("parse", "Model", frozenset({"language"}), "k")]
    router = Router({"a": 1, "b": 1, "c": 1})
    batches = Batches(
        steps,
        60,
        router,
        costs=costs_of({"language": 0.01, "parse": 0.01}, {"A": 1.0, "Model": 1.0}),
        key_of=lambda step, item: FamilyKey("Model", item % 4),
    )
    history = run(batches, Checker(steps, 60), lambda count: 0)
    workers: dict[int, set[str]] = {}
    for task in history:
        if task.steps == (1,):
            for item in task.items:
                workers.setdefault(item % 4, set()).add(task.worker)
    assert all(len(each) == 1 for each in workers.values())
    assert len(history) < 60


def test_a_task_that_fails_is_split_down_to_one_document() -> None:
    router = Router({"a": 1})
    batches = Batches([ChainStep("s", "A")], 64, router, costs=Costs())
    failed: list[Task] = []

    def fail(task: Task) -> bool:
        if 13 in task.items:
            failed.append(task)
            return len(task.items) > 1
        return False

    run(batches, Checker([ChainStep("s", "A")], 64), lambda count: 0, fail=fail)
    assert failed[-1].items == (13,)
    assert Batches([ChainStep("s", "A")], 0, router, costs=Costs()).finished


def test_few_tasks_wait_on_the_workers() -> None:
    """Two for each thread; what is sent later can still be planned differently."""
    router = Router({"a": 1, "b": 3})
    costs = costs_of({"s": 1.0}, {"A": 0.0})
    batches = Batches([ChainStep("s", "A")], 10_000, router, costs=costs)
    tasks = batches.take()
    assert len([task for task in tasks if task.worker == "a"]) <= 2
    assert len([task for task in tasks if task.worker == "b"]) <= 6
    assert batches.take() == []
    batches.stop()
    for task in tasks:
        assert not batches.finished
        batches.done(task)
    assert batches.finished
    with pytest.raises(KeyError):
        batches.done(tasks[0])
    assert batches.take() == []


def test_without_workers_nothing_is_sent() -> None:
    router = Router()
    batches = Batches([ChainStep("s", "A")], 2, router, costs=Costs())
    assert batches.take() == []
    assert not batches.finished
    router.add_worker("a")
    run(batches, Checker([ChainStep("s", "A")], 2), lambda count: 0)
