"""
A bounded record of the order of uses: part of a profile, replayed by forecasts.

A long recording is thinned out by stretches of consecutive uses: first every stretch is kept, then
every second one, then every fourth, so that the kept ones are spread evenly over the recording and
the order within each is complete.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MOST_USES", "UseLog", "UseSequence"]

MOST_USES = 32_768
_STRETCH = 512
_MOST_STRETCHES = MOST_USES // _STRETCH
_TOKEN = re.compile(r"(\d{1,15}):(\d{1,7})(?:x(\d{1,15}))?")
_MILLISECONDS = 1000.0

Use = tuple[int, str, int]
"""Milliseconds since the recording began, the class, and how many uses in a row."""


class UseSequence(NamedTuple):
    """
    The uses of a recording, in stretches.
    """

    stretches: tuple[tuple[Use, ...], ...]
    """Stretches of consecutive uses, in the order of time."""
    total: int
    """The number of uses of the recording, kept or not."""

    @property
    def kept(self) -> int:
        """The number of uses in the stretches."""
        return sum(count for stretch in self.stretches for _, _, count in stretch)

    def merge(self, later: UseSequence) -> UseSequence:
        """
        Append a later recording, one second after the end of this one.

        Args:
            later: The other recording.

        Returns:
            A new sequence, thinned out where both together are too long.
        """
        end = max((stretch[-1][0] for stretch in self.stretches), default=0) + 1000
        shifted = tuple(
            tuple((at + end, name, count) for at, name, count in stretch)
            for stretch in later.stretches
        )
        stretches = self.stretches + shifted
        while len(stretches) > _MOST_STRETCHES:
            stretches = stretches[::2]
        return UseSequence(stretches, self.total + later.total)

    def as_data(self) -> dict[str, object]:
        """
        Return the sequence as plain data.

        Returns:
            A new dict, for JSON. Each stretch is one string of ``milliseconds:class`` or
            ``milliseconds:classxuses``: the first time since the beginning, the others since the
            use before; the class as its index in the list of names.
        """
        names = sorted({name for stretch in self.stretches for _, name, _ in stretch})
        numbers = {name: number for number, name in enumerate(names)}
        return {
            "total": self.total,
            "names": names,
            "stretches": [_written(stretch, numbers) for stretch in self.stretches],
        }

    @classmethod
    def from_data(cls, data: object) -> UseSequence:
        """
        Read what `as_data` returned.

        Args:
            data: Plain data, not trusted.

        Returns:
            The sequence.

        Raises:
            ValueError: It is not the data of a sequence.
        """
        if not isinstance(data, dict):
            raise ValueError("not an object")
        total, names, stretches = (data.get(key) for key in ("total", "names", "stretches"))
        if type(total) is not int or not 0 <= total < 2**63:
            raise ValueError("'total' is not a number of uses")
        if type(names) is not list or not all(type(name) is str and name for name in names):
            raise ValueError("'names' is not a list of class names")
        if type(stretches) is not list or len(stretches) > _MOST_STRETCHES:
            raise ValueError(f"'stretches' is not a list of at most {_MOST_STRETCHES}")
        return cls(tuple(_read(stretch, names) for stretch in stretches if stretch != ""), total)


def _written(stretch: Sequence[Use], numbers: Mapping[str, int]) -> str:
    tokens, before = [], 0
    for at, name, count in stretch:
        times = f"x{count}" if count > 1 else ""
        tokens.append(f"{max(0, at - before)}:{numbers[name]}{times}")
        before = max(before, at)
    return " ".join(tokens)


def _read(text: object, names: Sequence[str]) -> tuple[Use, ...]:
    if not isinstance(text, str):
        raise ValueError("a stretch is not a string")
    uses: list[Use] = []
    at = 0
    tokens = text.split(" ", _STRETCH)
    if len(tokens) > _STRETCH:
        raise ValueError(f"a stretch has more than {_STRETCH} uses")
    for token in tokens:
        match = _TOKEN.fullmatch(token)
        if match is None or int(match[2]) >= len(names):
            raise ValueError(f"{token[:40]!r} is not a use: milliseconds:class or with xuses")
        at += int(match[1])
        uses.append((at, names[int(match[2])], int(match[3] or 1)))
    return tuple(uses)


class UseLog:
    """
    Collects uses, and thins them out when there are too many.

    Not thread-safe. It keeps at most `MOST_USES` and the names among them.
    """

    def __init__(self) -> None:
        self._stretches: list[list[Use]] = []
        self._every = 1  # of how many stretches one is kept
        self._filled = 0  # stretches that ended, kept or not
        self._current: list[Use] = []
        self._total = 0

    def add(self, seconds: float, name: str, count: int) -> None:
        """
        Add uses of one class in a row.

        Args:
            seconds: The time of the last of them since the recording began.
            name: The class.
            count: Their number.
        """
        self._total += count
        self._current.append((max(0, round(seconds * _MILLISECONDS)), name, count))
        if len(self._current) < _STRETCH:
            return
        if self._filled % self._every == 0:
            if len(self._stretches) == _MOST_STRETCHES - 1:  # one is for the current stretch
                self._stretches = self._stretches[::2]
                self._every *= 2
            if self._filled % self._every == 0:
                self._stretches.append(sorted(self._current, key=_time))
        self._filled += 1
        self._current = []

    def sequence(self) -> UseSequence:
        """Return what was kept."""
        stretches = [tuple(stretch) for stretch in self._stretches]
        if self._current and (self._filled % self._every == 0 or not stretches):
            stretches.append(tuple(sorted(self._current, key=_time)))
        return UseSequence(tuple(stretches), self._total)


def _time(use: Use) -> int:
    return use[0]
