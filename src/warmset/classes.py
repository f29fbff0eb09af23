"""
Registrations: which names there are, what builds their instances, and with which options.
"""

from __future__ import annotations

from _functools import partial  # type: ignore[import-not-found]
from _thread import RLock, get_ident
from itertools import starmap
from types import FunctionType, MethodType

from ._locks import locked
from .builds import results_of_build
from .codes import DISCARDED, NO_LIMIT, REPLACED
from .errors import AmbiguousClassError, AsyncRuleError, UnknownClassError
from .family_keys import FamilyKey
from .foreign import can_have_method, find_in_type
from .loop_slots import LoopSlots
from .providers import LeftOpen, is_async_generator, is_generator, start
from .resolver import check_name, find_imported, near_names, resolve, safe_repr
from .streams import PLAIN, is_awaitable, is_from_contextmanager
from .targets import misfit, same_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ._core import Slot
    from .cache import Cache
    from .family_keys import SlotKey

    class Build(Protocol):
        """A build in progress, which passes on what closes its instance."""

        closer: Any

    class Builder(Protocol):
        """Knows the builds in progress."""

        def current_build(self) -> Any: ...
        def bind_to_loop(self, build: Any, loop: Any, key: Any) -> None: ...

    class Options(Protocol):
        """What a registration reads of the options of a class."""

        @property
        def args(self) -> tuple[Any, ...]: ...
        @property
        def kwargs(self) -> dict[str, Any]: ...
        @property
        def cache_ttl_seconds(self) -> float | None: ...
        @property
        def max_age_seconds(self) -> float | None: ...
        @property
        def pin(self) -> bool: ...
        @property
        def closer(self) -> Any: ...


__all__ = ["Classes"]

_NO_ARGUMENTS = ((),)


def _last(results: list[Any]) -> Any:
    if not results:
        raise RuntimeError("it raised StopIteration")
    return results[-1]


