"""
The methods of a registry that lead to capabilities.

Each imports its capability when it is called; none of them runs on a hit.
"""

from __future__ import annotations

from .codes import RECYCLED
from .registry import BaseRegistry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from typing_extensions import Self

    from .events import BuildEvent, RemovalEvent
    from .family_keys import FamilyKey
    from .memory.explain import Explanation
    from .memory.profiles import Profile
    from .memory.recording import ProfileRecorder
    from .memory.release import ReleaseReport
    from .memory.sizing import Size
    from .memory.warm_up import WarmUpEvent, WarmUpReport
    from .observe.health import Finding, HealthThresholds
    from .planning.plan import Plan
    from .share.sharing import SnapshotStats
    from .stats import HolderStats, RegistryStats

__all__ = ["Capabilities"]


class Capabilities(BaseRegistry):
    """The part of a registry that listens, reports, measures, releases memory and warms up."""

    # -- listeners -------------------------------------------------------------------------------

    def add_listener(self, listener: Callable[[RemovalEvent], Any]) -> None:
        """
        Call a listener with a `RemovalEvent` for each instance that is removed from now on.

        Args:
            listener: A callable. What it raises is logged and counted, and changes nothing.

        Raises:
            TypeError: It is not callable.
            ClosedError: The registry is closed.

        It is called outside every lock, once for each removal and in the order of the removals; by
        the thread that removed, or by one that is reporting another removal just then.
        """
        from .assembly import removal_listeners

        _check_listener(listener)
        self.refuse_if_closed("add a listener")
        removal_listeners(self).add(listener)

    def remove_listener(self, listener: Callable[[RemovalEvent], Any]) -> bool:
        """
        Remove a listener.

        Args:
            listener: The callable that was added.

        Returns:
            Whether it was there.
        """
        from .assembly import removal_listeners

        return removal_listeners(self).remove(listener)

    def add_build_listener(self, listener: Callable[[BuildEvent], Any]) -> None:
        """
        Call a listener with a `BuildEvent` for each build that completes from now on.

        Args:
            listener: A callable. What it raises is logged and counted, and changes nothing.

        Raises:
            TypeError: It is not callable.
            ClosedError: The registry is closed.

        It is called outside every lock, once for each build that succeeded or failed, by the thread
        that built, just before that returns the result; the waiters do not wait for it.
        """
        from .assembly import build_listeners

        _check_listener(listener)
        self.refuse_if_closed("add a listener")
        build_listeners(self).add(listener)

    def remove_build_listener(self, listener: Callable[[BuildEvent], Any]) -> bool:
        """
        Remove a build listener.

        Args:
            listener: The callable that was added.

        Returns:
            Whether it was there.
        """
        from .assembly import build_listeners

        return build_listeners(self).remove(listener)

    # -- copies ----------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> Any:
        from .copies import pickled

        return pickled(self, protocol)

    def __setstate__(self, contents: dict[str, Any]) -> None:
        from .copies import fill

        fill(self, contents)

    def __copy__(self) -> Self:
        from .copies import copied

        return copied(self)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        from .copies import deep_copied

        return deep_copied(self, memo)  # type: ignore[no-any-return]

    # -- reports ---------------------------------------------------------------------------------

    def stats(self) -> RegistryStats:
        """
        Return an immutable snapshot of the registry; reading it changes nothing.

        Returns:
            The snapshot. Its counters are of one moment.

        O(cached), and O(names) in weak mode.
        """
        from .stats import snapshot

        return snapshot(self)

    def get_stats(self) -> dict[str, Any]:
        """
        Return the statistics as plain data, under the names that the pipeline uses.

        Returns:
            What `stats` returns, as a dict.
        """
        from .stats import as_data

        return as_data(self)

    def holders(self) -> list[HolderStats]:
        """
        List the holds on instances, with their threads and durations.

        Returns:
            One for each lease, running call and unfinished generator or coroutine, the oldest
            first; also of instances that have been removed and are closed at their release.

        O(holds).
        """
        from .stats import holders

        return holders(self)

    def health(
        self,
        *,
        window_seconds: float = 300.0,
        thresholds: HealthThresholds | None = None,
    ) -> tuple[Finding, ...]:
        """
        Check the registry over the last seconds, not over the whole life of the process.

        Args:
            window_seconds: How far to look back. What happens between two calls that are further
                apart than this is judged as a whole.
            thresholds: `warmset.observe.health.HealthThresholds`; None takes the defaults, which
                docs/observability.md lists.

        Returns:
            The findings, the most severe first; empty if there are none. The first call begins the
            window: it can judge levels and not rates. Call it regularly, as from a health check.

        Raises:
            TypeError: The window is not a number.
            ValueError: The window is not above 0.

        A finding that the last call did not have is logged as a WARNING. Thread-safe; O(cached),
        and it waits for no build.
        """
        from .observe.health import monitor_of

        return monitor_of(self).check(self, window_seconds=window_seconds, thresholds=thresholds)

    def plan(self, *, window_seconds: float = 3600.0) -> Plan:
        """
        Tell what other bounds would have changed: builds, build seconds, and bytes.

        Args:
            window_seconds: How far to look back, at most to the first call or, with the setting
                `plan`, to the beginning; and at most over the latest 4,096 builds.

        Returns:
            The plan; ``repr()`` is a small table. What larger bounds would have avoided is counted
            from the builds of evicted instances, with a policy other than LRU estimated; what
            smaller ones would have cost is estimated.

        Raises:
            TypeError: The window is not a number.
            ValueError: The window is not above 0.

        From the first call on, evicted instances are remembered, at most 4,096 and 49 bytes each; a
        hit pays nothing. Thread-safe; O(builds in the window + cached).
        """
        from .planning.curves import make_plan
        from .planning.windows import check_window

        return make_plan(self, check_window(window_seconds))

    def explain(self, class_name: str | type | FamilyKey) -> Explanation:
        """
        Tell why an instance is cached, until when, and what it costs; or why it is not cached.

        Args:
            class_name: A name, or a class that is registered itself.

        Returns:
            The explanation; ``str()`` returns it as a text of some lines.

        Reading it changes nothing. O(cached).
        """
        from .memory.explain import explain

        return explain(self, self.name_of(class_name))

    def snapshot_stats(self) -> SnapshotStats | None:
        """
        Return the counters of the snapshots of shareable classes.

        Returns:
            An immutable snapshot; None for a registry without a store.
        """
        if self.settings.store is None:
            return None
        from .share.sharing import Sharing

        sharing = self.extension(Sharing)
        return None if sharing is None else sharing.snapshot_stats()

    def close(self) -> None:
        """
        Remove every instance and injected method; from now on a look-up raises `ClosedError`.

        Instances are closed in the reverse order of their building; one that is held is closed at
        its last release. What is left open, because something still refers to it, is logged with
        what refers to it. Closing twice does nothing; a registry that still exists when the
        interpreter exits is closed then.

        O(cached); with instances that are left open it takes up to two seconds.
        """
        if self.closed or self._ends:
            super().close()
            return
        self.left_at_close = []
        try:
            super().close()
        finally:
            left, self.left_at_close = self.left_at_close, None
        if left or self.holds():
            from .memory.left_open import report_open

            report_open(self, left)

    # -- memory ----------------------------------------------------------------------------------

    def measure(self, class_name: str | type | FamilyKey) -> Size | None:
        """
        Return the current size of a warm instance, by the sizer of its class.

        Args:
            class_name: A registered name.

        Returns:
            Bytes, the method, and the time of the measurement. By "measured" it is what the process
            grew by when the instance was built, for that cannot be measured again. Where there is
            no sizer, "deep" is taken. None if the instance is not warm, or its size is not known.

        Raises:
            UnknownClassError: The name is not registered.

        It is no use of the instance. "deep" follows everything that the instance refers to, for at
        most a second.
        """
        from .assembly import memory_manager

        slot = self.registered_slot(class_name)
        entry = slot.entry
        return None if entry is None else memory_manager(self).sizing.measure(self, entry)

    def measure_all(self) -> dict[str, Size]:
        """
        Return the current sizes of all warm instances; shared objects are counted once.

        Returns:
            Class name -> size, the most recently used instance first. What is shared is counted
            with the first of those that share it, by the sizer "deep".

        As `measure`, for each.
        """
        from .assembly import memory_manager

        return memory_manager(self).sizing.measure_all(self)

    def register_size_hook(self, kind: type | str, hook: Callable[[Any], int]) -> None:
        """
        Add a function that returns the size of instances of a type, for the sizer "declared".

        Args:
            kind: The type, or its module and qualified name with a dot between them; also for types
                that are derived from it.
            hook: Takes an instance and returns bytes.

        Raises:
            TypeError: The kind is neither a type nor a name, or the hook is not callable.
            ClosedError: The registry is closed.

        There are hooks for the arrays of numpy, the tensors and modules of torch, and the
        estimators of scikit-learn.
        """
        from .assembly import memory_manager

        self.refuse_if_closed("register a size hook")
        memory_manager(self).sizing.hooks.add(kind, hook)

    def release_memory(self) -> ReleaseReport:
        """
        Return memory to the system, and report what was returned and what was not, and why.

        Returns:
            The process's memory before and after, what was collected, and each instance that was
            removed since the first call of this and still exists: its holders, or what refers to
            it, by name where there is one. ``str()`` returns it as a text.

        Warm instances stay; expired ones are evicted. It runs the garbage collector, twice, and
        glibc's `malloc_trim`, and where something survives it searches for its referrers, for at
        most ten seconds: call it between runs, not while they are served.
        `clear_cache(release=True)` does the same after removing everything. Thread-safe; what other
        threads build and drop meanwhile is in the figures.
        """
        from .memory.release import release

        return release(self, self.evict_expired)

    def recycle(self, class_name: str | type | FamilyKey) -> bool:
        """
        Build an instance anew now, in this thread, while the old one serves; then replace it.

        Args:
            class_name: A registered name or class.

        Returns:
            Whether it was replaced. Not if it was not warm, or was removed meanwhile, or another
            thread is building it.

        Raises:
            MethodRegistryError: The build failed; the old instance stays.

        The holders of the old one keep it; it is closed at its last release. What was built for an
        event loop is removed instead, and built anew by the next look-up from that loop.
        """
        name = self.name_of(class_name)
        self.refuse_if_closed("recycle", name)
        slot = self.slot_to_build(name)
        entries = [own.entry for own in self.classes.loop_slots.of_name(slot.key)]
        removed = [self.evict(entry, RECYCLED) for entry in entries if entry is not None]
        return self.builder.renew(self, slot.key) or any(removed)

    # -- warming up ------------------------------------------------------------------------------

    def record_profile(self) -> ProfileRecorder:
        """
        Record from now on how classes are used and what they cost; a hit pays nothing for it.

        Returns:
            The recorder; the same one while it is not stopped.

        Raises:
            ClosedError: The registry is closed.

        Thread-safe.
        """
        from .memory.recording import record

        self.refuse_if_closed("record a profile")
        return record(self)

    def profile(self) -> Profile:
        """
        Return what was recorded so far.

        Returns:
            The profile; `Profile.save` writes it to a file, for `warm_up` in another process.

        Raises:
            RuntimeError: Nothing is recorded: see `record_profile`.

        O(classes seen + cached).
        """
        from .memory.recording import recorder_of

        recorder = recorder_of(self)
        if recorder is None:
            raise RuntimeError("no profile is recorded; expected a call of record_profile() before")
        return recorder.profile()

    def warm_up(
        self,
        profile_or_names: Profile | Iterable[str | type | FamilyKey],
        *,
        deadline_seconds: float | None = None,
        max_bytes: int | None = None,
        workers: int | None = None,
        progress: Callable[[WarmUpEvent], Any] | None = None,
    ) -> WarmUpReport:
        """
        Build ahead what will be used: the most valuable first, dependencies before dependents.

        Args:
            profile_or_names: A profile, or class names, registered classes and keys of families in
                the order of their value.
            deadline_seconds: After this time no build begins, and before it none that would not
                end in time according to the profile. A build in progress is not interrupted. None:
                no deadline.
            max_bytes: The most bytes that are built, by the sizes in the profile; classes without
                a known size are skipped then. None: no bound.
            workers: The number of threads that build; they end with this call. None: one for each
                processor, at most 4.
            progress: Called with a `WarmUpEvent` as each class begins and ends, by this thread and
                outside every lock. What it raises is logged and counted, and changes nothing.

        Returns:
            What was built, what was warm, what failed, and what was left out and why. A class that
            fails stops no other.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
            UnknownClassError: A class is not registered itself.
            ClosedError: The registry is closed.
            MethodRegistryError: It was called in the course of a build, for which it might wait.

        Warm instances stay warm: no more is built than the bounds allow. Each build is a look-up
        that misses; a warm instance is not looked up. Thread-safe. An interrupt is raised when the
        builds in progress have ended.
        """
        from .memory.warm_up import warm_up

        return warm_up(
            self,
            profile_or_names,
            deadline_seconds=deadline_seconds,
            max_bytes=max_bytes,
            workers=workers,
            progress=progress,
        )


def _check_listener(listener: object) -> None:
    if not callable(listener):
        raise TypeError(f"a listener must be callable, got {listener!r}")
