"""
The live view's server: one thread and one private Unix socket for all registries of the process.

The thread starts when the first registry is served, references registries weakly, and ends when
none is served any more. A forked child serves the registries that its parent served, on a socket of
its own: workers that are forked after a preload are typical subjects of the live view. Parent and
child share the listening socket after a fork, so the child closes its copy at once and never
answers on it.
"""

from __future__ import annotations

import atexit
import os
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from weakref import ref

from .. import (
    _fork,  # noqa: F401  # its fork hook runs before ours: registries are usable before the child serves
    _logs,
)
from .._locks import locked, start_thread
from ..extension import Extension
from ..lifecycle.services import count_failure
from ..planning.ghosts import ghosts_of
from ..registry import BaseRegistry
from . import protocol
from .access import SUFFIX, check_peer, make_directory
from .commands import ClientSession, CommandHandler
from .protocol import LiveViewError, error_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from types import TracebackType

__all__ = ["Served", "Server", "serve", "serve_by_setting", "server"]

# How long no connection is accepted after the process ran out of file descriptors.
_PAUSE_SECONDS = 1.0
_THREAD = "warmset-live-view"
_MOST_FAILURES = 5  # in a row; then the live view ends


class Served:
    """
    A registry in the live view, until the registry is closed or collected or `stop` is called.

    Attributes:
        name: The name by which `warmset top` finds it.
        allow_changes: Whether clients may evict, clear, pin and unpin.
    """

    def __init__(
        self, owner: Server, registry: BaseRegistry, name: str, *, allow_changes: bool
    ) -> None:
        self.name = name
        self.allow_changes = allow_changes
        self._owner = owner
        # The garbage collector may run the callback at any point in any thread: it takes no lock.
        self._registry = ref(registry, lambda _: owner.wake())

    @property
    def registry(self) -> BaseRegistry | None:
        """The registry; None after it was collected."""
        return self._registry()

    @property
    def path(self) -> str | None:
        """The path of the socket of this process; None while no registry is served."""
        return self._owner.path

    def stop(self) -> None:
        """Stop serving the registry; idempotent."""
        self._owner.remove(self)

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        changes = ", changes allowed" if self.allow_changes else ""
        return f"<served registry {self.name!r}{changes}>"


def serve(
    registry: BaseRegistry, *, name: str | None = None, allow_changes: bool = False
) -> Served:
    """
    Show a registry to `warmset top` and `warmset stats` of the same user.

    Args:
        registry: The registry; only a weak reference to it is retained.
        name: The name to find it by; None gives it a number, as in "registry-1". Serving a registry
            again renames it.
        allow_changes: Whether clients may also evict, clear, pin and unpin; instances removed that
            way are closed in the live view's thread.

    Returns:
        An object with a method `stop`, also a context manager.

    Raises:
        LiveViewError: There is no private directory for the socket, or the socket cannot be made.
        ValueError: Another registry of this process has the name, or it is empty or all digits.
        TypeError: `registry` is not a registry, or another argument has the wrong type.

    Safe under threads. The first call starts a daemon thread, which works only while clients send
    commands.
    """
    return server.add(registry, name, allow_changes=allow_changes)


def serve_by_setting(registry: BaseRegistry) -> None:
    """
    Serve a registry as its settings require.

    A missing private directory is only logged: the registry works without the live view.
    """
    try:
        server.add(registry, None, allow_changes=registry.settings.observe_changes)
    except LiveViewError as error:
        _log().warning("%r is not served: %s", registry, error)


