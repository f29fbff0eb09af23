"""Runs of a pipeline: order of calls, counts, and behaviour on failures and interrupts."""

from __future__ import annotations

import gc
import json
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from warmset.cli.documents import load_documents
from warmset.cli.pipeline_calls import MAX_FAILURES_KEPT
from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import Outcome, run_pipeline
from warmset.cli.run_options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Write = Callable[..., Path]
    Text = Callable[..., str]
    Run = Callable[..., Outcome]


@pytest.fixture
def run(write: Write, pipeline_text: Text, fakes: list[object]) -> Run:
    def run_text(
        steps: str, *, extra: str = "", rss: Iterable[int] | None = None, **options: Any
    ) -> Outcome:
        pipeline = load_pipeline(write(pipeline_text(steps, extra=extra)))
        assert pipeline.documents is not None
        documents = load_documents(pipeline.documents, pipeline.file)
        more = {} if rss is None else {"rss": iter(rss).__next__}
        return run_pipeline(pipeline, documents, RunOptions(**{"runs": 2, **options}), **more)

    return run_text


COUNT = """
[[steps]]
name = "count"
class = "Counter"
method = "count"
arguments = { text = "$document.text" }
"""


def sink(method: str, arguments: str = "{}", name: str = "", each: str = "document") -> str:
    named = f'name = "{name}"\n' if name else ""
    return (
        f'[[steps]]\n{named}class = "Sink"\nmethod = "{method}"\neach = "{each}"\n'
        f"arguments = {arguments}\n"
    )


def test_steps_run_for_each_document_with_their_references(run: Run, fakes: list[Any]) -> None:
    take = '{ words = "$steps.count", price = "$$5", deep = [["$document.name"], { a = 1 }] }'
    outcome = run(COUNT + sink("take", take), runs=1)
    assert outcome.failures == ()
    assert fakes == [
        ("count", "some words in a"),
        ("take", {"words": 4, "price": "$5", "deep": [["texts/a.txt"], {"a": 1}]}),
        ("count", "b has others"),
        ("take", {"words": 3, "price": "$5", "deep": [["texts/b.txt"], {"a": 1}]}),
    ]
    (record,) = outcome.records
    assert (record.run, record.calls, record.hits, record.misses) == (1, 4, 2, 2)
    assert (record.hit_rate, record.evictions, record.cached) == (0.5, 0, 2)
    assert (outcome.calls, outcome.ended, record.complete) == (4, "finished", True)


def test_run_steps_come_first_and_see_all_documents(run: Run, fakes: list[Any]) -> None:
    every = '{ names = "$documents.names", texts = "$documents.texts" }'
    steps = sink("take_all", every, "all", "run") + sink("take", '{ n = "$steps.all" }')
    assert run(steps).failed == 0
    # The method empties its list; run 2 receives a list of its own.
    names, texts = ["texts/a.txt", "texts/b.txt"], ["some words in a", "b has others"]
    assert fakes == [("take_all", names, texts), ("take", {"n": 2}), ("take", {"n": 2})] * 2


def test_instances_are_rebuilt_after_clearing_and_kept_otherwise(run: Run) -> None:
    cleared = run(COUNT).records
    assert [(record.misses, record.cached) for record in cleared] == [(1, 1), (1, 1)]
    kept = run(COUNT, clear=False).records
    assert [(record.misses, record.cached) for record in kept] == [(1, 1), (0, 1)]


def test_classes_per_run_accumulate_unless_cleared_or_limited(run: Run) -> None:
    kept = run(COUNT, runs=3, clear=False, per_run=True).records
    assert [(record.misses, record.cached) for record in kept] == [(1, 1), (1, 2), (1, 3)]
    cleared = run(COUNT, runs=3, per_run=True).records
    assert [record.cached for record in cleared] == [1, 1, 1]
    bounded = run(
        COUNT, extra="[registry]\nmax_cache_size = 1", runs=3, clear=False, per_run=True
    ).records
    assert [(record.cached, record.evictions) for record in bounded] == [(1, 0), (1, 1), (1, 1)]


