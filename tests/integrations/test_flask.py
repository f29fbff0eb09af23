"""`warmset.integrations.flask`, with Flask, and with gunicorn and two preloaded workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import HOST, NAMES, One, Two, check_models, make_registry, request_all

import warmset

if TYPE_CHECKING:
    from types import ModuleType

flask = pytest.importorskip("flask")


@pytest.fixture
def integration(ws: Any) -> ModuleType:
    from warmset.integrations import flask as module

    return module


def make_app(integration: Any, registry: Any, **options: Any) -> Any:
    app = flask.Flask("app")
    integration.init_app(app, registry, **options)
    app.register_blueprint(integration.health_blueprint(registry))

    @app.get("/work/<name>")
    def work(name: str) -> Any:
        model = integration.leased(registry, name)
        again = integration.leased(registry, name)
        return {"result": model.work(again.work(flask.request.args["text"])[len(name) + 1 :])}

    return app


def test_an_instance_is_held_until_the_end_of_the_request(ws: Any, integration: Any) -> None:
    """By its class, or by its name; it is closed after the last of its requests."""
    registry = make_registry(ws)
    app = make_app(integration, registry)
    seen: list[Any] = []

    @app.get("/hold")
    def hold() -> str:
        model = integration.leased(registry, One)
        seen.extend(held.class_name for held in registry.holders())
        assert integration.leased(registry, "Two") is not model
        assert not model.closed
        raise ValueError("no")

    # As a server does, the client closes the response when it has been read.
    client = app.test_client()
    response = client.get("/hold", buffered=True)
    assert (response.status_code, seen) == (500, ["One"])
    assert registry.holders() == []
    response = client.get("/work/Three?text=abc", buffered=True)
    assert response.json == {"result": "Three abc"}
    with app.app_context():
        assert not integration.leased(registry, "Three").closed
        assert [held.class_name for held in registry.holders()] == ["Three"]
    app.testing = True  # errors propagate, and there is no response
    with pytest.raises(ValueError, match="no"):
        app.test_client().get("/hold")
    assert registry.holders() == []
    registry.close()
    check_models(registry, least_builds=3)


@pytest.mark.parametrize("with_context", [False, True])
def test_a_streamed_response_keeps_its_instance(
    ws: Any, integration: Any, with_context: bool
) -> None:
    """Until it was sent, which is after the end of the request."""
    registry = make_registry(ws)
    app = make_app(integration, registry)

    @app.get("/stream")
    def stream() -> Any:
        model = integration.leased(registry, Two)

        def generate() -> Any:
            registry.discard("Two")
            yield model.work("a")
            assert not model.closed

        generator = generate()
        return flask.stream_with_context(generator) if with_context else generator

    response = app.test_client().get("/stream")
    assert response.text == "Two a"
    response.close()
    assert registry.holders() == []
    registry.close()
    check_models(registry, least_builds=1)


def test_an_instance_that_is_not_available(ws: Any, integration: Any) -> None:
    registry = make_registry(ws, retry_after_seconds=7.5)
    client = make_app(integration, registry).test_client()
    for _ in range(2):
        response = client.get("/work/Broken?text=a")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "8")
        assert response.json == {"detail": "'Broken' is not available"}
    assert client.get("/work/Unknown?text=a").status_code == 500


def test_init_app_is_required(ws: Any, integration: Any) -> None:
    with flask.Flask("other").app_context(), pytest.raises(RuntimeError, match="init_app"):
        integration.leased(make_registry(ws), "One")


def test_warm_up_and_health_checks(ws: Any, integration: Any) -> None:
    registry = make_registry(ws, max_cache_size=5)
    client = make_app(integration, registry, warm_up=[One, "Two"]).test_client()
    assert client.get("/health/ready").json == {
        "status": "ready", "cached": 2, "max_cache_size": 5,
    }  # fmt: skip
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/findings").json == {"findings": []}
    registry.close()
    assert client.get("/health/live").status_code == 503
    assert client.get("/health/ready").json == {"status": "closed"}


# -- gunicorn --------------------------------------------------------------------------------------

APP = """
import json
import os

import warmset
from flask import Flask
from serving import Model, make_registry
from warmset.integrations import flask as integration

registry = make_registry(warmset, max_cache_size=2)
registry.register("Shared", "serving.Model", pin=True)
registry.register("Three", "serving.Three", after_fork="drop")
app = Flask("app")
# In the process that loads the application, before it forks.
integration.init_app(app, registry, warm_up=["Three", "Shared"])
app.register_blueprint(integration.health_blueprint(registry))

@app.get("/work/<name>")
def work(name):
    model = integration.leased(registry, name)
    return {"result": model.work("abc"), "pid": os.getpid()}


def report(directory):
    data = {
        "built": len(Model.made) - 2,
        "closed": sum(model.closed for model in Model.made[2:]),
        "inherited_closed": [model.closed for model in Model.made[:2]],
        "faults": Model.faults,
        "core": warmset.implementation,
        "states": dict(registry.stats().states),
    }
    with open(os.path.join(directory, f"{os.getpid()}.json"), "w") as file:
        json.dump(data, file)
"""
CONFIG = """
preload_app = True


def worker_exit(server, worker):
    import gunicorn_app

    gunicorn_app.registry.close_own()
    gunicorn_app.report({directory!r})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("core", ["compiled", "pure"])
def test_gunicorn_with_two_preloaded_workers(
    tmp_path: Path, core: str, pytestconfig: pytest.Config
) -> None:
    """No request fails while instances are evicted and rebuilt; each worker closes its own."""
    pytest.importorskip("gunicorn")
    httpx = pytest.importorskip("httpx")
    if core == "compiled" and pytestconfig.getoption("--pure-only"):
        pytest.skip("the compiled core is not tested")
    (tmp_path / "gunicorn_app.py").write_text(APP)
    config = CONFIG.replace("{directory!r}", repr(str(tmp_path)))
    (tmp_path / "gunicorn.conf.py").write_text(config)
    support = Path(__file__).resolve().parents[1] / "support"
    source = Path(warmset.__file__).parent.parent
    path = os.pathsep.join(map(str, (source, support, tmp_path)))
    environment = {**os.environ, "PYTHONPATH": path, "WARMSET_PURE": "1" if core == "pure" else "0"}
    with socket.create_server((HOST, 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        words = ["--workers=2", "--threads=4", f"--bind=fd://{number}", "gunicorn_app:app"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", *words],
            cwd=tmp_path,
            env=environment,
            pass_fds=(number,),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60.0) as client:
                assert client.get("/health/ready").status_code == 200
                answers = request_all(client, 300)
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
    assert [(status, body["result"]) for status, body in answers] == [
        (200, f"{NAMES[at % 3]} cba"[: len(NAMES[at % 3]) + 1] + "abc") for at in range(300)
    ], output
    reports = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    workers = {body["pid"] for _, body in answers}
    assert len(reports) == 2 >= len(workers), output
    for report in reports:
        assert (report["core"], report["faults"]) == (core, [])
        # What a worker has inherited belongs to the process that loaded the application.
        assert report["inherited_closed"] == [False, False]
        assert report["states"]["parents"] == 2
        assert report["built"] == report["closed"] == report["states"]["closed"]
    assert sum(report["built"] for report in reports) >= 20
