"""
The pure-Python core's records: of a class name, of a built instance, and of a hold on it.
"""

from __future__ import annotations

from _operator import index
from _thread import get_ident

from .codes import CACHED, CAUSES, NO_CAUSE, NO_LIMIT, STATE_NAMES, WEAK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Holder(Protocol):
        """Has at most one hold, on its entry."""

        entry: Entry | None

    from .family_keys import FamilyKey

NEW = -1  # the state of an entry whose constructor has not returned; it is counted nowhere


class Slot:
    """
    The registration of one class name: its target, options and limits, and its current entry.

    `generation` changes whenever a build that is in progress must not be published any more. `key`
    is what it is found by: the name, or the key of a family, which is displayed as the name.
    """

    __slots__ = (
        "age_limit",
        "alive",
        "entry",
        "generation",
        "idle_limit",
        "key",
        "last_cause",
        "name",
        "options",
        "owner",
        "pinned",
        "target",
    )

    def __init__(self, key: str | FamilyKey, owner: object = None) -> None:
        self.key: Any = key
        self.name = key if type(key) is str else str(key)
        self.owner = owner  # what only its registry has; None: it belongs to none
        self.target: Any = None  # a class path, a class or a factory; None: not registered
        self.options: Any = None
        self.entry: Entry | None = None
        self.idle_limit = NO_LIMIT  # seconds
        self.age_limit = NO_LIMIT
        self.generation = 0
        self.alive = False  # whether it is the slot of its name
        self.pinned = False
        self.last_cause = NO_CAUSE  # of the last removal of what it had

    @property
    def path(self) -> str | None:
        """The dotted path of the target; None if there is no target."""
        target = self.target
        if target is None or type(target) is str:
            return target
        named = target if hasattr(target, "__qualname__") else type(target)
        return f"{named.__module__}.{named.__qualname__}"

    def __repr__(self) -> str:
        return f"<slot {self.name!r}: {'empty' if self.entry is None else self.entry}>"


class Entry:
    """
    The record of one built instance, from its constructor's return until it is closed or released.

    It belongs to one slot, whose current entry it is while it is cached. Options, and so the
    closer, are those that were in effect when it was built.
    """

    __slots__ = (
        "build_seconds",
        "built_at",
        "bytes",
        "cause",
        "closer",
        "content",
        "deadline",
        "eviction_serial",
        "held",
        "holds",
        "last_used",
        "newer",
        "older",
        "options",
        "routes",
        "serial",
        "shared",
        "slot",
        "stamp",
        "state",
        "touched",
        "uses",
        "weak",
    )

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.options = slot.options
        self.closer: Any = None  # of this very instance: see `providers`
        self.content: Any = None  # the instance, or a weak reference to it
        self.weak = False
        self.state = NEW
        self.cause = NO_CAUSE  # of its removal
        self.newer: Entry | None = None
        self.older: Entry | None = None
        self.built_at = 0.0
        self.last_used = 0.0
        self.deadline = -NO_LIMIT  # a look-up past it, or of a weak entry, takes the slow path
        self.build_seconds = 0.0
        self.uses = 0
        self.holds = 0
        self.bytes = -1  # -1: not known
        self.serial = 0  # unique in its registry; the order in which builds and adoptions ended
        self.eviction_serial = 0  # of its removal
        self.stamp = 0  # orders uses at the same time
        self.touched = False  # used since the ring was sorted
        self.shared = False  # returned without a lease
        self.held = False  # held when it was removed
        self.routes: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The class name."""
        return self.slot.name

    @property
    def instance(self) -> Any:
        """The instance; None where it was closed, or is kept weakly and was collected."""
        content = self.content
        return content() if self.weak and content is not None else content

    @property
    def in_cache(self) -> bool:
        """Whether look-ups find it."""
        return CACHED <= self.state <= WEAK

    def __repr__(self) -> str:
        state = "new" if self.state == NEW else STATE_NAMES[self.state]
        return f"<entry of {self.name!r}: {state}, {self.uses} uses, {self.holds} holds>"


def make_end() -> Entry:
    """Return an entry that only marks an end of the ring."""
    return Entry(Slot(""))


class Hold:
    """One hold on an entry; `entry` is None while there is none."""

    __slots__ = ("entry", "since", "thread")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.thread = get_ident()
        self.since = 0.0


def checked_cause(cause: int) -> int:
    """Return the cause of a removal as an exact int, or raise: no error may come amid a change."""
    if not 0 <= index(cause) < CAUSES:
        raise ValueError(f"expected a cause of a removal, got {cause}")
    return index(cause)
