"""
The registry: the core's slots, filled by way of resolver and builder.
"""

from __future__ import annotations

from _thread import get_ident

from . import _logs
from .beyond import Beyond
from .builder import Builder
from .errors import AsyncRuleError, ClosedError, UnknownClassError
from .resolver import check_name, near_names, resolve
from .settings import RegistrySettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Any

    from typing_extensions import Self

    from ._core import Lease, Slot
    from .builder import Flight
    from .lifecycle.options import ClassOptions
    from .lifecycle.room import Room
    from .observe.serving import Served

__all__ = ["Registry"]

_CLEARED, _DISCARDED, _SHUTDOWN = 6, 7, 9  # values of `events.RemovalCause`


class Registry(Beyond):
    """
    Builds instances by class name, at first use, and keeps a bounded set of them warm.

    Args:
        class_paths: Class name -> ``package.module.Class``. None takes the default table: the file
            that the environment variable ``WARMSET_CONFIG`` names, and the entry points of the
            group ``warmset.classes``.
        cache_ttl_seconds: Seconds without use after which an instance is evicted; 0: never.
        enable_weakref: Keep instances by weak reference only: an instance lives as long as somebody
            else holds it, and neither TTL nor size bound applies to it. One whose class has no weak
            references is kept strongly.
        max_cache_size: How many instances are kept at most; held ones may exceed it.
        retry_after_seconds: For how long the error of a failed build comes back at once; 0 tries
            each time, `math.inf` never again.
        build_timeout_seconds: For how long a thread waits for another thread's build before it gets
            a `BuildTimeoutError`; 0: as long as it takes.
        revive: A held instance that was removed is handed out again, and kept, if its name is asked
            for before its last release; False builds another one.
        block_when_full: While all that is cached is held, a build waits for room, at most
            `block_timeout_seconds`, and then raises `CapacityError`; False exceeds the bound.
        block_timeout_seconds: See `block_when_full`.
        sweep_interval_seconds: Evict what has expired every so many seconds, by one thread for all
            registries of the process; 0: only look-ups and `evict_expired` do.
        max_age_seconds: Seconds since its build after which an instance is handed out no more, also
            while somebody holds it; 0: never.
        policy: Who leaves when a bound is passed. "lru": who was used least recently; "cost": who
            is worth least, by rebuild seconds, frequency of use, and bytes; or an object with a
            method ``worth(slot, now)``, see `warmset.memory.policies`.
        sizer: How the size of an instance is told, see `warmset.memory.sizing`: "measured",
            "deep", "declared", a callable, or an object; None tells none.
        max_cache_bytes: How many bytes are kept at most, as the sizer tells them ("measured", where
            there is none); 0: no bound.
        max_rss_bytes: When the process has more memory than this, after a build or at a sweep,
            instances leave. Bytes, or as a float a part of what the process may have; 0: no bound.
        low_rss_bytes: They leave until it has less than this; 0: nine tenths of `max_rss_bytes`.
        adaptive_ttl: Let the idle limit of a class without one of its own follow from how it is
            used and what its build costs; `explain` tells it.
        adaptive_ttl_min_seconds: The least limit that this gives.
        adaptive_ttl_max_seconds: The most; also for a class of which nothing is known.
        store: Where snapshots of shareable classes are kept, so that other processes, and the next
            run, open them instead of building: the path of a directory, a URL, or a store, see
            `warmset.share`; None: nowhere.
        host_budget: The most memory that all processes of this user on this host shall have that
            say so: bytes, or as a float a part, or a `warmset.share.HostBudget`; 0: no bound. It
            has the registry swept, each second where `sweep_interval_seconds` says nothing.
        observe_socket: Let `warmset top` and `warmset stats` of the same user look at this
            registry, over a private Unix socket; see `warmset.observe.serve`.
        observe_changes: Let them also evict and clear.
        timer: Gives monotonic seconds, for tests; it is read at every look-up. None takes the
            system's monotonic clock, where the TTL allows it the coarse one (1 to 4 ms).

    Raises:
        TypeError: A setting or a class name is of the wrong type.
        ValueError: A setting is out of range, or a class path has not the shape of one.

    Every method may be called from any thread, and from constructors, rules and finalisers. Single
    calls are atomic; a check followed by an act is two calls.
    """

    def __init__(
        self,
        class_paths: Mapping[str, str] | None = None,
        cache_ttl_seconds: float = 300.0,
        enable_weakref: bool = False,
        max_cache_size: int = 100,
        *,
        retry_after_seconds: float = 30.0,
        build_timeout_seconds: float = 0.0,
        revive: bool = True,
        block_when_full: bool = False,
        block_timeout_seconds: float = 30.0,
        sweep_interval_seconds: float = 0.0,
        max_age_seconds: float = 0.0,
        policy: Any = "lru",
        sizer: Any = None,
        max_cache_bytes: int = 0,
        max_rss_bytes: int | float = 0,
        low_rss_bytes: int | float = 0,
        adaptive_ttl: bool = False,
        adaptive_ttl_min_seconds: float = 10.0,
        adaptive_ttl_max_seconds: float = 3600.0,
        store: Any = None,
        host_budget: Any = 0,
        observe_socket: bool = False,
        observe_changes: bool = False,
        timer: Callable[[], float] | None = None,
    ) -> None:
        if "_settings" in self.__dict__:
            raise RuntimeError(f"{self!r} was initialised already")
        settings = RegistrySettings(
            cache_ttl_seconds=cache_ttl_seconds,
            enable_weakref=enable_weakref,
            max_cache_size=max_cache_size,
            retry_after_seconds=retry_after_seconds,
            build_timeout_seconds=build_timeout_seconds,
            revive=revive,
            block_when_full=block_when_full,
            block_timeout_seconds=block_timeout_seconds,
            sweep_interval_seconds=sweep_interval_seconds,
            max_age_seconds=max_age_seconds,
            policy=policy,
            sizer=sizer,
            max_cache_bytes=max_cache_bytes,
            max_rss_bytes=max_rss_bytes,
            low_rss_bytes=low_rss_bytes,
            adaptive_ttl=adaptive_ttl,
            adaptive_ttl_min_seconds=adaptive_ttl_min_seconds,
            adaptive_ttl_max_seconds=adaptive_ttl_max_seconds,
            store=store,
            host_budget=host_budget,
            observe_socket=observe_socket,
            observe_changes=observe_changes,
        )
        if timer is not None and not callable(timer):
            raise TypeError(f"timer must be a callable that gives seconds, got {timer!r}")
        super().__init__(
            cache_ttl_seconds=settings.cache_ttl_seconds,
            max_age_seconds=settings.max_age_seconds,
            max_cache_size=settings.max_cache_size,
            enable_weakref=settings.enable_weakref,
            revive=settings.revive,
            timer=timer,
        )
        self._settings = settings
        self._closed = False
        self._options: dict[str, ClassOptions] = {}
        self._listeners = None
        self._build_listeners = ()
        self._monitor = self._leaving = self._memory = None
        self._room: Room | None = None
        self._live_view: Served | None = None
        # Here and not where something leaves: a finaliser or a signal handler that comes in while
        # a module is being imported would find half of it.
        from .lifecycle import prolonging  # noqa: F401
        from .lifecycle.closing import close_departed, watch_exit

        self._close_departed = close_departed
        watch_exit(self)
        self._rules: dict[str, Callable[[type], Any]] = {}
        # With the rule that it is of: `_rules` may be written from outside.
        self._rule_versions: dict[str, tuple[Callable[[type], Any], str | None]] = {}
        # Thread -> what has an awaitable awaited by an event loop, and gives its result.
        self._awaiting: dict[int, Callable[[Any], Any]] = {}
        self._builder = Builder(
            retry_after_seconds=settings.retry_after_seconds,
            timeout_seconds=settings.build_timeout_seconds,
            timer=timer,
        )
        if (
            settings.policy != "lru"
            or settings.sizer is not None
            or settings.max_cache_bytes
            or settings.max_rss_bytes
            or settings.adaptive_ttl
            or settings.host_budget
        ):
            self._manager()
        self._set_up_sharing(settings)
        if class_paths is None:
            from .sources import default_class_paths

            class_paths = default_class_paths()
        for class_name, class_path in class_paths.items():
            self.register_class(class_name, class_path)
        if settings.block_when_full:
            from .lifecycle.room import Room

            self._room = Room(settings.block_timeout_seconds)
        if self._sweep_seconds > 0.0:
            from .lifecycle.sweeper import sweeper

            sweeper.add(self)
        if settings.observe_socket:
            from .observe.serving import serve_by_setting

            serve_by_setting(self)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """
        Make a registry from a ``warmset.toml``.

        Args:
            path: A file with the tables ``[registry]`` and ``[classes]``, and for classes that
                want options ``[options.NAME]``.
            options: Override settings of the file, or add `timer`.

        Returns:
            The registry.

        Raises:
            SettingsError: The file cannot be read, or has an unknown key or a wrong value; file,
                table, key, value and what was expected are named.
        """
        from .settings_file import load_settings_file

        loaded = load_settings_file(path)
        registry = cls(loaded.class_paths, **{**loaded.settings.as_options(), **options})
        for class_name, given in loaded.class_options.items():
            registry.register_class(class_name, loaded.class_paths[class_name], **given)
        return registry

    @classmethod
    def from_settings(
        cls,
        settings: RegistrySettings,
        class_paths: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """
        Make a registry from settings, for example one of the presets.

        Args:
            settings: As `RegistrySettings.long_lived_service()`.
            class_paths: As for the constructor.
            options: Override settings, or add `timer`.

        Returns:
            The registry.
        """
        return cls(class_paths, **{**settings.as_options(), **options})

    # -- removals --------------------------------------------------------------------------------

    def clear_cache(self, *, release: bool = False) -> dict[str, Any]:
        """
        Remove every instance; a build under way goes to those who wait for it, not into the cache.

        Args:
            release: Also collect cycles, have the allocator give back what is free, and report what
                came of it; see `release_memory`.

        Returns:
            entries_cleared, weakrefs_cleared, and the counters so far: total_hits, total_misses,
            total_evictions, total_instantiations. Nothing of it is reset. With `release` also
            "release": the report as plain data.

        Remembered failures stay: see `forget_failures`. O(cached); with `release` as long as a full
        collection takes.
        """
        if not release:
            return self._cleared()
        from .memory.releasing import release as release_now

        cleared: dict[str, Any] = {}

        def remove() -> int:
            cleared.update(self._cleared())
            return int(cleared["entries_cleared"] + cleared["weakrefs_cleared"])

        cleared["release"] = release_now(self, remove).as_dict()
        return cleared

    def _cleared(self) -> dict[str, Any]:
        strong, weak, departed = self._clear(_CLEARED)
        if departed:
            self._departed(departed)
        if _logs.info_wanted("removals"):
            from .lifecycle.listening import log_clear

            log_clear(strong, weak)
        hits, misses, evictions, builds, *_ = self._counters()
        return {
            "entries_cleared": strong,
            "weakrefs_cleared": weak,
            "total_hits": hits,
            "total_misses": misses,
            "total_evictions": evictions,
            "total_instantiations": builds,
        }

    def discard(self, class_name: str) -> bool:
        """
        Remove one instance; a build of it that is under way is not cached.

        Args:
            class_name: A name.

        Returns:
            Whether there was an instance.
        """
        slot = self._slots.get(check_name(class_name))
        return slot is not None and self._remove(slot, _DISCARDED)

    def forget_failures(self) -> int:
        """
        Let classes whose build failed be tried again at once.

        Returns:
            How many failures were remembered.
        """
        return self._builder.forget()

    def close(self) -> None:
        """
        Remove every instance and injected method; from now on a look-up raises `ClosedError`.

        Instances are closed in the reverse order of their building. Closing twice does nothing; a
        registry that still lives when the interpreter exits is closed then.
        """
        self._closed = True
        self._seal()
        _, _, departed = self._clear(_SHUTDOWN)
        # What was built later may use what was built before.
        departed.sort(key=lambda departure: departure.serial, reverse=True)
        self._departed(departed)
        self._drop_injected()
        if self._sweep_seconds > 0.0:
            from .lifecycle.sweeper import sweeper

            sweeper.remove(self)
        if self._live_view is not None:
            self._live_view.stop()
        self._end_sharing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        # Settings and names; not instances, nor rules and injected methods, which are code, nor
        # the timer.
        from functools import partial

        paths = {
            slot.name: slot.path for slot in list(self._slots.values()) if slot.path is not None
        }
        return partial(type(self), paths, **self._settings.as_options()), ()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {self._registered} classes, {self._cached} of at most "
            f"{self._settings.max_cache_size} instances warm>"
        )

    # -- the way of a miss -----------------------------------------------------------------------

    def _build(self, class_name: str) -> tuple[Any, Slot | None, int]:
        return self._builder.obtain(self, class_name)

    def _slot_to_build(self, class_name: str) -> Slot:
        """The slot of a name that may be built; raises if there is none."""
        slot = self._slots.get(class_name)
        if self._closed or slot is None or slot.path is None:
            self._refuse(class_name)
        return slot  # type: ignore[return-value]

    def _refuse(self, class_name: str) -> Any:
        if self._closed:
            raise ClosedError(
                f"the registry is closed: {class_name!r} is not built", class_name=class_name
            )
        raise UnknownClassError(class_name, near_names(class_name, self.class_names()))

    def _build_ended(self, flight: Flight, seconds: float) -> None:
        """A build landed: log it, and tell those who listen."""
        if flight.error is not None or self._build_listeners or _logs.info_wanted("builds"):
            from .lifecycle.listening import tell_build

            tell_build(self, flight, seconds)

    def _departed(self, departed: list[Any]) -> None:
        """Instances left: tell of it, and close those that nobody holds."""
        try:
            if self._leaving is not None:
                self._leaving.watch(departed, self._now())
            if _logs.info_wanted("removals"):
                from .lifecycle.listening import log_removals

                log_removals(self, departed)
            if self._memory is not None:
                self._memory.departed(self, departed)
            if self._listeners is not None:
                self._listeners.tell(self)
        finally:
            self._close_all([departure for departure in departed if not departure.held])
            if self._blocked:
                self._made_room()

    def _close_all(self, departed: list[Any]) -> None:
        """Close each; an interrupt passes when the others are closed."""
        departed.reverse()
        try:
            while departed:
                self._close_departed(self, departed.pop())
        finally:
            if departed:
                self._close_all(departed[::-1])

    def _waiting_threads(self) -> int:
        """How many threads wait for a build of another thread, or for room."""
        passing = 0 if self._memory is None else self._memory.waiting_to_pass()
        return self._builder.waiting() + self._blocked - passing

    def _made_room(self) -> None:
        """Something left or was released while builds wait for that."""
        if self._room is not None:
            self._room.made()
        if self._memory is not None:
            self._memory.released(self)

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        self._builder._reset_after_fork()
        if self._memory is not None:
            self._memory._reset_after_fork()
        self._reset_sharing_after_fork()
        if self._room is not None:
            self._room = type(self._room)(self._settings.block_timeout_seconds)
        for class_name, options in list(self._options.items()):
            slot = self._slots.get(class_name)
            if slot is None or options.after_fork == "keep" or not self._abandon(slot):
                continue
            if options.after_fork == "rebuild":
                self.get_instance(class_name)

    def _prolong(self, lease: Lease, running: Any) -> Any:
        """What a method returned goes on running: so does the hold on its instance."""
        from .lifecycle.prolonging import prolong

        return prolong(lease, running)

    def _let_go(self, departure: Any) -> None:
        """Nobody holds a departed instance any more."""
        self._close_departed(self, departure)

    def _construct(self, slot: Slot) -> Any:
        """Import and build; foreign code runs in it."""
        return self._instantiate(slot.name, self._resolve(slot.name))

    def _resolve(self, class_name: str) -> type:
        slot = self._slots.get(class_name)
        if slot is None or slot.path is None:
            raise UnknownClassError(class_name, near_names(class_name, self.class_names()))
        return resolve(class_name, slot.path)

    def _instantiate(self, class_name: str, cls: type) -> Any:
        rule = self._rules.get(class_name)
        if rule is None:
            return cls()
        made = rule(cls)
        if not hasattr(type(made), "__await__"):
            return made
        if isinstance(cls, type) and isinstance(made, cls):
            return made  # an instance that can be awaited, too
        awaited = self._awaiting.get(get_ident())
        if awaited is not None:
            return awaited(made)
        if hasattr(made, "send"):
            made.close()  # a coroutine that nobody will await
        slot = self._slots.get(class_name)
        raise AsyncRuleError(class_name, None if slot is None else slot.path)
