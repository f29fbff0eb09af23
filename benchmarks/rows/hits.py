"""Hits: the look-up of what is warm."""

from __future__ import annotations

import operator
import weakref
from typing import TYPE_CHECKING

from ..cores import load
from ..results import COMPILED, PURE, Absent
from ..subjects import DICT
from ..subjects.pipeline import PIPELINE, PipelineRegistry
from ..timing import loop, walk
from ..workload import NAME, numbered, work, zipf
from .common import present, timed_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import Figure, Row
    from ..timing import Scale


def one_name(scale: Scale) -> list[Row]:
    """The same name again and again."""
    there, cells = present()
    loops = {}
    for subject in there:
        kept = subject.make(work(), 100)
        kept.fetch(NAME)
        loops[subject.name] = loop(kept.look_up(repr(NAME)), kept.names)
    title = "hit, one name"
    return [timed_row("hit-one", title, DICT.name, loops, loop("None", {}), scale, cells)]


def rotating(scale: Scale) -> list[Row]:
    """64 names in turn, and 1,000."""
    few, many = numbered(64), numbered(1_000)
    return [
        _walked("hit-64", "hit, rotating over 64 names", few, few * 16, scale),
        _walked("hit-1000", "hit, rotating over 10^3 names", many, many, scale),
    ]


def equal(scale: Scale) -> list[Row]:
    """64 names that are equal to the keys, but other objects: names that were read or made."""
    names = numbered(64)
    others = ["".join(list(name)) for name in names]
    assert not any(map(operator.is_, names, others))
    title = "hit, 64 names that are equal and not the same"
    return [_walked("hit-equal", title, names, others * 16, scale)]


def zipf_drawn(scale: Scale) -> list[Row]:
    """10,000 names, drawn by Zipf's law, all of them warm."""
    names = numbered(10_000)
    title = "hit, 10^4 names by Zipf's law"
    # One walk over the names drawn is longer than the samples of the other rows.
    fewer = scale._replace(rounds=scale.few_rounds)
    return [_walked("hit-zipf", title, names, zipf(names, 20_000), fewer)]


def _walked(name: str, title: str, names: list[str], sequence: list[str], scale: Scale) -> Row:
    there, cells = present()
    loops = {}
    kept_work = work(names)
    for subject in there:
        kept = subject.make(kept_work, len(names))
        for each in names:
            kept.fetch(each)
        loops[subject.name] = walk(kept.look_up("name"), kept.names, sequence)
    return timed_row(name, title, DICT.name, loops, walk("None", {}, sequence), scale, cells)


def weak(scale: Scale) -> list[Row]:
    """A hit where only weak references are kept, while somebody else holds the instance."""
    given = work()
    held = []
    floor = "reference()"
    cells: dict[str, Figure | Absent] = {}
    loops: dict[str, Callable[[int], float]] = {}
    for subject, core in ((COMPILED, "compiled"), (PURE, "pure")):
        try:
            registry = load(core).MethodRegistry(given.paths, enable_weakref=True)
        except ImportError as error:
            cells[subject] = Absent(f"not installed: {error}")
            continue
        held.append(registry.get_instance(NAME))
        assert registry.stats().weakly_kept == 1
        loops[subject] = loop(f"get_instance({NAME!r})", {"get_instance": registry.get_instance})
    former = PipelineRegistry(given.paths, enable_weakref=True)
    held.append(former.get_instance(NAME))
    loops[PIPELINE.name] = loop(f"get_instance({NAME!r})", {"get_instance": former.get_instance})
    values: weakref.WeakValueDictionary[str, object] = weakref.WeakValueDictionary()
    values[NAME] = held[0] if held else given.classes[NAME]()
    loops["weakref.WeakValueDictionary"] = loop(f"get({NAME!r})", {"get": values.get})
    references = {NAME: weakref.ref(held[-1])}
    loops[floor] = loop(f"get({NAME!r})()", {"get": references.get})
    title = "hit in weak mode"
    row = timed_row("weak", title, floor, loops, loop("None", {}), scale, cells)
    del held
    return [row]
