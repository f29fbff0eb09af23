"""A program in a pseudo-terminal, with an emulator of its screen."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Questions to the terminal, and modes beyond those of the VT100, which the emulator would print.
_BEYOND = re.compile(
    rb"\x1b\[[<>=?][0-9;]*(?:u|\$p|q|c|m|n|t)|\x1b_[^\x1b]*\x1b\\|\x1bP[^\x1b]*\x1b\\"
)


class Terminal:
    """
    Start a program in a terminal of its own.

    Args:
        command: The program and its words.
        columns: How wide the screen is.
        lines: How high it is.
        variables: Instead of those of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        lines: int = 24,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._unread = b""
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = dict(os.environ if variables is None else variables)
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)

        def own_terminal() -> None:
            os.setsid()
            ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            preexec_fn=own_terminal,
        )
        os.close(slave)

    def send(self, keys: str) -> None:
        """Type something."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Make the window another size."""
        self.screen.resize(lines, columns)
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGWINCH)

    def text(self) -> str:
        """The text on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def until(self, condition: Callable[[str], object], seconds: float = 60.0) -> str:
        """Wait until the screen satisfies a condition, and return it."""
        deadline = time.monotonic() + seconds
        while not condition(self.text()):
            if time.monotonic() > deadline or not self._read(0.1):
                raise AssertionError(f"it never came to be; the screen is:\n{self.text()}")
        return self.text()

    def end(self, seconds: float = 60.0) -> int:
        """Wait until the program ends by itself, and return its exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end; the screen is:\n{self.text()}")
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def close(self) -> None:
        """End the program, if it has not ended, and the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, seconds: float) -> bool:
        """Read the output of the program; return False at its end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return seconds > 0.0
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # on Linux: the program has closed its end
            return False
        data = self._unread + data
        # A possible beginning of an escape sequence is kept until its end has come.
        cut = data.rfind(b"\x1b")
        self._unread = data[cut:] if cut >= 0 and len(data) - cut < 32 else b""
        whole = data[: len(data) - len(self._unread)]
        if re.fullmatch(rb"\x1b\[[0-9;?]*[A-Za-z].*|\x1b[78=>].*", self._unread, re.DOTALL):
            whole, self._unread = data, b""
        self._stream.feed(_BEYOND.sub(b"", whole))
        return bool(data)


def warmset(*words: str) -> list[str]:
    """The command line of `warmset`, of this interpreter."""
    return [sys.executable, "-m", "warmset.cli", *words]
