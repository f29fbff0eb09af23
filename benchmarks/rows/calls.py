"""From a name to a bound method, to a call, to a routed and checked call."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..subjects import OURS, PIPELINE
from ..timing import loop
from ..workload import CALLS, NAME, Tagger, work
from .common import present, timed_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..results import Row
    from ..subjects import Kept
    from ..timing import Scale

PARTIAL = "functools.partial"
"""Of the bound method: the least that any call from C takes."""
# Without its own way, a subject gives the instance and Python does the rest.
BOUND = "getattr({hit}, 'tag')"
CALLED = "{hit}.tag('x')"


def get_method(scale: Scale) -> list[Row]:
    """A bound method by two names."""
    floor = {"getattr": loop("getattr(tagger, 'tag')", {"tagger": Tagger()})}
    return [_row("get-method", "`get_method`", floor, lambda kept: kept.bound or BOUND, scale)]


def handle(scale: Scale) -> list[Row]:
    """The fastest way that a subject has of calling the same method again."""
    tagger = Tagger()
    floor = {
        "direct call": loop("tagger.tag('x')", {"tagger": tagger}),
        PARTIAL: loop("partial('x')", {"partial": functools.partial(tagger.tag)}),
    }
    title = "handle, called with one argument"
    return [_row("handle", title, floor, lambda kept: kept.called or CALLED, scale)]


def has_method(scale: Scale) -> list[Row]:
    """Whether a warm instance has a method."""
    there, cells = present(OURS)
    loops = {"hasattr": loop("hasattr(tagger, 'tag')", {"tagger": Tagger()})}
    source = f"has_method({NAME!r}, 'tag')"
    for subject in there:
        kept = subject.make(work(), 100)
        kept.fetch(NAME)
        assert eval(source, dict(kept.names)) is True
        loops[subject.name] = loop(source, kept.names)
    title = "`has_method` of a warm class"
    return [timed_row("has-method", title, "hasattr", loops, loop("None", {}), scale, cells)]


def _row(
    name: str,
    title: str,
    floor: dict[str, Callable[[int], float]],
    expression: Callable[[Kept], str],
    scale: Scale,
) -> Row:
    there, cells = present()
    loops = dict(floor)
    tagger: Any = None
    for subject in there:
        kept = subject.make(work(), 100)
        tagger = kept.fetch(NAME)
        source = expression(kept).format(name=repr(NAME), hit=kept.look_up(repr(NAME)))
        result = eval(source, dict(kept.names))
        expected = tagger.tag if name == "get-method" else "x"
        assert result == expected, f"{subject.name}: {source} gave {result!r}"
        loops[subject.name] = loop(source, kept.names)
    return timed_row(name, title, next(iter(floor)), loops, loop("None", {}), scale, cells)


def by_name(table: dict[str, Any]) -> Callable[..., Any]:
    """The least that calls by names, in Python: a dict, `getattr`, and the keywords passed on."""

    def execute(class_name: str, method_name: str, **arguments: Any) -> Any:
        return getattr(table[class_name], method_name)(**arguments)

    return execute


def execute(scale: Scale) -> list[Row]:
    """A call by names, with 0, 2 and 6 arguments; only warmset checks them."""
    rows = []
    for count, (method, arguments) in CALLS.items():
        there, cells = present((*OURS, PIPELINE))
        tagger = Tagger()
        floor = "direct call"
        least = {"execute": by_name({NAME: tagger})}
        source = "execute({name}, {method}, {arguments})"
        sources = {
            floor: (f"tagger.{method}({arguments})", {"tagger": tagger}),
            PARTIAL: (
                f"partial({arguments})",
                {"partial": functools.partial(getattr(tagger, method))},
            ),
            "dict, getattr, keywords": (
                source.format(name=repr(NAME), method=repr(method), arguments=arguments),
                least,
            ),
        }
        for subject in there:
            kept = subject.make(work(), 100)
            assert kept.executed is not None
            sources[subject.name] = (
                kept.executed.format(name=repr(NAME), method=repr(method), arguments=arguments),
                dict(kept.names),
            )
        loops = {}
        expected = eval(sources[floor][0], sources[floor][1])
        for subject_name, (call, names) in sources.items():
            given = eval(call, dict(names))
            assert given == expected, f"{subject_name}: {call} gave {given!r}"
            loops[subject_name] = loop(call, names)
        title = f"`execute`, {count} arguments"
        empty = loop("None", {})
        rows.append(timed_row(f"execute-{count}", title, floor, loops, empty, scale, cells))
    return rows
