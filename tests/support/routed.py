"""Methods of every make, for tests of routing. Annotations are not postponed here."""

import functools
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class Options:
    """A namesake of a nested class."""


class Frame:
    """Tells validators how to check, as the data frames of pandera do."""

    @classmethod
    def __get_validators__(cls):
        yield lambda value: value


def convert(function):
    """Converts the first argument, as validators do."""

    @functools.wraps(function)
    def wrapper(self, *args, **kwargs):
        (kind,) = (function.__annotations__["n"],)
        return function(self, **{name: kind(value) for name, value in kwargs.items()})

    return wrapper


def trace(function):
    """Changes nothing."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def trace_without_wraps(function):
    """Changes nothing, and does not tell what it wraps."""

    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def trace_by_position(function):
    """Takes no keywords."""

    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def supply_second(function):
    """Names its own parameters, which are fewer."""

    @functools.wraps(function)
    def wrapper(self, a):
        return function(self, a, "supplied")

    return wrapper


class SelfBound:
    """A descriptor that binds by itself, as `functools.singledispatchmethod` does."""

    def __init__(self, function):
        self.function = function

    def __get__(self, instance, owner=None):
        @functools.wraps(self.function)
        def call(*args, **kwargs):
            return self.function(instance, *args, **kwargs)

        return call


class Callable:
    """Is called as a function."""

    def __call__(self, a: int, b: int = 2):
        return a, b


@functools.singledispatch
def dispatched_function(source):
    raise TypeError("cannot read that")


@dispatched_function.register
def _(source: str):
    return f"text {source}"


class Routed(Generic[Item]):
    """Each method is made in another way."""

    class Options:
        """Has a namesake in the module."""

    def __init__(self):
        self.lambda_attribute = lambda a: a + 1
        self.callable_attribute = Callable()
        self.dispatched_function = dispatched_function

    def close(self): ...

    def plain(self, a: int, b: int = 2):
        return a, b

    @functools.singledispatchmethod
    def dispatched(self, source):
        raise TypeError("cannot read that")

    @dispatched.register
    def _(self, source: str, upper: bool = False):
        return f"TEXT {source.upper()}" if upper else f"text {source}"

    @dispatched.register
    def _(self, source: list):
        return f"{len(source)} parts"

    @SelfBound
    def self_bound(self, a: int, b: int = 2):
        return a, b

    @staticmethod
    @trace
    def static_wrapped(a: int, b: int = 2):
        return a, b

    @trace
    def wrapped(self, a: int, b: int = 2):
        return a, b

    @trace_without_wraps
    def wrapped_without_trace(self, a: int, b: int = 2):
        return a, b

    @trace_by_position
    def wrapped_by_position(self, a: int, b: int = 2):
        return a, b

    @supply_second
    def wrapped_with_fewer(self, a, b):
        return a, b

    @functools.lru_cache  # noqa: B019
    def cached(self, a: int, b: int = 2):
        return a, b

    def context(self, a: int, b: int = 2):
        with self._context(a) as value:
            return value, b

    @contextmanager
    def _context(self, a):
        yield a

    @convert
    def converted(self, n: int):
        return n

    def unchecked(self, n: int):
        return n

    unchecked.__no_type_check__ = True

    def either(self, n: int or None):
        return n

    def either_postponed(self, n: "int or None"):
        return n

    def either_number(self, n: int or str):
        return n

    def nested(self, options: "Options"):
        return "nested"

    def nested_in_a_union(self, options: "Options | None"):
        return "nested"

    def hooked(self, frame: Frame):
        return frame

    def pair(self, both: tuple):
        return both

    def pair_of_ints(self, both: tuple[int, int] | None = None):
        return both

    partial = functools.partialmethod(plain, 1)
    partial_keyword = functools.partialmethod(plain, b=7)

    @staticmethod
    def static(a: int, b: int = 2):
        return a, b

    @classmethod
    def of_class(cls, a: int):
        return cls.__name__, a

    def positional(self, a: int, b: int = 2, /, c: int = 4):
        return a, b, c

    def star(self, a: int, b: int = 2, *rest: int, c: int = 5):
        return a, b, rest, c

    def star_and_keywords(self, *rest: Any, **more: Any):
        return rest, more

    def generic(self, items: list[Item]):
        return items


class Derived(Routed):
    """Inherits them all."""
