"""
How many machine instructions a hit, a miss and a removal take, as callgrind counts: without noise.

Of the pure core it is how many bytecodes.

    python -m benchmarks.instructions            compare with what is stored, and fail past 3 %;
                                                 15 % for what changes the cache
    python -m benchmarks.instructions --store    store what is counted now

Each figure is the difference between two runs of different length, divided by the calls between
them, less that of an empty loop: start-up, imports and the first calls are in both and fall out.
Stored figures belong to one version of Python and one compiler, which are stored beside them;
elsewhere the baseline is a `dict.get` loop of the same run, and the ratios to it are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import bytecodes

STORED = Path(__file__).with_name("instructions.json")
MARGIN = 0.03
MARGIN_OF_CHANGES = 0.15  # of what allocates: the collector runs among them, now and then
SHORT, LONG = 1_000, 11_000
FEWER = 20  # times, for what takes longer than a hit

# What is called, by name; the first is the loop, and the second what others are measured by.
CALLS = {
    "loop": "None",
    "dict.get": "get('Tagger')",
    "get_instance": "get_instance('Tagger')",
    "get_instance, by class": "get_instance(Scorer)",
    "get_instance, equal name": "get_instance(alias)",
    "get_instance, 64 in turn": "in_turn(next(turns))",
    "get_method": "get_method('Tagger', 'tag')",
    "handle": "handle('x')",
    "use": "with use('Tagger'): pass",
    "execute, 0 arguments": "execute('Tagger', 'ping')",
    "execute, 2 arguments": "execute('Tagger', 'score', text='x', limit=3)",
}
# What changes the cache: a miss alone is the first of these, less the removal of one instance.
CHANGES = {
    "miss and clear_cache": "cold('Tagger'); clear()",
    "miss and discard": "cold('Tagger'); discard('Tagger')",
    "2 misses that evict": "full('Tagger'); full('Scorer')",
    "expiry and miss": "stale('Tagger')",
    "miss, with kwargs": "given('Tagger'); forget()",
}

_PROGRAM = """
import itertools, sys, types
import warmset

class Tagger:
    def tag(self, text): return text
    def ping(self): return None
    def score(self, text: str, limit: int): return text
class Scorer(Tagger): pass

module = sys.modules["subject"] = types.ModuleType("subject")
module.Tagger = Tagger
assert warmset.implementation == "compiled"
registry = warmset.MethodRegistry({"Tagger": "subject.Tagger"})
executor = warmset.MethodExecutor(method_registry=registry)
names = {
    "Scorer": Scorer,
    "alias": "".join(["Tag", "ger"]),
    "get": {"Tagger": Tagger()}.get,
    "get_instance": registry.get_instance,
    "get_method": registry.get_method,
    "handle": registry.bind("Tagger", "tag"),
    "use": registry.use,
    "execute": executor.execute,
}
paths = {"Tagger": "subject.Tagger", "Scorer": Scorer}
cold, full = warmset.MethodRegistry(paths), warmset.MethodRegistry(paths, max_cache_size=1)
brief, given = warmset.MethodRegistry(paths, cache_ttl_seconds=1e-9), warmset.MethodRegistry({})
given.register("Tagger", dict, kwargs={"size": 3})
names |= {
    "cold": cold.get_instance,
    "clear": cold.clear_cache,
    "discard": cold.discard,
    "full": full.get_instance,
    "stale": brief.get_instance,
    "given": given.get_instance,
    "forget": given.clear_cache,
}
turns = [sys.intern(f"Turn{number}") for number in range(64)]
several = warmset.MethodRegistry({name: "subject.Tagger" for name in turns})
for name in turns:
    several.get_instance(name)
names |= {"in_turn": several.get_instance, "turns": itertools.cycle(turns)}
registry.register(Scorer)
registry.get_instance("Tagger")
registry.get_instance("Scorer")
source = "def run(times, " + ", ".join(names) + "):\\n    for _ in range(times):\\n"
source += "".join("        " + sys.argv[1] + "\\n" for _ in range(10))
space = {}
exec(source, space)
space["run"](int(sys.argv[2]) // 10, **names)
"""


def count(statement: str, times: int) -> int:
    """
    Count the instructions of a whole process that runs a statement.

    Args:
        statement: Of the names in `_PROGRAM`.
        times: How often.

    Returns:
        Instructions, with a fixed hash seed.

    Raises:
        RuntimeError: The process failed; its output is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-c",
            _PROGRAM,
            statement,
            str(times),
        ]
        # No process writes bytecode: the one that did would count more than its successors.
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "WARMSET_REQUIRE_COMPILED": "1",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"callgrind failed on {statement!r}:\n{done.stderr}")
    return int(found[1])


def counted() -> dict[str, float]:
    """Instructions of one call, net of the loop, by name; as many processes as processors."""
    hits = [(statement, times) for statement in CALLS.values() for times in (SHORT, LONG)]
    changes = [
        (statement, times // FEWER) for statement in CHANGES.values() for times in (SHORT, LONG)
    ]
    runs = hits + changes
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = list(pool.map(lambda run: count(*run), runs))
    per_call = {
        name: (long - short) / ((LONG - SHORT) / (FEWER if name in CHANGES else 1))
        for name, short, long in zip(CALLS | CHANGES, totals[::2], totals[1::2], strict=True)
    }
    loop = per_call.pop("loop")
    return {name: round(figure - loop, 1) for name, figure in per_call.items()}


def here() -> str:
    """What the figures depend on."""
    libc = " ".join(platform.libc_ver())
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.python_compiler()}, {libc}, {platform.machine()}"
    )


def compare(
    before: dict[str, float], now: dict[str, float], *, same_place: bool
) -> tuple[list[str], list[str]]:
    """
    Hold counts against stored ones.

    Args:
        before: Stored counts by name.
        now: Counts of this run.
        same_place: Whether both are of one interpreter; else each is taken relative to `dict.get`.

    Returns:
        The lines of a table, and the names of those that grew by more than the margin.
    """
    scale = 1.0 if same_place else now["dict.get"] / before["dict.get"]
    lines = [f"{'':34}{'stored':>10}{'now':>10}{'change':>10}"]
    grown = []
    for name, figure in now.items():
        stored = before.get(name)
        if stored is None:
            lines.append(f"{name:34}{'-':>10}{figure:10.0f}{'new':>10}")
            continue
        change = figure / (stored * scale) - 1.0
        late = name != "dict.get" and change > _margin(name)
        if late:
            grown.append(name)
        lines.append(
            f"{name:34}{stored * scale:10.0f}{figure:10.0f}{change:+10.1%}{'  <--' * late}"
        )
    return lines, grown


def _margin(name: str) -> float:
    return MARGIN_OF_CHANGES if name in CHANGES else MARGIN


def main(arguments: list[str] | None = None) -> int:
    """Count, and compare or store; status 1 if a hit takes more instructions than the margin."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", action="store_true", help=f"write {STORED.name}")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: the instructions of a hit were not counted")
        return 0
    place, now = here(), counted() | bytecodes.counted()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if options.store:
        stored[place] = now
        STORED.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    if not stored:
        print(f"nothing is stored in {STORED.name}: run with --store")
        return 1
    same_place = place in stored
    from_where = place if same_place else sorted(stored)[0]
    lines, grown = compare(stored[from_where], now, same_place=same_place)
    print(f"instructions of one call, net of the loop; here: {place}")
    if not same_place:
        print(f"stored: {from_where}; relative to dict.get, and not judged")
    print("\n".join(lines))
    if grown and same_place:
        print(f"more than the margin above what is stored: {', '.join(grown)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
