"""
Profiles: what a registry's classes were used for and what they cost, as a value and as a file.

A profile is made by recording (`Registry.record_profile`), kept as JSON, and used for a warm-up
(`Registry.warm_up`). A file that does not fit in all its parts is used as far as it fits.
"""

from __future__ import annotations

import json
import os
import stat
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..resolver import check_name, shown, told
from ..settings import _Frozen, _rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ClassProfile", "Profile", "ProfileError"]

FORMAT = "warmset-profile"
FORMAT_VERSION = 1
_LARGEST = 2**63 - 1


class ProfileError(ValueError):
    """
    A file is no profile.

    Args:
        message: The whole text: file, what is wrong, and what was expected.
        file: The file.

    The cause, where there is one, is chained as ``__cause__``.
    """

    def __init__(self, message: str, *, file: str) -> None:
        super().__init__(message)
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (*self.args, self.file)


class ClassProfile(NamedTuple):
    """
    What was seen of one class: counts, and seconds added up, so that two can be merged.
    """

    class_path: str | None = None
    uses: int = 0
    """Look-ups that found or built it, those of a warm-up not counted."""
    gaps: int = 0
    """Gaps between two uses of the same instance."""
    gap_seconds: float = 0.0
    """All gaps together."""
    builds: int = 0
    build_seconds: float = 0.0
    """All builds together."""
    own_build_seconds: float = 0.0
    """The same, less what the builds that it asked for took."""
    last_build_seconds: float = 0.0
    """Also of an instance that was there before the recording began."""
    failures: int = 0
    bytes: int | None = None
    """The largest size that was measured; None where nothing measures."""
    depends_on: tuple[str, ...] = ()
    """Classes that its builds asked for and that were not warm, by name."""

    @property
    def mean_gap_seconds(self) -> float:
        """Seconds between two uses; 0.0 where no instance was used twice."""
        return self.gap_seconds / self.gaps if self.gaps else 0.0

    @property
    def mean_build_seconds(self) -> float:
        """Seconds of a build, with what it asked for."""
        return self.build_seconds / self.builds if self.builds else self.last_build_seconds

    @property
    def mean_own_build_seconds(self) -> float:
        """Seconds of a build, without what it asked for."""
        return self.own_build_seconds / self.builds if self.builds else self.last_build_seconds


