"""Each example runs, as its documentation says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import warmset

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TEXT = {"text": "Ada met Grace and Ada"}


def environment(**changes: str) -> dict[str, str]:
    source = Path(warmset.__file__).parent.parent
    path = os.pathsep.join(map(str, (source, EXAMPLES)))
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **changes}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens, for a server to serve: clients may connect before it does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def serve(listener: socket.socket, *words: str) -> Any:
    httpx = pytest.importorskip("httpx")
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=EXAMPLES,
        env=environment(),
        pass_fds=(listener.fileno(),),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    host, port = listener.getsockname()
    return process, httpx.Client(base_url=f"http://{host}:{port}", timeout=60.0)


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return output


def test_the_fastapi_service(listener: socket.socket) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    process, client = serve(listener, "uvicorn", f"--fd={listener.fileno()}", "fastapi_service:app")
    try:
        with client:
            assert client.get("/health/ready").json()["cached"] == 1
            assert client.get("/tags", params=TEXT).json() == ["Ada", "Grace", "Ada"]
            assert client.get("/report", params=TEXT).json() == {
                "tags": ["Ada", "Grace", "Ada"],
                "summary": ["ada", "met", "grace"],
            }
    finally:
        output = stop(process)
    assert "Application shutdown complete" in output


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_the_flask_service(listener: socket.socket) -> None:
    pytest.importorskip("flask")
    pytest.importorskip("gunicorn")
    bind = f"--bind=fd://{listener.fileno()}"
    process, client = serve(
        listener, "gunicorn", "--config=gunicorn.conf.py", bind, "flask_service:app"
    )
    try:
        with client:
            assert client.get("/health/live").status_code == 200
            assert client.get("/health/ready").json()["cached"] >= 1
            assert client.get("/tags", params=TEXT).json() == ["Ada", "Grace", "Ada"]
            assert client.get("/summary", params=TEXT).json() == ["ada", "met", "grace"]
    finally:
        output = stop(process)
    assert "Traceback" not in output


def test_the_celery_tasks(tmp_path: Path) -> None:
    """With a worker that runs tasks in its own process, over a broker in memory."""
    pytest.importorskip("celery")
    script = (
        "from celery.contrib.testing.worker import start_worker\n"
        "from celery_tasks import app, registry, summary, tags\n"
        "with start_worker(app, pool='solo', perform_ping_check=False):\n"
        "    results = [tags.delay('Ada met Grace').get(timeout=60),\n"
        "               summary.delay('a b a').get(timeout=60)]\n"
        "print(results, registry.stats().builds)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=EXAMPLES,
        env=environment(C_FORCE_ROOT="1"),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.stdout.splitlines()[-1:] == ["[['Ada', 'Grace'], ['a', 'b']] 2"], result.stderr


def test_the_process_pool() -> None:
    """With every start method of the platform."""
    import multiprocessing

    result = subprocess.run(
        [sys.executable, "process_pool.py"],
        cwd=EXAMPLES,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == multiprocessing.get_all_start_methods()
    for line in lines:
        assert "20 texts in " in line
        assert line.endswith("processes, ['Text', 'Ada', 'Grace']")


REVIEW = {"text": "The keyboard is great and the cable is good"}


def test_the_api_of_the_reviews(listener: socket.socket) -> None:
    """While the raters of both languages and the archive are evicted and built again."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    process, client = serve(listener, "uvicorn", f"--fd={listener.fileno()}", "reviews.api:app")
    try:
        with client:
            assert client.get("/health/ready").json()["cached"] == 2
            assert client.get("/language", params=REVIEW).json() == "en"
            for _ in range(2):
                answer = client.post("/reviews/en", params=REVIEW)
                assert answer.json() == {"rating": 3, "verdict": "good"}
            answer = client.post("/reviews/fr", params={"text": "La prise est casse"})
            assert answer.json() == {"rating": -2, "verdict": "bad"}
            assert client.get("/mean").json() == pytest.approx(4 / 3)
            assert client.post("/reviews/de", params=REVIEW).status_code == 422
    finally:
        output = stop(process)
    assert "Application shutdown complete" in output
    assert "Traceback" not in output


