"""
The live view's server: one thread, one private Unix socket, for all registries of the process.

The thread is started when a registry is first served, refers to registries weakly, and ends when
none is left. A forked child serves what its parent served, on a socket of its own under its own
pid: workers forked after a preload are just what one wants to look into. Since the kernel's
listening socket is shared by a fork, the child closes its copy at once and never answers on it.
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

from .. import _fork  # noqa: F401  # its hook comes first: registries are whole before we serve
from . import protocol
from .answering import Answerer, Conversation
from .private import SUFFIX, check_peer, make_directory
from .protocol import LiveViewError, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from types import TracebackType

    from ..registry import Registry

__all__ = ["Served", "Server", "serve", "serve_by_setting", "server"]

# For how long nobody is let in after the process ran out of descriptors.
_PAUSE_SECONDS = 1.0


class Served:
    """
    A registry that is shown by the live view, until it is closed, gone, or `stop` is called.

    Attributes:
        name: What `warmset top` finds it by.
        allow_changes: Whether a client may evict and clear.
    """

    def __init__(
        self, owner: Server, registry: Registry, name: str, *, allow_changes: bool
    ) -> None:
        self.name = name
        self.allow_changes = allow_changes
        self._owner = owner
        # The callback comes from the collector, at any place in any thread: it takes no lock.
        self._registry = ref(registry, lambda _: owner.wake())

    @property
    def registry(self) -> Registry | None:
        """The registry, while it lives."""
        return self._registry()

    @property
    def path(self) -> str | None:
        """The socket of this process; None once nothing is served any more."""
        return self._owner.path

    def stop(self) -> None:
        """Show the registry no more; doing so twice does nothing."""
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


def serve(registry: Registry, *, name: str | None = None, allow_changes: bool = False) -> Served:
    """
    Let `warmset top` and `warmset stats` of the same user look at a registry.

    Args:
        registry: The registry; it is kept alive by nothing here.
        name: What to find it by; None numbers it, "registry-1". Serving a registry again renames
            it.
        allow_changes: Whether they may also evict and clear; what that closes is closed in the
            live view's thread.

    Returns:
        A handle with `stop`, also as a context manager.

    Raises:
        LiveViewError: There is no private directory to put the socket into.
        ValueError: Another registry of this process has the name, or it is empty or all digits.
        TypeError: It is no registry, or an argument is of the wrong type.

    Safe under threads. The first call starts a daemon thread, which works only while it is asked.
    """
    return server.add(registry, name, allow_changes=allow_changes)


def serve_by_setting(registry: Registry) -> None:
    """
    Serve a registry because its settings say so.

    Where there is no private directory for the socket, this is logged: a registry comes up whether
    or not it can be looked into.
    """
    try:
        server.add(registry, None, allow_changes=registry.settings.observe_changes)
    except LiveViewError as error:
        _log().warning("%r is not served: %s", registry, error)


class Server:
    """
    Answers for the registries of this process.

    Args:
        timer: Gives the monotonic seconds that clients' time is measured by.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        # Re-entrant: a finaliser or a signal handler may come in while its thread is here.
        self._lock = threading.RLock()
        self._served: tuple[Served, ...] = ()
        self._numbers = count(1)
        self._answerer = Answerer(lambda: self._served)
        self._stopping = False
        self._forget()

    def _forget(self) -> None:
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None
        self._conversations: dict[socket.socket, Conversation] = {}
        self._let_in_at: float | None = None
        self.path: str | None = None
        self._pid = os.getpid()

    # -- what is served --------------------------------------------------------------------------

    def add(self, registry: Registry, name: str | None, *, allow_changes: bool) -> Served:
        """Serve a registry; see `serve`."""
        from ..registry import Registry

        if not isinstance(registry, Registry):
            raise TypeError(f"expected a registry to serve, got {registry!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a served registry must be a str, got {name!r}")
        if name is not None and (not name or name.isdigit()):
            raise ValueError(
                f"the name of a served registry must be non-empty and no number, got {name!r}"
            )
        if not isinstance(allow_changes, bool):
            raise TypeError(f"allow_changes must be a bool, got {allow_changes!r}")
        with self._lock:
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
            registry._live_view = served  # closing the registry stops it
        return served

    def remove(self, served: Served) -> None:
        """Serve a registry no more."""
        with self._lock:
            self._served = tuple(known for known in self._served if known is not served)
        self.wake()

    def stop(self) -> None:
        """End the thread and take the socket away; for the end of the process."""
        self._stopping = True
        self.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
        if self._thread is None:
            self._stopping = False

    def wake(self) -> None:
        """Have the thread look up; takes no lock."""
        bell = self._bell
        if bell is not None:
            # Where it is full, the thread will wake anyway; where it is closed, it has ended.
            with suppress(OSError):
                bell[1].send(b"!")

    # -- beginning and end -----------------------------------------------------------------------

    def _open(self) -> None:
        directory = make_directory()
        # The pid is for people. What makes the name unique is the rest: containers that share a
        # directory have a process 1 each.
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        path = os.path.join(directory, f"{name}{SUFFIX}")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        hidden = os.path.join(directory, f".{name}")
        try:
            listener.bind(hidden)
            os.chmod(hidden, 0o600)
            listener.listen(128)
            # Only now, so that nobody takes it for the socket of a dead process.
            os.rename(hidden, path)
        except OSError as error:
            listener.close()
            _unlink(hidden)
            raise LiveViewError(f"cannot serve on {path!r}: {error}") from error
        listener.setblocking(False)
        bell = socket.socketpair()
        for end in bell:
            end.setblocking(False)
        selector = selectors.DefaultSelector()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(bell[0], selectors.EVENT_READ)
        self._forget()
        self.path, self._listener, self._bell, self._selector = path, listener, bell, selector
        self._thread = threading.Thread(target=self._run, name="warmset-live-view", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        """Close everything of this process's; what was inherited from a parent is only closed."""
        if self.path is not None and self._pid == os.getpid():
            _unlink(self.path)
        # The selector first: on Linux a fork shares it, and taking a socket out of it, which
        # closing the selector does not do, would take it out of the parent's.
        if self._selector is not None:
            self._selector.close()
        for connection in [self._listener, *(self._bell or ()), *self._conversations]:
            if connection is not None:
                connection.close()
        self._forget()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._close()
        self._served = tuple(known for known in self._served if known.registry is not None)
        if not self._served or self._stopping:
            return
        try:
            self._open()
        except Exception:
            # A child that cannot be looked into is better than a fork that fails.
            self._served = ()
            _log().warning("the live view is not served in the child", exc_info=True)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._step()
        except Exception:
            _log().exception("the live view has failed and ends")
            with self._lock:
                self._served = ()
                self._close()

    def _goes_on(self) -> bool:
        with self._lock:
            self._served = tuple(known for known in self._served if known.registry is not None)
            if self._served and not self._stopping:
                return True
            if self._stopping:
                self._served = ()
            self._close()
            return False

    def _step(self) -> None:
        """Wait until somebody wants something, and do that."""
        selector, listener, bell = self._selector, self._listener, self._bell
        assert selector is not None
        assert listener is not None
        assert bell is not None
        now = self._timer()
        due = [talk.deadline for talk in self._conversations.values()]
        if self._let_in_at is not None:
            due.append(self._let_in_at)
        wait = None if not due else max(0.0, min(due) - now)
        for key, _ in selector.select(wait):
            if key.fileobj is bell[0]:
                _drain(bell[0])
            elif key.fileobj is listener:
                self._let_in(selector, listener)
            else:
                self._talk(selector, key.fileobj)  # type: ignore[arg-type]
        now = self._timer()
        for connection, talk in list(self._conversations.items()):
            if talk.deadline <= now:
                self._hang_up(selector, connection)
        if self._let_in_at is not None and self._let_in_at <= now:
            self._let_in_at = None
            selector.register(listener, selectors.EVENT_READ)

    def _let_in(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return
        except OSError:
            # No descriptors left: without a pause, this would be tried again without end.
            selector.unregister(listener)
            self._let_in_at = self._timer() + _PAUSE_SECONDS
            return
        connection.setblocking(False)
        process = None
        try:
            process = check_peer(connection)
        except LiveViewError as error:
            _log().warning("a connection to the live view was refused: %s", error)
            fault = "refused: this is the live view of another user"
        else:
            full = len(self._conversations) >= protocol.MAX_CONNECTIONS
            fault = f"too many connections: {protocol.MAX_CONNECTIONS} are open" if full else ""
        if fault:
            with suppress(OSError):
                connection.send(refusal(fault))
            connection.close()
            return
        self._conversations[connection] = Conversation(self._answerer, process, self._timer())
        selector.register(connection, selectors.EVENT_READ)

    def _talk(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        talk = self._conversations[connection]
        writing = bool(talk.unsent)
        try:
            if writing:
                talk.sent(connection.send(talk.unsent), self._timer())
            else:
                received = connection.recv(protocol.MAX_REQUEST_BYTES)
                if not received:
                    self._hang_up(selector, connection)
                    return
                talk.received(received, self._timer())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            talk.over = True
            talk.unsent = memoryview(b"")
        if talk.over and not talk.unsent:
            self._hang_up(selector, connection)
        elif bool(talk.unsent) is not writing:
            events = selectors.EVENT_WRITE if talk.unsent else selectors.EVENT_READ
            selector.modify(connection, events)

    def _hang_up(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        del self._conversations[connection]
        selector.unregister(connection)
        connection.close()


def _drain(bell: socket.socket) -> None:
    try:
        while bell.recv(4096):
            pass
    except OSError:
        pass


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _log() -> Logger:
    from logging import getLogger

    return getLogger("warmset.observe")


server = Server()
atexit.register(server.stop)
if hasattr(os, "register_at_fork") and sys.platform != "win32":
    os.register_at_fork(after_in_child=server._after_fork)
