"""What the live view's server and client do with strangers, nonsense, forks and the dead."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


@pytest.fixture
def protocol(serving: Any) -> Any:
    """The module of limits and commands, of this copy of the package."""
    return serving.protocol


# -- the directory -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_wide_directory_is_refused(
    make: Any, serving: Any, asking: Any, place: str, mode: int
) -> None:
    """By both sides."""
    os.mkdir(place)
    os.chmod(place, mode)
    registry = make()
    with pytest.raises(serving.LiveViewError, match=f"mode {mode:04o}; expected 0700"):
        serving.serve(registry)
    found, faults = asking.processes()
    assert found == []
    assert "is open to others" in faults[0]


def test_a_link_is_refused(make: Any, serving: Any, asking: Any, place: str) -> None:
    """Even to a directory that is private."""
    other = f"{place}-other"
    os.mkdir(other, 0o700)
    os.symlink(other, place)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="is a symbolic link"):
        serving.serve(registry)
    assert "is a symbolic link" in asking.processes()[1][0]
    assert os.listdir(other) == []
    os.unlink(place)


def test_a_file_in_its_place_is_refused(make: Any, serving: Any, place: str) -> None:
    """It is left alone."""
    with open(place, "w", encoding="utf-8") as file:
        file.write("mine")
    registry = make()
    with pytest.raises(serving.LiveViewError, match="is not a directory"):
        serving.serve(registry)
    os.unlink(place)


def test_somebody_elses_directory_is_refused(
    make: Any, serving: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its owner, whatever its mode."""
    os.mkdir(place, 0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    registry = make()
    with pytest.raises(serving.LiveViewError, match=f"belongs to user {me}, not to this one"):
        serving.serve(registry)


def test_a_directory_that_others_could_replace_is_refused(
    make: Any, serving: Any, place: str
) -> None:
    """One that lies where anybody may rename it."""
    above = os.path.dirname(place)
    os.chmod(above, 0o777)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="could put another directory in the place"):
        serving.serve(registry)
    os.chmod(above, 0o700)


