"""
A pool of processes: `python examples/process_pool.py`.

The registry is made at the top level of a module. With the start method "spawn" or "forkserver",
each process imports the module and makes its own; with "fork", it inherits the registry, which
resets itself. Either way a process has its own instances, and closes those that it built when it
ends. See docs/workers.md.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from warmset import MethodRegistry

registry = MethodRegistry.from_file(Path(__file__).with_name("warmset.toml"))


def warm_up() -> None:
    """Runs once in each process."""
    registry.warm_up(["Tagger"])


def tags(text: str) -> tuple[int, list[str]]:
    with registry.use("Tagger") as tagger:
        return os.getpid(), tagger.tag(text)


def main() -> None:
    texts = [f"Text {at} by Ada and Grace" for at in range(20)]
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        # Its shutdown lets the processes end. `multiprocessing.Pool` as a context manager kills
        # them instead: call its `close()` and `join()`, so that instances are closed.
        with ProcessPoolExecutor(2, context, initializer=warm_up) as pool:
            results = list(pool.map(tags, texts, chunksize=5))
        processes = {process for process, _ in results}
        print(f"{method}: {len(results)} texts in {len(processes)} processes, {results[0][1]}")


if __name__ == "__main__":
    main()
