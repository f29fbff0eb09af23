"""What is cached is closed when its registry is dropped, and when the process ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest


def run_program(twin: str, code: str) -> str:
    """Run a program on a core; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("WARMSET_PURE", None)
    if twin == "pure":
        environment["WARMSET_PURE"] = "1"
    program = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


PREAMBLE = """
import os, sys
from warmset import MethodRegistry

class Model:
    def __init__(self, name="model"):
        self.name = name
    def close(self):
        os.write(1, f"closed {self.name}\\n".encode())

def registry_of(*names):
    registry = MethodRegistry({})
    for name in names:
        registry.register(name, Model, args=(name,))
        with registry.use(name):
            pass
    return registry
"""


def test_a_dropped_registry(make: Any, samples: Any) -> None:
    """At once, in the reverse order of building."""
    registry = make()
    for name in ("Alpha", "Beta"):
        with registry.use(name):
            pass
    mine = registry.get_instance("Gamma")
    del registry
    assert samples.closed == ["Beta", "Alpha"]
    assert not mine.is_closed


def test_a_dropped_registry_in_a_cycle(make: Any, samples: Any) -> None:
    """When the collector finds it."""
    registry = make()
    with registry.use("Alpha") as alpha:
        alpha.registry = registry
    del registry, alpha
    gc.collect()
    assert samples.closed == ["Alpha"]


def test_a_dropped_registry_reports_removals(ws: Any, make: Any, samples: Any) -> None:
    """As `close` does."""
    registry = make()
    events: list[Any] = []
    registry.add_listener(events.append)
    registry.get_instance("Alpha")
    del registry
    assert [event.cause for event in events] == [ws.events.RemovalCause.SHUTDOWN]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_dropped_registry_whose_closer_fails(
    make: Any, samples: Any, caplog: Any, kind: type[BaseException]
) -> None:
    """The others are closed, and nobody gets the error."""
    registry = make()

    def fail(instance: Any) -> None:
        raise kind("no")

    registry.register("Beta", "samples.Beta", closer=fail)
    for name in ("Alpha", "Beta"):
        with registry.use(name):
            pass
    del registry
    assert samples.closed == ["Alpha"]
    assert "no" in caplog.text


def test_a_registry_that_failed_to_be_made(ws: Any) -> None:
    """It has nothing to close, and prints nothing."""
    with pytest.raises(ValueError, match="max_cache_size"):
        ws.MethodRegistry({}, max_cache_size=0)
    with pytest.raises(TypeError, match="timer"):
        ws.MethodRegistry({}, timer=3)
    gc.collect()


def test_the_exit_of_the_interpreter(twin: str) -> None:
    """The newest registry first, one in a cycle included; one that is closed already is not."""
    out = run_program(
        twin,
        """
        first = registry_of("a", "b")
        second = registry_of("c")
        second.itself = second
        done = registry_of("d")
        done.close()
        del second
        """,
    )
    assert out.split() == ["closed", "d", "closed", "c", "closed", "b", "closed", "a"]


def test_an_exit_in_a_closer_at_exit(twin: str) -> None:
    """The others are closed all the same."""
    environment_proof = run_program(
        twin,
        """
        import logging
        logging.disable()
        first = registry_of("a")
        second = MethodRegistry({})
        second.register("x", Model, closer=lambda model: sys.exit(3))
        with second.use("x"):
            pass
        """,
    )
    assert environment_proof.split() == ["closed", "a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_closes_only_what_it_built(twin: str) -> None:
    """The parent's connection is not shut down by it."""
    out = run_program(
        twin,
        """
        registry = registry_of("parent")
        registry.register("child", Model, args=("child",))
        pid = os.fork()
        if not pid:
            with registry.use("child"), registry.use("parent"):
                pass
            sys.exit(0)
        os.waitpid(pid, 0)
        os.write(1, b"waited\\n")
        """,
    )
    assert out.split() == ["closed", "child", "waited", "closed", "parent"]


@pytest.mark.parametrize(
    ("method", "pool"),
    [("fork", False), ("spawn", False), ("forkserver", False), ("fork", True)],
)
def test_a_child_of_multiprocessing(twin: str, tmp_path: Any, method: str, pool: bool) -> None:
    """It closes what it built, though it ends by `os._exit`."""
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method}")
    script = tmp_path / "program.py"
    body = """
registry = registry_of()
registry.register("child", Model, args=("child",))
registry.register("parent", Model, args=("parent",))
def work(_):
    with registry.use("child"):
        pass
    made_here = registry_of("made here")
    globals()["kept"] = made_here
    return 1
if __name__ == "__main__":
    with registry.use("parent"):
        pass
    import multiprocessing
    context = multiprocessing.get_context(METHOD)
    if POOL:
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, context) as executor:
            executor.submit(work, 0).result()
    else:
        process = context.Process(target=work, args=(0,))
        process.start()
        process.join()
    os.write(1, b"joined\\n")
"""
    body = body.replace("METHOD", repr(method)).replace("POOL", repr(pool))
    script.write_text(PREAMBLE + body)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("WARMSET_PURE", None)
    if twin == "pure":
        environment["WARMSET_PURE"] = "1"
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = ["closed made here", "closed child", "joined", "closed parent"]
    assert done.stdout.splitlines() == expected
