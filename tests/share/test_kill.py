"""A process is killed at each step of publishing: others open what is complete, or build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")
TOTAL = sum(range(10_000))

# For each line, publishes in a forked child, which is killed before its Nth call of `os` by the
# modules of the store; answers with the status of the child and the calls that it made.
DRIVER = """
import os
import signal
import sys
import types

import warmset
from warmset.share import DirectoryStore, claims, directory, files

STEPS = ("open", "unlink", "utime", "fsync", "replace", "mkdir", "listdir")
calls = []


def step(name):
    calls.append(name)
    if len(calls) == deadly:
        os.kill(os.getpid(), signal.SIGKILL)


class Counting(types.ModuleType):
    def __getattr__(self, name):
        found = getattr(os, name)
        if name not in STEPS:
            return found

        def call(*arguments, **named):
            step(name)
            return found(*arguments, **named)

        return call


def write_by_halves(stream, piece, write=directory._write):
    for part in (piece[: len(piece) // 2], piece[len(piece) // 2 :]):
        write(stream, part)
        step("write")


def publish():
    with warmset.MethodRegistry({}, store=DirectoryStore(sys.argv[1])) as registry:
        registry.register("Table", "shared_samples.Table", shareable=True)
        registry.get_instance("Table")


publish()  # imports everything
directory._write = write_by_halves
for module in (claims, directory, files):
    module.os = Counting("os")
print("ready", flush=True)
for line in sys.stdin:
    deadly = int(line)
    result, end = os.pipe()
    pid = os.fork()
    if not pid:
        publish()
        os.write(end, " ".join(calls).encode())
        os._exit(0)
    os.close(end)
    _, status = os.waitpid(pid, 0)
    print(status, os.read(result, 100_000).decode(), flush=True)
    os.close(result)
"""


@pytest.fixture
def publish(tmp_path: Path, notes: Any) -> Iterator[Callable[[int], tuple[int, list[str]]]]:
    """Publishes in a process that is killed at a step; its status, and the calls of a whole run."""
    support = os.path.join(os.path.dirname(os.path.dirname(__file__)), "support")
    search = os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": search},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"

        def publish(deadly: int) -> tuple[int, list[str]]:
            assert driver.stdin is not None
            assert driver.stdout is not None
            driver.stdin.write(f"{deadly}\n")
            driver.stdin.flush()
            status, *calls = driver.stdout.readline().split()
            return int(status), calls

        yield publish
        driver.kill()


@pytest.mark.parametrize("existing", [False, True])
def test_each_step_of_a_directory_store(
    share: Any, sharing: Any, tmp_path: Path, publish: Any, existing: bool
) -> None:
    """What is left is removed, no lock remains, and a damaged snapshot is never found."""
    store = share.DirectoryStore(tmp_path / "store")
    (file,) = os.listdir(store.own_path)
    path = os.path.join(store.own_path, file)
    with open(path, "rb") as stream:
        damaged = stream.read()[:-1]

    def prepare() -> None:
        store.clear()
        if existing:  # one that the process replaces
            with open(path, "wb") as stream:
                stream.write(damaged)

    prepare()
    status, calls = publish(0)
    assert status == 0
    assert {"write", "fsync", "replace", "unlink", "utime", "open"} <= set(calls)
    for deadly in range(1, len(calls) + 1):
        prepare()
        status, _ = publish(deadly)
        assert status == signal.SIGKILL
        registry = sharing(store=store)
        assert registry.get_instance("Table").total() == TOTAL
        stats = registry.snapshot_stats()
        assert (stats.opened, stats.waited, stats.unused) == (1, 0, 0)
        assert stats.damaged <= existing
        store.trim()
        assert os.listdir(store.own_path) == [file]


class Killed(BaseException):
    """Ends the publishing process."""


class Mortal:
    """A client whose process ends before its Nth command."""

    def __init__(self, client: Any, deadly: int) -> None:
        self.client, self.left = client, deadly

    def __getattr__(self, name: str) -> Any:
        self.left -= 1
        if not self.left:
            raise Killed
        return getattr(self.client, name)


Mortal.__module__ = "valkey"  # whose errors the store expects


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("max_age_seconds", [0.0, 1000.0])
def test_each_step_of_a_store_on_a_server(
    share: Any, existing: bool, max_age_seconds: float, notes: Any
) -> None:
    """Others find nothing, the old snapshot or the new one; what belongs to none expires."""
    valkey = pytest.importorskip("valkey")
    if servers.program() is None:
        pytest.skip("there is no valkey-server and no redis-server")
    key, old, new = b"k" * 32, b"old" * 3_000_000, b"new" * 3_000_000
    options = {"key": key, "max_age_seconds": max_age_seconds, "lease_seconds": 1000.0}
    with servers.server() as path, valkey.Valkey(unix_socket_path=path) as client:
        whole = share.ValkeyStore(f"unix://{path}", client=client, **options)
        for deadly in range(1, 100):
            client.flushall()
            if existing:
                with whole.claim("a") as claim:
                    claim.put([old])
            mortal = Mortal(client, deadly)
            store = share.ValkeyStore(f"unix://{path}", client=mortal, **options)
            claim = None
            try:
                claim = store.claim("a")
                claim.put([new])
                ended = False
            except Killed:
                ended = True
            if claim is not None:
                claim._ended.set()  # its thread ends with the process
            found = whole.fetch("a")
            content = None if found is None else bytes(found.view)
            assert content in (old if existing else None, new)
            client.delete("{warmset}:lock:a")  # as its expiry would
            with whole.claim("a") as claim:
                claim.put([new])
            found = whole.fetch("a")
            assert found is not None
            assert bytes(found.view) == new
            named = client.get("{warmset}:manifest:a")[64:]
            for name in client.scan_iter("{warmset}:chunk:*"):
                in_use = name.split(b":")[2] in named
                assert in_use or client.pttl(name) > 0
            if not ended:
                break
        else:
            raise AssertionError("it never came to an end")
