"""
Copies of a registry, in this process and in others: what travels with one, and what does not.

A copy has the settings, the registered classes with their options, the rules, the injected methods,
the pins, and what a subclass or a test has added to the registry. It has no instances, failures,
statistics, listeners and timer: these belong to one registry in one process.

What cannot be pickled is refused. A copy that did without it would build something else, and
nobody would notice.
"""

from __future__ import annotations

import pickle
from _thread import get_ident

from .setting_table import CLASS_DEFAULTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._core import Slot

__all__ = ["copied", "deep_copied", "fill", "make_empty", "pickled"]

_ADVICE = (
    "define it at the top level of a module that the other process imports, or leave it out here "
    "and set it in the other process"
)
# Objects of these types have nothing in them that could not be pickled.
_SIMPLE = (type(None), bool, int, float, str, bytes)


class _Nowhere:
    """A file for what nobody reads."""

    def write(self, data: Any) -> int:
        return len(data)


def pickled(registry: Any, protocol: int) -> tuple[Any, ...]:
    """
    Return what pickle needs to make a registry again.

    Args:
        registry: The registry.
        protocol: Of pickle.

    Returns:
        As `object.__reduce_ex__`.

    Raises:
        PicklingError: Something that belongs to it cannot be pickled; it is named.
    """
    made_by = make_empty, (type(registry), registry.settings.as_options())
    # A rule may refer to its registry: while it is tried, that is only mentioned.
    me = get_ident()
    if me in registry.copying:
        return (*made_by, {})
    contents = contents_of(registry)
    registry.copying.add(me)
    try:
        for what, value in _parts(contents, registry.settings.as_options()):
            try:
                pickle.Pickler(_Nowhere(), protocol).dump(value)
            except Exception as error:
                from .resolver import error_text

                raise pickle.PicklingError(
                    f"{what} cannot be pickled ({error_text(error)}), and without it a copy of the "
                    f"registry would build something else: {_ADVICE}"
                ) from error
    finally:
        registry.copying.discard(me)
    return (*made_by, contents)


def make_empty(kind: type, settings: dict[str, Any]) -> Any:
    """
    Make a registry with settings and nothing else.

    Args:
        kind: The type; its own constructor may have other parameters, and is not called.
        settings: The arguments for that of this package.

    Returns:
        The registry.
    """
    package = __name__.rpartition(".")[0]
    ours = next(base for base in kind.__mro__ if base.__module__.partition(".")[0] == package)
    registry: Any = kind.__new__(kind)  # type: ignore[call-overload]
    ours.__init__(registry, {}, **settings)  # type: ignore[misc]
    return registry


def contents_of(registry: Any) -> dict[str, Any]:
    """
    Return what a copy of a registry has, except for its settings.

    Args:
        registry: The registry.

    Returns:
        New containers; `fill` takes them.
    """
    slots: list[Slot] = [
        slot
        for slot in list(registry.slots.values())
        if slot.target is not None and type(slot.key) is str
    ]
    classes = registry.classes
    versions = dict(classes.rule_versions)
    added = registry.__dict__.keys() - registry.own_attributes - registry.late_attributes
    return {
        "classes": {slot.name: (slot.target, _options_of(slot)) for slot in slots},
        "families": {
            name: (family.target, family.max_cache_size, _options_of(family))
            for name, family in dict(registry.families).items()
        },
        "pins": {slot.name: slot.pinned for slot in slots},
        "rules": {
            name: (rule, version if known is rule else None)
            for name, rule in dict(classes.rules).items()
            for known, version in (versions.get(name, (None, None)),)
        },
        "injected": {
            class_name: {name: each.method for name, each in dict(methods).items()}
            for class_name, methods in dict(registry.injected).items()
        },
        "attributes": {name: registry.__dict__[name] for name in sorted(added)},
        "closed": registry.closed,
    }


def _options_of(registered: Any) -> dict[str, Any]:
    options = registered.options
    if options is None:
        return {}
    given = {
        name: getattr(options, name)
        for name, default in CLASS_DEFAULTS.items()
        if getattr(options, name) is not default
    }
    if options.args:
        given["args"] = options.args
    if options.kwargs:
        given["kwargs"] = dict(options.kwargs)
    return given


def fill(registry: Any, contents: dict[str, Any]) -> None:
    """
    Give a new registry what another one has.

    Args:
        registry: The new one.
        contents: Of the other one.
    """
    if not contents:
        return
    registry.__dict__.update(contents["attributes"])
    for name, (target, options) in contents["classes"].items():
        registry.register(name, target, **options)
        if contents["pins"][name] != registry.slots[name].pinned:
            registry.set_pinned(registry.slots[name], contents["pins"][name])
    for name, (target, bound, options) in contents["families"].items():
        registry.family(name, target, max_cache_size=bound, **options)
    for name, (rule, version) in contents["rules"].items():
        registry.register_instantiation_rule(name, rule, version=version)
    for class_name, methods in contents["injected"].items():
        for name, method in methods.items():
            registry.inject_method(class_name, name, method)
    if contents["closed"]:
        registry.close()


def copied(registry: Any) -> Any:
    """
    Return a shallow copy of a registry.

    Args:
        registry: The registry.

    Returns:
        One that shares rules, options and injected methods with it.
    """
    made = make_empty(type(registry), registry.settings.as_options())
    fill(made, contents_of(registry))
    return made


def deep_copied(registry: Any, memo: dict[int, Any]) -> Any:
    """
    Return a deep copy of a registry.

    Args:
        registry: The registry.
        memo: Of `copy.deepcopy`.

    Returns:
        One that shares only functions and classes with it.
    """
    from copy import deepcopy

    made = make_empty(type(registry), deepcopy(registry.settings.as_options(), memo))
    memo[id(registry)] = made  # before its contents, which may refer to it
    fill(made, deepcopy(contents_of(registry), memo))
    return made


def _parts(contents: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What belongs to a registry and may not be picklable, with the words for it."""
    for name, value in settings.items():
        yield from _one(f"the setting {name} of the registry", value)
    for name, (target, options) in contents["classes"].items():
        yield from _one(f"the target of {name!r}", target)
        for option, value in options.items():
            yield from _one(f"{option} of {name!r}", value)
    for name, (target, _, options) in contents["families"].items():
        yield from _one(f"the factory of the family {name!r}", target)
        for option, value in options.items():
            yield from _one(f"{option} of {name!r}", value)
    for name, (rule, _) in contents["rules"].items():
        yield f"the rule of {name!r}", rule
    for class_name, methods in contents["injected"].items():
        for name, method in methods.items():
            yield f"the method injected as {class_name}.{name}", method
    for name, value in contents["attributes"].items():
        yield from _one(f"the attribute {name!r} of the registry", value)


def _one(what: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) not in _SIMPLE:
        yield what, value
