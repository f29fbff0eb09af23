"""Robustness of the live view against other users, invalid input, forks and dead processes."""

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
from forks import in_child
from threads import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


@pytest.fixture
def protocol(serving: Any) -> Any:
    """The protocol module of this copy of the package."""
    return serving.protocol


# -- the directory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_an_open_directory_is_rejected(
    make: Any, serving: Any, client_module: Any, place: str, mode: int
) -> None:
    """By server and client."""
    os.mkdir(place)
    os.chmod(place, mode)
    registry = make()
    with pytest.raises(serving.LiveViewError, match=f"mode {mode:04o}; expected 0700"):
        serving.serve(registry)
    found, problems = client_module.processes()
    assert found == []
    assert "is open to other users" in problems[0]


def test_a_symbolic_link_is_rejected(
    make: Any, serving: Any, client_module: Any, place: str
) -> None:
    """Even to a private directory."""
    other = f"{place}-other"
    os.mkdir(other, 0o700)
    os.symlink(other, place)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="is a symbolic link"):
        serving.serve(registry)
    assert "is a symbolic link" in client_module.processes()[1][0]
    assert os.listdir(other) == []
    os.unlink(place)


def test_a_file_instead_of_the_directory_is_rejected(make: Any, serving: Any, place: str) -> None:
    """It is not modified."""
    with open(place, "w", encoding="utf-8") as file:
        file.write("mine")
    registry = make()
    with pytest.raises(serving.LiveViewError, match="is not a directory"):
        serving.serve(registry)
    os.unlink(place)


