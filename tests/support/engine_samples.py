"""Classes built by the workers of the engines, which record events in a file."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from warmset.engines.worker import WorkResult


def note(what: str) -> None:
    """Append a line to the file named by the environment variable."""
    with open(os.environ["WARMSET_TEST_NOTES"], "a", buffering=1) as notes:
        notes.write(f"{what} {os.getpid()}\n")


def keep(worker: Any, text: str, *before: Any) -> WorkResult:
    """Keep the text after what earlier calls have kept; report its length and the worker."""
    if text == "bad":
        raise KeyError(text)
    return WorkResult((len(text), worker.name), [*(each for kept in before for each in kept), text])


class Base:
    def __init__(self) -> None:
        note(type(self).__name__)
        self.calls = 0
        self.lock = threading.Lock()

    def add(self, x: int, y: int = 0) -> int:
        return x + y

    def where(self) -> int:
        """Return the process id."""
        return os.getpid()

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def wait_for(self, path: str) -> int:
        """Wait until the file exists."""
        note("waits")
        while not os.path.exists(path):
            time.sleep(0.005)
        return os.getpid()

    def doze(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()


class One(Base):
    pass


class Two(Base):
    pass


class Three(Base):
    pass


class Four(Base):
    def close(self) -> None:
        note("closed")


class Broken:
    def __init__(self) -> None:
        raise OSError("no such model")


class Ruled(Base):
    def __init__(self, other: Any = None) -> None:
        super().__init__()
        self.other = other

    def others(self) -> str:
        return type(self.other).__name__


def rule(cls: Any) -> Any:
    return cls(other=3)


def prepare(registry: Any) -> None:
    """Register a rule that looks up another class and cannot be pickled."""
    registry.register_instantiation_rule("Ruled", lambda cls: cls(registry.get_instance("One")))


def bad_prepare(registry: Any) -> None:
    raise RuntimeError("not on this worker")


PATHS = {
    name: f"engine_samples.{name}" for name in ("One", "Two", "Three", "Four", "Broken", "Ruled")
}


class Keyed(Base):
    """The instance of a key of a family."""

    def __init__(self, key: Any) -> None:
        super().__init__()
        self.key = key

    def own_key(self) -> Any:
        return self.key


FAMILIES = {"Model": {"factory": f"{__name__}.Keyed", "max_cache_size": 10}}


def check_run(cluster: Any) -> None:
    """Results that a function keeps stay on the workers and are arguments of later calls."""
    names = cluster.router.workers()
    sent = {"class_name": "One", "keep": True}
    first = cluster.run(names[0], keep, ("abc",), **sent)
    second = cluster.run(names[-1], keep, ("de", first.kept), **sent)
    last = cluster.run(names[0], keep, ("f", first.kept, second.kept), class_name="One", keep=False)
    plain = cluster.run(names[0], keep, ("g", ["plain"]), **sent)
    failed = cluster.run(names[0], keep, ("bad",), **sent)
    waiting = [first, second, last, plain, failed]
    while waiting:
        done = cluster.wait(waiting)
        assert done
        waiting = [work for work in waiting if work not in done]
    assert [work.result() for work in (first, second, last)] == [
        (3, names[0]),
        (2, names[-1]),
        (1, names[0]),
    ]
    assert cluster.fetch(second.kept) == ["abc", "de"]
    assert cluster.fetch(plain.kept) == ["plain", "g"]
    assert last.kept is None
    error: Exception | None = None
    try:
        failed.result()
    except KeyError as caught:
        error = caught
    assert type(error) is KeyError
    cluster.refresh()
    cluster.cancel([first])
