"""
Runs the steps of a pipeline in batches on the workers of an engine.

A task is a chain of steps for a batch of documents; `engines.batches` decides which, and where.
Each worker has the pipeline and the documents from the start (`PreparePipeline`), so a task names
them by their indexes, results stay on the workers, and the report of a task has only counts, short
texts and durations.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from warmset.engines.batches import RUN_ITEM, Batches
from warmset.engines.chains import ChainStep, Costs
from warmset.engines.errors import EngineError
from warmset.engines.worker import WorkResult
from warmset.family_keys import FamilyKey

from .command_error import CommandError
from .pipeline_calls import StepCaller, Tally
from .pipeline_classes import registered_name
from .pipeline_steps import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from warmset.engines.batches import Task
    from warmset.engines.chains import Plan
    from warmset.engines.cluster import Work
    from warmset.engines.worker import Worker
    from warmset.family_keys import SlotKey

    from .documents import Document
    from .pipeline_file import Pipeline
    from .pipeline_steps import Step
    from .run_options import RunOptions
    from .targets import EngineTarget, PreparePipeline

_REFRESH_SECONDS = 1.0  # between two updates of the set of workers


class BatchSpec(NamedTuple):
    """What a worker is sent."""

    run: int
    per_run: bool
    strict: bool
    steps: tuple[int, ...]
    items: tuple[int, ...]
    """The indexes of the documents, or `RUN_ITEM`."""
    keep: frozenset[str]
    """The steps whose results later tasks need."""
    shown: frozenset[str]
    """The steps whose results the client needs, because they are keys of families."""


class BatchReport(NamedTuple):
    """What a worker sends back."""

    tally: Tally
    call_seconds: dict[int, float]
    """Index of a step -> mean seconds of a call without its build."""
    build_seconds: dict[str, float]
    """Class or family in the pipeline file -> seconds of its last build."""
    shown: dict[int, dict[str, Any]]
    """Document -> step -> result."""


Results = dict[int, dict[str, Any]]  # document -> step -> result


# -- on the workers ------------------------------------------------------------------------------


def run_batch(worker: Worker, spec: BatchSpec, *inputs: Results) -> WorkResult:
    """
    Call a chain of steps for each document of a batch.

    Args:
        worker: The worker.
        spec: The steps and the documents.
        inputs: What earlier tasks have kept.

    Returns:
        The report, and the results that later tasks need.
    """
    prepared: PreparePipeline = worker.settings.prepare  # type: ignore[assignment]
    pipeline, documents = prepared.pipeline, prepared.documents
    timed = _TimedCalls(worker, pipeline, spec)
    caller = StepCaller(
        pipeline,
        documents,
        timed.call,
        run=spec.run,
        names=timed.names,
        strict=spec.strict,
        stopped=lambda: prepared.stopped_run >= spec.run,
    )
    steps = [pipeline.steps[index] for index in spec.steps]
    tally = Tally()
    kept: Results = {}
    shown: Results = {}
    for item in spec.items:
        results = _results_before(inputs, item)
        unavailable = _missing(steps, results)
        document = None if item == RUN_ITEM else documents[item]
        for index, step in zip(spec.steps, steps, strict=True):
            timed.index = index
            caller.process((step,), document, results, unavailable, tally)
            if spec.strict and tally.failed:
                break
        kept[item] = {name: results[name] for name in spec.keep if name in results}
        shown[item] = {name: results[name] for name in spec.shown if name in results}
        if prepared.stopped_run >= spec.run or (spec.strict and tally.failed):
            break
    report = BatchReport(tally, timed.call_seconds(), timed.build_seconds(), shown)
    return WorkResult(report, kept)


def stop_run(worker: Worker, number: int) -> None:
    """Let the tasks of a run end after the step that they are at."""
    prepared: PreparePipeline = worker.settings.prepare  # type: ignore[assignment]
    prepared.stopped_run = number


class _TimedCalls:
    """The calls of one task, and what each step takes."""

    def __init__(self, worker: Worker, pipeline: Pipeline, spec: BatchSpec) -> None:
        self.index = 0  # of the step that is called
        self.names = run_names(pipeline, spec.run if spec.per_run else None)
        self._worker = worker
        self._targets = {pipeline.steps[index].class_name for index in spec.steps}
        # Step -> number and seconds of the calls that found a warm instance, and of the others.
        self._warm: dict[int, tuple[int, float]] = {}
        self._cold: dict[int, tuple[int, float]] = {}

    def call(self, class_name: SlotKey, method: str, arguments: Mapping[str, Any]) -> Any:
        warm = self._worker.is_warm(class_name)
        began = time.perf_counter()
        try:
            return self._worker.call(class_name, method, arguments)
        finally:
            seconds = time.perf_counter() - began
            times = self._warm if warm else self._cold
            if not warm:
                seconds = max(0.0, seconds - self._worker.start_seconds(class_name))
            count, total = times.get(self.index, (0, 0.0))
            times[self.index] = count + 1, total + seconds

    def call_seconds(self) -> dict[int, float]:
        """Return the mean of each step, of the calls without a build if there are some."""
        return {
            index: total / count for index, (count, total) in {**self._cold, **self._warm}.items()
        }

    def build_seconds(self) -> dict[str, float]:
        """Return the last build of each class of the task, by its name in the pipeline file."""
        built = self._worker.times()[1]
        return {
            name: built[self.names[name]] for name in self._targets if self.names[name] in built
        }


def run_names(pipeline: Pipeline, run: int | None) -> dict[str, str]:
    """Return class name in the pipeline file -> its name in the registry."""
    return {name: registered_name(name, run) for name in pipeline.target_paths}


def _results_before(inputs: Sequence[Results], item: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for each in inputs:
        results.update(each.get(RUN_ITEM, {}))
        results.update(each.get(item, {}))
    return results


def _missing(steps: Sequence[Step], results: Mapping[str, Any]) -> set[str]:
    """Return the steps of earlier tasks that have no result, as they failed or were skipped."""
    own = {step.name for step in steps}
    return {need for step in steps for need in step.needs} - own - results.keys()


# -- in the client -------------------------------------------------------------------------------


class BatchedRuns:
    """
    The runs of a pipeline on the workers of an engine.

    Args:
        target: The workers.
        pipeline: The pipeline.
        documents: The documents.
        options: The options of the runs.
        on_step: Called after each step, including skipped ones.
    """

    def __init__(
        self,
        target: EngineTarget,
        pipeline: Pipeline,
        documents: Sequence[Document],
        options: RunOptions,
        on_step: Callable[[], None],
    ) -> None:
        self._target = target
        self._cluster = target.cluster
        self._pipeline = pipeline
        self._documents = documents
        self._options = options
        self._on_step = on_step
        self._steps = [_chain_step(step) for step in pipeline.steps]
        keyed = [step.key for step in pipeline.steps if step.key is not None]
        self._shown = frozenset(name for key in keyed for name in _step_references(key))
        # What the next run is planned with.
        self._costs = Costs()
        self._plan: Plan | None = None
        self._warm = False
        self._values: Results = {}  # of this run, for the keys of families

    def run(self, number: int) -> Iterator[Tally]:
        """
        Run the pipeline once.

        Args:
            number: The number of the run.

        Yields:
            The counts of each task.
        """
        limit = self._pipeline.settings.max_cache_size
        batches = Batches(
            self._steps,
            len(self._documents),
            self._cluster.router,
            costs=self._costs,
            key_of=self._key_of,
            warm=[step.target for step in self._steps if step.key is None] if self._warm else (),
            max_classes=limit if isinstance(limit, int) else None,
            max_tasks=self._options.workers,
            previous=self._plan,
        )
        works: dict[Work, Task] = {}
        self._values = {}
        try:
            # A loop in this block could leave it without its handler, by an interrupt at a jump.
            yield from self._tasks(number, batches, works)
        except BaseException:
            # A running step cannot be interrupted; tasks that have not started are cancelled.
            with suppress(Exception):
                self._cluster.cancel(works)
                self._cluster.on_each_worker(stop_run, number)
            raise
        self._plan = batches.plan
        self._warm = not self._options.clear

    def _tasks(self, number: int, batches: Batches, works: dict[Work, Task]) -> Iterator[Tally]:
        """Send the tasks of a run, and end them; `works` has those that were sent."""
        refreshed = float("-inf")
        while not batches.finished:
            if time.monotonic() - refreshed > _REFRESH_SECONDS:
                self._refresh()
                refreshed = time.monotonic()
            if not works and not self._cluster.router.workers():
                raise CommandError("the engine has no workers")
            for task in batches.take():
                works[self._send(task, number)] = task
            for work in self._cluster.wait(works):
                tally = self._end(number, batches, work, works.pop(work))
                yield tally
                if tally.failed and self._options.strict:
                    batches.stop()
                    self._cluster.on_each_worker(stop_run, number)

    def _refresh(self) -> None:
        try:
            self._cluster.refresh()
        except EngineError as error:
            raise CommandError(str(error)) from error

    def _send(self, task: Task, number: int) -> Work:
        names = {self._steps[index].name for index in task.steps}
        for index in task.steps:
            self._target.note_class(task.worker, self._steps[index].target)
        spec = BatchSpec(
            number,
            self._options.per_run,
            self._options.strict,
            task.steps,
            task.items,
            task.keep,
            self._shown & names,
        )
        work: Work = self._cluster.run(
            task.worker,
            run_batch,
            (spec, *task.inputs),
            class_name=self._steps[task.steps[0]].target,
            keep=bool(task.keep),
        )
        return work

    def _end(self, number: int, batches: Batches, work: Work, task: Task) -> Tally:
        try:
            report: BatchReport = work.result()
        except Exception as error:
            # The error is of the task and not of a step, for example because a step kills its
            # worker each time. The other documents of the batch are not to share its fate.
            if batches.split(task):
                return Tally()
            tally, results = self._run_alone(number, task, error)
            batches.done(task, kept=results)
        else:
            tally = report.tally
            for item, values in report.shown.items():
                if values:
                    self._values.setdefault(item, {}).update(values)
            batches.done(
                task,
                call_seconds=report.call_seconds,
                build_seconds=report.build_seconds,
                kept=work.kept,
            )
        for _ in range(tally.calls + tally.skipped):
            self._on_step()
        return tally

    def _run_alone(self, number: int, task: Task, error: Exception) -> tuple[Tally, Results]:
        """Call the steps of a task of one document one by one, to find the one that fails."""
        (item,) = task.items
        document = None if item == RUN_ITEM else self._documents[item]
        steps = [self._pipeline.steps[index] for index in task.steps]
        caller = StepCaller(
            self._pipeline,
            self._documents,
            self._target.call,
            run=number,
            names=run_names(self._pipeline, number if self._options.per_run else None),
            strict=self._options.strict,
            stopped=lambda: False,
        )
        tally = Tally()
        try:
            inputs = [
                each if isinstance(each, dict) else self._cluster.fetch(each)
                for each in task.inputs
            ]
        except Exception:
            # What it needs cannot be sent or was lost for good: the first step fails with that.
            tally.calls = 1
            tally.note(caller.failure(steps[0], document, error), type(error).__qualname__)
            tally.skipped = len(steps) - 1
            return tally, {item: {}}
        results = _results_before(inputs, item)
        caller.process(steps, document, results, _missing(steps, results), tally)
        self._values.setdefault(item, {}).update(
            {name: results[name] for name in self._shown if name in results}
        )
        return tally, {item: {name: results[name] for name in task.keep if name in results}}

    def _key_of(self, step_index: int, item: int) -> SlotKey | None:
        step = self._pipeline.steps[step_index]
        values = {**self._values.get(RUN_ITEM, {}), **self._values.get(item, {})}
        caller = StepCaller(
            self._pipeline,
            self._documents,
            self._target.call,
            run=0,
            names={},
            strict=False,
            stopped=lambda: False,
        )
        document = None if item == RUN_ITEM else self._documents[item]
        try:
            return FamilyKey(step.class_name, caller.bind_key(step.key, document, values))
        except (KeyError, TypeError):
            return None  # the step it comes from failed, or the result is no key: see the worker


def _chain_step(step: Step) -> ChainStep:
    target: SlotKey = step.class_name
    key = None
    if step.key is not None:
        if _has_references(step.key):
            key = repr(step.key)
        else:
            target = FamilyKey(step.class_name, step.key)
    return ChainStep(step.name, target, step.needs, key, step.per_document)


def _has_references(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_has_references, value))
    return isinstance(value, Reference)


def _step_references(value: Any) -> Iterator[str]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _step_references(part)
    elif isinstance(value, Reference) and value.scope == "steps":
        yield value.name
