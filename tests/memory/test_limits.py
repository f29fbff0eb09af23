"""Tests of the memory limit of the process: control groups of both versions, and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from warmset.memory.limits import in_bytes, memory_limit

if TYPE_CHECKING:
    from pathlib import Path

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    """Return the limit that is read from a file system with these files, on a machine of 64 GB."""

    def limit(**files: str) -> int:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_DOT_", ".").replace("_S_", ".slice")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory_limit(root=str(tmp_path), total=lambda: 64 * GB, resources=list)

    return limit


V2 = "sys__fs__cgroup__"


def test_the_memory_of_the_machine_without_control_groups(machine: Any) -> None:
    assert machine() == 64 * GB


def test_version_2_applies_the_lowest_limit_of_all_parent_groups(machine: Any) -> None:
    """The group itself has no limit; the ones above it have."""
    files = {
        "proc__self__cgroup": "0::/app/job\n",
        f"{V2}app__job__memory_DOT_max": "max\n",
        f"{V2}app__memory_DOT_max": f"{8 * GB}\n",
        f"{V2}memory_DOT_max": f"{16 * GB}\n",
    }
    assert machine(**files) == 8 * GB


def test_the_limit_above_which_the_kernel_slows_a_group_down(machine: Any) -> None:
    """It is lower than the one at which it ends the process."""
    files = {
        "proc__self__cgroup": "0::/app\n",
        f"{V2}app__memory_DOT_max": f"{8 * GB}\n",
        f"{V2}app__memory_DOT_high": f"{6 * GB}\n",
    }
    assert machine(**files) == 6 * GB


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_resource_limits_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Allocations fail above them."""
    resource = pytest.importorskip("resource")
    limited = getattr(resource, name)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    soft = (3 * GB, 4 * GB)
    monkeypatch.setattr(resource, "getrlimit", lambda r: soft if r == limited else unlimited)
    assert memory_limit(root=str(tmp_path), total=lambda: 64 * GB) == 3 * GB


def test_version_2_in_a_container(machine: Any) -> None:
    """The path is that of the host; the mount is the group."""
    files = {
        "proc__self__cgroup": "0::/../kubepods/pod1\n",
        f"{V2}memory_DOT_max": f"{2 * GB}\n",
    }
    assert machine(**files) == 2 * GB


def test_version_1(machine: Any) -> None:
    files = {
        "proc__self__cgroup": "11:cpu,cpuacct:/other\n9:memory:/docker/abc\n1:name=systemd:/x\n",
        f"{V2}memory__docker__abc__memory_DOT_limit_in_bytes": f"{4 * GB}\n",
        f"{V2}memory__memory_DOT_limit_in_bytes": "9223372036854771712\n",
    }
    assert machine(**files) == 4 * GB


def test_version_1_without_a_limit(machine: Any) -> None:
    files = {
        "proc__self__cgroup": "9:memory:/\n",
        f"{V2}memory__memory_DOT_limit_in_bytes": "9223372036854771712\n",
    }
    assert machine(**files) == 64 * GB


def test_both_versions_at_once(machine: Any) -> None:
    files = {
        "proc__self__cgroup": "9:memory:/a\n0::/b\n",
        f"{V2}memory__a__memory_DOT_limit_in_bytes": f"{4 * GB}\n",
        f"{V2}unified__b__memory_DOT_max": f"{3 * GB}\n",
    }
    assert machine(**files) == 3 * GB


@pytest.mark.parametrize("text", ["", "max", "0", "-5", "many", "1e9", "\x00"])
def test_an_unreadable_limit_is_ignored(machine: Any, text: str) -> None:
    files = {"proc__self__cgroup": "0::/\n", f"{V2}memory_DOT_max": text}
    assert machine(**files) == 64 * GB


def test_a_changed_limit_is_read_anew(machine: Any) -> None:
    files = {"proc__self__cgroup": "0::/\n", f"{V2}memory_DOT_max": f"{8 * GB}"}
    assert machine(**files) == 8 * GB
    assert machine(**{f"{V2}memory_DOT_max": f"{5 * GB}"}) == 5 * GB


def test_amounts_in_bytes_and_as_fractions() -> None:
    """An int is a number of bytes, a float a fraction of the limit."""
    assert in_bytes(123, lambda: 1000) == 123
    assert in_bytes(0.25, lambda: 1000) == 250
    assert in_bytes(1.0, lambda: 1000) == 1000


def test_this_machine_has_a_limit() -> None:
    assert 10**7 < memory_limit() < 2**60
