"""
Profiles: usage and build costs of the classes of a registry, as a value and as a file.

A profile is recorded (`Registry.record_profile`), stored as JSON, and used for a warm-up
(`Registry.warm_up`). The valid parts of a partly invalid file are used.
"""

from __future__ import annotations

import json
import os
import stat
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..frozen import Frozen, rebuild
from ..planning.uses import UseSequence
from ..resolver import check_name, error_text, safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ClassProfile", "Profile", "ProfileError"]

FORMAT = "warmset-profile"
FORMAT_VERSION = 1
_LARGEST = 2**63 - 1


class ProfileError(ValueError):
    """
    A file is not a profile.

    Args:
        message: The complete message: the file, the problem, and what was expected.
        file: The path of the file.

    The original error, if any, is available as ``__cause__``.
    """

    def __init__(self, message: str, *, file: str) -> None:
        super().__init__(message)
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_error, (*self.args, self.file)


class ClassProfile(NamedTuple):
    """
    The record of one class: counts and sums of seconds, which can be merged.
    """

    class_path: str | None = None
    uses: int = 0
    """The number of successful look-ups, without those of a warm-up."""
    gaps: int = 0
    """The number of gaps between two uses of the same instance."""
    gap_seconds: float = 0.0
    """The sum of all gaps."""
    builds: int = 0
    build_seconds: float = 0.0
    """The total duration of all builds."""
    own_build_seconds: float = 0.0
    """The total duration of all builds without the nested builds of other classes."""
    last_build_seconds: float = 0.0
    """The duration of the last build, which may precede the recording."""
    failures: int = 0
    bytes: int | None = None
    """The largest measured size; None if sizes are not measured."""
    depends_on: tuple[str, ...] = ()
    """The classes that were built on behalf of its builds, by name."""

    @property
    def mean_gap_seconds(self) -> float:
        """The mean time between two uses; 0.0 if no instance was used twice."""
        return self.gap_seconds / self.gaps if self.gaps else 0.0

    @property
    def mean_build_seconds(self) -> float:
        """The mean duration of a build, including nested builds."""
        return self.build_seconds / self.builds if self.builds else self.last_build_seconds

    @property
    def mean_own_build_seconds(self) -> float:
        """The mean duration of a build, without nested builds."""
        return self.own_build_seconds / self.builds if self.builds else self.last_build_seconds


