"""
Remembered failures: a class whose build failed fails again at once for a while.
"""

from __future__ import annotations

from time import monotonic

from .errors import BuildError, MethodRegistryError
from .foreign import is_interrupt
from .resolver import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._core import Slot

__all__ = ["Failures", "failure_of", "raised_in_build"]


class _Failure:
    """A failed build that is remembered, and until when."""

    __slots__ = ("error", "until")

    def __init__(self, error: MethodRegistryError, until: float) -> None:
        self.error = error
        self.until = until


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
        self._failures: dict[str, _Failure] = {}

    def get(self, class_name: str) -> MethodRegistryError | None:
        """Return the error of a failed build that is still remembered."""
        failure = self._failures.get(class_name)
        return failure.error if failure is not None and self._now() < failure.until else None

    def names(self) -> list[str]:
        """Return the names whose failures are remembered, in the order in which they failed."""
        if not self._failures:
            return []
        now = self._now()
        return [name for name, failure in self._failures.copy().items() if now < failure.until]

    def rows(self) -> list[tuple[str, MethodRegistryError, float]]:
        """Return name, error, and seconds until the next try (or inf) of each failure."""
        now = self._now()
        return [
            (name, failure.error, failure.until - now)
            for name, failure in self._failures.copy().items()
            if now < failure.until
        ]

    def remember(
        self,
        class_name: str,
        error: MethodRegistryError,
        *,
        seconds: float | None = None,
        outer: BaseException | None = None,
    ) -> None:
        """
        Raise an error again at once for a while, by default `retry_after_seconds`.

        Args:
            class_name: The name.
            error: The error.
            seconds: For how long; None takes the setting.
            outer: What was being handled when the build began.
        """
        _clear_locals(error.__cause__, outer)
        seconds = self._retry_after if seconds is None else seconds
        if seconds <= 0.0:
            return
        kept = error.fresh_copy()
        self._failures[class_name] = _Failure(kept, self._now() + seconds)

    def forget(self, class_name: str | None = None) -> int:
        """Forget one failure, or all; return how many were remembered."""
        if class_name is not None:
            return int(self._failures.pop(class_name, None) is not None)
        forgotten = len(self.names())
        self._failures.clear()
        return forgotten


def _clear_locals(error: BaseException | None, outer: BaseException | None) -> None:
    """
    Clear the locals of the frames of a failed build, which may hold half a model.

    The tracebacks stay readable. What was being handled when the build began, `outer`, belongs to
    the caller, and so does everything behind it.
    """
    seen: set[int] = set()
    while error is not None and error is not outer and id(error) not in seen:
        seen.add(id(error))
        if error.__traceback__ is not None:
            try:
                from traceback import clear_frames
            except ImportError:  # at the end of the interpreter
                return
            clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


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