def test_build_arguments_are_copied_for_each_instance(run: Run, fakes: list[Any]) -> None:
    tags = '[[steps]]\nname = "tags"\nclass = "Counter"\nmethod = "build_tags"\neach = "run"\n'
    steps = tags + sink("take", '{ tags = "$steps.tags" }', each="run")
    run(steps, extra='[options.Counter]\nkwargs = { tags = ["new"] }')
    assert fakes == [("take", {"tags": ["new", "used"]})] * 2


def test_rules_may_take_registry_and_documents(run: Run, fakes: list[Any]) -> None:
    extra = '[options]\nCounter.rule = "fakes.plain_rule"\nSink.rule = "fakes.rule_with_parameters"'
    for per_run in (False, True):
        fakes.clear()
        outcome = run(sink("take", "{ a = 1 }", each="run"), extra=extra, per_run=per_run)
        assert outcome.failures == ()
        assert fakes == [("rule", "Counter", 2), ("take", {"a": 1})] * 2
        # The rule's look-up of the other class is counted as well.
        assert [record.misses for record in outcome.records] == [2, 2]


def test_a_missing_rule_is_a_failure(run: Run) -> None:
    outcome = run(COUNT, extra='[options]\nCounter.rule = "fakes.plain_rul"', runs=1)
    assert outcome.failed == 2
    assert "no 'plain_rul'" in outcome.failures[0].error


def test_a_failure_skips_only_the_steps_that_need_it(run: Run, fakes: list[Any]) -> None:
    steps = (
        sink("fail", '{ name = "$document.name" }', "first")
        + sink("take", '{ x = "$steps.first" }', "second")
        + sink("take", '{ x = ["$steps.second"] }', "third")
        + COUNT
    )
    outcome = run(steps, runs=1)
    assert [entry[0] for entry in fakes] == ["count", "count"]
    (record,) = outcome.records
    assert (record.calls, record.failed, record.skipped) == (4, 2, 4)
    first = outcome.failures[0]
    assert (first.run, first.step, first.class_name, first.method) == (1, "first", "Sink", "fail")
    assert first.document == "texts/a.txt"
    assert first.error == "ValueError: never"


def test_only_the_document_that_failed_is_skipped(run: Run, fakes: list[Any]) -> None:
    first = sink("fail_on_b", '{ name = "$document.name" }', "first")
    outcome = run(first + sink("take", '{ x = "$steps.first" }'), runs=1)
    assert (outcome.calls, outcome.failed, outcome.skipped) == (3, 1, 1)
    assert outcome.failures[0].document == "texts/b.txt"
    assert fakes == [("take", {"x": "texts/a.txt"})]


def test_a_failed_run_step_skips_the_document_steps_that_need_it(run: Run) -> None:
    steps = sink("fail", name="all", each="run") + sink("take", '{ x = "$steps.all" }') + COUNT
    outcome = run(steps, runs=1)
    assert (outcome.calls, outcome.failed, outcome.skipped) == (3, 1, 2)
    assert outcome.failures[0].document is None


def test_errors_in_building_calling_and_routing_are_failures(run: Run) -> None:
    broken = '[[steps]]\nclass = "Broken"\nmethod = "run"\narguments = { text = "x" }\n'
    steps = broken + sink("no_such") + sink("fail_on_b", '{ nam = "x" }') + sink("leave") + COUNT
    outcome = run(steps, runs=1)
    texts = [failure.error for failure in outcome.failures[:4]]
    assert "cannot be built" in texts[0]
    assert "no_such" in texts[1]
    assert "nam" in texts[2]
    assert texts[3] == "SystemExit: 7"
    assert (outcome.calls, outcome.failed) == (10, 8)


def test_strict_stops_at_the_first_failure(run: Run, fakes: list[Any]) -> None:
    outcome = run(COUNT + sink("fail"), strict=True, runs=3)
    assert outcome.ended == "stopped"
    assert fakes == [("count", "some words in a")]
    (record,) = outcome.records
    assert (record.complete, record.calls, record.failed) == (False, 2, 1)


