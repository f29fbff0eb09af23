"""The pure-Python core's records: of a class name, and of an instance that left it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EMPTY, STRONG, WEAK = 0, 1, 2
# Values of `events.RemovalCause`: those up to COLLECTED are evictions, and for one of those up to
# MEMORY nothing leaves that is held.
IDLE, SIZE, MEMORY, AGED, RECYCLED, COLLECTED, CLEARED, DISCARDED, REPLACED = range(9)
CAUSES = 10
NOT_REVIVED = frozenset((AGED, RECYCLED, REPLACED))
NO_LIMIT = float("inf")


class Slot:
    """
    The record of one class name; instances move in and out of it.

    `epoch` names what the slot holds: a lease or a build that remembers it can tell whether this
    is still there. Each departure gives the slot an epoch that it never had; an instance that is
    revived brings its own back. `moves` counts both.
    """

    __slots__ = (
        "age_limit",
        "alive",
        "build_seconds",
        "built_at",
        "bytes",
        "epoch",
        "holds",
        "idle_limit",
        "instance",
        "kind",
        "last_used",
        "leaving",
        "moves",
        "name",
        "newer",
        "older",
        "path",
        "pinned",
        "routes",
        "serial",
        "shared",
        "uses",
    )

    def __init__(self, name: str, path: str | None) -> None:
        self.name = name
        self.path = path
        self.alive = False  # whether it is the slot of its name
        self.instance: Any = None
        self.newer: Slot | None = None
        self.older: Slot | None = None
        self.last_used = 0.0
        self.built_at = 0.0
        self.build_seconds = 0.0
        self.idle_limit = NO_LIMIT  # seconds
        self.age_limit = NO_LIMIT
        self.bytes = -1  # of the instance, if known
        self.pinned = False
        self.uses = 0
        self.holds = 0
        self.serial = 0  # of the build: which came before which
        self.epoch = 0
        self.moves = 0
        self.shared = False  # whether it was handed out without a lease
        self.leaving: list[Departure] = []  # taken out while held; closed at their last release
        self.kind = EMPTY
        self.routes: dict[str, tuple[Any, Any]] | None = None

    def __repr__(self) -> str:
        kind = ("empty", "strong", "weak")[self.kind]
        return f"<slot {self.name!r}: {kind}, {self.uses} uses, {self.holds} holds>"


class Departure:
    """
    An instance that was taken out of its slot, and why.

    `held` tells whether somebody held it then; in that case it is not closed before `holds`, which
    are still to be given back, come down to none, and it may be revived until then, unless its
    class was replaced. `shared` tells whether it was ever handed out without a lease.
    """

    __slots__ = (
        "build_seconds",
        "built_at",
        "bytes",
        "cause",
        "class_name",
        "epoch",
        "held",
        "holds",
        "instance",
        "last_used",
        "routes",
        "serial",
        "shared",
        "uses",
        "weak",
    )

    def __init__(self, slot: Slot, cause: int) -> None:
        self.class_name = slot.name
        self.cause = cause
        self.epoch = slot.epoch
        self.instance = slot.instance
        self.routes = slot.routes
        self.built_at = slot.built_at
        self.last_used = slot.last_used
        self.build_seconds = slot.build_seconds
        self.uses = slot.uses
        self.bytes = slot.bytes
        self.serial = slot.serial
        self.holds = slot.holds
        self.held = slot.holds > 0
        self.shared = slot.shared
        self.weak = slot.kind == WEAK

    def __repr__(self) -> str:
        return f"<departure of {self.class_name!r}: cause {self.cause}, {self.holds} holds>"
