"""What a subject is: something that keeps instances by name, and how it is asked for one."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..workload import NAME, Tagger, work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..workload import Work

TTL_SECONDS = 3600.0
"""Long enough that nothing expires while it is measured."""


@dataclass(frozen=True)
class Kept:
    """
    A subject that was made for some names.

    `hit` is the look-up of a warm `{name}` as source, over `names`; `fetch` gives the instance of a
    name and builds it if it is not there; `bound`, `called` and `executed` are the ways from a name
    to a bound method, to a call and to a routed call as source, where the subject has its own.
    """

    hit: str
    fetch: Callable[[str], Any]
    names: Mapping[str, Any] = field(default_factory=dict)
    bound: str | None = None
    called: str | None = None
    executed: str | None = None

    def look_up(self, name: str) -> str:
        """The look-up of a name that is given as source."""
        return self.hit.format(name=name)


@dataclass(frozen=True)
class Subject:
    """
    Something that keeps instances.

    `about` says in one line how it is used here. `bounded` subjects evict; several threads may
    call `shared` ones without external locking.
    """

    name: str
    about: str
    make: Callable[[Work, int], Kept]
    distribution: str | None = None
    bounded: bool = True
    shared: bool = True


@functools.cache
def absence(subject: Subject) -> str | None:
    """
    Tell why a subject cannot take part, and check once that one which can does the work.

    Args:
        subject: The subject.

    Returns:
        The reason; None if it is there.

    Raises:
        AssertionError: It gives something else than the one instance that it built.
    """
    try:
        kept = subject.make(work(), 100)
    except ImportError as error:
        return f"not installed: {error}" if error.name is None else f"no module {error.name!r}"
    first = kept.fetch(NAME)
    assert type(first) is Tagger, f"{subject.name} gave {first!r}"
    assert kept.fetch(NAME) is first, f"{subject.name} built twice"
    found = eval(kept.look_up(repr(NAME)), dict(kept.names))
    assert found is first, f"the hit of {subject.name} gave {found!r}"
    return None


def building(
    get: Callable[[str], Any], put: Callable[[str, Any], Any], work: Work
) -> Callable[[str], Any]:
    """
    Make look-up, build and store one function, for what has no such function itself.

    Args:
        get: Gives the instance of a name, or None.
        put: Stores one.
        work: What to build.

    Returns:
        A function from a name to its instance.
    """
    classes = work.classes

    def fetch(name: str) -> Any:
        instance = get(name)
        if instance is None:
            instance = classes[name]()
            put(name, instance)
        return instance

    return fetch
