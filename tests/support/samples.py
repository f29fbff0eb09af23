"""Classes that the tests register; `built` and the like are reset by the `samples` fixture."""

from __future__ import annotations

from typing import Any

built: list[str] = []
closed: list[str] = []
script: dict[str, Any] = {}
"""Class name -> function that its constructor calls with the instance."""


class Sample:
    """Notes that it was built and closed, and runs the function that is in `script`."""

    is_closed = False

    def __init__(self) -> None:
        name = type(self).__name__
        built.append(name)
        if name in script:
            script[name](self)

    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True
        closed.append(type(self).__name__)

    def echo(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        assert not self.is_closed, "used after it was closed"
        return (text, args, kwargs) if args or kwargs else text

    def itself(self) -> Any:
        return self

    def fail(self) -> None:
        raise AttributeError("from inside the method")

    label = "not callable"


class Alpha(Sample):
    pass


class Beta(Sample):
    pass


class Gamma(Sample):
    pass


class Delta(Sample):
    pass


class Broken:
    def __init__(self) -> None:
        built.append("Broken")
        raise ValueError("no model file")


class Slotted:
    """Has no weak references."""

    __slots__ = ()

    def echo(self, text: Any) -> Any:
        return text


class Typed:
    """Methods with signatures of every kind."""

    def plain(self, a: int, b: str = "b") -> Any:
        return a, b

    def keyword_only(self, *, a: float, b: bool = False) -> Any:
        return a, b

    def positional(self, a: int, b: int = 2, /, c: int = 3) -> Any:
        return a, b, c

    def open(self, a: int, **rest: Any) -> Any:
        return a, rest

    def many(self, *values: Any, a: int = 1) -> Any:
        return values, a

    def unions(self, a: int | None, b: list[str] | None = None) -> Any:
        return a, b

    def implicit(self, a: str = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    def unresolved(self, a: Nowhere) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return a

    def names(self, class_name: str, method_name: str = "m") -> Any:
        return class_name, method_name

    def six(self, a: int, b: int, c: int, d: int, e: int, f: int) -> int:
        return a + b + c + d + e + f

    @staticmethod
    def static(a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> Any:
        return cls, a


not_a_class = 3


class Outer:
    class Inner(Sample):
        pass
