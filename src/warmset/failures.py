"""
Remembered failures: a class whose build failed fails again at once for a while.
"""

from __future__ import annotations

from time import monotonic

from .contexts import get_ident, is_importing
from .errors import BuildError, BuildTimeoutError, CapacityError, MethodRegistryError
from .foreign import is_interrupt
from .resolver import error_text, find_imported, find_ready
from .targets import misfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from ._core import Slot
    from .family_keys import SlotKey

__all__ = [
    "Failures",
    "closed_before",
    "failure_of",
    "is_of_build",
    "raised_in_build",
    "returned_none",
]

_RESUMED = 0x20 | 0x80 | 0x200  # flags of the code of generators, coroutines and both
_PAUSES = ("YIELD", "RESUME", "SEND")  # where these are suspended
_PLAIN = ("warmset._core_c", "warmset._plain_py")  # modules
_PASSING = (BuildTimeoutError, CapacityError)  # nothing is wrong with the class


MOST_KEYS = 1_000  # of families, whose failures are remembered


class _Failure:
    """A failed build that is remembered, until when, and of which target."""

    __slots__ = ("error", "path", "target", "until")

    def __init__(
        self, error: MethodRegistryError, until: float, path: str | None, target: Any
    ) -> None:
        self.error = error
        self.until = until
        self.path = path
        self.target = target


class Failures:
    """
    The errors of failed builds, by class name.

    Args:
        retry_after_seconds: How long an error is remembered; 0: not at all.
        timer: Returns seconds; None takes the system's monotonic clock.

    Thread-safe: each step is one operation on a dict.
    """

    def __init__(
        self, retry_after_seconds: float, timer: Callable[[], float] | None = None
    ) -> None:
        self._retry_after = retry_after_seconds
        self._now = monotonic if timer is None else timer
        self.by_key: dict[SlotKey, _Failure] = {}

    def get(self, class_name: SlotKey) -> MethodRegistryError | None:
        """Return the error of a failed build that is still remembered."""
        failure = self.by_key.get(class_name)
        if failure is None or not self._now() < failure.until:
            return None
        if failure.path is not None and find_imported(failure.path) is not failure.target:
            # It was another target, as under `unittest.mock.patch`, or is imported by now.
            self.by_key.pop(class_name, None)
            return None
        return failure.error

    def names(self) -> list[str]:
        """Return the names whose failures are remembered, in the order in which they failed."""
        if not self.by_key:
            return []
        now = self._now()
        return [str(key) for key, failure in self.by_key.copy().items() if now < failure.until]

    def rows(self) -> list[tuple[SlotKey, MethodRegistryError, float]]:
        """Return key, error, and seconds until the next try (or inf) of each failure."""
        now = self._now()
        return [
            (key, failure.error, failure.until - now)
            for key, failure in self.by_key.copy().items()
            if now < failure.until
        ]

    def remember(
        self,
        class_name: SlotKey,
        error: MethodRegistryError,
        *,
        seconds: float | None = None,
        outer: BaseException | None = None,
        path: str | None = None,
    ) -> None:
        """
        Raise an error again at once for a while, by default `retry_after_seconds`.

        An error that will pass by itself is not remembered: a timeout, also of a build within this
        one, a lack of capacity, and any error while this thread is in the middle of an import,
        whose modules are not complete.

        Args:
            class_name: The name.
            error: The error.
            seconds: For how long; None takes the setting.
            outer: What was being handled when the build began.
            path: The class path. The error is forgotten when that refers to another object.
        """
        causes = _causes(error, outer)
        _clear_locals(causes)
        if seconds is None:
            seconds = self._retry_after
            if any(isinstance(cause, _PASSING) for cause in causes) or is_importing(get_ident()):
                return
        if seconds <= 0.0:
            return
        target = None if path is None else find_imported(path)
        failure = _Failure(error.fresh_copy(), self._now() + seconds, path, target)
        self.by_key[class_name] = failure
        if type(class_name) is not str and len(self.by_key) > MOST_KEYS:
            self._forget_oldest_key()

    def _forget_oldest_key(self) -> None:
        """Forget the oldest failure of a family: its keys are without number."""
        for key in self.by_key.copy():
            if type(key) is not str:
                self.by_key.pop(key, None)
                return

    def forget(self, class_name: SlotKey | None = None) -> int:
        """Forget one failure, or all; return how many were remembered."""
        if class_name is not None:
            return int(self.by_key.pop(class_name, None) is not None)
        forgotten = len(self.names())
        self.by_key.clear()
        return forgotten

    def forget_family(self, name: str) -> None:
        """Forget the failures of all keys of a family."""
        for key in self.by_key.copy():
            if getattr(key, "family", None) == name:
                self.by_key.pop(key, None)

    def forget_error(self, error: MethodRegistryError) -> None:
        """Forget the failure that an error tells of, which names a class or a key of a family."""
        name = error.class_name
        if name is not None and self.by_key.pop(name, None) is None:
            for key in self.by_key.copy():
                if type(key) is not str and str(key) == name:
                    self.by_key.pop(key, None)


