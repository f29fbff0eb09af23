"""`warmset run --engine`: the same pipeline with the same results on the workers of an engine."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from array import array
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke

from warmset.cli import report
from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import Outcome, run_on
from warmset.cli.run_options import RunOptions
from warmset.cli.targets import EngineTarget, PreparePipeline, WorkerRecord
from warmset.cli.verdict import judge
from warmset.engines.affinity import Router
from warmset.engines.settings import WorkerSettings
from warmset.engines.worker import Worker, WorkResult, sum_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MB = 1_000_000
ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(not find_spec(package), reason=f"no {package}"))
    for name, package in (("dask", "distributed"), ("ray", "ray"))
]
CLASSES = """
import os

class Model:
    def __init__(self, factor=1):
        self.factor = factor
        self.load = bytearray(os.urandom(1000) * 3000)

    def score(self, text, more=()):
        return self.factor * len(text) + sum(more)

    def fail(self, name):
        if name.endswith("b.txt"):
            raise ValueError("no b")
        return name

class Ruled:
    def __init__(self, model, documents):
        self.model, self.documents = model, documents

    def describe(self, name, score):
        with open(os.environ["RESULTS"], "a", buffering=1) as results:
            kind = type(self.model).__name__
            results.write(f"{name} {score} {kind} {self.documents} {os.getpid()}\\n")

    def at_once(self, names, texts):
        return len(names) + sum(map(len, texts))

class Killer:
    def kill(self, name, file):
        if name.endswith("b.txt") and not os.path.exists(file):
            open(file, "w").close()
            os.kill(os.getpid(), 9)
        return name

def make(cls, registry, documents):
    return cls(registry.get_instance("Model"), len(documents))
