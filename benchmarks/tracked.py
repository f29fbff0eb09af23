"""The four hits that CI tracks and that are published, on both cores, beside their floors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .subjects import DICT, OURS
from .workload import CALLS, NAME, Tagger, work

if TYPE_CHECKING:
    from collections.abc import Mapping

METHOD, ARGUMENTS = CALLS[2]
FLOORS = {
    "get_instance": DICT.make(work(), 1).look_up(repr(NAME)),
    "get_method": "getattr(tagger, 'tag')",
    "handle": "tagger.tag('x')",
    "execute": f"tagger.{METHOD}({ARGUMENTS})",
}
"""Hit -> the least that does it, as source."""
HITS = tuple(FLOORS)


class Hit(NamedTuple):
    """A hit as source, and what it refers to."""

    expression: str
    names: Mapping[str, Any]


def hit(name: str, subject: str) -> Hit:
    """
    Make what a hit needs, warm.

    Args:
        name: One of `HITS`.
        subject: "floor", "compiled" or "pure".

    Returns:
        The hit; it was evaluated once.
    """
    if subject == "floor":
        kept = DICT.make(work(), 1)
        made = Hit(FLOORS[name], {**kept.names, "tagger": Tagger()})
    else:
        (ours,) = [each for each in OURS if each.name.endswith(subject)]
        kept = ours.make(work(), 100)
        expressions = {
            "get_instance": kept.hit,
            "get_method": kept.bound,
            "handle": kept.called,
            "execute": kept.executed,
        }
        source = (expressions[name] or "").format(
            name=repr(NAME), method=repr(METHOD), arguments=ARGUMENTS
        )
        made = Hit(source, kept.names)
    kept.fetch(NAME)
    assert eval(made.expression, dict(made.names)) is not None
    return made