def test_only_the_first_failures_are_kept(run: Run) -> None:
    steps = "".join(sink("fail", name=f"fail{number}") for number in range(MAX_FAILURES_KEPT // 3))
    outcome = run(steps, runs=3)
    assert len(outcome.failures) == MAX_FAILURES_KEPT
    assert outcome.failed == outcome.calls == 3 * 2 * (MAX_FAILURES_KEPT // 3)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ctrl_c_keeps_the_completed_runs(run: Run, workers: int) -> None:
    def probe() -> Iterator[int]:
        # Called twice for each run; Ctrl-C arrives at the end of run 3.
        yield from (1, 1, 2, 2)
        raise KeyboardInterrupt

    outcome = run(COUNT, runs=9, workers=workers, rss=probe())
    assert outcome.ended == "interrupted"
    assert [record.run for record in outcome.records] == [1, 2]


def test_ctrl_c_inside_a_step_ends_the_runs(run: Run, fakes: list[Any]) -> None:
    outcome = run(sink("interrupt", '{ name = "$document.name" }'), runs=9)
    assert outcome.ended == "interrupted"
    assert len(outcome.records) == 1
    assert len(fakes) == 4
    assert outcome.failed == 0


def test_workers_keep_the_steps_of_a_document_in_order(run: Run, fakes: list[Any]) -> None:
    steps = "".join(
        sink("ordered", f'{{ name = "$document.name", step = {step} }}', f"s{step}")
        for step in range(5)
    )
    outcome = run(steps + sink("thread", '{ text = "" }'), workers=2, runs=1)
    assert (outcome.calls, outcome.failed) == (12, 0)
    for name in ("texts/a.txt", "texts/b.txt"):
        mine = [entry[2] for entry in fakes if entry[0] == "ordered" and entry[1] == name]
        assert mine == list(range(5))
    threads = {entry[1] for entry in fakes if entry[0] == "thread"}
    assert all(name.startswith("warmset-run") for name in threads)


def test_growth_is_measured_from_run_one_after_clearing(run: Run) -> None:
    # Twice for each run: before clearing, after it.
    rss = [50, 10, 60, 14, 70, 9]
    records = run(COUNT, runs=3, rss=rss).records
    assert [record.rss_before_clear_bytes for record in records] == [50, 60, 70]
    assert [record.rss_bytes for record in records] == [10, 14, 9]
    assert [record.growth_bytes for record in records] == [0, 4, -1]


def test_results_do_not_outlive_their_document(run: Run, fakes: list[Any]) -> None:
    alive: list[weakref.ref[Any]] = []
    counts: list[int] = []

    class Result:
        pass

    def take(self: object, **named: object) -> Result:
        counts.append(sum(ref() is not None for ref in alive))
        result = Result()
        alive.append(weakref.ref(result))
        return result

    import fakes as module  # type: ignore[import-not-found]

    module.Sink.take = take
    run(sink("take", name="one") + sink("take", '{ x = "$steps.one" }'), runs=2)
    gc.collect()
    # Only the result of the previous step of the same document is alive.
    assert counts == [0, 1] * 4
    assert all(ref() is None for ref in alive)


def test_progress_counts_skipped_steps_too(
    write: Write, pipeline_text: Text, fakes: list[object]
) -> None:
    steps = sink("fail", name="one") + sink("take", '{ x = "$steps.one" }')
    pipeline = load_pipeline(write(pipeline_text(steps)))
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    seen: list[str] = []
    run_pipeline(
        pipeline,
        documents,
        RunOptions(runs=2),
        on_step=lambda: seen.append("step"),
        on_run=lambda number: seen.append(f"run {number}"),
    )
    assert seen == ["run 1", *["step"] * 4, "run 2", *["step"] * 4]


def test_an_outcome_holds_plain_values_only(run: Run) -> None:
    from dataclasses import asdict

    assert json.dumps(asdict(run(COUNT + sink("fail"))))
