"""
What keeps a registry in bounds by more than a count and a clock; `warmset.memory` does the work.
"""

from __future__ import annotations

from .observed import Observed
from .resolver import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._core import Slot
    from .lifecycle.options import ClassOptions
    from .memory.explaining import Explanation
    from .memory.manager import MemoryManager
    from .memory.profiles import Profile
    from .memory.recording import ProfileRecorder
    from .memory.releasing import ReleaseReport
    from .memory.sizing import Size
    from .memory.warming import WarmUpEvent, WarmUpReport

__all__ = ["Bounded"]


class Bounded(Observed):
    """The part of a registry that looks after memory."""

    _memory: MemoryManager | None
    _recorder: ProfileRecorder | None = None

    # -- who stays -------------------------------------------------------------------------------

    def pin(self, class_name: str) -> None:
        """
        Keep the instance of a class, once it is built, whatever the want of use, room or memory.

        Args:
            class_name: A registered name.

        Raises:
            UnknownClassError: The name is not registered.

        A pinned instance still leaves when it is past its maximum age, is recycled, discarded or
        cleared. Pinned instances count within the bounds and may exceed them. O(1).
        """
        self._pin(class_name, True)

    def unpin(self, class_name: str) -> None:
        """
        Let the instance of a class leave again.

        Args:
            class_name: A registered name.

        Raises:
            UnknownClassError: The name is not registered.

        What is over the bound now leaves with the next build, or the next sweep. O(1).
        """
        self._pin(class_name, False)

    def pinned(self) -> list[str]:
        """
        Give the names that are pinned, warm or not, in the order of their registration.

        Returns:
            A new list; O(names).
        """
        return [slot.name for slot in list(self._slots.values()) if slot.pinned]

    def _pin(self, class_name: str, pinned: bool) -> None:
        slot = self._slots.get(check_name(class_name))
        if slot is None:
            self._refuse(class_name)
        self._set_pinned(slot, pinned)  # type: ignore[arg-type]

    # -- how big they are ------------------------------------------------------------------------

    def measure(self, class_name: str) -> Size | None:
        """
        Tell how big a warm instance is now, by the sizer of its class.

        Args:
            class_name: A registered name.

        Returns:
            Bytes, the method, and when that was. By "measured" it is what the process grew by when
            the instance was built, for that cannot be measured again. Where there is no sizer,
            "deep" is taken. None if the instance is not warm, or its size cannot be told.

        Raises:
            UnknownClassError: The name is not registered.

        It is no use of the instance. "deep" walks through all that the instance refers to, for at
        most a second.
        """
        slot = self._slots.get(check_name(class_name))
        if slot is None:
            self._refuse(class_name)
        return self._manager().sizing.measure(self, slot)  # type: ignore[arg-type]

    def measure_all(self) -> dict[str, Size]:
        """
        Tell how big all warm instances are now; what several share is counted once.

        Returns:
            Class name -> size, the instance that was used last first. What is shared is counted
            with the first of those that share it, by the sizer "deep".

        As `measure`, for each.
        """
        sizing, seen = self._manager().sizing, {}  # type: ignore[var-annotated]
        sizes = {}
        for slot in self._warm_slots():
            size = sizing.measure(self, slot, seen=seen)  # type: ignore[arg-type]
            if size is not None:
                sizes[slot.name] = size
        return sizes

    def register_size_hook(self, kind: type | str, hook: Callable[[Any], int]) -> None:
        """
        Let a hook tell the size of instances of a type, for the sizer "declared".

        Args:
            kind: The type, or its module and qualified name with a dot between them; also for types
                that are derived from it.
            hook: Takes an instance and gives bytes.

        Raises:
            TypeError: The kind is no type and no name, or the hook is not callable.

        There are hooks for the arrays of numpy, the tensors and modules of torch, and the
        estimators of scikit-learn.
        """
        self._manager().sizing.hooks.add(kind, hook)

    # -- when they leave -------------------------------------------------------------------------

    def sweep(self) -> int:
        """
        Do what the sweeper does at each `sweep_interval_seconds`, now and in this thread.

        Returns:
            How many instances have expired.

        What has expired leaves; the memory budget is looked after; what is due to be recycled is
        built anew in the background. O(cached).
        """
        expired = self.evict_expired()
        if self._cached > self.settings.max_cache_size:
            self._trim()
        if self._memory is not None:
            self._memory.sweep(self)  # type: ignore[arg-type]
        return expired

    def recycle(self, class_name: str) -> bool:
        """
        Build an instance anew now, in this thread, while the old one serves; then replace it.

        Args:
            class_name: A registered name.

        Returns:
            Whether it was replaced. Not if it was not warm, or left meanwhile, or another thread is
            building it.

        Raises:
            MethodRegistryError: The build failed; the old instance stays.

        Who holds the old one goes on with it; it is closed at its last release.
        """
        slot = self._slot_to_build(check_name(class_name))
        return self._builder.renew(self, slot.name)  # type: ignore[arg-type]

    # -- warming up ------------------------------------------------------------------------------

    def record_profile(self) -> ProfileRecorder:
        """
        Record from now on what classes are used for and what they cost; a hit pays nothing for it.

        Returns:
            The recorder; the same one while it is not stopped.

        Safe under threads.
        """
        from .memory.recording import record

        return record(self)

    def profile(self) -> Profile:
        """
        Give what was recorded so far.

        Returns:
            The profile; `Profile.save` writes it to a file, for `warm_up` in another process.

        Raises:
            RuntimeError: Nothing is recorded: see `record_profile`.

        O(classes seen + cached).
        """
        recorder = self._recorder
        if recorder is None:
            raise RuntimeError("no profile is recorded; expected a call of record_profile() before")
        return recorder.profile()

    def warm_up(
        self,
        profile_or_names: Profile | Iterable[str],
        *,
        deadline: float | None = None,
        max_bytes: int | None = None,
        workers: int | None = None,
        progress: Callable[[WarmUpEvent], Any] | None = None,
    ) -> WarmUpReport:
        """
        Build ahead what will be used: the most valuable first, dependencies before dependents.

        Args:
            profile_or_names: A profile, or class names in the order of their value.
            deadline: Seconds from now after which nothing more is begun, nor before it what, by the
                profile, would not end in time. A build under way is not interrupted. None: no
                deadline.
            max_bytes: How many bytes are built at most, by the sizes in the profile; what has no
                known size is left out then. None: no bound.
            workers: How many threads build; they end with this call. None: one for each processor,
                at most 4.
            progress: Called with a `WarmUpEvent` as each class begins and ends, by this thread and
                outside every lock. What it raises is logged and counted, and changes nothing.

        Returns:
            What was built, what was warm, what failed, and what was left out and why. A class that
            fails stops no other.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
            ClosedError: The registry is closed.
            MethodRegistryError: It was called in the course of a build, for which it might wait.

        What is warm stays warm: no more is built than there is room for. Each build is a look-up
        that misses; what is warm already is not looked up. Safe under threads. An interrupt
        passes on when the builds under way have ended.
        """
        from .memory.warming import warm_up

        return warm_up(
            self,  # type: ignore[arg-type]
            profile_or_names,
            deadline=deadline,
            max_bytes=max_bytes,
            workers=workers,
            progress=progress,
        )

    # -- what comes back -------------------------------------------------------------------------

    def release_memory(self) -> ReleaseReport:
        """
        Have memory given back to the system, and tell what came back and what did not, and why.

        Returns:
            The process's memory before and after, what was collected, and each instance that left,
            since this was called for the first time, and still lives: who holds it, or who refers
            to it, by name where there is one. ``str()`` gives it as a text.

        What is warm stays; what has expired leaves. It runs the garbage collector, twice, and
        glibc's `malloc_trim`, and where something lives it searches for its referrers, for at most
        ten seconds: call it between runs, not while they are served. `clear_cache(release=True)`
        does the same with all that is cached. Safe under threads; what others build and drop
        meanwhile is in the figures.
        """
        from .memory.releasing import release

        return release(self, self.evict_expired)  # type: ignore[arg-type]

    # -- why -------------------------------------------------------------------------------------

    def explain(self, class_name: str) -> Explanation:
        """
        Tell why an instance is here, until when, and what it costs; or why it is not here.

        Args:
            class_name: A name.

        Returns:
            The explanation; ``str()`` gives it as a text of some lines.

        Reading it changes nothing. O(cached).
        """
        from .memory.explaining import explain

        return explain(self, check_name(class_name))  # type: ignore[arg-type]

    # -- what the registry calls -----------------------------------------------------------------

    def _slot_to_build(self, class_name: str) -> Slot:
        raise NotImplementedError

    def _manager(self) -> MemoryManager:
        """The memory manager, made at the first time that something asks for it."""
        if self._memory is None:
            from .memory.manager import MemoryManager

            self._memory = MemoryManager(self)  # type: ignore[arg-type]
        return self._memory

    def _set_options(self, slot: Slot, options: ClassOptions | None) -> None:
        super()._set_options(slot, options)
        if options is not None and options.managed:
            self._manager().ask_for(self, slot)  # type: ignore[arg-type]

    def _choose_room(self, spare: Slot | None) -> None:
        if self._memory is not None:
            self._memory.choose_room(self, spare)  # type: ignore[arg-type]

    def _measured_bytes(self, slot: Slot) -> int | None:
        """How big an instance is now, where something can tell."""
        size = self._manager().sizing.measure(self, slot, walk=True)  # type: ignore[arg-type]
        return None if size is None else size.bytes

    def _close_unclaimed(self, slot: Slot, instance: Any) -> None:
        """Close what was built to replace something that has left meanwhile."""
        from types import SimpleNamespace

        self._close_departed(  # type: ignore[attr-defined]
            self,
            SimpleNamespace(
                class_name=slot.name, instance=instance, routes=None, weak=False, shared=False
            ),
        )
