"""Fixtures for the tests of the engines."""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def notes_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which workers record builds; they inherit its path."""
    file = tmp_path_factory.mktemp("engines") / "notes"
    file.touch()
    os.environ["WARMSET_TEST_NOTES"] = str(file)
    yield file
    del os.environ["WARMSET_TEST_NOTES"]


@pytest.fixture
def built(notes_file: Path) -> Callable[[], list[str]]:
    """Return a function that lists the builds since the start of the test, sorted."""
    notes_file.write_text("")
    return lambda: sorted(line.split()[0] for line in notes_file.read_text().splitlines())


@pytest.fixture(scope="module")
def started(notes_file: Path) -> Iterator[None]:
    """A local Ray cluster with two CPUs."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    # Collect Ray's garbage now, so that its warnings do not appear in another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
        gc.collect()
