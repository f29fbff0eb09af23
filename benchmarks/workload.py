"""What is kept, looked up and called: the classes, and the names that they go by."""

from __future__ import annotations

import random
import sys
import time
import types
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MODULE = "warmset_benchmark_workload"
NAME = "Tagger"


class Tagger:
    """The cheapest class that has methods to call."""

    def nothing(self) -> None:
        """No argument."""

    def tag(self, text: str) -> str:
        """One argument."""
        return text

    def score(self, text: str, limit: int) -> str:
        """Two arguments to route and check."""
        return text

    def audit(self, text: str, limit: int, top: int, low: float, high: float, name: str) -> str:
        """Six arguments to route and check."""
        return text


class Slow:
    """Its constructor waits as one that reads a file does: without the interpreter lock."""

    seconds = 1.0

    def __init__(self) -> None:
        time.sleep(self.seconds)


class Shared:
    """All its instances are one, so that what is measured is the place and not the instance."""

    one: Any = None

    def __new__(cls) -> Shared:
        """Give the one instance."""
        if cls.one is None:
            cls.one = super().__new__(cls)
        return cls.one  # type: ignore[no-any-return]


CALLS = {
    0: ("nothing", ""),
    2: ("score", "text='x', limit=3"),
    6: ("audit", "text='x', limit=3, top=5, low=0.1, high=0.9, name='y'"),
}
"""Number of arguments -> method, and the arguments as source."""


class Work(NamedTuple):
    """Names, and what is built for them: as classes, and as the paths of these classes."""

    classes: dict[str, type]
    paths: dict[str, str]


def work(names: Iterable[str] = (NAME,), cls: type = Tagger, **others: type) -> Work:
    """
    Give names a class.

    Args:
        names: The names.
        cls: The class of all of them.
        others: More names, with a class each.

    Returns:
        Both mappings, in the order of the names.
    """
    if MODULE not in sys.modules:
        module = types.ModuleType(MODULE)
        vars(module).update(Tagger=Tagger, Slow=Slow, Shared=Shared)
        sys.modules[MODULE] = module
    classes = {**dict.fromkeys(names, cls), **others}
    path = {cls: f"{MODULE}.{cls.__name__}" for cls in {cls, *others.values()}}
    return Work(classes, {name: path[cls] for name, cls in classes.items()})


def numbered(count: int, start: int = 0) -> list[str]:
    """
    Names that differ in their digits.

    They are interned, as those of a table that stands in source are: without an interpreter lock a
    shared dict whose keys are not takes its own lock for each look-up.
    """
    return [sys.intern(f"{NAME}{number}") for number in range(start, start + count)]


def zipf(names: list[str], length: int, seed: int = 7) -> list[str]:
    """
    Draw names by Zipf's law: the n-th is asked for 1/n times as often as the first.

    Args:
        names: The names; which of them is the n-th is drawn as well.
        length: How many to draw.
        seed: Of the drawing.

    Returns:
        The names in the order in which they are asked for.
    """
    drawing = random.Random(seed)
    ranked = drawing.sample(names, len(names))
    weights = [1.0 / rank for rank in range(1, len(names) + 1)]
    return drawing.choices(ranked, weights, k=length)
