"""
Waiting for a build of another context: cycles, imports, timeouts.

A context that waits is entered, before it waits, with the build it waits for, and each build knows
its owner. So a cycle, within a context or across several, is found by the one that would close it.
"""

from __future__ import annotations

from time import perf_counter

from ._locks import is_inside_lock
from .builds import blocked, innermost_build, is_stuck, running, waiting
from .codes import WAITS
from .contexts import blocked_thread, get_ident, importing_in_cycle, is_importing, wait_for
from .errors import BuildTimeoutError, CycleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from .builds import Build, Constructor, Waiter

__all__ = ["must_not_wait", "wait_for_build"]


def must_not_wait(build: Build, me: Hashable) -> bool:
    """Whether the context that builds could not go on while this one waits."""
    if build.owner == me:
        return False  # a cycle, which is found when it begins to wait
    return is_inside_lock() or is_stuck(build, me, blocked_thread())


def wait_for_build(
    build: Build, waiter: Waiter, constructor: Constructor, me: Hashable, seconds: float
) -> bool:
    """
    Wait for a build of another context.

    Args:
        build: The build.
        waiter: Is entered for it.
        constructor: As for `Builder.obtain`.
        me: This context.
        seconds: How long at most; negative: as long as it takes.

    Returns:
        Whether the waiter was given a hold; if not, the name has to be looked up again.

    Raises:
        CycleError: The build waits for this context.
        BuildTimeoutError: It took too long.
        MethodRegistryError: It failed.
    """
    before = waiting.get(me)  # set where a finaliser or a signal handler re-entered
    here = blocked_thread()
    blocked_before = blocked.get(here)
    # One call each, without a jump before it: an interrupt cannot skip it.
    restore: Any = waiting.pop if before is None else waiting.__setitem__
    restore_blocked: Any = blocked.pop if blocked_before is None else blocked.__setitem__
    try:
        waiting[me] = build
        if here is not None:
            blocked[here] = build
        build.waiters.append(waiter)
        if build.done:  # it completed before this context was among its waiters
            waiter.withdrawn = True
            constructor.give_back(waiter, None)
            return False
        _complete_own(me)
        chain = _chain(build, me)
        if chain is not None:
            raise CycleError(chain)
        if is_stuck(build, me, here):  # seen again: it is entered by now
            waiter.withdrawn = True
            constructor.give_back(waiter, None)
            return False
        constructor.count(WAITS)
        if not wait_for(waiter.lock, seconds, _import_check(build)):
            raise BuildTimeoutError(
                build.slot.name,
                build.slot.path,
                builder=_thread_name(build.thread),
                seconds=perf_counter() - build.began,
            )
    finally:
        try:
            restore(me, before)
        finally:
            restore_blocked(here, blocked_before)
    if waiter.entry is not None:
        return True
    fits = waiter.slot is build.slot and build.token >= waiter.asked
    if build.error is not None and build.replaces is None and fits:
        raise build.error.fresh_copy() from build.error.__cause__
    return False


def _complete_own(me: Hashable) -> None:
    """Wake those who wait for a build of this context, whose completion was re-entered."""
    build = running.get(me)
    while build is not None:
        following = build.outer
        if build.done and not build.completed:
            build.complete()
        build = following


def _import_check(build: Build) -> Callable[[], None] | None:
    """Return what raises if a build waits for an import of this thread, if it has one."""
    here = get_ident()
    if not is_importing(here):
        return None

    def check() -> None:
        module = importing_in_cycle(here, build.thread)
        if module is not None:
            name = build.slot.name
            raise CycleError([name, f"import of {module}", name])

    return check


def _chain(build: Build, me: Hashable) -> list[str] | None:
    """Return the names along the cycle that waiting for a build would close, if it would."""
    wanted = [build]
    while wanted[-1].owner != me:
        following = waiting.get(wanted[-1].owner)
        if following is None or following in wanted:
            return None
        wanted.append(following)
    if any(hop.done for hop in wanted):
        # One hop completed meanwhile, so nobody waits along this path any more. While none has,
        # each owner still waits where it was seen.
        return None
    chain: list[str] = []
    for hop in wanted:
        names = []
        inner = innermost_build(hop.owner)
        while inner is not None and inner is not hop:
            names.append(inner.slot.name)
            inner = inner.outer
        chain += [hop.slot.name, *reversed(names)]
    return [*chain, build.slot.name]


def _thread_name(ident: int) -> str:
    import threading

    return {each.ident: each.name for each in threading.enumerate()}.get(ident, f"thread {ident}")
