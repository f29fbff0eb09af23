"""A connection to the live view of one process that reconnects when the process has closed it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from warmset._locks import locked
from warmset.observe.client import GoneError

if TYPE_CHECKING:
    from typing import Any

    from warmset.observe.client import Connection, Process


class LiveConnection:
    """
    Sends requests to the live view of a process.

    Args:
        process: The process.

    Thread-safe; requests of several threads are sent one after the other.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._connection: Connection | None = None
        self._lock = threading.RLock()
        self._closed = False

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """
        Send a request and wait for the response, on the open connection or on a new one.

        Args:
            command: The command.
            arguments: Its arguments.

        Returns:
            The response.

        Raises:
            GoneError: The process has ended or has stopped serving, or this connection is closed.
            LiveViewError: The process refuses the request or does not respond.
        """
        return self._request(command, arguments)

    @locked
    def _request(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._connection is not None:
            try:
                return self._connection.ask(command, **arguments)
            except GoneError:
                # The process may only have closed an idle connection: try a new one.
                self._disconnect()
            except BaseException:
                # A late response must not be taken for that of the next request.
                self._disconnect()
                raise
        if self._closed:
            raise GoneError("the connection is closed")
        self._connection = self.process.connect()
        return self._connection.ask(command, **arguments)

    def close(self) -> None:
        """Close the connection without waiting for a pending response."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            connection.abort()
        self._disconnect()

    @locked
    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