class Classes:
    """
    The registrations of one registry, which keeps them in the slots of its cache.

    Args:
        builder: Knows the build that the calling thread is running, if any.

    Thread-safe. The cache is an argument of each call: kept here, it would be a cycle.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self.rules: dict[str, Callable[[type], Any]] = {}
        # With the rule that it belongs to: `rules` may be written from outside.
        self.rule_versions: dict[str, tuple[Callable[[type], Any], str | None]] = {}
        # Thread -> a function that has an awaitable awaited by an event loop, and returns the
        # result.
        self.awaiting: dict[int, Callable[..., Any]] = {}
        self.loop_slots = LoopSlots()
        self.left_open = LeftOpen()
        self.families: dict[str, Any] = {}  # name -> `families.FamilyRecord`
        self._shown = False  # whether the core finds slots by their classes
        # Class -> the slots whose target it is, by identity: a metaclass may define equality.
        self._registered: dict[int, list[Slot]] = {}
        self._lock = RLock()  # re-entrant: a finaliser may register

    def reset_after_fork(self) -> None:
        """Reset what belongs to threads that do not exist in the child."""
        self._lock = RLock()
        self.awaiting.clear()  # a thread of the child may have the number of one of these

    # -- names -----------------------------------------------------------------------------------

    def register(
        self, cache: Cache, class_name: str, target: Any, options: Options | None
    ) -> tuple[Slot, bool]:
        """
        Register a target under a name, or give a registered name another one.

        Args:
            cache: The cache.
            class_name: A checked name.
            target: A checked target.
            options: Of the class; None: none.

        Returns:
            The slot, and whether its target or the arguments for it are new ones. An instance of
            others has been removed by then.
        """
        known = cache.slots.get(class_name)
        other_arguments = known is not None and not same_arguments(known.options, options)
        limited = options is not None or (known is not None and known.options is not None)
        slot, before = self._set_target(cache, class_name, target, options)
        changed = (before is not target and before != target) or other_arguments
        if changed and before is not None:
            cache.remove_from(slot, REPLACED)
        if limited:
            idle = age = None
            if options is not None:
                idle, age = options.cache_ttl_seconds, options.max_age_seconds
            # 0 is none.
            cache.set_limits(
                slot, NO_LIMIT if idle == 0.0 else idle, NO_LIMIT if age == 0.0 else age
            )
            cache.set_pinned(slot, options is not None and options.pin)
        return slot, changed

    def unregister(self, cache: Cache, class_name: str) -> Slot | None:
        """Forget a name and remove its instance; return its slot, if it had one."""
        slot = cache.slots.get(class_name)
        if slot is None or not cache.forget_slot(slot, DISCARDED):
            return None
        self._forget_class(cache, slot, slot.target)
        return slot

    @locked
    def _set_target(
        self, cache: Cache, class_name: str, target: Any, options: Options | None
    ) -> tuple[Slot, Any]:
        """Set target and options of a name; return its slot, and the target before."""
        # At once: a build in another thread has the target and the options of one registration.
        slot, before = cache.add_slot(class_name, target, options)
        self._forget_class(cache, slot, before)
        self._note_class(cache, slot, target)
        return slot, before

    def discard(self, cache: Cache, key: Any) -> bool:
        """Remove what a name or a key of a family has, also for event loops; whether it had any."""
        removed = False
        for slot in (cache.slots.get(key), *self.loop_slots.of_name(key)):
            if slot is not None:
                removed |= cache.remove_from(slot, DISCARDED)
        return removed

    def _note_class(self, cache: Cache, slot: Slot, target: Any) -> None:
        if issubclass(type(target), type):
            slots = self._registered.setdefault(id(target), [])
            slots.append(slot)
            self._show_later(cache)

    @locked
    def _forget_class(self, cache: Cache, slot: Slot, target: Any) -> None:
        if issubclass(type(target), type):
            slots = [each for each in self._registered.pop(id(target), ()) if each is not slot]
            if slots:
                self._registered[id(target)] = slots
            self._show_later(cache)

    def _show_later(self, cache: Cache) -> None:
        """Let the core find no slot by its class until somebody looks one up so."""
        if self._shown:
            self._shown = False
            cache.show_classes([])

    def owner_of(self, method: object) -> tuple[type, str]:
        """
        Find the class of a method, among those that are registered themselves.

        Args:
            method: A function that a class has, as ``Tagger.tag``.

        Returns:
            The class, and the name of the method.

        Raises:
            TypeError: It is no such function.
            UnknownClassError: No registered class has it.
            AmbiguousClassError: Several have it, none of which defines it.
        """
        name = getattr(method, "__name__", None)
        qualified = getattr(method, "__qualname__", None)
        if type(name) is not str or type(qualified) is not str or isinstance(method, type):
            raise TypeError(f"expected a name and a method name, or a method, got {method!r}")
        if type(method) is MethodType:
            raise TypeError(
                f"expected the method of a class, as Tagger.tag, got {method!r}, which would keep "
                "its instance"
            )
        owners = [
            slot
            for slots in list(self._registered.values())
            for slot in slots
            if _function_of(find_in_type(slot.target, name)) is method
        ]
        # A class that inherits it has the very same function.
        own = [each for each in owners if _function_of(vars(each.target).get(name)) is method]
        own = own or owners
        if own and all(slot.target is own[0].target for slot in own):
            return own[0].target, name
        path = f"{getattr(method, '__module__', None) or 'builtins'}.{qualified}"
        if owners:
            raise AmbiguousClassError(path, [slot.name for slot in owners])
        raise UnknownClassError(path, advice="no class that is registered itself has this method")

    def is_registered(self, cache: Cache, key: object) -> bool:
        """Tell whether a name, or a class itself, is registered."""
        if issubclass(type(key), type):
            try:
                key = self.name_of(cache, key)
            except UnknownClassError:
                return False
        if not issubclass(type(key), str):
            return False
        slot = cache.slots.get(str.__str__(key))
        return slot is not None and slot.target is not None

    @locked
    def _show(self, cache: Cache) -> None:
        slots = [known[0] for known in self._registered.values() if len(known) == 1]
        cache.show_classes(slots)
        self._shown = True

    def name_of(self, cache: Cache, class_name: object) -> str:
        """
        Return the name of a class that is registered itself, or check a name.

        Args:
            cache: The cache.
            class_name: A name, or a class.

        Returns:
            The name.

        Raises:
            UnknownClassError: That class object is not registered.
            AmbiguousClassError: It is registered under several names.
        """
        if type(class_name) is FamilyKey:
            return class_name  # type: ignore[return-value]
        if not issubclass(type(class_name), type):
            if type(class_name) is FunctionType:
                raise TypeError(self._advice_on_function(cache, class_name))
            return check_name(class_name)
        names = [slot.name for slot in self._registered.get(id(class_name), ()) if slot.alive]
        if len(names) == 1:
            if not self._shown:
                self._show(cache)
            return names[0]
        path = f"{class_name.__module__}.{class_name.__qualname__}"  # type: ignore[attr-defined]
        if names:
            raise AmbiguousClassError(path, names)
        near = [
            slot.name
            for slot in list(cache.slots.values())
            if type(slot.target) is str and find_imported(slot.target) is class_name
        ]
        if near:
            advice = f"it is registered by its path: look it up as {near[0]!r}"
            raise UnknownClassError(path, near, advice=advice)
        name = path.rpartition(".")[2]
        similar = near_names(name, self.names(cache))
        hint = None if similar else f"registry.register({name}) registers it"
        raise UnknownClassError(path, similar, advice=hint)

    def _advice_on_function(self, cache: Cache, function: FunctionType) -> str:
        text = f"a class name must be a str, got function {safe_repr(function)}"
        slots = list(cache.slots.values())
        names = [repr(each.name) for each in slots if each.target is function]
        known = f": look up what it provides by its name, {' or '.join(names)}" if names else ""
        return text + known

    def names(self, cache: Cache) -> list[str]:
        """Return the registered names, in the order of their registration."""
        return [
            slot.name
            for slot in list(cache.slots.values())
            if slot.target is not None and type(slot.key) is str
        ]

    # -- rules and construction ------------------------------------------------------------------

    def add_rule(self, class_name: object, rule: Callable[[type], Any], version: str | None) -> str:
        """Let a rule build the instances of a class; return the checked name."""
        name = check_name(class_name)
        if not callable(rule):
            raise TypeError(f"the rule of {name!r} must be callable, got {rule!r}")
        if not (version is None or type(version) is str):
            raise TypeError(f"the version of the rule of {name!r} must be a str, got {version!r}")
        self.rules[name] = rule
        self.rule_versions[name] = rule, version
        return name

    def resolve(self, cache: Cache, class_name: Any) -> Any:
        """Return the class or the factory of a name, importing it if need be."""
        of_family = type(class_name) is FamilyKey
        if of_family:
            target = self.families[class_name.family].target
        else:
            slot = cache.slots.get(class_name)
            if slot is None or slot.target is None:
                raise UnknownClassError(class_name, near_names(class_name, self.names(cache)))
            target = slot.target
        if not isinstance(target, str):
            return target
        return resolve(str(class_name), target, factories=of_family)

    def instantiate(self, cache: Cache, class_name: Any, target: Any) -> Any:
        """Call the rule of a class, or the class or factory itself."""
        slot = cache.slots.get(class_name)
        rule = self.rules.get(class_name)
        results = results_of_build()
        # In C from the return to the list: an interrupt that arrives after it loses nothing.
        if rule is None:
            first = () if type(class_name) is str else (class_name.key,)
            _call(target, None if slot is None else slot.options, first, results)
            made = _last(results)
            if isinstance(target, type):
                return made
        else:
            results.extend(map(rule, (target,)))
            made = _last(results)
        if type(made) in PLAIN:
            return made
        waits = is_awaitable(made)
        if not waits and not is_generator(made) and not is_async_generator(made):
            if is_from_contextmanager(made):
                raise TypeError(
                    f"the factory of {str(class_name)!r} returned a context manager made by "
                    "contextlib: without that decorator, what the generator yields is the instance"
                )
            return made
        if isinstance(target, type) and isinstance(made, target):
            return made  # an instance that can be awaited or iterated, too
        results.clear()
        awaited = self.awaiting.get(get_ident())
        if awaited is None and (waits or is_async_generator(made)):
            if waits and hasattr(made, "close"):
                made.close()  # a coroutine that nobody will await
            raise AsyncRuleError(str(class_name), None if slot is None else slot.path)
        if awaited is not None and not is_generator(made):
            self._note_loop(class_name, self._maker(cache, class_name), awaited)
        if waits:
            return awaited(made, results)  # type: ignore[misc]
        return self._start(str(class_name), slot, made, awaited)

    def _note_loop(self, class_name: SlotKey, maker: Any, awaited: Any) -> None:
        """Note that what is built belongs to the loop that awaits it."""
        build = self._builder.current_build()
        if build is not None:
            self._builder.bind_to_loop(build, awaited.loop, _loop_key(class_name, awaited.loop))
        self.loop_slots.note_asynchronous(class_name, maker)  # then: others join by that key

    def slot_of_loop(self, class_name: Any) -> Slot | None:
        """Return the slot of a name for the event loop that this thread works for, if any."""
        awaiting: Any = self.awaiting.get(get_ident())
        return None if awaiting is None else self.loop_slots.find(class_name, awaiting.loop)

    def build_key(self, cache: Cache, class_name: Any) -> Any:
        """Return what builds that must not run at the same time have in common."""
        awaiting: Any = self.awaiting.get(get_ident())
        if awaiting is None or not self.is_asynchronous(cache, class_name):
            return class_name
        return _loop_key(class_name, awaiting.loop)

    def is_asynchronous(self, cache: Cache, class_name: Any) -> bool:
        """Whether the rule or the factory of a name is known to be awaited."""
        return self.loop_slots.is_asynchronous(class_name, self._maker(cache, class_name))

    def _maker(self, cache: Cache, class_name: Any) -> Any:
        """Return the rule, the factory, or the class path of a name."""
        if type(class_name) is FamilyKey:
            family = self.families.get(class_name.family)
            return None if family is None else family.target
        slot = cache.slots.get(class_name)
        return self.rules.get(class_name, None if slot is None else slot.target)

    def _start(
        self,
        class_name: str,
        slot: Slot | None,
        made: Any,
        awaited: Callable[[Any], Any] | None,
    ) -> Any:
        """Run a provider up to its yield, and let the build that asked for it end it."""
        options = None if slot is None else slot.options
        if options is not None and options.closer != "auto":
            raise TypeError(
                f"{class_name!r} is built by a generator, which closes it after the yield: "
                "it takes no closer"
            )
        instance, suspended = start(class_name, made, awaited if is_async_generator(made) else None)
        build: Build | None = self._builder.current_build()
        if build is not None:
            build.closer = suspended
        else:  # it was called outside a build, and no entry will have it
            self.left_open.add(slot, suspended, [instance])
        return instance

    def has_method(self, cache: Cache, slot: Slot, method_name: str) -> bool:
        """Tell whether a method of a class can be expected, without building or importing."""
        instance: Any = cache.instance_in(slot)
        if instance is not None:
            return can_have_method(type(instance), method_name, instance)
        if slot.target is None:
            return False
        target = find_imported(slot.target) if isinstance(slot.target, str) else slot.target
        # A rule or a factory may build anything.
        if slot.name in self.rules or not issubclass(type(target), type):
            return True
        return can_have_method(target, method_name)  # type: ignore[arg-type]


def _function_of(attribute: Any) -> Any:
    return attribute.__func__ if type(attribute) is staticmethod else attribute


def _loop_key(class_name: SlotKey, loop: Any) -> tuple[SlotKey, int]:
    return class_name, id(loop)  # each loop builds its own


def _call(target: Any, options: Options | None, first: tuple[Any, ...], results: list[Any]) -> None:
    if options is None:
        results.extend(starmap(target, (first,)))
        return
    args = first + options.args
    try:
        results.extend(starmap(partial(target, **options.kwargs), (args,)))
    except TypeError as error:
        # Of a path it was not known before whether it takes these arguments.
        text = misfit(target, args, options.kwargs)
        if text is None:
            raise
        raise TypeError(text) from error
