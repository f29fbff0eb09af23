"""
Fuzzing of input from outside the process: valid inputs, mutated.

Each function draws one input, uses it as the package does, and tells the outcome. Anything but the
outcomes that it names is an error: an exception, or an input that was accepted although it was
altered. The tests run a few examples; as a script, it runs for some time:

    python tests/support/fuzzing.py --seconds 600
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import warmset
from warmset.cli import class_table
from warmset.observe.answers import check_answer
from warmset.observe.commands import ClientSession, CommandHandler
from warmset.observe.protocol import LiveViewError
from warmset.share import DirectoryStore, ValkeyStore
from warmset.share.envelope import unpack
from warmset.share.errors import DamagedError
from warmset.share.host import HostBudget, HostMember
from warmset.share.host_table import HostTable
from warmset.share.manifests import Manifest, is_lock, read_manifest, sign_lock
from warmset.share.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS", "Fuzzer"]

KEY = b"0123456789abcdef-fuzzing"
SECRET = Secret(KEY)
TOKEN = "0123456789abcdef" * 2


class Small:
    """What the snapshots contain."""

    def __init__(self) -> None:
        self.text = "small"
        self.numbers = np.arange(100, dtype=np.int16)

    def is_intact(self) -> bool:
        return self.text == "small" and int(self.numbers.sum()) == 4950


# -- mutations -------------------------------------------------------------------------------------

WORDS = [b"", b"\0", b"\xff" * 8, b"{", b"[" * 3000, b'"', b"null", b"-1", b"1e999", b"NaN", b"\n"]


@st.composite
def mutated(draw: Any, valid: bytes) -> bytes:
    """Bytes with one to four changes, or none."""
    found = bytearray(valid)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(found)))
        size = draw(st.integers(0, 16))
        kind = draw(st.integers(0, 5))
        if kind == 0 and at < len(found):
            found[at] ^= draw(st.integers(1, 255))
        elif kind == 1:
            del found[at : at + size]
        elif kind == 2:
            found[at:at] = draw(st.sampled_from(WORDS))
        elif kind == 3:
            found[at:at] = found[at : at + size]
        elif kind == 4:
            del found[at:]
        else:
            found[at : at + size] = draw(st.binary(max_size=16))
    return bytes(found)


odd_values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\udcff", "\x1b[2J", "x" * 20_000, "../x", -1, 1 << 62, 1 << 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@st.composite
def changed(draw: Any, valid: Any) -> Any:
    """JSON data in which up to three values are replaced, removed or added."""
    root: Any = {"": json.loads(json.dumps(valid))}
    for _ in range(draw(st.integers(0, 3))):
        node, key = root, ""
        while isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 4)):
            node = node[key]
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(keys))
        kind = draw(st.integers(0, 3))
        if kind == 0 and node is not root:
            del node[key]
        elif kind == 1 and isinstance(node, dict) and node is not root:
            node[draw(st.text(max_size=5))] = draw(odd_values)
        else:
            node[key] = draw(odd_values)
    return root[""]


# -- targets ---------------------------------------------------------------------------------------


class Fuzzer:
    """
    The valid inputs, in a directory of their own.

    Args:
        directory: A directory that only this user can write to.
        server: The path of the socket of a Valkey server; None leaves that target out.
    """

    def __init__(self, directory: Path, server: str | None = None) -> None:
        sys.modules.setdefault("fuzzing", sys.modules[__name__])
        self.store = DirectoryStore(directory / "store", key=KEY)
        self.open(self.store)
        (self.file,) = Path(self.store.own_path).iterdir()
        self.snapshot = self.file.read_bytes()
        self.key = self.file.stem
        self.manifest = Manifest(TOKEN, 5000)
        self.lock = sign_lock(TOKEN, self.key, 30.0, 1000.0, SECRET)
        self.table = HostTable("fuzz", directory=str(directory), alive=lambda pid, start: True)
        self.registry = warmset.MethodRegistry(
            {"Small": "fuzzing.Small", "Other": "fuzzing.NoSuchClass"}, sizer="measured"
        )
        self.registry.get_instance("Small")
        budget = HostBudget(10**12, name="fuzz", interval_seconds=100.0)
        self.member = HostMember(budget, "one", table=self.table)
        self.registry.attach(self.member)
        self.member.check(self.registry)
        self.rows = json.loads(Path(self.table.path).read_text())
        self.handler = CommandHandler(lambda: (_Served(self.registry),))
        self.stats = json.loads(self.handler.answer(b'{"command": "stats"}', None))
        self.server: ValkeyStore | None = None
        if server is not None:
            self.server = ValkeyStore(f"unix://{server}", key=KEY, prefix="fuzz")
            self.open(self.server)
            client = self.server._connect()
            self.dumps = {name: client.dump(name) for name in client.scan_iter("{fuzz}:*")}

    def close(self) -> None:
        self.registry.close()
        if self.server is not None:
            self.server.close()

    def open(self, store: Any) -> str:
        """Look the class up in a new registry: "opened" or "built"."""
        with warmset.MethodRegistry({}, store=store) as registry:
            registry.register("Small", "fuzzing.Small", shareable=True)
            assert registry.get_instance("Small").is_intact()
            stats = registry.snapshot_stats()
            return "opened" if stats.opened and not stats.stored else "built"

    def snapshot_file(self, data: Any) -> str:
        """The bytes of a file, altered: opened only if they are what was signed."""
        content = data.draw(mutated(self.snapshot))
        self.file.write_bytes(content)
        outcome = self.open(self.store)
        assert (outcome == "opened") == (content == self.snapshot)
        self.file.unlink(missing_ok=True)
        return outcome

    def snapshot_bytes(self, data: Any) -> str:
        """The same without a registry, which is faster."""
        content = data.draw(mutated(self.snapshot))
        try:
            envelope = unpack(self.key, memoryview(content), (SECRET,))
        except DamagedError:
            assert content != self.snapshot
            return "built"
        assert content == self.snapshot
        assert envelope.facts.class_name == "Small"
        return "opened"

    def snapshot_signed(self, data: Any) -> str:
        """A header that an owner of the key wrote, and that lacks something."""
        length, _ = struct.unpack_from("<QQ", self.snapshot, 16)
        header = data.draw(changed(json.loads(self.snapshot[32 : 32 + length])))
        text = json.dumps(header).encode()
        text = text.ljust(length) if len(text) <= length else text
        moved = len(text) - length
        body = text + self.snapshot[32 + length : -32]
        total = len(self.snapshot) + moved
        start = self.snapshot[:16] + struct.pack("<QQ", len(text), total)
        signature = SECRET.signer()
        signature.update(start + body)
        self.file.write_bytes(start + body + signature.digest())
        outcome = self.open(self.store)
        self.file.unlink(missing_ok=True)
        return outcome

    def manifests(self, data: Any) -> str:
        """The manifest of a snapshot on a server: altered, or signed with odd values."""
        good = self.manifest.signed(self.key, SECRET)
        if data.draw(st.booleans()):
            found = data.draw(mutated(good))
            signed = False
        else:
            text = json.dumps(data.draw(changed(json.loads(good[64:])))).encode()
            signature = SECRET.signer()
            signature.update(f"warmset manifest\n{self.key}\n".encode() + text)
            found, signed = signature.hexdigest().encode() + text, True
        try:
            manifest = read_manifest(found, self.key, (SECRET,), 10**9)
        except DamagedError:
            assert found != good
            return "built"
        assert signed or found == good
        assert 0 < manifest.size <= 10**9
        assert manifest.number.isalnum()
        return "opened"

    def locks(self, data: Any) -> str:
        """The lock of a builder: waited for only if it is what was signed, and recent."""
        found = data.draw(mutated(self.lock))
        now = data.draw(st.floats(0.0, 2000.0))
        if is_lock(found, self.key, (SECRET,), now):
            assert found == self.lock
            assert abs(now - 1000.0) <= 91.0
            return "opened"
        assert found != self.lock or abs(now - 1000.0) > 89.0
        return "built"

    def server_entries(self, data: Any) -> str:
        """Any entry of the store on a real server."""
        assert self.server is not None
        client = self.server._connect()
        client.flushall()
        for each, dump in self.dumps.items():
            client.restore(each, 0, dump)
        name = data.draw(st.sampled_from(sorted(self.dumps)))
        content = client.get(name) if client.type(name) == b"string" else b"x"
        altered = data.draw(mutated(content[:3000])) + content[3000:]
        client.delete(name)
        planted = data.draw(st.integers(0, 3))
        if planted == 0:
            client.rpush(name, altered)
        elif planted == 1:
            client.zadd(name, {altered: data.draw(st.floats(-1e9, 1e9))})
        elif planted == 2:
            client.hset(name, b"x", altered)
        else:
            client.set(name, altered)
        if data.draw(st.booleans()):
            client.set(f"{{fuzz}}:lock:{self.key}", data.draw(mutated(self.lock)))
        outcome = self.open(self.server)
        is_snapshot = b":manifest:" in name or b":chunk:" in name
        is_same = planted == 3 and altered == content
        assert (outcome == "built") == (is_snapshot and not is_same)
        return outcome

    def host_rows(self, data: Any) -> str:
        """The table of a budget: well-typed rows, whatever is in the file."""
        if data.draw(st.booleans()):
            content = data.draw(mutated(json.dumps(self.rows).encode()))
        else:
            content = json.dumps(data.draw(changed(self.rows))).encode()
        Path(self.table.path).write_bytes(content)
        before = self.table.read()
        for row in before:
            assert type(row.pid) is int
            assert all(row.value(each, self.table.now()) >= 0.0 for each in row.members.values())
        self.registry.sweep()
        self.member.check(self.registry)
        (mine,) = [row for row in self.table.read() if row.pid == os.getpid()][:1]
        assert mine.members
        return "opened" if before else "built"

    def requests(self, data: Any) -> str:
        """Frames that a client sends, in pieces: one answer for each line, or the end."""
        valid = {"command": "stats", "registry": "fuzz", "filter": "S", "limit": 3}
        if data.draw(st.booleans()):
            frame = data.draw(mutated(json.dumps(valid).encode() + b"\n"))
        else:
            frame = json.dumps(data.draw(changed(valid))).encode() + b"\n"
        session = ClientSession(self.handler, None, 0.0)
        outcome = "built"
        at = 0
        while at < len(frame) and not session.closing:
            size = data.draw(st.integers(1, len(frame)))
            session.received(frame[at : at + size], 0.0)
            at += size
            while session.unsent:
                answer = json.loads(bytes(session.unsent))
                assert type(answer["ok"]) is bool
                outcome = "opened" if answer["ok"] else "built"
                session.sent(len(session.unsent), 0.0)
        return outcome

    def answers(self, data: Any) -> str:
        """Frames that a process sends to `warmset stats` and `top`: shown, or refused."""
        try:
            if data.draw(st.booleans()):
                decoded = json.loads(data.draw(mutated(json.dumps(self.stats).encode())))
            else:
                decoded = data.draw(changed(self.stats))
        except (ValueError, RecursionError):
            return "built"
        try:
            answer = check_answer("stats", decoded)
        except LiveViewError:
            return "built"
        texts = [class_table.process_line(answer)]
        for registry in answer["registries"]:
            texts.append(class_table.registry_line(registry))
            for sort in (None, *class_table.SORTS):
                rows = class_table.sort_rows(registry["classes"], sort)
                texts += [column.text(row) for row in rows for column in class_table.COLUMNS]
        assert all(type(text) is str for text in texts)
        return "opened"


class _Served:
    name, allow_changes = "fuzz", False

    def __init__(self, registry: Any) -> None:
        self.registry = registry


TARGETS: tuple[str, ...] = (
    "snapshot_file",
    "snapshot_bytes",
    "snapshot_signed",
    "manifests",
    "locks",
    "server_entries",
    "host_rows",
    "requests",
    "answers",
)


def run(target: Callable[[Any], str], examples: int, counts: Counter[str]) -> None:
    """Run a target with new random examples, and count the outcomes."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def once(data: Any) -> None:
        outcome = target(data)
        assert outcome in ("opened", "built")
        counts[outcome] += 1

    once()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz input from outside the process.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    arguments = parser.parse_args()
    import logging

    import servers

    logging.getLogger("warmset").setLevel(logging.CRITICAL)
    counts: dict[str, Counter[str]] = {}
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        server = None
        if servers.program() is not None:
            server = stack.enter_context(servers.server())
        fuzzer = Fuzzer(Path(directory), server)
        stack.callback(fuzzer.close)
        wanted = arguments.target or [
            name for name in TARGETS if server is not None or name != "server_entries"
        ]
        names = cycle(wanted)
        deadline = time.monotonic() + arguments.seconds
        while time.monotonic() < deadline:
            name = next(names)
            run(getattr(fuzzer, name), 100, counts.setdefault(name, Counter()))
    for name, each in sorted(counts.items()):
        print(f"{name}: {each['opened']} opened, {each['built']} built again")
    print(f"{sum(sum(each.values()) for each in counts.values())} inputs, no other outcome")


if __name__ == "__main__":
    main()