"""
PIPELINE = """
[registry]
max_cache_size = 10
[classes]
Model = "engine_classes.Model"
Other = "engine_classes.Model"
Ruled = "engine_classes.Ruled"
Killer = "engine_classes.Killer"
[options]
Model.kwargs = { factor = 3 }
Ruled.rule = "engine_classes.make"
[documents]
files = ["*.txt"]
[[steps]]
name = "all"
class = "Ruled"
method = "at_once"
each = "run"
arguments = { names = "$documents.names", texts = "$documents.texts" }
[[steps]]
name = "first"
class = "Model"
method = "score"
arguments = { text = "$document.text" }
[[steps]]
name = "second"
class = "Other"
method = "score"
arguments = { text = "$document.text", more = ["$steps.first", "$steps.all"] }
[[steps]]
class = "Ruled"
method = "describe"
arguments = { name = "$document.name", score = "$steps.second" }
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a pipeline, its classes and documents."""
    (tmp_path / "engine_classes.py").write_text(CLASSES)
    (tmp_path / "p.toml").write_text(PIPELINE)
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text(name * (ord(name) - 90))
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def forget_classes() -> Any:
    """Let the next test import its own module of classes."""
    yield
    sys.modules.pop("engine_classes", None)


def results(project: Path) -> tuple[list[str], set[str]]:
    """Return the sorted lines of the results file and the PIDs of their writers; delete it."""
    file = project / "results"
    lines = [line.rpartition(" ") for line in file.read_text().splitlines()]
    file.unlink()
    return sorted(line[0] for line in lines), {line[2] for line in lines}


# -- on workers in this process ------------------------------------------------------------------


class Done:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work

    def result(self) -> Any:
        return self._work()


class DoneWork:
    def __init__(self, outcome: WorkResult | None, error: Exception | None = None) -> None:
        self._outcome, self._error = outcome, error

    @property
    def kept(self) -> Any:
        return None if self._outcome is None else self._outcome.kept

    def result(self) -> Any:
        if self._outcome is None:
            assert self._error is not None
            raise self._error
        return self._outcome.report


class LocalCluster:
    """A cluster whose workers are registries in this process, with made-up PIDs."""

    def __init__(self, settings: WorkerSettings, names: Sequence[str] = ("w0", "w1")) -> None:
        self.settings = settings
        self.workers_by_name = {name: Worker(name, settings) for name in names}
        self.pids = {name: at for at, name in enumerate(names)}
        self.grow: dict[str, int] = {}
        self.closed = False
        self.router = Router(dict.fromkeys(names, 1))
        self.tasks: list[tuple[str, Any]] = []
        self.cancelled = 0
        self.before_task: Callable[[Any], None] = lambda spec: None

    def refresh(self) -> None:
        pass

    def run(
        self, worker: str, function: Any, arguments: Any, *, class_name: Any, keep: bool
    ) -> DoneWork:
        self.tasks.append((worker, arguments[0]))
        try:
            # As on a worker: only copies of the specification and of the report travel.
            self.before_task(arguments[0])
            spec = pickle.loads(pickle.dumps(arguments[0]))
            outcome = function(self.workers_by_name[worker], spec, *arguments[1:])
            assert keep or not any(outcome.kept.values())
            return DoneWork(outcome._replace(report=pickle.loads(pickle.dumps(outcome.report))))
        except Exception as error:
            return DoneWork(None, error)

    def wait(self, works: Any) -> list[Any]:
        works = list(works)
        assert works
        return works[:1]

    def fetch(self, kept: Any) -> Any:
        return kept

    def cancel(self, works: Any) -> None:
        self.cancelled += len(list(works))

    def submit(self, class_name: str, method_name: str, arguments: Mapping[str, Any]) -> Done:
        names = sorted(self.workers_by_name)
        worker = self.workers_by_name[names[ord(class_name[0]) % len(names)]]
        return Done(lambda: worker.call(class_name, method_name, arguments))

    def on_each_worker(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        reports = {}
        for name, worker in self.workers_by_name.items():
            reports[name] = function(worker, *arguments)
            if reports[name] is None:
                continue
            reports[name]["pid"] = self.pids[name]
            reports[name]["rss_bytes"] = 100 * MB + self.grow.get(name, 0)
            reports[name]["rss_before_clear_bytes"] = 110 * MB
        return reports

    def stats(self) -> Any:
        return sum_stats(worker.stats() for worker in self.workers_by_name.values())

    def workers(self) -> list[str]:
        return list(self.workers_by_name)

    def lose(self, name: str, pid: int) -> None:
        self.workers_by_name[name].close()
        self.router.mark_cold(name)
        self.workers_by_name[name], self.pids[name] = Worker(name, self.settings), pid

    def close(self) -> None:
        self.closed = True
        for worker in self.workers_by_name.values():
            worker.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def run(project: Path, *, on_run: Any = None, **options: Any) -> tuple[Outcome, LocalCluster]:
    from warmset.cli.documents import load_documents

    pipeline = load_pipeline(project / "p.toml")
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    chosen = RunOptions(**{"runs": 3, "trim": False, **options})
    prepare = PreparePipeline(
        pipeline,
        documents,
        runs=chosen.runs if chosen.per_run else 0,
        trim=chosen.trim,
        import_path=[],
    )
    cluster = LocalCluster(WorkerSettings({}, settings=pipeline.settings, prepare=prepare))
    on_run = (lambda number: None) if on_run is None else on_run(cluster)
    target = EngineTarget(cluster, pipeline, chosen)
    return run_on(target, pipeline, documents, chosen, on_run=on_run), cluster


@pytest.mark.parametrize("per_run", [False, True])
@pytest.mark.parametrize("workers", [1, 4])
def test_counts_are_sums_over_the_workers(project: Path, per_run: bool, workers: int) -> None:
    outcome, cluster = run(project, per_run=per_run, workers=workers)
    assert (outcome.calls, outcome.failed, outcome.ended) == (3 * 25, 0, "finished")
    assert cluster.closed
    assert [(row.run, row.worker) for row in outcome.workers] == [
        (number, name) for number in (1, 2, 3) for name in ("w0", "w1")
    ]
    for record in outcome.records:
        rows = [row for row in outcome.workers if row.run == record.run]
        for what in ("hits", "misses", "evictions", "cached", "rss_bytes", "growth_bytes"):
            assert getattr(record, what) == sum(getattr(row, what) for row in rows), what
        assert record.hits + record.misses == 26
        # The rule of Ruled looks a Model up on its worker, where it may be warm.
        assert record.misses == record.cached
        assert record.cached in (3, 4)
        assert record.rss_before_clear_bytes == 220 * MB
    lines, _ = results(project)
    assert len(lines) == 3 * 8
    assert lines[0].split()[2:] == ["Model", "8"]


def test_growth_is_judged_for_each_worker(project: Path) -> None:
    def grow(cluster: LocalCluster) -> Any:
        def on_run(number: int) -> None:
            cluster.grow = {"w0": number * MB, "w1": -number * 15 * MB if number == 3 else 0}

        return on_run

    outcome, _ = run(project, on_run=grow)
    verdict = judge(outcome, 1.5)
    assert (verdict.status, verdict.max_growth_bytes, verdict.max_growth_run) == ("fail", 2 * MB, 3)
    assert "at worst +2.0 MB from run 1, at run 3, w0 (bound 1.5 MB for each)" in verdict.text
    assert judge(outcome, 2.0).status == "pass"


def test_a_replaced_worker_is_not_counted_as_growth(project: Path) -> None:
    def lose(cluster: LocalCluster) -> Any:
        def on_run(number: int) -> None:
            if number == 2:
                cluster.lose("w1", pid=77)
                cluster.grow["w1"] = 50 * MB

        return on_run

    outcome, _ = run(project, on_run=lose)
    assert [row.new for row in outcome.workers] == [False, False, False, True, False, False]
    assert [record.growth_bytes for record in outcome.records] == [0, 0, 0]
    assert all(row.hits >= 0 for row in outcome.workers)
    assert judge(outcome, 1.0).status == "pass"
    text = io.StringIO()
    report.print_workers(outcome.workers, text)
    lines = text.getvalue().splitlines()
    assert [line.split()[:2] for line in lines[3:6]] == [["w0", "0"], ["w1", "1*"], ["w1", "77+"]]
    assert "lost before the last run ended" in text.getvalue()
    assert "its growth is counted from its own first run" in text.getvalue()


def test_growth_is_counted_from_the_run_that_gave_a_worker_further_classes(project: Path) -> None:
    """Its packages were imported then."""

    def move(cluster: LocalCluster) -> Any:
        def on_run(number: int) -> None:
            if number == 2:
                (other,) = {"w0", "w1"} - {next(iter(cluster.router.placements()["Other"]))}
                cluster.grow[other] = 80 * MB
                for name in ("w0", "w1"):
                    if name != other:
                        cluster.router.remove_worker(name)

        return on_run

    outcome, _ = run(project, on_run=move)
    moved = [(row.run, row.moved) for row in outcome.workers if row.moved]
    assert moved == [(2, True)]
    assert [record.growth_bytes for record in outcome.records] == [0, 0, 0]
    assert judge(outcome, 1.0).status == "pass"
    text = io.StringIO()
    report.print_workers(outcome.workers, text)
    assert "= was given further classes after run 1" in text.getvalue()


def test_a_task_that_fails_as_a_whole_fails_one_document(project: Path) -> None:
    """For example because a document kills its worker each time."""

    def spoil(cluster: LocalCluster) -> Any:
        def before_task(spec: Any) -> None:
            if 1 in spec.items:
                raise OSError("the worker died")

        cluster.before_task = before_task
        cluster.submit = lambda *call: Done(broken)  # type: ignore[method-assign]
        return lambda number: None

    def broken() -> Any:
        raise OSError("the worker died")

    outcome, _ = run(project, runs=1, on_run=spoil)
    assert {failure.document for failure in outcome.failures} == {"b.txt"}
    assert {failure.error for failure in outcome.failures} == {"OSError: the worker died"}
    assert outcome.calls + outcome.skipped == 25
    lines, _ = results(project)
    assert sorted(line.split()[0] for line in lines) == [f"{name}.txt" for name in "acdefgh"]


def test_results_do_not_travel_through_the_client(project: Path) -> None:
    """A task names documents and steps; the report has no results."""
    outcome, cluster = run(project, runs=2)
    assert outcome.calls == 50
    for _, spec in cluster.tasks:
        assert len(pickle.dumps(spec)) < 400
    assert len(cluster.tasks) < 50


def test_an_interrupt_cancels_what_has_not_started(project: Path) -> None:
    def interrupt(cluster: LocalCluster) -> Any:
        def wait(works: Any) -> list[Any]:
            raise KeyboardInterrupt

        cluster.wait = wait  # type: ignore[method-assign]
        return lambda number: None

    outcome, cluster = run(project, on_run=interrupt)
    assert (outcome.ended, len(outcome.records)) == ("interrupted", 0)
    assert cluster.cancelled > 0
    assert cluster.closed
    assert cluster.settings.prepare.stopped_run == 1  # type: ignore[union-attr]


def test_keys_that_a_step_returns_choose_the_worker(project: Path) -> None:
    """Also if the result is no key, or its step fails: as in one process."""
    (project / "engine_classes.py").write_text(
        CLASSES
        + """
