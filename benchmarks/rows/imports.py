"""How long an import takes, in fresh interpreters."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING

from ..results import COMPILED, PURE, Absent, Row, figure
from ..timing import turns
from .memory import fresh

if TYPE_CHECKING:
    from ..results import Figure
    from ..timing import Scale

TIMED = """
import time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""
MODULES: dict[str, tuple[str, dict[str, str]]] = {
    COMPILED: ("warmset", {"WARMSET_REQUIRE_COMPILED": "1"}),
    PURE: ("warmset", {"WARMSET_PURE": "1"}),
    "cachebox": ("cachebox", {}),
    "cachetools": ("cachetools", {}),
    "lru-dict": ("lru", {}),
    "moka-py": ("moka_py", {}),
    "theine": ("theine", {}),
    "cacheout": ("cacheout", {}),
    "dependency-injector": ("dependency_injector.providers", {}),
}


def imports(scale: Scale) -> list[Row]:
    """The statement alone, so that starting Python is not counted."""
    cells: dict[str, Figure | Absent] = {}
    cases = {}
    for subject, (module, environment) in MODULES.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            cells[subject] = Absent(f"no module {module!r}")
            continue
        cases[subject] = functools.partial(_seconds, module, environment)
    for run in cases.values():
        run()  # compiles what has no bytecode yet
    samples = turns(cases, max(9, scale.few_rounds))
    figures = {name: figure(values, 1e3) for name, values in samples.items()}
    return [Row("import", "import, beyond bare Python", "ms", None, {**figures, **cells})]


def _seconds(module: str, environment: dict[str, str]) -> float:
    # Where bytecode is not to be written, each import would compile what has changed.
    written = {"PYTHONDONTWRITEBYTECODE": ""}
    return float(fresh("-c", TIMED.format(module=module), **environment, **written))