class Profile(Frozen):
    """
    Usage and build costs of the classes of a registry.

    Args:
        classes: Class name -> record; copied.
        recordings: The number of merged recordings.
        skipped: One line for each part of a file that was not used, with the reason.
        uses: The order of uses, bounded and thinned out; None if it was not recorded.

    Immutable. Profiles are equal if their classes, recordings and uses are equal.
    """

    __slots__ = ("classes", "recordings", "skipped", "uses")

    classes: Mapping[str, ClassProfile]
    recordings: int
    skipped: tuple[str, ...]
    uses: UseSequence | None

    def __init__(
        self,
        classes: Mapping[str, ClassProfile],
        recordings: int = 1,
        skipped: tuple[str, ...] = (),
        uses: UseSequence | None = None,
    ) -> None:
        put = object.__setattr__
        put(
            self,
            "classes",
            MappingProxyType({name: classes[name] for name in sorted(classes, key=str)}),
        )
        put(self, "recordings", recordings)
        put(self, "skipped", tuple(skipped))
        put(self, "uses", uses)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Profile):
            return NotImplemented
        mine = self.classes, self.recordings, self.uses
        return mine == (other.classes, other.recordings, other.uses)

    def __hash__(self) -> int:
        return hash((self.recordings, frozenset(self.classes.items()), self.uses))

    def __repr__(self) -> str:
        return f"<Profile: {len(self.classes)} classes, {self.recordings} recordings>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled.
        return rebuild, (type(self), {**self._fields(), "classes": dict(self.classes)})

    # -- merging ---------------------------------------------------------------------------------

    def merge(self, other: Profile) -> Profile:
        """
        Merge this profile with a later one.

        Args:
            other: The later profile.

        Returns:
            A new profile with the sums of counts and seconds, the larger sizes, the uses one after
            another, and the unions of dependencies: a recording contains only the dependencies
            that were not warm already.
            If the path of a class has changed, only the later record is used.

        Raises:
            TypeError: The argument is not a profile.
        """
        if not isinstance(other, Profile):
            raise TypeError(f"expected a Profile, got {type(other).__name__} {safe_repr(other)}")
        classes = dict(self.classes)
        for name, later in other.classes.items():
            earlier = classes.get(name)
            classes[name] = later if earlier is None else _merged(earlier, later)
        uses = self.uses or other.uses
        if self.uses is not None and other.uses is not None:
            uses = self.uses.merge(other.uses)
        recordings = self.recordings + other.recordings
        return Profile(classes, recordings, self.skipped + other.skipped, uses)

    def __or__(self, other: object) -> Profile:
        return self.merge(other) if isinstance(other, Profile) else NotImplemented

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write the profile to a file atomically.

        Args:
            path: The file, which is replaced if it exists. Devices and pipes are written to.

        Raises:
            OSError: The file cannot be written; an existing file is unchanged.

        Equal profiles produce equal files: the file has no date, user or machine name.
        """
        text = json.dumps(self._as_data(), indent=2) + "\n"
        target = os.path.realpath(os.fspath(path))  # replace the target of a link, not the link
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "w", encoding="ascii") as stream:
                stream.write(text)
            return
        # `os.replace` is atomic only within one file system, so use the same directory.
        from threading import get_ident

        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name}.{os.getpid()}.{get_ident()}.part")
        try:
            with open(temporary, "w", encoding="ascii") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def _as_data(self) -> dict[str, Any]:
        from .._version import __version__

        data: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "warmset": __version__,
            "recordings": self.recordings,
            "classes": {
                name: {key: getattr(entry, field) for key, (field, _) in _FIELDS.items()}
                for name, entry in self.classes.items()
            },
        }
        if self.uses is not None:
            data["uses"] = self.uses.as_data()
        return data

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Profile:
        """
        Read a profile from a file.

        Args:
            path: A file written by `save`, possibly by another version of warmset.

        Returns:
            The profile; `skipped` lists what was not used: another version of the format, unknown
            keys, invalid values.

        Raises:
            ProfileError: The file cannot be read or is not a profile.
        """
        file = os.fsdecode(path)
        try:
            with open(file, "rb") as stream:
                raw = stream.read(_MOST_BYTES + 1)
            if len(raw) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        except (OSError, ValueError) as error:
            # A ValueError is raised for a path with a null character.
            problem = getattr(error, "strerror", None) or error_text(error)
            message = f"{file}: cannot be read: {problem}; {_EXPECTED}"
            raise ProfileError(message, file=file) from error
        try:
            data = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise ProfileError(
                f"{file}: not JSON: {error_text(error)}; {_EXPECTED}", file=file
            ) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            problem = (
                f"'format' is not {FORMAT!r}" if isinstance(data, dict) else "not a JSON object"
            )
            raise ProfileError(f"{file}: {problem}; {_EXPECTED}", file=file)
        return _Reader().profile(data)


_MOST_BYTES = 100_000_000
_EXPECTED = "expected a profile written by `Profile.save` or `warmset run --record-profile`"


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
    # A sum must not overflow to infinity, which `load` would reject.
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


# Key in the file -> field and check, in the order in which `save` writes them.
_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
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
_TOP = ("format", "format_version", "warmset", "recordings", "classes", "uses")


class _Reader:
    """Reads the valid parts of a file and records the skipped ones."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def profile(self, data: dict[str, Any]) -> Profile:
        version = data.get("format_version")
        if version != FORMAT_VERSION or type(version) is not int:
            self._skip(
                "format_version", version, f"{FORMAT_VERSION}; only the known parts are used"
            )
        if type(data.get("warmset")) is not str:
            self._skip("warmset", data.get("warmset"), "a version")
        recordings = data.get("recordings")
        if not _is_count(recordings) or not recordings:
            self._skip("recordings", recordings, "a whole number, 1 or more; 1 is used")
            recordings = 1
        self._skip_unknown("", data, _TOP)
        table = data.get("classes")
        if not isinstance(table, dict):
            self._skip("classes", table, "an object; the profile has no classes")
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
        uses = self._uses(data.get("uses"))
        return Profile(classes, recordings, tuple(self.skipped), uses)

    def _uses(self, data: object) -> UseSequence | None:
        if data is None:  # an older file, or the order was not recorded
            return None
        try:
            return UseSequence.from_data(data)
        except ValueError as error:
            self.skipped.append(f"uses: {error}; the order of uses is not known")
            return None

    def _entry(self, where: str, entry: dict[str, Any]) -> ClassProfile:
        fields: dict[str, Any] = {}
        for key, (field, is_valid) in _FIELDS.items():
            if key not in entry:
                self.skipped.append(f"{where}: {key!r} is missing; treated as unknown")
            elif not is_valid(entry[key]):
                expected = f"{_EXPECTED_OF[is_valid]}; treated as unknown"
                self._skip(f"{where}.{key}", entry[key], expected)
            elif is_valid is _is_seconds:
                fields[field] = float(entry[key])
            elif is_valid is _is_names:
                fields[field] = tuple(sorted(set(entry[key])))
            else:
                fields[field] = entry[key]
        self._skip_unknown(where, entry, _FIELDS)
        return ClassProfile(**fields)

    def _skip_unknown(self, where: str, table: dict[str, Any], known: Any) -> None:
        for key in table:
            if key not in known:
                self.skipped.append(
                    f"{where + ': ' if where else ''}unknown key {safe_repr(key, 80)}"
                )

    def _skip(self, where: str, value: object, expected: str) -> None:
        self.skipped.append(f"{where} = {safe_repr(value, 80)}; expected {expected}")
