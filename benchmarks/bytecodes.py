"""How many bytecodes of Python the pure core runs for a call, as a trace of them counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

CALLS = {
    "pure get_instance, bytecodes": "registry.get_instance('Counter')",
    "pure get_method, bytecodes": "registry.get_method('Counter', 'most_common')",
    "pure handle, bytecodes": "handle()",
    "pure miss and discard, bytecodes": "cold.get_instance('Counter'); cold.discard('Counter')",
}
WARM_UP, TIMES = 3, 20

_PROGRAM = """
import collections, json, sys
import warmset

assert warmset.implementation == "pure"
paths = {"Counter": "collections.Counter"}
registry, cold = warmset.MethodRegistry(paths), warmset.MethodRegistry(paths)
registry.get_instance("Counter")
handle = registry.bind("Counter", "most_common")
warm_up, times, calls = json.loads(sys.argv[1])
counts = {}
for name, statement in calls.items():
    code = compile(statement, "call", "exec")
    for _ in range(warm_up):
        exec(code)
    count = 0

    def trace(frame, event, argument):
        global count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    for _ in range(times):
        exec(code)
    sys.settrace(None)
    counts[name] = count / times
print(json.dumps(counts))
"""


def counted() -> dict[str, float]:
    """Bytecodes of one call, with those of the statement itself, by name."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARMSET")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps([WARM_UP, TIMES, CALLS])],
        env={**kept, "WARMSET_PURE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
