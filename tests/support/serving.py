"""Instances that note misuse, and servers and clients on the loopback interface."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
NAMES = ("One", "Two", "Three")
THREADS = 8


class Model:
    """Raises if it is used after it was closed, or is closed twice or during a use."""

    made: list[Model] = []  # noqa: RUF012
    faults: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.users = 0
        self.closed = False
        self._lock = threading.Lock()
        self.made.append(self)

    def work(self, text: str) -> str:
        with self._lock:
            self._check(not self.closed, "used after it was closed")
            self.users += 1
        for _ in range(50):  # long enough for others to evict it meanwhile
            text = text[::-1]
        with self._lock:
            self._check(not self.closed, "closed during its use")
            self.users -= 1
        return f"{type(self).__name__} {text}"

    def close(self) -> None:
        with self._lock:
            self._check(not self.closed, "closed twice")
            self._check(not self.users, "closed while it is used")
            self.closed = True

    def _check(self, condition: bool, text: str) -> None:
        if not condition:
            self.faults.append(text)
            raise AssertionError(text)


class One(Model):
    pass


class Two(Model):
    pass


class Three(Model):
    pass


class Broken:
    def __init__(self) -> None:
        raise OSError("no such model: /secret/path")


def make_registry(ws: Any, **options: Any) -> Any:
    """A registry with a bound of one, so that each request for another class evicts."""
    Model.made.clear()
    Model.faults.clear()
    registry = ws.MethodRegistry({}, **{"max_cache_size": 1, **options})
    for kind in (One, Two, Three, Broken):
        registry.register(kind)
    return registry


def check_models(registry: Any, *, least_builds: int) -> None:
    """After the registry was closed: everything was closed once, and nothing while it was used."""
    assert Model.faults == []
    assert registry.stats().builds == len(Model.made) >= least_builds
    assert [model for model in Model.made if not model.closed or model.users] == []
    states = registry.stats().states
    assert states["closed"] == len(Model.made), states


def request_all(client: Any, count: int, path: str = "/work") -> list[tuple[int, Any]]:
    """Send requests for all classes in turn, from several threads; returns status and body."""

    def one(at: int) -> tuple[int, Any]:
        response = client.get(f"{path}/{NAMES[at % len(NAMES)]}", params={"text": "abc"})
        return response.status_code, response.json()

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(count)))


@contextmanager
def uvicorn_server(app: Any) -> Iterator[Any]:
    """A client of a server that runs the application in another thread of this process."""
    import httpx
    import uvicorn

    config = uvicorn.Config(app, host=HOST, port=0, log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def startup_and_tell(*args: Any, **options: Any) -> None:
        try:
            await startup(*args, **options)
        finally:
            started.set()

    server.startup = startup_and_tell  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(60.0)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        limits = httpx.Limits(max_connections=THREADS)
        with httpx.Client(base_url=f"http://{HOST}:{port}", limits=limits, timeout=60.0) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(60.0)
        assert not thread.is_alive()
