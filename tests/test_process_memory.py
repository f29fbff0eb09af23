"""Tests of process memory measurements and of the glibc functions."""

from __future__ import annotations

import ctypes
import mmap
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import warmset
from warmset import _process_memory as memory

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def test_resident_bytes_grow_with_an_allocation() -> None:
    before = memory.resident_bytes()
    block = b"x" * 50_000_000
    assert memory.resident_bytes() - before > 40_000_000
    assert len(block) == 50_000_000


@needs_glibc
def test_free_memory_is_returned() -> None:
    assert memory.give_back_free_memory()


@needs_glibc
def test_threads_can_share_one_heap() -> None:
    # In a new process, because it cannot be undone.
    code = (
        "import sys\n"
        "from warmset._process_memory import share_one_heap\n"
        "sys.exit(not share_one_heap())"
    )
    source = str(Path(warmset.__file__).parent.parent)
    process = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("error", [OSError("none"), TypeError("none")])
def test_without_a_c_library_both_return_false(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(name: None) -> object:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not memory.give_back_free_memory()
    assert not memory.share_one_heap()


def test_other_c_libraries_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def mallopt(self, option: int, value: int) -> int:
            raise AssertionError("asked")

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert not memory.give_back_free_memory()
    assert not memory.share_one_heap()


def test_shared_memory_does_not_count() -> None:
    """Memory in a file in /dev/shm."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm")
    size = 30_000_000
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as shared:
            before = memory.resident_bytes() - memory.unshared_bytes()
            shared.write(bytes(size))
            after = memory.resident_bytes() - memory.unshared_bytes()
    assert after - before > 0.9 * size
