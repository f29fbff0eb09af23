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
        cases[subject] = functools.partial(_run, TIMED.format(module=module), environment)
    for run in cases.values():
        run()  # compiles what has no bytecode yet
    samples = turns(cases, max(9, scale.few_rounds))
    figures = {name: figure(values, 1e3) for name, values in samples.items()}
    return [Row("import", "import, beyond bare Python", "ms", None, {**figures, **cells})]


STARTED = """
import time
began = time.perf_counter()
{program}
instance = get("Counter")
assert get("Counter") is instance
print(time.perf_counter() - began)
"""
FIRST = {
    "warmset": """
from warmset import MethodRegistry
get = MethodRegistry({"Counter": "collections.Counter"}).get_instance""",
    "cachetools": """
from importlib import import_module
from cachetools import TTLCache
cache = TTLCache(100, 300.0)
def get(name):
    try:
        return cache[name]
    except KeyError:
        instance = cache[name] = getattr(import_module("collections"), name)()
        return instance""",
    "dependency_injector": """
from importlib import import_module
from dependency_injector.providers import ThreadSafeSingleton
providers = {}
def get(name):
    if name not in providers:
        providers[name] = ThreadSafeSingleton(getattr(import_module("collections"), name))
    return providers[name]()""",
}


def starts(scale: Scale) -> list[Row]:
    """From bare Python to an instance that was built by its name, and its first hit."""
    cells: dict[str, Figure | Absent] = {}
    cases = {}
    for subject in (COMPILED, PURE, "cachetools", "dependency-injector"):
        module, environment = MODULES[subject]
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            cells[subject] = Absent(f"no module {package!r}")
            continue
        cases[subject] = functools.partial(
            _run, STARTED.format(program=FIRST[package]), environment
        )
    for run in cases.values():
        run()
    samples = turns(cases, max(9, scale.few_rounds))
    figures = {name: figure(values, 1e3) for name, values in samples.items()}
    title = "import, build and first hit, beyond bare Python"
    return [Row("start", title, "ms", None, {**figures, **cells})]


def _run(program: str, environment: dict[str, str]) -> float:
    # Where bytecode is not to be written, each import would compile what has changed.
    return float(fresh("-c", program, **environment, PYTHONDONTWRITEBYTECODE=""))