def _causes(error: BaseException, outer: BaseException | None) -> list[BaseException]:
    """
    Return an error and what led to it.

    What was being handled when the build began, `outer`, belongs to the caller, and so does
    everything behind it.
    """
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following is not outer and following not in causes:
        causes.append(following)
        following = following.__cause__ or following.__context__
    return causes


def _clear_locals(causes: list[BaseException]) -> None:
    """
    Clear the locals of the frames of a failed build, which may hold half a model.

    The tracebacks stay readable. An error may have been raised before, elsewhere, and kept: its
    frames are those of other code, and clearing one of a suspended generator would end that. Frames
    of the build are called by one another, or handled the error that led to the next one.
    """
    build: set[FrameType] = set()
    for number, error in enumerate(causes):
        traceback = error.__traceback__
        called = number == 0  # whether a frame of the build called this one
        while traceback is not None:
            frame = traceback.tb_frame
            # Without a caller: one of a generator that has ended, or made up for compiled code. A
            # coroutine was called by an event loop, which may be just about to leave it.
            resumed = frame.f_code.co_flags & _RESUMED
            caller = frame.f_back
            # A plain build: what it calls has the caller of the look-up as its caller.
            plain = frame.f_globals.get("__name__") in _PLAIN
            if called or plain or frame in build or caller in build or caller is None or resumed:
                if _is_suspended(frame):
                    break
                build.add(frame)
            else:
                break
            called = plain
            traceback = traceback.tb_next
    for frame in build:
        try:
            frame.clear()
        except RuntimeError:
            continue  # it is running


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame may be one of a generator or a coroutine that goes on later."""
    code = frame.f_code
    if not code.co_flags & _RESUMED:
        return False
    from opcode import opname

    last = frame.f_lasti
    return last < 0 or opname[code.co_code[last]].startswith(_PAUSES)


def failure_of(slot: Slot, raised: BaseException) -> MethodRegistryError | None:
    """
    Return the error of a failed build, which is remembered and raised to those who waited.

    Args:
        slot: The slot of the class.
        raised: What the build raised. The caller of the build gets an exit as it is, since it is
            addressed to the program; everybody else gets an error caused by it.

    Returns:
        The error; None for an interrupt, which is no failure.
    """
    if isinstance(raised, MethodRegistryError):
        return raised
    if is_interrupt(raised):
        return None
    error = raised_in_build(slot, raised)
    error.__cause__ = raised
    return error


def raised_in_build(slot: Slot, raised: BaseException) -> BuildError:
    """Return the error for what a constructor raised."""
    return BuildError(
        f"building {slot.name!r} ({slot.path}) raised {error_text(raised)}",
        class_name=slot.name,
        class_path=slot.path,
    )


def explained(slot: Slot, raised: BaseException) -> BaseException:
    """Return what a class raised, or that it does not take the arguments of its options."""
    options = slot.options
    if options is None or not isinstance(raised, TypeError):
        return raised
    target = find_ready(slot.target) if isinstance(slot.target, str) else slot.target
    text = misfit(target, options.args, options.kwargs)
    if text is None:
        return raised
    error = TypeError(text)
    error.__cause__ = raised
    return error


def is_of_build(slot: Slot, error: BaseException) -> bool:
    """
    Whether what a build raised is already the error of that build.

    The error of another class, which this one asked for, is not; a cycle concerns all in it.
    """
    if not isinstance(error, MethodRegistryError):
        return False
    return error.stage == "cycle" or error.class_name == slot.name


def returned_none(slot: Slot) -> BuildError:
    """Return the error for a rule, a factory or a class that returned None."""
    return BuildError(
        f"building {slot.name!r} ({slot.path}) returned None; expected an instance",
        class_name=slot.name,
        class_path=slot.path,
    )


def closed_before(slot: Slot) -> BuildError:
    """Return the error for a rule or a factory that returned what its registry closed before."""
    return BuildError(
        f"building {slot.name!r} ({slot.path}) returned an instance that this registry closed when "
        "it was removed; if others share it, register the class with closer=None",
        class_name=slot.name,
        class_path=slot.path,
    )
