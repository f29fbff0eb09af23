"""A look at one process that goes on: one connection, made anew where it was hung up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from warmset.observe.asking import GoneError

if TYPE_CHECKING:
    from typing import Any

    from warmset.observe.asking import Connection, Process


class Look:
    """
    Asks a process again and again.

    Args:
        process: The process.

    May be used from several threads; one asks at a time.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        Ask, on the connection that there is, or on a new one.

        Args:
            command: The command.
            arguments: What goes with it.

        Returns:
            The answer.

        Raises:
            GoneError: The process has ended, or serves no more.
            LiveViewError: It refuses, or does not answer.
        """
        with self._lock:
            if self._connection is not None:
                try:
                    return self._connection.ask(command, **arguments)
                except GoneError:
                    # It may only have hung up: nobody asked for a while.
                    self._hang_up()
                except BaseException:
                    self._hang_up()  # what it still says would be taken for the next answer
                    raise
            if self._closed:
                raise GoneError("nothing is asked any more")
            self._connection = self.process.connect()
            return self._connection.ask(command, **arguments)

    def close(self) -> None:
        """Ask no more, and do not wait for an answer that is still to come."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            connection.abort()
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
