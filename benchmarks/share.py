"""
What sharing between processes gives: memory, time to the first call, and builds on a cluster.

    python -m benchmarks.share

Memory: the PSS (each page divided by how many processes have it) summed over 1, 2, 4 and 8
processes that each have the same instance of 200 MB, built by each, or opened from one snapshot.
Start: from asking for the instance to the end of its first call. Cluster: builds and wall time of
calls of 20 classes on 2 and 4 workers with and without affinity, and what a call costs beside a
plain one.

It prints the tables and writes docs/scaling.md, between its markers. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- begin: share -->", "<!-- end: share -->"
MB = 1_000_000
SIZE = 200 * MB
COUNTS = (1, 2, 4, 8)
BUILD_SECONDS = 1.0  # of the instance, beside what making its array takes
CLASSES, CALLS = 20, 600
CLASS_BUILD_SECONDS, CALL_SECONDS = 0.3, 0.02
PROBES = 300


class Model:
    """An instance of 200 MB, which takes a second to build."""

    def __init__(self) -> None:
        import numpy as np

        time.sleep(BUILD_SECONDS)
        self.weights = np.random.default_rng(1).random(SIZE // 8)

    def call(self) -> float:
        """Look at all of it."""
        return float(self.weights.sum())


class Load:
    """A class of the cluster: heavy to build, light to call."""

    def __init__(self) -> None:
        time.sleep(CLASS_BUILD_SECONDS)

    def work(self) -> int:
        """Some milliseconds."""
        time.sleep(CALL_SECONDS)
        return os.getpid()

    def nothing(self) -> None:
        """Returns at once."""


def nothing() -> None:
    """Returns at once."""


# -- memory and start ----------------------------------------------------------------------------


def pss() -> int:
    """Bytes of this process, with its part of what it shares."""
    from warmset.share.host import own_bytes

    return own_bytes()


def serve(store: str | None) -> None:
    """One of the processes: it has the instance, and tells its memory when it is asked."""
    import gc

    import numpy as np  # what every process of this kind has, instance or not

    import warmset
    from warmset._process_memory import give_back_free_memory

    assert np
    registry = warmset.MethodRegistry({}, store=store, cache_ttl_seconds=0)
    registry.register("Model", "benchmarks.share.Model", shareable=True)
    base = pss()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "have":
            began = time.perf_counter()
            registry.get_method("Model", "call")()
            print(time.perf_counter() - began, flush=True)
        else:
            gc.collect()
            give_back_free_memory()
            print(json.dumps([pss(), base]), flush=True)


def fork_workers(store: str | None, count: int) -> None:
    """As a server that forks its workers: modules are loaded before, instances after."""
    import gc

    import numpy as np

    import warmset
    from warmset._process_memory import give_back_free_memory

    assert np
    gc.freeze()
    registry = warmset.MethodRegistry({}, store=store, cache_ttl_seconds=0)
    registry.register("Model", "benchmarks.share.Model", shareable=True)
    pipes = []
    for _ in range(count):
        told, tell = os.pipe()
        go, let = os.pipe()
        if not os.fork():
            registry.get_method("Model", "call")()
            gc.collect()
            give_back_free_memory()
            os.write(tell, b"have\n")
            os.read(go, 1)
            os.write(tell, f"{pss()}\n".encode())
            os.read(go, 1)
            os._exit(0)
        pipes.append((told, let))
    for told, _ in pipes:
        assert os.read(told, 100) == b"have\n"
    sizes = []
    for told, let in pipes:
        os.write(let, b"x")
        sizes.append(int(os.read(told, 100)))
    print(json.dumps(sizes), flush=True)
    for _, let in pipes:
        os.write(let, b"x")
    for _ in pipes:
        os.wait()


def _child(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.share", *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: subprocess.Popen[str], text: str) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def spawned(store: str | None, count: int) -> tuple[int, int, list[float]]:
    """Processes of their own: PSS summed, that without the instance, seconds to the first call."""
    words = ["--serve", store] if store else ["--serve"]
    processes = [_child(*words) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        seconds = [_ask(process, "have") for process in processes]
        told = [_ask(process, "memory") for process in processes]
        return sum(each[0] for each in told), sum(each[1] for each in told), seconds
    finally:
        for process in processes:
            process.communicate()


def forked(store: str | None, count: int) -> int:
    """Processes that one has forked: PSS summed."""
    words = ["--fork", str(count), *([store] if store else [])]
    process = _child(*words)
    output, _ = process.communicate()
    return sum(json.loads(output))


def measure_memory(say: Callable[[str], None]) -> tuple[list[str], bool]:
    """The table of memory and start, and whether the goal is met."""
    place = tempfile.mkdtemp(prefix="warmset-", dir="/tmp")
    os.chmod(place, 0o700)
    try:
        rows: dict[tuple[str, bool], dict[int, int]] = {}
        builds: list[float] = []
        opens: list[float] = []
        for snapshots in (False, True):
            for count in COUNTS:
                store = None
                if snapshots:
                    store = os.path.join(place, f"{count}")
                    spawned(store, 1)  # so that there is a snapshot
                total, base, seconds = spawned(store, count)
                (opens if snapshots else builds).extend(seconds)
                rows.setdefault(("each started by itself", snapshots), {})[count] = total
                rows.setdefault(("forked", snapshots), {})[count] = forked(store, count)
                say(
                    f"{count} processes, snapshots {snapshots}: {total / MB:.0f} MB,"
                    f" {base / MB:.0f} without the instance"
                )
    finally:
        shutil.rmtree(place)
    lines = [
        "| 200 MB instance, PSS in sum | " + " | ".join(f"{n}" for n in COUNTS) + " | 8 by 1 |",
        "|---" * (len(COUNTS) + 2) + "|",
    ]
    for (how, snapshots), sums in rows.items():
        what = "opened from a snapshot" if snapshots else "built by each"
        cells = " | ".join(f"{sums[count] / MB:.0f} MB" for count in COUNTS)
        lines.append(f"| {how}, {what} | {cells} | {sums[8] / sums[1]:.2f} x |")
    built, opened = statistics.median(builds), statistics.median(opens)
    lines += [
        "",
        f"From asking for it to the end of its first call: built {built:.2f} s (of which its "
        f"constructor sleeps {BUILD_SECONDS:.0f} s), opened {1000 * opened:.0f} ms, medians of "
        f"{len(builds)} and {len(opens)}.",
    ]
    met = rows["forked", True][8] <= 1.3 * rows["forked", True][1]
    return lines, met


# -- the cluster ---------------------------------------------------------------------------------


def _settings() -> Any:
    from warmset.engines.settings import WorkerSettings

    return WorkerSettings({f"Load{at}": "benchmarks.share.Load" for at in range(CLASSES)})


def _calls() -> list[tuple[str, str]]:
    import random

    chance = random.Random(3)
    return [(f"Load{chance.randrange(CLASSES)}", "work") for _ in range(CALLS)]


def on_dask(workers: int, affinity: bool) -> tuple[int, float]:
    """Builds, and seconds, of all calls."""
    from distributed import Client, LocalCluster

    from warmset.engines import dask

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers)
        dask.install(client, _settings(), affinity=affinity)
        began = time.perf_counter()
        client.gather(dask.map_methods(client, _calls()))
        seconds = time.perf_counter() - began
        return dask.stats(client).total["total_instantiations"], seconds


def on_ray(workers: int, affinity: bool) -> tuple[int, float]:
    """Builds, and seconds, of all calls."""
    import ray

    from warmset.engines import ray as engine

    pool = engine.RayWorkers(workers, affinity=affinity)
    engine.install(pool, _settings())
    began = time.perf_counter()
    ray.get(engine.map_methods(pool, _calls()))
    seconds = time.perf_counter() - began
    builds = engine.stats(pool).total["total_instantiations"]
    engine.uninstall(pool)
    return builds, seconds


def cost_on_dask() -> dict[str, float]:
    """Microseconds of a call: plain, and through the engine; one by one, and all at once."""
    from distributed import Client, LocalCluster

    from warmset.engines import dask

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        dask.install(client, _settings())
        dask.submit_method(client, "Load0", "nothing").result()

        def one_by_one(submit: Callable[[], Any]) -> float:
            began = time.perf_counter()
            for _ in range(PROBES):
                submit().result()
            return (time.perf_counter() - began) / PROBES

        def at_once(send: Callable[[], Any]) -> float:
            began = time.perf_counter()
            client.gather(send())
            return (time.perf_counter() - began) / PROBES

        return _interleaved(
            {
                "client.submit": lambda: one_by_one(lambda: client.submit(nothing, pure=False)),
                "submit_method": lambda: one_by_one(
                    lambda: dask.submit_method(client, "Load0", "nothing")
                ),
                "client.map": lambda: at_once(
                    lambda: client.map(lambda _: None, range(PROBES), pure=False)
                ),
                "map_methods": lambda: at_once(
                    lambda: dask.map_methods(client, [("Load0", "nothing")] * PROBES)
                ),
            }
        )


def cost_on_ray() -> dict[str, float]:
    """As `cost_on_dask`; plain is a method of an actor."""
    import ray

    from warmset.engines import ray as engine

    pool = engine.RayWorkers(2)
    engine.install(pool, _settings())
    ray.get(engine.submit_method(pool, "Load0", "nothing"))
    actor = ray.remote(Load).remote()
    task = ray.remote(nothing)
    ray.get([actor.nothing.remote(), task.remote()])

    def one_by_one(submit: Callable[[], Any]) -> float:
        began = time.perf_counter()
        for _ in range(PROBES):
            ray.get(submit())
        return (time.perf_counter() - began) / PROBES

    def at_once(send: Callable[[], Any]) -> float:
        began = time.perf_counter()
        ray.get(send())
        return (time.perf_counter() - began) / PROBES

    costs = _interleaved(
        {
            "actor.method.remote": lambda: one_by_one(lambda: actor.nothing.remote()),
            "remote function": lambda: one_by_one(lambda: task.remote()),
            "submit_method": lambda: one_by_one(
                lambda: engine.submit_method(pool, "Load0", "nothing")
            ),
            "actor.method.remote, all at once": lambda: at_once(
                lambda: [actor.nothing.remote() for _ in range(PROBES)]
            ),
            "map_methods": lambda: at_once(
                lambda: engine.map_methods(pool, [("Load0", "nothing")] * PROBES)
            ),
        }
    )
    ray.kill(actor)
    engine.uninstall(pool)
    return costs


def _interleaved(probes: dict[str, Callable[[], float]]) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in probes}
    for _ in range(7):
        for name, probe in probes.items():
            seen[name].append(probe())
    return {name: 1e6 * statistics.median(times) for name, times in seen.items()}


def measure_clusters(say: Callable[[str], None]) -> tuple[list[str], bool]:
    """The tables of the engines, and whether the goal is met."""
    import ray

    lines = [
        f"| {CALLS} calls of {CLASSES} classes ({1000 * CLASS_BUILD_SECONDS:.0f} ms to build,"
        f" {1000 * CALL_SECONDS:.0f} ms to call) | workers | builds | by {CLASSES} | seconds |",
        "|---|---|---|---|---|",
    ]
    met = True
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Workers mostly sleep here: more of them than processors do no harm.
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=40,
        _node_ip_address="127.0.0.1",
    )
    try:
        for engine, run in (("Dask", on_dask), ("Ray", on_ray)):
            for affinity in (True, False):
                for workers in (2, 4):
                    builds, seconds = run(workers, affinity)
                    what = "affinity" if affinity else "shortest queue"
                    lines.append(
                        f"| {engine}, {what} | {workers} | {builds} | {builds / CLASSES:.2f} x |"
                        f" {seconds:.1f} |"
                    )
                    say(lines[-1])
                    met &= not affinity or builds <= 1.2 * CLASSES
        costs = {"Dask": cost_on_dask(), "Ray": cost_on_ray()}
    finally:
        ray.shutdown()
    lines += ["", "| a call that does nothing | us | by the plain one |", "|---|---|---|"]
    for engine, told in costs.items():
        plain = 0.0
        for name, microseconds in told.items():
            ours = name in ("submit_method", "map_methods")
            if not ours and name != "remote function":
                plain = microseconds
            lines.append(
                f"| {engine}, {name} | {microseconds:.0f} |"
                f" {f'{microseconds / plain:.2f} x' if ours else ''} |"
            )
            say(lines[-1])
    return lines, met


def machine_text() -> str:
    """What it was measured on."""
    from importlib.metadata import version

    told = machine.describe()
    packages = (f"{name} {version(name)}" for name in ("distributed", "ray", "numpy"))
    facts = (told["processor"], told["system"], told["interpreter"], *packages)
    return f"Measured on {', '.join(facts)}; two processors, shared with others."


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", nargs="?", const="", help=argparse.SUPPRESS)
    parser.add_argument("--fork", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--memory-only", action="store_true", help="leave out the clusters")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    chosen = parser.parse_args(words)
    if chosen.serve is not None:
        serve(chosen.serve or None)
        return 0
    if chosen.fork is not None:
        fork_workers(chosen.fork[1] if len(chosen.fork) > 1 else None, int(chosen.fork[0]))
        return 0

    def say(text: str) -> None:
        print(text, flush=True)

    lines, memory_met = measure_memory(say)
    clusters_met = True
    if not chosen.memory_only:
        more, clusters_met = measure_clusters(say)
        lines += ["", *more]
    text = "\n".join(["", *lines, "", f"{machine_text()}"])
    print(text)
    print(f"8 processes have at most 1.3 x of one: {'met' if memory_met else 'missed'}")
    print(f"builds are at most 1.2 x the classes: {'met' if clusters_met else 'missed'}")
    if not chosen.no_docs and not chosen.memory_only:
        page = DOCS / "scaling.md"
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{rest.partition(END)[2]}")
    return 0 if memory_met and clusters_met else 1


if __name__ == "__main__":
    sys.exit(main())
