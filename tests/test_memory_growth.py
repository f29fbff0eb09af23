"""Memory growth: counts of live objects, a million slots, ten runs of a pipeline."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest


def run_child(code: str, twin: str, *arguments: str) -> str:
    """Run code in a fresh interpreter on one core; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSET")}
    if twin == "pure":
        environment["WARMSET_PURE"] = "1"
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


TEN_RUNS = """
    import gc, sys, types
    import psutil
    import warmset

    class Model:
        def __init__(self):
            self.weights = bytearray(b"x" * 20_000_000)
        def score(self, text: str) -> int:
            return len(text) + len(self.weights)

    module = types.ModuleType("models")
    module.Model = Model
    sys.modules["models"] = module
    clear, process = sys.argv[1] == "clear", psutil.Process()
    registry = warmset.MethodRegistry({}, max_cache_size=1000)
    executor = warmset.MethodExecutor(method_registry=registry)
    rss = []
    for run in range(10):
        for i in range(4):
            name = f"Model{i}@{run}"
            registry.register(name, "models.Model")
            for text in ("a", "bc"):
                assert executor.execute(name, "score", text=text) == 20_000_000 + len(text)
        if clear:
            assert executor.clear_instance_cache()["entries_cleared"] == 4
        gc.collect()
        rss.append(process.memory_info().rss)
    print((max(rss[1:]) - rss[0]) // 1_000_000)
"""


@pytest.mark.referrers
def test_ten_runs_stay_in_bounds(twin: str) -> None:
    """80 MB of instances a run, cleared between runs: less than 20 MB of growth."""
    assert int(run_child(TEN_RUNS, twin, "clear")) < 20


def test_ten_runs_without_clearing_do_not(twin: str) -> None:
    """The check can fail: without clearing, memory grows by 720 MB."""
    assert int(run_child(TEN_RUNS, twin, "keep")) > 600


def test_many_keys_of_a_family_leave_memory_unchanged(twin: str) -> None:
    """Fifty thousand keys through a bound of ten: no slot, failure or cause is kept."""
    code = """
        import psutil
        import warmset

        process = psutil.Process()
        registry = warmset.MethodRegistry({}, max_cache_size=20)
        models = registry.family("Model", lambda key: [key], max_cache_size=10)

        def use(first, count):
            for number in range(first, first + count):
                models.get(f"key {number}")
            return process.memory_info().rss

        before = use(0, 10_000)
        after = use(10_000, 50_000)
        assert len(list(models)) == 10 and len(registry.slots) == 10
        assert registry.stats().builds == 60_000
        print((after - before) // 1_000_000)
    """
    assert int(run_child(code, twin)) < 3


def test_many_slots_are_torn_down_without_recursion(twin: str) -> None:
    """By dropping the registry, and by clearing it."""
    count = 200_000 if twin == "compiled" else 100_000
    code = f"""
        import gc, sys, types
        import warmset
        module = types.ModuleType("models")
        module.Model = type("Model", (), {{}})
        sys.modules["models"] = module
        sys.setrecursionlimit(200)
        for drop in (False, True):
            registry = warmset.MethodRegistry({{}}, max_cache_size={count})
            instance = module.Model()
            for i in range({count}):
                slot, _ = registry.add_slot(str(i), "models.Model")
                registry.write(slot, instance, 0.0, 0.0, 1)
            assert registry.cached == {count}
            before = sys.getrefcount(instance)
            if not drop:
                assert registry.clear_cache()["entries_cleared"] == {count}
            del registry
            assert before - sys.getrefcount(instance) == {count}
        print("whole")
    """
    assert run_child(code, twin) == "whole"


CALLS: dict[str, Any] = {
    "get_instance": lambda r, e, h: r.get_instance("Alpha"),
    "get_method": lambda r, e, h: r.get_method("Alpha", "echo"),
    "unknown": lambda r, e, h: r.get_instance("Nobody"),
    "no method": lambda r, e, h: r.get_method("Alpha", "tga"),
    "broken": lambda r, e, h: r.get_instance("Broken"),
    "use": lambda r, e, h: r.use("Alpha").__enter__(),
    "bind": lambda r, e, h: r.bind("Alpha", "echo"),
    "handle": lambda r, e, h: h("x", k=1),
    "execute": lambda r, e, h: e.execute("Alpha", "echo", text="x"),
    "execute refused": lambda r, e, h: e.execute("Alpha", "echo"[:4], **{"": 1}),
    "execute missing": lambda r, e, h: e.execute("Alpha", "tga"),
    "evict_expired": lambda r, e, h: r.evict_expired(),
    "has_method": lambda r, e, h: r.has_method("Alpha", "echo"),
    "inject": lambda r, e, h: r.inject_method("V", "m", len),
    "stats": lambda r, e, h: r.get_stats(),
    "rebuild": lambda r, e, h: (r.discard("Beta"), r.get_instance("Beta")),
    "clear": lambda r, e, h: (r.clear_cache(), r.get_instance("Alpha")),
    "register": lambda r, e, h: (r.register("N", "samples.Beta"), r.unregister("N")),
    "rule": lambda r, e, h: r.register_instantiation_rule("Alpha", lambda cls: cls()),
    "cache read": lambda r, e, h: r._cache["Alpha"].touch(),
    "cache write": lambda r, e, h: r._cache.update({"Alpha": r._cache["Alpha"]}),
}


@pytest.mark.counts
@pytest.mark.parametrize("call", CALLS)
def test_no_call_leaves_an_object_behind(ws: Any, make: Any, call: str) -> None:
    """The number of live objects is the same after 50 calls as after 100."""
    registry = make({name: f"samples.{name}" for name in ("Alpha", "Beta", "Broken")})
    executor = ws.MethodExecutor(method_registry=registry)
    handle = registry.bind("Alpha", "echo")
    counts = []
    for _ in range(3):
        for _ in range(50):
            try:
                CALLS[call](registry, executor, handle)
            except Exception:
                pass
        gc.collect()
        counts.append((len(gc.get_objects()), registry.stats().held))
    assert counts[1][0] - counts[2][0] in (-1, 0, 1), counts
    assert counts[2][1] == 0
    gc.collect()
