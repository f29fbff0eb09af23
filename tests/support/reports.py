"""Reports of invented runs, with any number of runs, classes and spans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmset.cli.html_report import Recorder
from warmset.cli.html_report.page import make_page
from warmset.cli.pipeline_calls import Failure, FailureGroup
from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import Outcome, RunRecord
from warmset.cli.run_options import RunOptions
from warmset.cli.verdict import judge
from warmset.events import RemovalCause, RemovalEvent
from warmset.planning.plan import Plan, Unused
from warmset.testing import FakeTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MB = 1_000_000


class Told:
    """The part of a registry that a recorder uses: it has listeners, and a plan without builds."""

    max_size = 100

    def now(self) -> float:
        return 0.0

    def plan(self, *, window_seconds: float = 3600.0) -> Plan:
        return Plan(0.0, 0, 0.0, (), (), Unused(0, 0, 0.0), None, ())

    def __init__(self) -> None:
        self.listeners: list[Callable[[RemovalEvent], Any]] = []

    def add_listener(self, listener: Callable[[RemovalEvent], Any]) -> None:
        self.listeners.append(listener)

    def remove(
        self,
        name: str,
        cause: RemovalCause = RemovalCause.CLEARED,
        *,
        age: float = 1.0,
        build: float = 0.1,
        uses: int = 3,
        held: bool = False,
    ) -> None:
        for listener in self.listeners:
            listener(RemovalEvent(name, cause, age, 0.0, uses, build, held))


def recorded(
    names: Sequence[str],
    runs: int,
    *,
    spans: int = 1,
    causes: Sequence[RemovalCause] = (RemovalCause.CLEARED,),
    **options: Any,
) -> Recorder:
    """Return a recorder with so many builds and removals of each class in each run."""
    timer, registry = FakeTimer(), Told()
    recorder = Recorder(names, timer=timer, **options)
    recorder.watch(registry)  # type: ignore[arg-type]
    turn = 0
    for run in range(1, runs + 1):
        recorder.on_run(run)
        for _ in range(spans):
            timer.advance(2.0)
            for at, name in enumerate(names):
                cause = causes[turn % len(causes)]
                registry.remove(name, cause, age=1.0 + at % 7 / 10, build=0.002 * (1 + at % 90))
                turn += 1
        timer.advance(0.5)
    return recorder


def record(run: int, rss_mb: float = 100.0, first_mb: float = 100.0, **changes: Any) -> RunRecord:
    """One run that went well."""
    numbers: dict[str, Any] = {
        "run": run,
        "complete": True,
        "seconds": 1.5,
        "calls": 10,
        "failed": 0,
        "skipped": 0,
        "rss_before_clear_bytes": round((rss_mb + 30) * MB),
        "rss_bytes": round(rss_mb * MB),
        "growth_bytes": round((rss_mb - first_mb) * MB),
        "hits": 9,
        "misses": 1,
        "evictions": 0,
        "cached": 1,
    }
    return RunRecord(**{**numbers, **changes})


def outcome(records: Sequence[RunRecord], failures: Sequence[Failure] = (), **changes: Any) -> Any:
    """An outcome of these runs."""
    values: dict[str, Any] = {
        "records": tuple(records),
        "failures": tuple(failures),
        "failure_groups": tuple(FailureGroup(failure, 1) for failure in failures),
        "failed": len(failures),
        "skipped": 0,
        "calls": 10 * len(records),
        "ended": "finished",
    }
    return Outcome(**{**values, **changes})


def pipeline(directory: Path, names: Sequence[str], name: str = "pipeline.toml", **registry: Any):  # type: ignore[no-untyped-def]
    """A pipeline that knows classes of these names."""
    import json

    classes = "".join(f'{json.dumps(name)} = "collections.OrderedDict"\n' for name in names)
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in registry.items())
    path = directory / name
    path.write_text(
        f"[registry]\n{settings}[classes]\n{classes}\n[[steps]]\n"
        f'class = {json.dumps(names[0])}\nmethod = "keys"\neach = "run"\n',
        encoding="utf-8",
    )
    return load_pipeline(path)


def page(
    directory: Path,
    names: Sequence[str],
    result: Any,
    recorder: Recorder,
    *,
    bound_mb: float = 20.0,
    name: str = "pipeline.toml",
    registry: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """The page of an outcome."""
    return make_page(
        pipeline(directory, names, name, **(registry or {})),
        5,
        RunOptions(**{"runs": len(result.records), **options}),
        result,
        judge(result, bound_mb),
        recorder,
    )