class _StopAtClose(Extension):
    """Stops serving a registry that is closed."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def close(self, registry: BaseRegistry) -> None:
        self.served.stop()


class Server:
    """
    Serves the registries of this process.

    Args:
        timer: Gives the monotonic seconds for the deadlines of clients.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        # Re-entrant: a finaliser or a signal handler may run in a thread that holds the lock.
        self._lock = threading.RLock()
        self._served: tuple[Served, ...] = ()
        self._numbers = count(1)
        self._handler = CommandHandler(lambda: self._served)
        self._stopping = False
        self._failures = 0
        self._reset()

    def _reset(self) -> None:
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._wakeup: tuple[socket.socket, socket.socket] | None = None
        self._sessions: dict[socket.socket, ClientSession] = {}
        self._accept_again_at: float | None = None
        self.path: str | None = None
        self._pid = os.getpid()

    # -- the served registries ---------------------------------------------------------------------

    def add(self, registry: BaseRegistry, name: str | None, *, allow_changes: bool) -> Served:
        """Serve a registry; see `serve`."""
        if not isinstance(registry, BaseRegistry):
            raise TypeError(f"expected a registry to serve, got {registry!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a served registry must be a str, got {name!r}")
        if name is not None and (not name or name.isdigit()):
            raise ValueError(
                f"the name of a served registry must be non-empty and not a number, got {name!r}"
            )
        if not isinstance(allow_changes, bool):
            raise TypeError(f"allow_changes must be a bool, got {allow_changes!r}")
        return self._add(registry, name, allow_changes)

    @locked
    def _add(self, registry: BaseRegistry, name: str | None, allow_changes: bool) -> Served:
        others = [known for known in self._served if known.registry not in (None, registry)]
        taken = {known.name for known in others}
        if name in taken:
            raise ValueError(f"another registry of this process is served as {name!r}")
        while name is None or name in taken:
            name = f"registry-{next(self._numbers)}"
        if self._thread is None:
            self._open()
        served = Served(self, registry, name, allow_changes=allow_changes)
        self._served = (*others, served)
        registry.attach(_StopAtClose(served)).served = served
        ghosts_of(registry)  # so that the live view can tell which bound is too small
        return served

    def remove(self, served: Served) -> None:
        """Stop serving a registry."""
        self._remove(served)
        self.wake()

    @locked
    def _remove(self, served: Served) -> None:
        self._served = tuple(known for known in self._served if known is not served)

    def stop(self) -> None:
        """End the thread and remove the socket; for the end of the process."""
        self._stopping = True
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
        if self._thread is None:
            self._stopping = False

    def wake(self) -> None:
        """Wake the thread to check its state; takes no lock."""
        wakeup = self._wakeup
        if wakeup is not None:
            # If the socket is full, the thread wakes anyway; if it is closed, the thread has ended.
            with suppress(OSError):
                wakeup[1].send(b"!")

    # -- opening and closing -----------------------------------------------------------------------

    def _open(self) -> None:
        directory = make_directory()
        # The process ID is for human readers. The random part makes the name unique: containers
        # that share a directory may all have a process 1.
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        path = os.path.join(directory, f"{name}{SUFFIX}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        hidden = os.path.join(directory, f".{name}")
        try:
            listener.bind(hidden)
            os.chmod(hidden, 0o600)
            listener.listen(128)
            # Visible only once it listens: clients remove sockets that refuse connections.
            os.rename(hidden, path)
        except OSError as error:
            listener.close()
            _unlink(hidden)
            raise LiveViewError(f"cannot serve on {path!r}: {error}") from error
        listener.setblocking(False)
        wakeup = socket.socketpair()
        for end in wakeup:
            end.setblocking(False)
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wakeup[0], selectors.EVENT_READ)
        self._reset()
        self.path, self._listener, self._wakeup, self._selector = path, listener, wakeup, selector
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
        try:
            start_thread(self._thread)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        """Close all sockets; remove the socket file unless this process inherited it by a fork."""
        if self.path is not None and self._pid == os.getpid():
            _unlink(self.path)
        # The selector is closed first. On Linux a fork shares it: unregistering a socket in the
        # child would unregister it in the parent, too, and closing the selector does not.
        if self._selector is not None:
            self._selector.close()
        for connection in [self._listener, *(self._wakeup or ()), *self._sessions]:
            if connection is not None:
                connection.close()
        self._reset()

    def reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        self._close()
        self._served = tuple(known for known in self._served if known.registry is not None)
        if not self._served or self._stopping:
            return
        try:
            self._open()
        except Exception:
            # A child without a live view is better than a fork that fails.
            self._served = ()
            _log().warning("the live view is not available in the child process", exc_info=True)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._do_steps()
        except BaseException as error:  # an error of foreign code, or one that was sent to it
            count_failure(_THREAD)
            _logs.warning(
                "observe",
                "the live view failed, and begins anew: clients have to connect again",
                fields={"error_type": type(error).__qualname__},
                error=error,
            )
            self._begin_anew()

    def _do_steps(self) -> None:
        while self._should_continue():
            self._step()
            self._failures = 0

    @locked
    def _begin_anew(self) -> None:
        self._close()
        self._failures += 1
        try:
            if self._failures > _MOST_FAILURES:
                raise LiveViewError("it failed time and again")
            self._open()
        except Exception as error:
            self._served = ()
            _log().warning("the live view ends: %s", error)

    @locked
    def _should_continue(self) -> bool:
        self._served = tuple(known for known in self._served if known.registry is not None)
        if self._served and not self._stopping:
            return True
        if self._stopping:
            self._served = ()
        self._close()
        return False

    def _step(self) -> None:
        """Wait for the next events or deadline, and handle them."""
        selector, listener, wakeup = self._selector, self._listener, self._wakeup
        assert selector is not None
        assert listener is not None
        assert wakeup is not None
        now = self._timer()
        deadlines = [session.deadline for session in self._sessions.values()]
        if self._accept_again_at is not None:
            deadlines.append(self._accept_again_at)
        timeout = None if not deadlines else max(0.0, min(deadlines) - now)
        for key, _ in selector.select(timeout):
            if key.fileobj is wakeup[0]:
                _drain(wakeup[0])
            elif key.fileobj is listener:
                self._accept(selector, listener)
            else:
                self._transfer(selector, key.fileobj)  # type: ignore[arg-type]
        now = self._timer()
        for connection, session in list(self._sessions.items()):
            if session.deadline <= now:
                self._disconnect(selector, connection)
        if self._accept_again_at is not None and self._accept_again_at <= now:
            self._accept_again_at = None
            selector.register(listener, selectors.EVENT_READ)

    def _accept(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return
        except OSError:
            # No file descriptors left: without a pause, the thread would retry in a busy loop.
            selector.unregister(listener)
            self._accept_again_at = self._timer() + _PAUSE_SECONDS
            return
        connection.setblocking(False)
        process = None
        try:
            process = check_peer(connection)
        except LiveViewError as error:
            _log().warning("rejected a connection to the live view: %s", error)
            reason = "rejected: this is the live view of another user"
        else:
            full = len(self._sessions) >= protocol.MAX_CONNECTIONS
            reason = f"too many connections: {protocol.MAX_CONNECTIONS} are open" if full else ""
        if reason:
            with suppress(OSError):
                connection.send(error_answer(reason))
            connection.close()
            return
        self._sessions[connection] = ClientSession(self._handler, process, self._timer())
        selector.register(connection, selectors.EVENT_READ)

    def _transfer(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        session = self._sessions[connection]
        writing = bool(session.unsent)
        try:
            if writing:
                session.sent(connection.send(session.unsent), self._timer())
            else:
                received = connection.recv(protocol.MAX_REQUEST_BYTES)
                if not received:
                    self._disconnect(selector, connection)
                    return
                session.received(received, self._timer())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            session.closing = True
            session.unsent = memoryview(b"")
        if session.closing and not session.unsent:
            self._disconnect(selector, connection)
        elif bool(session.unsent) is not writing:
            events = selectors.EVENT_WRITE if session.unsent else selectors.EVENT_READ
            selector.modify(connection, events)

    def _disconnect(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        del self._sessions[connection]
        selector.unregister(connection)
        connection.close()


def _drain(wakeup: socket.socket) -> None:
    try:
        while wakeup.recv(4096):
            pass
    except OSError:
        pass


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _log() -> Logger:
    return _logs.logger("observe")


server = Server()
atexit.register(server.stop)
if hasattr(os, "register_at_fork") and sys.platform != "win32":
    os.register_at_fork(after_in_child=server.reset_after_fork)
