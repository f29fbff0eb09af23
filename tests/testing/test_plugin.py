"""Tests of the pytest fixtures, each in a separate test run, as in a user's project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

import warmset

if TYPE_CHECKING:
    from collections.abc import Callable

    Suite = Callable[..., "subprocess.CompletedProcess[str]"]

SOURCE = str(Path(warmset.__file__).parent.parent)


def pytest_in(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a directory in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": SOURCE, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Run a test module in a new process."""

    def run(text: str, *words: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["warmset.testing.plugin"]\n')
        (tmp_path / "test_user.py").write_text(dedent(text))
        return pytest_in(tmp_path, *words)

    return run


LEAK = """
    import pytest

    kept = []

    class Model:
        def __init__(self):
            self.weights = bytearray(10_000_000)
            for at in range(0, len(self.weights), 4096):
                self.weights[at] = 1  # the system allocates a page only when it is written

    @pytest.mark.parametrize("leaks", [False, True])
    def test_ten_runs(warmset_registry, bounded_rss, leaks):
        registry = warmset_registry({"Model": f"{__name__}.Model"})

        def run():
            model = registry.get_instance("Model")
            if leaks:
                kept.append(model)
            registry.clear_cache()

        bounded_rss(run, runs=11, growth_mb=20)
"""


def test_a_run_that_leaks_fails_and_a_bounded_one_passes(suite: Suite) -> None:
    result = suite(LEAK)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 1 passed" in result.stdout
    assert "test_ten_runs[True]" in result.stdout
    assert "from run 1 to run 11, more than the bound of 20 MB" in result.stdout
    assert "<- largest" in result.stdout
    # The traceback ends in the user's code.
    assert "rss.py" not in result.stdout


def test_registry_timer_and_stepper_share_a_clock(suite: Suite) -> None:
    result = suite(
        """
        import io

        def test_evictions(warmset_registry, warmset_timer, warmset_stepper):
            registry = warmset_registry(
                {"A": "io.StringIO", "B": "io.StringIO"}, cache_ttl_seconds=60.0
            )
            stepper = warmset_stepper(registry)
            registry.get_instance("A")
            warmset_timer.advance(1.0)
            registry.get_instance("B")
            assert [event.class_name for event in stepper.evict_next()] == ["A"]
            (event,) = stepper.expire_next()
            assert (event.class_name, event.cause.name) == ("B", "IDLE")
            assert 1060 < warmset_timer() <= 1061.001

        made = []

        def test_a_registry_without_names_is_empty(warmset_registry, monkeypatch):
            monkeypatch.setenv("WARMSET_CONFIG", "nowhere.toml")
            registry = warmset_registry()
            assert len(registry) == 0
            registry.register("S", "io.StringIO")
            registry.get_method("S", "write")
            made.append((registry, registry.use("S").__enter__()))

        def test_it_was_closed_after_its_test():
            registry, stream = made[0]
            assert registry.stats().cached == 0
            try:
                registry.get_instance("S")
            except RuntimeError as error:
                assert "closed" in str(error)
        """
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


def test_an_inconsistent_registry_is_an_error_of_the_test(suite: Suite) -> None:
    result = suite(
        """
        def test_damage(warmset_registry):
            from warmset.builds import Build

            registry = warmset_registry({"S": "io.StringIO"})
            registry.builder._builds["S"] = Build(registry, registry.slots["S"], 0, 0, None)
        """
    )
    assert result.returncode == 1
    assert "1 passed, 1 error" in result.stdout
    assert "builds in progress: ['S'], expected []" in result.stdout


def test_the_examples_in_the_docs_run(tmp_path: Path) -> None:
    """Each example is written to the file named in its first line."""
    page = Path(__file__).parents[2] / "docs" / "testing.md"
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", page.read_text(), re.M | re.S)
    assert [name for name, _ in blocks] == ["conftest.py", "test_models.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    result = pytest_in(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_the_plugin_is_loaded_only_on_request(suite: Suite) -> None:
    result = suite(
        """
        import sys

        def test_nothing():
            assert "warmset" not in sys.modules
        """,
        "--noconftest",
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_package_does_not_require_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import warmset.testing as kit\n"
        "timer = kit.FakeTimer()\n"
        "import warmset\n"
        "registry = warmset.MethodRegistry({'S': 'io.StringIO'}, timer=timer)\n"
        "registry.get_instance('S')\n"
        "assert len(kit.EvictionStepper(registry, timer).expire_next()) == 1\n"
        "kit.check_structure(registry)\n"
        "kit.assert_bounded_rss(registry.clear_cache, runs=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
