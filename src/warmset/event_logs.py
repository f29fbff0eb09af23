"""
Events made from entries and builds, and the log records of them.
"""

from __future__ import annotations

from . import _logs
from .events import BuildEvent, RemovalCause, RemovalEvent
from .family_keys import FamilyKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._core import Entry, Slot
    from .builder import Build

__all__ = ["build_event", "log_build", "log_clear", "log_removals", "removal_event"]


def removal_event(entry: Entry, now: float) -> RemovalEvent:
    """
    Describe a removal.

    Args:
        entry: The removed entry.
        now: The registry's clock.

    Returns:
        The event.
    """
    return RemovalEvent(
        class_name=entry.name,
        cause=RemovalCause(entry.cause),
        age_seconds=max(0.0, now - entry.built_at),
        idle_seconds=max(0.0, now - entry.last_used),
        uses=entry.uses,
        build_seconds=entry.build_seconds,
        held=entry.held,
        **_family(entry.slot),
        bytes=None if entry.bytes < 0 else entry.bytes,
    )


def build_event(build: Build) -> BuildEvent:
    """
    Describe a completed build.

    Args:
        build: The build.

    Returns:
        The event.
    """
    slot, error, outer, entry = build.slot, build.error, build.outer, build.entry
    cause: BaseException | None = error
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    return BuildEvent(
        class_name=slot.name,
        succeeded=error is None,
        started=build.started or 0.0,
        seconds=build.seconds,
        stage=None if error is None else error.stage,
        error_type=None if cause is None else type(cause).__qualname__,
        error=None if error is None else str(error),
        bytes=None if entry is None or entry.bytes < 0 else entry.bytes,
        within=None if outer is None else outer.slot.name,
        asked_for=tuple(build.asked_for),
        own_seconds=max(0.0, build.seconds - build.elsewhere),
        opened=build.opened,
        import_seconds=build.import_seconds,
        **_family(slot),
    )


def _family(slot: Slot) -> dict[str, Any]:
    key = slot.key
    return {"family": key.family, "key": key.key} if type(key) is FamilyKey else {}


def log_build(build: Build) -> None:
    """Log a completed build."""
    event = build_event(build)
    fields = {
        "class_name": event.class_name,
        "class_path": build.slot.path,
        "build_seconds": event.seconds,
        "bytes": event.bytes,
    }
    if event.succeeded:
        how = "opened the snapshot of" if event.opened else "built"
        message, values = "%s %r in %.3f s", [how, event.class_name, event.seconds]
        if event.import_seconds:
            message += ", after importing its module in %.3f s"
            values.append(event.import_seconds)
            fields["import_seconds"] = event.import_seconds
        _logs.info("builds", message, *values, fields=fields)
    else:
        fields |= {"stage": event.stage, "error_type": event.error_type}
        _logs.warning(
            "builds",
            "no instance of %r, after %.3f s: %s",
            event.class_name,
            event.seconds,
            event.error,
            fields=fields,
        )


def log_removals(entries: list[Entry], now: float) -> None:
    """
    Log removals.

    Args:
        entries: The removed entries.
        now: The registry's clock.
    """
    for event in [removal_event(entry, now) for entry in entries]:
        cause = event.cause.name.lower()
        _logs.info(
            "removals",
            "removed %r: %s; %d uses, %.1f s old, idle for %.1f s%s",
            event.class_name,
            cause,
            event.uses,
            event.age_seconds,
            event.idle_seconds,
            ", still held" if event.held else "",
            fields={
                "class_name": event.class_name,
                "cause": cause,
                "age_seconds": event.age_seconds,
                "idle_seconds": event.idle_seconds,
                "access_count": event.uses,
                "build_seconds": event.build_seconds,
                "held": event.held,
                "bytes": event.bytes,
            },
        )


def log_clear(strong: int, weak: int) -> None:
    """Log that the cache was cleared."""
    _logs.info(
        "removals",
        "cleared the cache: %d instances, and %d weakly kept",
        strong,
        weak,
        fields={"cause": "cleared", "entries_cleared": strong, "weakrefs_cleared": weak},
    )
