"""What each capability adds to a build and the removal of what was built."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from ..cores import load
from ..results import COMPILED, PURE, Absent, Row, figure
from ..timing import turns
from ..workload import MODULE, numbered, work
from .common import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..results import Figure
    from ..timing import Scale

NAMES, TIMES = 200, 5
HANDLER = logging.NullHandler()


def _rules(registry: Any) -> None:
    for name in numbered(NAMES):
        registry.register_instantiation_rule(name, _ruled)


def _ruled(cls: type) -> Any:
    return cls()


def _arguments(registry: Any) -> None:
    for name in numbered(NAMES):
        registry.register(name, f"{MODULE}.Tagger", cache_ttl_seconds=100.0)


def _listeners(registry: Any) -> None:
    registry.add_listener(_ignore)
    registry.add_build_listener(_ignore)


def _ignore(event: Any) -> None:
    pass


def _size(instance: Any) -> int:
    return 1000


PARTS: dict[str, tuple[dict[str, Any], Callable[[Any], None] | None]] = {
    "nothing": ({}, None),
    "options": ({}, _arguments),
    "rules": ({}, _rules),
    "listeners": ({}, _listeners),
    "logs": ({}, None),
    "capacity": ({"block_when_full": True}, None),
    "memory": ({"max_cache_bytes": 10**12, "sizer": _size}, None),
    "cost policy": ({"policy": "cost"}, None),
    "planning": ({"plan": True}, None),
    "weak mode": ({"enable_weakref": True}, None),
}
TOGETHER = ("rules", "listeners", "logs", "capacity", "memory", "cost policy", "planning")


def parts(scale: Scale) -> list[Row]:
    """A build with one capability at a time, and with all of them."""
    given = work(numbered(NAMES))
    loaded = {}
    absent: dict[str, Figure | Absent] = {}
    for subject, core in ((COMPILED, "compiled"), (PURE, "pure")):
        try:
            loaded[subject] = load(core)
        except ImportError as error:
            absent[subject] = Absent(f"not installed: {error}")
    cases: dict[tuple[str, str], Callable[[], float]] = {}
    for part in (*PARTS, "everything"):
        for subject, package in loaded.items():
            registry = _registry(package, given.paths, TOGETHER if part == "everything" else [part])
            logged = part in ("logs", "everything")
            cases[part, subject] = functools.partial(_seconds, registry, list(given.paths), logged)
    samples = turns(cases, scale.few_rounds)
    return [
        Row(
            f"part-{part.replace(' ', '-')}",
            f"a build and its removal, with {part}",
            "ns",
            None,
            {name: figure(samples[part, name], NANOSECONDS) for name in loaded} | absent,
        )
        for part in (*PARTS, "everything")
    ]


def _registry(package: Any, paths: Mapping[str, str], chosen: Any) -> Any:
    settings: dict[str, Any] = {}
    for part in chosen:
        settings |= PARTS[part][0]
    registry = package.MethodRegistry(dict(paths), max_cache_size=NAMES, **settings)
    for part in chosen:
        set_up = PARTS[part][1]
        if set_up is not None:
            set_up(registry)
    return registry


def _seconds(registry: Any, names: list[str], logged: bool) -> float:
    logger = logging.getLogger("warmset")
    before = logger.level
    if logged:
        logger.setLevel(logging.INFO)
        logger.addHandler(HANDLER)
        logger.propagate = False
    get_instance = registry.get_instance
    began = time.perf_counter()
    for _ in range(TIMES):
        for name in names:
            get_instance(name)
        registry.clear_cache()
    took = time.perf_counter() - began
    logger.setLevel(before)
    logger.removeHandler(HANDLER)
    logger.propagate = True
    return took / (TIMES * len(names))
