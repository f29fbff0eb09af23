"""
Calls the steps of a pipeline for one document, in this process or on a worker of an engine.

It keeps only numbers and short texts of the calls: an instance or a traceback kept here would be
measured as growth of the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from warmset.family_keys import FamilyKey
from warmset.resolver import error_text

from .pipeline_steps import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .documents import Document
    from .pipeline_file import Pipeline
    from .pipeline_steps import Step

# Further failures are only counted: keeping all of them would be measured as growth.
MAX_FAILURES_KEPT = 100


@dataclass(frozen=True, slots=True)
class Failure:
    """
    A call that raised an error.

    Args:
        run: The number of the run.
        step: The name of the step.
        class_name: The class of the step.
        method: The method of the step.
        document: The name of the document; None for a step that is called once per run.
        error: The type and the text of the error.
    """

    run: int
    step: str
    class_name: str
    method: str
    document: str | None
    error: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """
    The failures of one step with one type of error.

    Args:
        first: The first of them.
        count: Their number.
    """

    first: Failure
    count: int


@dataclass(slots=True)
class Tally:
    """The counts of some calls; those of a run are the sum over its documents."""

    calls: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    # Step and type of error -> the first such failure, and how many there are.
    groups: dict[tuple[str, str], tuple[Failure, int]] = field(default_factory=dict)

    def note(self, failure: Failure, kind: str) -> None:
        """Count a failure; `kind` is the type of the error."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(failure)
        first, count = self.groups.get((failure.step, kind), (failure, 0))
        self.groups[failure.step, kind] = first, count + 1

    def add(self, other: Tally) -> None:
        """Add the counts of other calls."""
        self.calls += other.calls
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures[: MAX_FAILURES_KEPT - len(self.failures)]
        for key, (failure, more) in other.groups.items():
            first, count = self.groups.get(key, (failure, 0))
            self.groups[key] = first, count + more


class StepCaller:
    """
    Calls the steps of one run.

    Args:
        pipeline: The pipeline.
        documents: All documents.
        call: Called with a class name or `FamilyKey`, a method and its arguments.
        run: The number of the run.
        names: Class name in the pipeline file -> class name to call.
        strict: Whether the first failure ends `process`.
        stopped: Returns whether no further step is to be called.
        on_step: Called after each step, including skipped ones.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        documents: Sequence[Document],
        call: Callable[[Any, str, Mapping[str, Any]], Any],
        *,
        run: int,
        names: Mapping[str, str],
        strict: bool,
        stopped: Callable[[], bool],
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        # The results of all other steps are dropped at once.
        self._needed = frozenset().union(*(step.needs for step in pipeline.steps))
        self._documents = documents
        self._call = call
        self._run = run
        self._names = names
        self._strict = strict
        self._stopped = stopped
        self._on_step = on_step

    def process(
        self,
        steps: Sequence[Step],
        document: Document | None,
        results: dict[str, Any],
        unavailable: set[str],
        tally: Tally,
    ) -> None:
        """
        Call steps for one document.

        Args:
            steps: The steps, in order.
            document: The document; None for steps that are called once per run.
            results: The results of the steps before; receives those that other steps need.
            unavailable: The steps that failed or were skipped; updated.
            tally: Receives the counts.
        """
        for step in steps:
            if self._stopped():
                break
            if not unavailable.isdisjoint(step.needs):
                unavailable.add(step.name)
                tally.skipped += 1
                self._on_step()
                continue
            tally.calls += 1
            try:
                arguments = self._bind(step.arguments, document, results)
                target: Any = self._names[step.class_name]
                if step.key is not None:
                    target = FamilyKey(target, self.bind_key(step.key, document, results))
                result = self._call(target, step.method, arguments)
            except (Exception, SystemExit) as error:
                # SystemExit as well: a method that calls `sys.exit` must not stop the other steps.
                unavailable.add(step.name)
                tally.note(self.failure(step, document, error), type(error).__qualname__)
                if self._strict:
                    self._on_step()
                    break
            else:
                if step.name in self._needed:
                    results[step.name] = result
                del result
            self._on_step()

    def bind_key(self, value: Any, document: Document | None, results: Mapping[str, Any]) -> Any:
        """Return the key of a family for a document."""
        if isinstance(value, tuple):
            return tuple(self.bind_key(part, document, results) for part in value)
        bound = self._bind(value, document, results)
        return tuple(bound) if isinstance(bound, list) else bound

    def _bind(self, value: Any, document: Document | None, results: Mapping[str, Any]) -> Any:
        # Every call receives new lists and dicts, because a method may change its arguments.
        if isinstance(value, Reference):
            if value.scope == "steps":
                return results[value.name]
            if value.scope == "documents":
                name = "name" if value.name == "names" else "text"
                return [getattr(each, name) for each in self._documents]
            return getattr(document, value.name)
        if isinstance(value, list):
            return [self._bind(item, document, results) for item in value]
        if isinstance(value, dict):
            return {key: self._bind(item, document, results) for key, item in value.items()}
        return value

    def failure(self, step: Step, document: Document | None, error: BaseException) -> Failure:
        """Return the record of a failed call."""
        return Failure(
            run=self._run,
            step=step.name,
            class_name=step.class_name,
            method=step.method,
            document=None if document is None else document.name,
            error=error_text(error),
        )