def test_a_path_too_long_for_a_socket(
    make: Any, serving: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is told; nothing is left behind."""
    deep = os.path.join(os.path.dirname(place), "x" * 100)
    os.mkdir(deep, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", deep)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="cannot serve on"):
        serving.serve(registry)
    assert os.listdir(os.path.join(deep, "warmset")) == []


# -- the other end -------------------------------------------------------------------------------


def test_another_users_connection_is_refused(
    make: Any, serving: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told so, and nothing it sends is read."""
    registry = make()
    serving.serve(registry, allow_changes=True)
    private = sys.modules["warmset.observe.private"]
    monkeypatch.setattr(private, "peer", lambda connection: (os.geteuid() + 1, 4))
    client = connect()
    assert client.line() == {"ok": False, "error": "refused: this is the live view of another user"}
    assert client.is_closed()


def test_a_connection_of_unknown_origin_is_refused(
    make: Any, serving: Any, asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both sides, where the system does not tell."""
    registry = make()
    path = serving.serve(registry).path
    private = sys.modules["warmset.observe.private"]

    def unknown(connection: socket.socket) -> Any:
        raise OSError("no peer credentials")

    monkeypatch.setattr(private, "peer", unknown)
    with pytest.raises(asking.LiveViewError, match="does not tell whose connection"):
        asking.Connection(path)


def test_credentials_are_the_kernels(serving: Any) -> None:
    """Of a real pair of sockets."""
    private = sys.modules["warmset.observe.private"]
    one, other = socket.socketpair()
    with one, other:
        user, process = private.peer(one)
    assert user == os.geteuid()
    assert process in (os.getpid(), None)


# -- nonsense ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "not a line of JSON"),
        (b"GET / HTTP/1.1\r", "not a line of JSON"),
        (b"\xff\xfe\x00", "not a line of JSON"),
        (b"[" * 16_000, "not a line of JSON"),
        (b"9" * 16_000, "not a line of JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"{}", "unknown command null; expected one of list, stats, evict"),
        (b'{"command": "exec"}', 'unknown command "exec"'),
        (b'{"command": ["list"]}', 'unknown command ["list"]'),
        (b'{"command": "list", "code": "import os"}', 'list: unexpected "code"'),
        (b'{"command": "evict", "registry": "main"}', "evict: class must be a non-empty string"),
        (b'{"command": "stats", "limit": true}', "stats: limit must be a whole number, got true"),
        (b'{"command": "stats", "limit": 1.5}', "stats: limit must be a whole number, got 1.5"),
        (b'{"command": "stats", "registry": ""}', "stats: registry must be a non-empty string"),
        (b'{"command": "__class__"}', 'unknown command "__class__"'),
    ],
)
def test_nonsense_gets_one_answer_and_closes_nothing(
    make: Any, serving: Any, connect: Any, line: bytes, text: str
) -> None:
    """Neither this connection nor another."""
    registry = make()
    serving.serve(registry, name="main", allow_changes=True)
    other, client = connect(), connect()
    assert other.ask("list")["ok"]
    client.send(line + b"\n")
    answer = client.line()
    assert answer["ok"] is False
    assert answer["error"].startswith(text)
    assert client.ask("list")["ok"]
    assert other.ask("list")["ok"]


def test_any_bytes_are_survived(make: Any, serving: Any, connect: Any) -> None:
    """Random ones, seeded; each line gets an answer."""
    registry = make()
    serving.serve(registry, name="main")
    chance = random.Random(1)
    client = connect()
    for _ in range(300):
        line = chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b" ")
        client.send(line + b"\n")
        assert client.line()["ok"] is False


def test_an_oversize_request_is_refused(
    make: Any, serving: Any, connect: Any, protocol: Any
) -> None:
    """While it is still being sent; the others are not disturbed."""
    registry = make()
    serving.serve(registry)
    other, client = connect(), connect()
    client.send(b"x" * (protocol.MAX_REQUEST_BYTES + 1))
    assert client.line()["error"] == "a request is at most 16384 bytes long"
    assert client.is_closed()
    assert other.ask("list")["ok"]


def test_requests_in_pieces_and_in_heaps(make: Any, serving: Any, connect: Any) -> None:
    """How the bytes come does not matter."""
    registry = make()
    serving.serve(registry, name="main")
    client = connect()
    request = b'{"command": "list"}\n'
    for at in range(len(request)):
        client.send(request[at : at + 1])
    assert client.line()["ok"]
    client.send(request * 50)
    assert all(client.line()["ok"] for _ in range(50))


def test_an_answer_that_fails_is_an_answer(
    make: Any, serving: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An injected timer gives no number: it is told and logged, and the view goes on."""
    clock: dict[str, Any] = {"now": 1000.0}
    registry = make(timer=lambda: clock["now"])
    serving.serve(registry)
    registry.get_instance("Alpha")
    client = connect()
    clock["now"] = "no number"
    answer = client.ask("stats")
    clock["now"] = 1000.0
    assert answer == {"ok": False, "error": "answering failed: TypeError"}
    assert "could not answer" in caplog.text
    assert client.ask("stats")["ok"]


def test_a_closer_that_raises_disturbs_nothing(
    make: Any, serving: Any, connect: Any, ws: Any
) -> None:
    """It is counted, and the next question is answered."""
    registry = make()

    def closer(instance: object) -> None:
        raise ValueError("no")

    registry.register_class("Alpha", "samples.Alpha", closer=closer)
    serving.serve(registry, name="main", allow_changes=True)
    with registry.use("Alpha"):
        pass
    client = connect()
    assert client.ask("evict", registry="main", **{"class": "Alpha"})["removed"] == 1
    assert client.ask("stats")["registries"][0]["close_failures"] == 1


# -- many, slow, and silent clients --------------------------------------------------------------


def test_a_hundred_clients(make: Any, serving: Any, asking: Any) -> None:
    """At once, each with a few questions; whoever is let in is answered."""
    registry = make()
    path = serving.serve(registry, name="main").path
    answered: list[bool] = []
    refused: set[str] = set()
    start = threading.Barrier(100)

    def client() -> None:
        start.wait(60)
        while True:
            try:
                with asking.Connection(path, timeout_seconds=60) as connection:
                    answered.extend(connection.ask("stats")["ok"] for _ in range(3))
                    return
            except asking.LiveViewError as error:
                refused.add(str(error))

    clients = [threading.Thread(target=client) for _ in range(100)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert answered == [True] * 300
    assert refused <= {"too many connections: 32 are open"}
    registry.get_instance("Alpha")


def test_more_connections_than_there_is_room_for(
    make: Any, serving: Any, connect: Any, protocol: Any
) -> None:
    """One too many is told so; those that are in stay, and one that leaves makes room."""
    registry = make()
    serving.serve(registry)
    clients = [connect() for _ in range(protocol.MAX_CONNECTIONS)]
    assert all(client.ask("list")["ok"] for client in clients)
    late = connect()
    assert late.line()["error"] == "too many connections: 32 are open"
    assert late.is_closed()
    clients.pop().close()
    until(lambda: len(serving.server._conversations) < protocol.MAX_CONNECTIONS)
    assert connect().ask("list")["ok"]
    assert all(client.ask("list")["ok"] for client in clients)


@pytest.fixture
def patience(serving: Any, timer: Any) -> Callable[[float], None]:
    """Let the clock of the server be moved by hand."""
    serving.server._timer = timer

    def advance(seconds: float) -> None:
        timer.advance(seconds)
        serving.server.wake()

    return advance


def test_a_client_that_never_reads(
    make: Any, serving: Any, connect: Any, protocol: Any, patience: Any
) -> None:
    """It is hung up on when its time is over, and holds up nobody until then."""
    registry = make({f"Class{at:05}": f"samples.C{at:05}" for at in range(5_000)})
    serving.serve(registry, name="main")
    silent, other = connect(), connect()
    silent.send(b'{"command": "stats"}\n' * 20)
    until(lambda: any(talk.unsent for talk in serving.server._conversations.values()))
    assert other.ask("list")["ok"]
    patience(protocol.ANSWER_SECONDS + 1)
    until(lambda: len(serving.server._conversations) == 1)
    assert other.ask("list")["ok"]


def test_a_request_that_never_ends(
    make: Any, serving: Any, connect: Any, protocol: Any, patience: Any
) -> None:
    """A byte now and then does not prolong it."""
    registry = make()
    serving.serve(registry)
    slow, idle = connect(), connect()
    assert idle.ask("list")["ok"]
    slow.send(b'{"comm')
    (talk, _) = serving.server._conversations.values()
    until(lambda: len(talk._request) == 6)
    patience(protocol.REQUEST_SECONDS - 1)
    slow.send(b"a")
    until(lambda: len(talk._request) == 7)
    patience(2)
    assert slow.is_closed()
    assert idle.ask("list")["ok"]
    until(lambda: not any(talk.unsent for talk in serving.server._conversations.values()))
    patience(protocol.IDLE_SECONDS + 1)
    assert idle.is_closed()


def test_without_descriptors_it_pauses(
    make: Any, serving: Any, connect: Any, patience: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not try again without end, and lets people in once there are some."""
    registry = make()
    serving.serve(registry)
    server = serving.server
    listener = server._listener
    tries = []

    class Empty:
        def accept(self) -> Any:
            tries.append(1)
            raise OSError(24, "Too many open files")

        def __getattr__(self, name: str) -> Any:
            return getattr(listener, name)

    let_in = server._let_in
    monkeypatch.setattr(server, "_let_in", lambda selector, _: let_in(selector, Empty()))
    monkeypatch.setattr(Empty, "fileno", lambda self: listener.fileno(), raising=False)
    client = connect()
    until(lambda: server._let_in_at is not None)
    monkeypatch.setattr(server, "_let_in", let_in)
    patience(2)
    assert client.ask("list")["ok"]
    assert len(tries) == 1


# -- forks, and the dead -------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked child; its exit status, 0 if it returned."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            threading.Timer(30, os._exit, (9,)).start()
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_serves_under_its_own_number(
    make: Any, serving: Any, asking: Any, connect: Any
) -> None:
    """What it holds itself; the parent's conversations go on, and its socket stays."""
    registry = make()
    path = serving.serve(registry, name="main").path
    client = connect()
    assert client.ask("list")["pid"] == os.getpid()
    parent = os.getpid()

    def work() -> None:
        assert serving.server.path != path
        registry.get_instance("Alpha")
        with asking.Connection(serving.server.path) as connection:
            answer = connection.ask("stats")
            assert answer["pid"] == os.getpid() != parent
            assert answer["registries"][0]["cached"] == 1
        with asking.Connection(path) as connection:
            answer = connection.ask("stats")
            assert answer["pid"] == parent
            assert answer["registries"][0]["cached"] == 0
        serving.server.stop()

    assert in_child(work) == 0
    assert client.ask("list")["pid"] == os.getpid()
    assert os.path.exists(path)


def test_sockets_of_the_dead_are_removed(make: Any, serving: Any, asking: Any, place: str) -> None:
    """By whoever lists next; a killed child could not do it itself."""
    registry = make()
    path = serving.serve(registry, name="main").path
    assert in_child(lambda: None) == 0
    assert len(os.listdir(place)) == 2
    found, faults = asking.processes()
    assert [process.pid for process in found] == [os.getpid()]
    assert faults == []
    assert os.listdir(place) == [os.path.basename(path)]


def test_a_process_that_hangs_is_told_and_not_removed(
    make: Any, serving: Any, asking: Any, place: str
) -> None:
    """A stopped process answers nobody, and is not dead."""
    registry = make()
    serving.serve(registry, name="main")
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        found, faults = asking.processes(timeout_seconds=0.2)
        assert [process.pid for process in found] == [os.getpid()]
        assert len(faults) == 1
        assert faults[0].startswith(f"{child}-")
        assert "does not answer" in faults[0]
        assert len(os.listdir(place)) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    asking.processes()
    assert len(os.listdir(place)) == 1


def test_an_ordinary_end_takes_the_socket_away(ws: Any, place: str) -> None:
    """At the interpreter's exit."""
    code = (
        "import os, warmset; from warmset import observe\n"
        "registry = warmset.MethodRegistry({'D': 'collections.OrderedDict'})\n"
        "served = observe.serve(registry)\n"
        "print(os.path.exists(served.path))\n"
    )
    variables = {**os.environ, "WARMSET_PURE": "1" if ws.implementation == "pure" else ""}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=variables, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("True\n", "")
    assert os.listdir(place) == []


# -- the client ----------------------------------------------------------------------------------


@pytest.fixture
def impostor(place: str) -> Any:
    """Listen with answers of one's own."""
    os.makedirs(place, 0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = os.path.join(place, "1-impostor.sock")
    listener.bind(path)
    listener.listen()
    threads: list[threading.Thread] = []

    def answer(data: bytes) -> str:
        def talk() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(data)

        threads.append(threading.Thread(target=talk))
        threads[-1].start()
        return path

    yield answer
    for thread in threads:
        thread.join()
    listener.close()
    os.unlink(path)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "has ended"),
        (b"nonsense\n", "no JSON"),
        (b"[1]\n", "something else than asked"),
        (b'{"ok": true}\n', "something else than asked"),
        (b'{"ok": true, "pid": "x", "program": 1, "registries": []}\n', "something else"),
        (b'{"ok": false, "error": "not today"}\n', "not today"),
        (b"x" * 3000, "too long"),
    ],
)
def test_answers_that_make_no_sense(
    asking: Any, impostor: Any, data: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is one clear error."""
    monkeypatch.setattr(asking.protocol, "MAX_ANSWER_BYTES", 2000)
    path = impostor(data)
    with asking.Connection(path) as connection, pytest.raises(asking.LiveViewError, match=text):
        asking.Process(path, connection.ask("list"))


def test_choosing(asking: Any) -> None:
    """By number, by name, or all."""

    def process(pid: int, *names: str) -> Any:
        registries = [{"name": name} for name in names]
        return asking.Process("/x", {"pid": pid, "program": "p", "registries": registries})

    one, two = process(7, "main"), process(8, "main", "other")
    assert asking.find(None, [one, two]) == [one, two]
    assert asking.find("8", [one, two]) == [two]
    assert asking.find("main", [one, two]) == [one, two]
    assert asking.find("other", [one, two]) == [two]
    assert asking.find("9", [one, two]) == []
    assert json.dumps(repr(two)) == '"<process 8, p: main, other>"'
