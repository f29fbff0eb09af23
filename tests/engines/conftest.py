"""What the tests of the engines have in common."""

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
    """What was built, and by which process; the workers inherit its path."""
    file = tmp_path_factory.mktemp("engines") / "notes"
    file.touch()
    os.environ["WARMSET_TEST_NOTES"] = str(file)
    yield file
    del os.environ["WARMSET_TEST_NOTES"]


@pytest.fixture
def built(notes_file: Path) -> Callable[[], list[str]]:
    """What was built since the test began, sorted."""
    notes_file.write_text("")
    return lambda: sorted(line.split()[0] for line in notes_file.read_text().splitlines())


@pytest.fixture(scope="module")
def started(notes_file: Path) -> Iterator[None]:
    """A Ray of one's own, on two processors."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    # What it leaves to the collector is not to come up in a test of something else.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
        gc.collect()