class Guesser:
    def guess(self, name):
        if name.startswith("a"):
            raise ValueError("no guess")
        return [1.5] if name.startswith("b") else "xyz"[ord(name[0]) % 3]
"""
    )
    text = PIPELINE.replace(
        'Killer = "engine_classes.Killer"', 'Guesser = "engine_classes.Guesser"'
    )
    text = (
        text.partition("[[steps]]")[0]
        + """
[families.Parser]
factory = "engine_classes.Model"
[[steps]]
name = "guess"
class = "Guesser"
method = "guess"
arguments = { name = "$document.name" }
[[steps]]
name = "parse"
class = "Parser"
key = "$steps.guess"
method = "fail"
arguments = { name = "$document.name" }
[[steps]]
class = "Ruled"
method = "describe"
arguments = { name = "$steps.parse", score = "$steps.guess" }
"""
    )
    (project / "p.toml").write_text(text)
    outcome, _ = run(project, runs=2)
    assert (outcome.calls, outcome.skipped) == (2 * (8 + 7 + 6), 2 * (1 + 2))
    assert {(failure.document, failure.step) for failure in outcome.failures} == {
        ("a.txt", "guess"),
        ("b.txt", "parse"),
    }
    assert len(results(project)[0]) == 12


def test_failures_and_skips_are_the_same_as_in_one_process(project: Path) -> None:
    score = 'method = "score"\narguments = { text = "$document.text" }'
    fail = 'method = "fail"\narguments = { name = "$document.name" }'
    text = PIPELINE.replace(score, fail, 1)
    text = text.replace('more = ["$steps.first", ', 'more = ["$steps.all", ')
    (project / "p.toml").write_text(text)
    outcome, _ = run(project, runs=1)
    assert (outcome.failed, outcome.failures[0].error) == (1, "ValueError: no b")
    outcome, _ = run(project, runs=3, strict=True)
    assert (outcome.ended, len(outcome.records)) == ("stopped", 1)


def test_the_ledger_receives_eight_numbers(project: Path) -> None:
    """In the order that `Target.finish` documents."""
    pipeline = load_pipeline(project / "p.toml")
    cluster = LocalCluster(WorkerSettings(dict(pipeline.class_paths)))
    target = EngineTarget(cluster, pipeline, RunOptions())
    target.begin(1)
    ledger = array("q")
    target.finish(ledger, clear=True, trim=False)
    assert ledger.tolist()[:7] == [220 * MB, 200 * MB, 200 * MB, 0, 0, 0, 0]
    assert ledger[7] == sum(row.heap_free_bytes for row in target.workers)
    assert isinstance(target.workers[0], WorkerRecord)
    target.close()


# -- on real engines -----------------------------------------------------------------------------

MODULE = ("-m", "warmset.cli")
HASTY = """
import sys
from warmset.cli import main
from warmset.engines import {engine}
{engine}._CONNECT_SECONDS = 1.0
sys.exit(main())
"""


def run_process(
    engine: str | None, *words: str, program: Sequence[str] = MODULE
) -> tuple[int, str]:
    """Run the command in a subprocess, as a user does."""
    chosen = [] if engine is None else ["--engine", engine]
    process = subprocess.run(
        [sys.executable, *program, "run", "p.toml", *chosen, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        timeout=110,
    )
    return process.returncode, process.stdout


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_the_same_as_in_one_process(project: Path, engine: str) -> None:
    """Each class is built by one worker, except for the classes that a rule looks up."""
    assert run_process(None, "--runs", "2")[0] == 0
    wanted, _ = results(project)
    status, output = run_process(engine, "--runs", "2", "--json", "report.json")
    assert status == 0, output
    found, processes = results(project)
    assert found == wanted
    data = json.loads((project / "report.json").read_text())
    pids = {row["pid"] for row in data["workers"]}
    assert len(pids) == 2
    assert processes <= {str(pid) for pid in pids}
    assert [run["calls"] for run in data["runs"]] == [25, 25]
    assert all(3 <= run["misses"] <= 4 for run in data["runs"])
    assert (data["engine"]["name"], data["exit_status"]) == (engine, 0)
    assert f"engine {engine}" in output
    assert "PASS: RSS of all workers" in output


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_is_killed_loses_no_result(project: Path, engine: str) -> None:
    text = PIPELINE.replace(
        '[[steps]]\nclass = "Ruled"\nmethod = "describe"',
        '[[steps]]\nname = "kill"\nclass = "Killer"\nmethod = "kill"\n'
        f'arguments = {{ name = "$document.name", file = "{project}/killed" }}\n'
        '[[steps]]\nclass = "Ruled"\nmethod = "describe"',
    ).replace('name = "$document.name", score', 'name = "$steps.kill", score')
    (project / "p.toml").write_text(text)
    status, output = run_process(engine, "--runs", "2", "--max-growth-mb", "500")
    assert status == 0, output
    assert (project / "killed").exists()
    found, _ = results(project)
    # Possibly more: a call that had written its line before its worker died is repeated.
    assert len(set(found)) == 8
    assert len(found) >= 16
    assert " calls failed" not in output


def test_options_that_cannot_be_combined(project: Path) -> None:
    for words, text in (
        (["--address", "x"], "--address needs --engine"),
        (["--engine-workers", "2"], "--engine-workers needs --engine"),
        (["--engine", "dask", "--serve"], "--serve cannot be combined with --engine"),
        (["--engine", "ray", "--warm-up", "p"], "--warm-up cannot be combined with --engine"),
        (["--engine", "ray", "--report", "r.html"], "--report cannot be combined with --engine"),
        (["--engine", "dask", "--address", "x", "--engine-workers", "2"], "has its own workers"),
        (["--engine", "spark"], "'spark' is not one of 'dask', 'ray'"),
    ):
        status, output = invoke("run", "p.toml", *words)
        assert status == 2, output
        assert text in output


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ENGINES)
def test_no_cluster_at_the_address(project: Path, engine: str) -> None:
    address = {"dask": "tcp://127.0.0.1:9", "ray": "127.0.0.1:9"}[engine]
    program = ("-c", HASTY.format(engine=engine))
    status, output = run_process(engine, "--address", address, program=program)
    assert status == 2
    assert f"warmset: --engine {engine}: cannot reach a" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_an_engine_that_is_not_installed(
    project: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed" if engine == "dask" else "ray", None)
    for name in [n for n in sys.modules if n in ("warmset.engines.dask", "warmset.engines.ray")]:
        monkeypatch.delitem(sys.modules, name)
    status, output = invoke("run", "p.toml", "--engine", engine)
    assert status == 2
    assert f'pip install "warmset[{engine}]"' in output