def run(*words: str, **changes: str) -> str:
    result = subprocess.run(
        [sys.executable, *words],
        cwd=EXAMPLES,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_tasks_of_the_reviews(tmp_path: Path) -> None:
    """They write to one archive on disk."""
    pytest.importorskip("celery")
    script = (
        "from celery.contrib.testing.worker import start_worker\n"
        "from reviews.tasks import app, registry, review\n"
        "with start_worker(app, pool='solo', perform_ping_check=False):\n"
        "    for text in ('The bag is great', 'Le sac est mauvais'):\n"
        "        print(review.delay(text).get(timeout=60))\n"
        "with registry.use('archive') as archive:\n"
        "    print(archive.mean())\n"
    )
    archive = str(tmp_path / "ratings")
    output = run("-c", script, C_FORCE_ROOT="1", REVIEWS_ARCHIVE=archive)
    assert output.splitlines()[-3:] == ["['en', 'good']", "['fr', 'bad']", "0.5"]


def test_the_batch_of_the_reviews() -> None:
    files = sorted(map(str, (EXAMPLES / "reviews" / "data").glob("*.txt")))
    assert run("-m", "reviews.batch", *files).splitlines() == [
        "bag.txt en -1 bad",
        "clavier.txt fr -3 bad",
        "keyboard.txt en +3 good",
        "6 builds for 12 look-ups",
    ]


@pytest.mark.parametrize("service", ["reviews", "invoices"])
def test_the_pipelines(service: str) -> None:
    pytest.importorskip("rich")
    pipeline = str(EXAMPLES / service / "pipeline.toml")
    arguments = (pipeline, "--app-dir", str(EXAMPLES))
    assert "are valid" in run("-m", "warmset", "check", *arguments)
    assert "PASS" in run("-m", "warmset", "run", *arguments, "--runs", "6")


def test_the_api_of_the_invoices(listener: socket.socket) -> None:
    """Models of four languages pass through two places; stale rates are built again."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    process, client = serve(listener, "uvicorn", f"--fd={listener.fileno()}", "invoices.api:app")
    words = {"en": "Invoice", "de": "Rechnung", "fr": "Facture", "it": "Fattura"}
    try:
        with client:
            # The processor with its engine and its pool, the client, and a model.
            assert client.get("/health/ready").json()["cached"] == 5
            for number in range(20):
                language = list(words)[number % 4]
                image = f"{words[language]} {number} USD 10.0"
                answer = client.post(f"/invoices/{language}", params={"image": image})
                assert answer.json() == {"number": str(number), "euro": 9.0, "language": language}
                if number % 5 == 0:
                    assert client.post("/rates/stale").status_code == 200
            assert client.get("/rates").json() == {"USD": 0.91}
            assert client.get("/count").json() == 20
    finally:
        output = stop(process)
    assert "Application shutdown complete" in output
    assert "Traceback" not in output


def test_the_tasks_of_the_invoices() -> None:
    pytest.importorskip("celery")
    script = (
        "from celery.contrib.testing.worker import start_worker\n"
        "from invoices.tasks import app, book\n"
        "with start_worker(app, pool='solo', perform_ping_check=False):\n"
        "    print(book.delay('fr', 'Facture 7 CHF 10.0').get(timeout=60))\n"
    )
    output = run("-c", script, C_FORCE_ROOT="1")
    assert output.splitlines()[-1] == "{'number': '7', 'euro': 10.5, 'language': 'fr'}"


def test_every_example_is_run() -> None:
    """By one of the tests above; the others are read by them."""
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        if path.name != "text_models.py":
            assert path.stem in source, path.name


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if not path.name.startswith((".", "__", "README")) and path.suffix != ".dockerignore":
            assert f"]({path.name})" in index, path.name
