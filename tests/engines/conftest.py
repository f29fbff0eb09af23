"""What the tests of the engines have in common."""

from __future__ import annotations

import os
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