def test_another_users_directory_is_rejected(
    make: Any, serving: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its mode."""
    os.mkdir(place, 0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    registry = make()
    with pytest.raises(serving.LiveViewError, match=f"belongs to user {me}, not to this user"):
        serving.serve(registry)


def test_a_replaceable_directory_is_rejected(make: Any, serving: Any, place: str) -> None:
    """A directory whose parent others can write."""
    above = os.path.dirname(place)
    os.chmod(above, 0o777)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="other users can replace"):
        serving.serve(registry)
    os.chmod(above, 0o700)


def test_a_path_too_long_for_a_socket(
    make: Any, serving: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, and no file remains."""
    deep = os.path.join(os.path.dirname(place), "x" * 100)
    os.mkdir(deep, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", deep)
    registry = make()
    with pytest.raises(serving.LiveViewError, match="cannot serve on"):
        serving.serve(registry)
    assert os.listdir(os.path.join(deep, "warmset")) == []


# -- peer credentials ------------------------------------------------------------------------------


def test_another_users_connection_is_rejected(
    make: Any, serving: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets an error, and nothing that it sends is read."""
    registry = make()
    serving.serve(registry, allow_changes=True)
    access = sys.modules["warmset.observe.access"]
    monkeypatch.setattr(access, "peer", lambda connection: (os.geteuid() + 1, 4))
    client = connect()
    assert client.line() == {
        "ok": False,
        "error": "rejected: this is the live view of another user",
    }
    assert client.is_closed()


def test_a_connection_of_an_unknown_user_is_rejected(
    make: Any, serving: Any, client_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the system does not report credentials."""
    registry = make()
    path = serving.serve(registry).path
    access = sys.modules["warmset.observe.access"]

    def unknown(connection: socket.socket) -> Any:
        raise OSError("no peer credentials")

    monkeypatch.setattr(access, "peer", unknown)
    with pytest.raises(
        client_module.LiveViewError, match="does not report the user of the connection"
    ):
        client_module.Connection(path)


def test_credentials_come_from_the_kernel(serving: Any) -> None:
    """Tested with a real pair of sockets."""
    access = sys.modules["warmset.observe.access"]
    one, other = socket.socketpair()
    with one, other:
        user, process = access.peer(one)
    assert user == os.geteuid()
    assert process in (os.getpid(), None)


# -- invalid requests ------------------------------------------------------------------------------


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
def test_an_invalid_request_closes_no_connection(
    make: Any, serving: Any, connect: Any, line: bytes, text: str
) -> None:
    """It gets one answer; this connection and others remain usable."""
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


def test_random_bytes(make: Any, serving: Any, connect: Any) -> None:
    """Each line of random bytes gets an answer."""
    registry = make()
    serving.serve(registry, name="main")
    chance = random.Random(1)
    client = connect()
    for _ in range(300):
        line = chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b" ")
        client.send(line + b"\n")
        assert client.line()["ok"] is False


def test_an_oversized_request_is_rejected(
    make: Any, serving: Any, connect: Any, protocol: Any
) -> None:
    """Before it is complete; other clients are not affected."""
    registry = make()
    serving.serve(registry)
    other, client = connect(), connect()
    client.send(b"x" * (protocol.MAX_REQUEST_BYTES + 1))
    assert client.line()["error"] == "a request is at most 16384 bytes long"
    assert client.is_closed()
    assert other.ask("list")["ok"]


def test_split_and_batched_requests(make: Any, serving: Any, connect: Any) -> None:
    """Message boundaries of the socket do not matter."""
    registry = make()
    serving.serve(registry, name="main")
    client = connect()
    request = b'{"command": "list"}\n'
    for at in range(len(request)):
        client.send(request[at : at + 1])
    assert client.line()["ok"]
    client.send(request * 50)
    assert all(client.line()["ok"] for _ in range(50))


def test_a_failing_command_gets_an_answer(
    make: Any, serving: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of an injected timer is reported and logged, and the server continues."""
    clock: dict[str, Any] = {"now": 1000.0}
    registry = make(timer=lambda: clock["now"])
    serving.serve(registry)
    registry.get_instance("Alpha")
    client = connect()
    clock["now"] = None
    answer = client.ask("stats")
    clock["now"] = 1000.0
    assert answer == {"ok": False, "error": "the command failed: TypeError"}
    assert "failed to answer" in caplog.text
    assert client.ask("stats")["ok"]


def test_a_closer_that_raises_affects_no_command(
    make: Any, serving: Any, connect: Any, ws: Any
) -> None:
    """The error is counted, and the next command is answered."""
    registry = make()

    def closer(instance: object) -> None:
        raise ValueError("no")

    registry.register("Alpha", "samples.Alpha", closer=closer)
    serving.serve(registry, name="main", allow_changes=True)
    with registry.use("Alpha"):
        pass
    client = connect()
    assert client.ask("evict", registry="main", **{"class": "Alpha"})["removed"] == 1
    assert client.ask("stats")["registries"][0]["close_failures"] == 1


# -- many, slow, and silent clients ----------------------------------------------------------------


def test_a_hundred_clients(make: Any, serving: Any, client_module: Any) -> None:
    """At once, each with a few commands; every accepted client gets its answers."""
    registry = make()
    path = serving.serve(registry, name="main").path
    answered: list[bool] = []
    rejected: set[str] = set()
    start = threading.Barrier(100)

    def client() -> None:
        start.wait(60)
        while True:
            try:
                with client_module.Connection(path, timeout_seconds=60) as connection:
                    answered.extend(connection.ask("stats")["ok"] for _ in range(3))
                    return
            except client_module.LiveViewError as error:
                rejected.add(str(error))

    clients = [threading.Thread(target=client) for _ in range(100)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert answered == [True] * 300
    assert rejected <= {"too many connections: 32 are open"}
    registry.get_instance("Alpha")


def test_the_limit_of_connections(make: Any, serving: Any, connect: Any, protocol: Any) -> None:
    """One too many is rejected; a connection that closes allows another one."""
    registry = make()
    serving.serve(registry)
    clients = [connect() for _ in range(protocol.MAX_CONNECTIONS)]
    assert all(client.ask("list")["ok"] for client in clients)
    late = connect()
    assert late.line()["error"] == "too many connections: 32 are open"
    assert late.is_closed()
    clients.pop().close()
    until(lambda: len(serving.server._sessions) < protocol.MAX_CONNECTIONS)
    assert connect().ask("list")["ok"]
    assert all(client.ask("list")["ok"] for client in clients)


@pytest.fixture
def advance_clock(serving: Any, timer: Any) -> Callable[[float], None]:
    """Sets a manual clock for the server; returns the function that advances it."""
    serving.server._timer = timer

    def advance(seconds: float) -> None:
        timer.advance(seconds)
        serving.server.wake()

    return advance


def test_a_client_that_never_reads(
    make: Any, serving: Any, connect: Any, protocol: Any, advance_clock: Any
) -> None:
    """It is disconnected at its deadline and delays no other client until then."""
    registry = make({f"Class{at:05}": f"samples.C{at:05}" for at in range(5_000)})
    serving.serve(registry, name="main")
    silent, other = connect(), connect()
    silent.send(b'{"command": "stats"}\n' * 20)
    until(lambda: any(session.unsent for session in serving.server._sessions.values()))
    assert other.ask("list")["ok"]
    advance_clock(protocol.ANSWER_SECONDS + 1)
    until(lambda: len(serving.server._sessions) == 1)
    assert other.ask("list")["ok"]


def test_a_request_that_never_ends(
    make: Any, serving: Any, connect: Any, protocol: Any, advance_clock: Any
) -> None:
    """Single bytes do not extend its deadline."""
    registry = make()
    serving.serve(registry)
    slow, idle = connect(), connect()
    assert idle.ask("list")["ok"]
    slow.send(b'{"comm')
    (session, _) = serving.server._sessions.values()
    until(lambda: len(session._request) == 6)
    advance_clock(protocol.REQUEST_SECONDS - 1)
    slow.send(b"a")
    until(lambda: len(session._request) == 7)
    advance_clock(2)
    assert slow.is_closed()
    assert idle.ask("list")["ok"]
    until(lambda: not any(session.unsent for session in serving.server._sessions.values()))
    advance_clock(protocol.IDLE_SECONDS + 1)
    assert idle.is_closed()


def test_without_descriptors_it_pauses(
    make: Any, serving: Any, connect: Any, advance_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not retry in a busy loop, and accepts connections again after a pause."""
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

    accept = server._accept
    monkeypatch.setattr(server, "_accept", lambda selector, _: accept(selector, Empty()))
    monkeypatch.setattr(Empty, "fileno", lambda self: listener.fileno(), raising=False)
    client = connect()
    until(lambda: server._accept_again_at is not None)
    monkeypatch.setattr(server, "_accept", accept)
    advance_clock(2)
    assert client.ask("list")["ok"]
    assert len(tries) == 1


# -- forks and dead processes ----------------------------------------------------------------------


def test_a_forked_child_has_its_own_socket(
    make: Any, serving: Any, client_module: Any, connect: Any
) -> None:
    """It serves its own figures; the parent's connections and socket are not affected."""
    registry = make()
    path = serving.serve(registry, name="main").path
    client = connect()
    assert client.ask("list")["pid"] == os.getpid()
    parent = os.getpid()

    def work() -> None:
        assert serving.server.path != path
        registry.get_instance("Alpha")
        with client_module.Connection(serving.server.path) as connection:
            answer = connection.ask("stats")
            assert answer["pid"] == os.getpid() != parent
            assert answer["registries"][0]["cached"] == 1
        with client_module.Connection(path) as connection:
            answer = connection.ask("stats")
            assert answer["pid"] == parent
            assert answer["registries"][0]["cached"] == 0
        serving.server.stop()

    assert in_child(work) == 0
    assert client.ask("list")["pid"] == os.getpid()
    assert os.path.exists(path)


def test_sockets_of_dead_processes_are_removed(
    make: Any, serving: Any, client_module: Any, place: str
) -> None:
    """By the next client that lists processes."""
    registry = make()
    path = serving.serve(registry, name="main").path
    assert in_child(lambda: None) == 0
    assert len(os.listdir(place)) == 2
    found, problems = client_module.processes()
    assert [process.pid for process in found] == [os.getpid()]
    assert problems == []
    assert os.listdir(place) == [os.path.basename(path)]


def test_the_socket_of_a_hanging_process_is_not_removed(
    make: Any, serving: Any, client_module: Any, place: str
) -> None:
    """A stopped process does not answer, but is alive; it is reported as a problem."""
    registry = make()
    serving.serve(registry, name="main")
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        found, problems = client_module.processes(timeout_seconds=1.0)
        assert [process.pid for process in found] == [os.getpid()]
        assert len(problems) == 1
        assert problems[0].startswith(f"{child}-")
        assert "does not answer" in problems[0]
        assert len(os.listdir(place)) == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    client_module.processes()
    assert len(os.listdir(place)) == 1


def test_the_socket_is_removed_at_exit(ws: Any, place: str) -> None:
    """At an ordinary exit of the interpreter."""
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


# -- the client ------------------------------------------------------------------------------------


@pytest.fixture
def impostor(place: str) -> Any:
    """A listener that sends arbitrary answers."""
    os.makedirs(place, 0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = os.path.join(place, "1-impostor.sock")
    listener.bind(path)
    listener.listen()
    threads: list[threading.Thread] = []

    def answer(data: bytes) -> str:
        def respond() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(data)

        threads.append(threading.Thread(target=respond))
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
        (b"nonsense\n", "not JSON"),
        (b"[1]\n", "unexpected answer"),
        (b'{"ok": true}\n', "unexpected answer"),
        (b'{"ok": true, "pid": "x", "program": 1, "registries": []}\n', "unexpected answer"),
        (b'{"ok": false, "error": "not today"}\n', "not today"),
        (b"x" * 3000, "too long"),
    ],
)
def test_invalid_answers(
    client_module: Any, impostor: Any, data: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each raises one clear error."""
    monkeypatch.setattr(client_module.protocol, "MAX_ANSWER_BYTES", 2000)
    path = impostor(data)
    with (
        client_module.Connection(path) as connection,
        pytest.raises(client_module.LiveViewError, match=text),
    ):
        client_module.Process(path, connection.ask("list"))


def test_malformed_parts_of_an_answer(client_module: Any, impostor: Any, observe: Any) -> None:
    """They are skipped and counted; depth, sizes and types are bounded."""
    answers = observe("answers")
    process = {"pid": 1, "program": "p", "warmset": "0", "implementation": "pure", "rss_bytes": 5}
    counts = ("cached", "max_cache_size", "weakly_kept", "held", "lookups", "builds", "evictions")
    unknown = ("idle_seconds", "build_seconds", "held_seconds", "expires_in_seconds", "bytes")
    unknown += ("expires", "detail", "class_path")
    row: dict[str, Any] = {"class_name": "A", "state": "warm", **dict.fromkeys(unknown)}
    row |= {"age_seconds": 1.5, "uses": 3, "holders": 0}
    registry = {
        "name": "r",
        "settings": {"a": 1},
        "offers": ["pin"],
        "hit_rate": 0.5,
        "classes": [row],
        "classes_left_out": 0,
        **dict.fromkeys(counts, 1),
    }
    bad_rows = [
        3,
        {},
        {**row, "class_name": 3},
        {**row, "class_name": "x" * 20_000},
        {**row, "state": "odd"},
        {**row, "state": []},
        {**row, "holders": 1 << 80},
        {**row, "age_seconds": float("inf")},
        {**row, "age_seconds": "x"},
        {**row, "detail": {"a": 1}},
        {name: value for name, value in row.items() if name != "bytes"},
    ]
    bad_registries = [
        None,
        {},
        {**registry, "name": None},
        {**registry, "settings": {"deep": [[]]}},
        {**registry, "offers": ["exec"]},
        {**registry, "cached": "1"},
        {**registry, "classes": {}},
    ]
    good = {**registry, "classes": [row, *bad_rows]}
    found = answers.check_answer(
        "stats", {"ok": True, **process, "registries": [good, *bad_registries]}
    )
    (only,) = found["registries"]
    assert found["registries_malformed"] == len(bad_registries)
    assert (only["classes"], only["classes_malformed"]) == ([row], len(bad_rows))
    for odd in ({"ok": True, **process}, {"ok": 1}, [], None, {"ok": False, "error": ["x"]}):
        with pytest.raises(client_module.LiveViewError, match="unexpected answer"):
            answers.check_answer("stats", odd)
    with pytest.raises(client_module.LiveViewError, match="unexpected answer"):
        answers.check_answer("evict", {"ok": True, "removed": "all"})


@pytest.mark.parametrize("data", [b"[" * 100_000 + b"\n", b'{"ok": NaN}\n', b"9" * 5000 + b"\n"])
def test_answers_that_cannot_be_decoded(client_module: Any, impostor: Any, data: bytes) -> None:
    path = impostor(data)
    with (
        client_module.Connection(path) as connection,
        pytest.raises(client_module.LiveViewError, match=r"not JSON|unexpected answer"),
    ):
        connection.ask("list")


def test_selecting_processes(client_module: Any) -> None:
    """By process ID, by registry name, or all."""

    def process(pid: int, *names: str) -> Any:
        registries = [{"name": name} for name in names]
        return client_module.Process("/x", {"pid": pid, "program": "p", "registries": registries})

    one, two = process(7, "main"), process(8, "main", "other")
    assert client_module.find(None, [one, two]) == [one, two]
    assert client_module.find("8", [one, two]) == [two]
    assert client_module.find("main", [one, two]) == [one, two]
    assert client_module.find("other", [one, two]) == [two]
    assert client_module.find("9", [one, two]) == []
    assert json.dumps(repr(two)) == '"<process 8, p: main, other>"'


def test_the_live_view_begins_anew_if_its_thread_fails(
    make: Any, serving: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The registries stay served, and health reports it."""
    registry = make()
    registry.health()
    serving.serve(registry, name="main")
    connect()
    step, failed = serving.server._step, []

    def fail_once() -> None:
        if not failed:
            failed.append(True)
            raise SystemExit
        step()

    monkeypatch.setattr(serving.server, "_step", fail_once)
    before = serving.server._thread
    serving.server.wake()
    until(lambda: serving.server._thread not in (None, before))
    assert connect().ask("list")["ok"]
    assert "begins anew" in caplog.text
    (finding,) = [f for f in registry.health() if f.kind.value == "services_failing"]
    assert "warmset-live-view" in finding.advice


def test_the_live_view_ends_if_it_fails_time_and_again(
    make: Any, serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It does not spin."""

    def fail() -> None:
        raise ValueError

    monkeypatch.setattr(serving.server, "_step", fail)
    registry = make()
    serving.serve(registry, name="main")
    until(lambda: "the live view ends" in caplog.text)
    assert serving.server._thread is None
