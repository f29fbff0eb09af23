"""`warmset.integrations.celery`, with a prefork worker over a broker in a directory."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import NAMES, One, make_registry

import warmset

if TYPE_CHECKING:
    from types import ModuleType

celery = pytest.importorskip("celery")


@pytest.fixture
def integration(ws: Any) -> ModuleType:
    from warmset.integrations import celery as module

    return module


# -- the decorator ---------------------------------------------------------------------------------


def test_a_task_holds_its_instances(ws: Any, integration: Any) -> None:
    """They are passed by keyword, and callers pass only the other arguments."""
    registry = make_registry(ws)
    app = celery.Celery("app", broker="memory://", set_as_current=False)

    @app.task(bind=True)
    @integration.leased(registry, first=One, second="Two")
    def work(self: Any, text: str, *, first: Any, second: Any, fail: bool = False) -> Any:
        """The documentation."""
        assert sorted(held.class_name for held in registry.holders()) == ["One", "Two"]
        registry.clear_cache()
        assert not first.closed
        assert not second.closed
        if fail:
            raise ValueError(text)
        return first.work(text), second.work(text)

    assert work("abc") == ("One abc", "Two abc")
    assert list(inspect.signature(work.run).parameters) == ["text", "fail"]
    assert work.__doc__ == "The documentation."
    with pytest.raises(TypeError):
        work.delay()  # Celery checks the arguments
    result = work.apply(args=["no"], kwargs={"fail": True})
    assert isinstance(result.result, ValueError)
    assert registry.holders() == []


def test_a_parameter_that_the_task_lacks(ws: Any, integration: Any) -> None:
    registry = make_registry(ws)
    with pytest.raises(TypeError, match=r"work\(text\) has no parameter 'model'"):

        @integration.leased(registry, model="One")
        def work(text):  # type: ignore[no-untyped-def]
            pass

    with pytest.raises(TypeError, match="a class name must be a str"):
        integration.leased(registry, model=3)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_worker_in_one_process(ws: Any, integration: Any, pool: str) -> None:
    """The worker warms up when it starts, and closes the registry at its end."""
    from celery import signals

    registry = make_registry(ws, max_cache_size=5)
    integration.setup_worker(registry, warm_up=["Two"])
    integration.setup_worker(registry, warm_up=["One", "Broken"])  # in place of the other one
    built = __import__("threading").Event()
    registry.add_build_listener(lambda event: built.set() if event.class_name == "Broken" else None)

    class Consumer:
        class pool:  # noqa: N801
            pass

    if pool == "solo":
        signals.worker_process_init.send(sender=None)
    else:
        signals.worker_ready.send(sender=Consumer())
    assert built.wait(60.0)
    signals.worker_shutdown.send(sender=None)
    assert registry.closed
    assert registry.stats().builds == 1


# -- a worker with two processes -------------------------------------------------------------------

TASKS = """
import json
import os

import warmset
from celery import Celery, signals
from serving import Model, make_registry
from warmset.integrations import celery as integration

here = os.environ["DIRECTORY"]
app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{here}/results")
app.conf.broker_transport_options = {
    "data_folder_in": f"{here}/queue", "data_folder_out": f"{here}/queue",
    "control_folder": f"{here}/control",
}
app.conf.update(worker_max_tasks_per_child=60, broker_connection_retry_on_startup=False)
registry = make_registry(warmset, max_cache_size=2)
registry.register("Shared", "serving.Model", pin=True)
registry.get_instance("Shared")  # before the fork: it belongs to the main process
integration.setup_worker(registry, warm_up=["One"])


@app.task
@integration.leased(registry, model="One")
def one(*, model):
    return model.work("abc"), os.getpid()


@app.task
@integration.leased(registry, model="Two", shared="Shared")
def two(*, model, shared):
    shared.work("abc")
    return model.work("abc"), os.getpid()


@app.task
def three():
    with registry.use("Three") as model:
        return model.work("abc"), os.getpid()


@signals.worker_process_shutdown.connect(weak=False)
def report(**_):
    data = {
        "core": warmset.implementation,
        "faults": Model.faults,
        "inherited_closed": Model.made[0].closed,
        "built": len(Model.made) - 1,
        "closed": sum(model.closed for model in Model.made),
        "states": dict(registry.stats().states),
    }
    with open(f"{here}/reports/{os.getpid()}.json", "w") as file:
        json.dump(data, file)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="prefork needs fork")
@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_two_worker_processes(tmp_path: Path, core: str, pytestconfig: pytest.Config) -> None:
    """No task fails while instances are evicted and rebuilt; each process closes its own."""
    if core == "compiled" and pytestconfig.getoption("--pure-only"):
        pytest.skip("the compiled core is not tested")
    for folder in ("queue", "control", "results", "reports"):
        (tmp_path / folder).mkdir()
    (tmp_path / "celery_tasks.py").write_text(TASKS)
    (tmp_path / "send.py").write_text(
        "import json\n"
        "from celery_tasks import one, three, two\n"
        "sent = [(one, two, three)[at % 3].delay() for at in range(150)]\n"
        "print(json.dumps([result.get(timeout=100, interval=0.05) for result in sent]))\n"
    )
    support = Path(__file__).resolve().parents[1] / "support"
    source = Path(warmset.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (source, support, tmp_path))),
        "WARMSET_PURE": "1" if core == "pure" else "0",
        "DIRECTORY": str(tmp_path),
    }
    words = ["-A", "celery_tasks", "worker", "-c", "2", "-l", "WARNING", "--without-gossip"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", *words, "--without-mingle", "--without-heartbeat"],
        cwd=tmp_path,
        env={**environment, "C_FORCE_ROOT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        sender = subprocess.run(
            [sys.executable, "send.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
        )
    finally:
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=60)
    assert sender.returncode == 0, sender.stderr + output
    answers = json.loads(sender.stdout)
    assert [result for result, _ in answers] == [f"{NAMES[at % 3]} abc" for at in range(150)]
    reports = [json.loads(file.read_text()) for file in (tmp_path / "reports").glob("*.json")]
    processes = {process for _, process in answers}
    assert len(processes) >= 3, output  # some were replaced
    assert len(reports) >= 2, output  # Celery kills a child that is slow to end; it reports nothing
    for report in reports:
        assert (report["core"], report["faults"]) == (core, [])
        assert not report["inherited_closed"]
        assert report["built"] == report["closed"] == report["states"]["closed"]
        assert report["states"]["parents"] == 1
    assert sum(report["built"] for report in reports) >= 20