class Profile(_Frozen):
    """
    What a registry's classes were used for and what they cost.

    Args:
        classes: Class name -> what was seen of it; it is copied.
        recordings: How many recordings are merged in it.
        skipped: What of a file was not used, and why, each in a line.

    It is immutable. Two are equal if classes and recordings are.
    """

    __slots__ = ("classes", "recordings", "skipped")

    classes: Mapping[str, ClassProfile]
    recordings: int
    skipped: tuple[str, ...]

    def __init__(
        self,
        classes: Mapping[str, ClassProfile],
        recordings: int = 1,
        skipped: tuple[str, ...] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "classes", MappingProxyType({name: classes[name] for name in sorted(classes)}))
        put(self, "recordings", recordings)
        put(self, "skipped", tuple(skipped))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        return self.classes == other.classes and self.recordings == other.recordings

    def __hash__(self) -> int:
        return hash((self.recordings, frozenset(self.classes.items())))

    def __repr__(self) -> str:
        return f"<Profile: {len(self.classes)} classes, {self.recordings} recordings>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled.
        return _rebuild, (type(self), {**self._fields(), "classes": dict(self.classes)})

    # -- merging ---------------------------------------------------------------------------------

    def merge(self, other: Profile) -> Profile:
        """
        Add the profile of a later recording.

        Args:
            other: The later one.

        Returns:
            A new profile. Counts and seconds are added, the larger size is kept, dependencies are
            united: a build asks only for what is not warm yet, so each recording sees but a part
            of them. Of a class whose path has changed, only what the later one says is kept.

        Raises:
            TypeError: It is no profile.
        """
        if not isinstance(other, Profile):
            raise TypeError(f"expected a Profile, got {type(other).__name__} {shown(other)}")
        classes = dict(self.classes)
        for name, later in other.classes.items():
            earlier = classes.get(name)
            classes[name] = later if earlier is None else _merged(earlier, later)
        return Profile(classes, self.recordings + other.recordings, self.skipped + other.skipped)

    def __or__(self, other: object) -> Profile:
        return self.merge(other) if isinstance(other, Profile) else NotImplemented

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the profile to a file, whole or not at all.

        Args:
            path: The file; what is there is replaced. A device or a pipe is written to.

        Raises:
            OSError: It cannot be written; a file that was there is as it was.

        Equal profiles give the same file: nothing of the time, the user or the machine is in it.
        """
        text = json.dumps(self._as_data(), indent=2) + "\n"
        target = os.path.realpath(os.fspath(path))  # a link stays a link
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(text)
            return
        # In the same directory, or it could not be put in place in one step.
        from threading import get_ident

        folder, name = os.path.split(target)
        beside = os.path.join(folder, f".{name}.{os.getpid()}.{get_ident()}.part")
        try:
            with open(beside, "w", encoding="ascii") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if mode is not None:
                os.chmod(beside, stat.S_IMODE(mode))
            os.replace(beside, target)
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise

    def _as_data(self) -> dict[str, Any]:
        from .. import __version__

        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "warmset": __version__,
            "recordings": self.recordings,
            "classes": {
                name: {key: getattr(entry, field) for key, (field, _) in _ENTRY.items()}
                for name, entry in self.classes.items()
            },
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """
        Read a profile from a file, as far as it fits.

        Args:
            path: A file that `save` wrote, here or in another version of warmset.

        Returns:
            The profile; `skipped` says what was not used: another version of the format, keys that
            mean nothing, values that are damaged.

        Raises:
            ProfileError: The file cannot be read, or is no profile at all.
        """
        file = os.fsdecode(path)
        try:
            with open(file, "rb") as stream:
                raw = stream.read()
        except (OSError, ValueError) as error:
            # A ValueError is a path with a null character in it.
            fault = getattr(error, "strerror", None) or told(error)
            message = f"{file}: cannot be read: {fault}; {_EXPECTED}"
            raise ProfileError(message, file=file) from error
        try:
            data = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{file}: no JSON: {told(error)}; {_EXPECTED}", file=file) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            what = "no object" if not isinstance(data, dict) else f"no {FORMAT!r} as its 'format'"
            raise ProfileError(f"{file}: {what}; {_EXPECTED}", file=file)
        return _Reader().profile(data)


_EXPECTED = "expected a profile, as `Profile.save` and `warmset run --record-profile` write it"


def _rebuild_error(message: str, file: str) -> ProfileError:
    return ProfileError(message, file=file)


def _merged(earlier: ClassProfile, later: ClassProfile) -> ClassProfile:
    if later.class_path is None:
        later = later._replace(class_path=earlier.class_path)
    elif earlier.class_path not in (None, later.class_path):
        return later
    sizes = [size for size in (earlier.bytes, later.bytes) if size is not None]
    seen_last = later.builds or later.last_build_seconds > 0.0
    return ClassProfile(
        class_path=later.class_path,
        uses=min(earlier.uses + later.uses, _LARGEST),
        gaps=min(earlier.gaps + later.gaps, _LARGEST),
        gap_seconds=_finite(earlier.gap_seconds + later.gap_seconds),
        builds=min(earlier.builds + later.builds, _LARGEST),
        build_seconds=_finite(earlier.build_seconds + later.build_seconds),
        own_build_seconds=_finite(earlier.own_build_seconds + later.own_build_seconds),
        last_build_seconds=(later if seen_last else earlier).last_build_seconds,
        failures=min(earlier.failures + later.failures, _LARGEST),
        bytes=max(sizes, default=None),
        depends_on=tuple(sorted({*earlier.depends_on, *later.depends_on})),
    )


def _finite(seconds: float) -> float:
    # What is added up must stay something that can be read back.
    return min(seconds, 1.7e308)


# -- reading -------------------------------------------------------------------------------------


def _text_or_none(value: object) -> bool:
    return value is None or type(value) is str


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_size(value: object) -> bool:
    return value is None or _is_count(value)


def _is_seconds(value: object) -> bool:
    try:
        return type(value) in (int, float) and isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
    except OverflowError:  # an int that is too large for a float
        return False


def _is_names(value: object) -> bool:
    return type(value) is list and all(type(name) is str and name for name in value)


# Key in the file -> field, and its check: in the order in which a file has them.
_ENTRY: dict[str, tuple[str, Callable[[object], bool]]] = {
    "class_path": ("class_path", _text_or_none),
    "uses": ("uses", _is_count),
    "gaps": ("gaps", _is_count),
    "gap_seconds": ("gap_seconds", _is_seconds),
    "builds": ("builds", _is_count),
    "build_seconds": ("build_seconds", _is_seconds),
    "own_build_seconds": ("own_build_seconds", _is_seconds),
    "last_build_seconds": ("last_build_seconds", _is_seconds),
    "failures": ("failures", _is_count),
    "bytes": ("bytes", _is_size),
    "depends_on": ("depends_on", _is_names),
}
_EXPECTED_OF: dict[Callable[[object], bool], str] = {
    _text_or_none: "a class path or null",
    _is_count: "a whole number, 0 or more",
    _is_size: "a whole number of bytes, or null",
    _is_seconds: "a finite number of seconds, 0 or more",
    _is_names: "a list of class names",
}
_TOP = ("format", "format_version", "warmset", "recordings", "classes")


class _Reader:
    """Reads what fits, and notes what does not."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def profile(self, data: dict[str, Any]) -> Profile:
        version = data.get("format_version")
        if version != FORMAT_VERSION or type(version) is not int:
            self._skip("format_version", version, f"{FORMAT_VERSION}; read as far as it fits")
        if type(data.get("warmset")) is not str:
            self._skip("warmset", data.get("warmset"), "a version")
        recordings = data.get("recordings")
        if not _is_count(recordings) or not recordings:
            self._skip("recordings", recordings, "a whole number, 1 or more; taken as 1")
            recordings = 1
        self._unknown("", data, _TOP)
        table = data.get("classes")
        if not isinstance(table, dict):
            self._skip("classes", table, "an object; no class is known")
            table = {}
        classes = {}
        for name, entry in table.items():
            where = f"classes.{name}"
            try:
                check_name(name)
            except ValueError:
                self._skip("classes", name, "a non-empty class name")
                continue
            if isinstance(entry, dict):
                classes[name] = self._entry(where, entry)
            else:
                self._skip(where, entry, "an object")
        return Profile(classes, recordings, tuple(self.skipped))

    def _entry(self, where: str, entry: dict[str, Any]) -> ClassProfile:
        fields: dict[str, Any] = {}
        for key, (field, fits) in _ENTRY.items():
            if key not in entry:
                self.skipped.append(f"{where}: no {key!r}; taken as unknown")
            elif not fits(entry[key]):
                self._skip(f"{where}.{key}", entry[key], f"{_EXPECTED_OF[fits]}; taken as unknown")
            elif fits is _is_seconds:
                fields[field] = float(entry[key])
            elif fits is _is_names:
                fields[field] = tuple(sorted(set(entry[key])))
            else:
                fields[field] = entry[key]
        self._unknown(where, entry, _ENTRY)
        return ClassProfile(**fields)

    def _unknown(self, where: str, table: dict[str, Any], known: Any) -> None:
        for key in table:
            if key not in known:
                self.skipped.append(f"{where + ': ' if where else ''}unknown key {shown(key, 80)}")

    def _skip(self, where: str, value: object, expected: str) -> None:
        self.skipped.append(f"{where} = {shown(value, 80)}; expected {expected}")
