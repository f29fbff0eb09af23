"""``warmset check`` warns if the pinned classes alone exceed a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from invoking import invoke

from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import make_registry
from warmset.memory.profiles import ClassProfile, Profile

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = """
[classes]
One = "collections.OrderedDict"
Two = "collections.Counter"
Three = "collections.deque"

[options.One]
pin = true

[options.Two]
pin = true

[options.Three]
priority = 3

[[steps]]
class = "One"
method = "clear"
each = "run"
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return tmp_path / "pipeline.toml"


def test_more_pinned_classes_than_places(pipeline: Path) -> None:
    pipeline.write_text("[registry]\nmax_cache_size = 1\n" + CLASSES)
    status, output = invoke("check", str(pipeline))
    assert status == 0
    assert "warning: " in output
    assert "2 pinned classes exceed max_cache_size=1 by 1: One, Two" in output


def test_more_pinned_bytes_than_the_budget(pipeline: Path, tmp_path: Path) -> None:
    pipeline.write_text("[registry]\nmax_cache_bytes = 5000000\n" + CLASSES)
    profile = tmp_path / "profile.json"
    Profile({name: ClassProfile(bytes=3_000_000) for name in ("One", "Two", "Three")}).save(profile)
    status, output = invoke("check", str(pipeline), "--profile", str(profile))
    assert status == 0
    assert "the pinned classes have 6.0 MB and exceed max_cache_bytes=5000000 by 1.0 MB" in output
    assert "warning" not in invoke("check", str(pipeline))[1]


def test_bounds_that_hold(pipeline: Path) -> None:
    pipeline.write_text("[registry]\nmax_cache_size = 2\n" + CLASSES)
    assert "warning" not in invoke("check", str(pipeline))[1]


def test_options_reach_the_registry(pipeline: Path) -> None:
    pipeline.write_text(CLASSES)
    with make_registry(load_pipeline(pipeline), ()) as registry:
        assert registry.pinned() == ["One", "Two"]
        assert registry.slots["Three"].options.priority == 3


def test_wrong_options(pipeline: Path) -> None:
    pipeline.write_text(CLASSES + "[options.Four]\npin = true\n")
    status, output = invoke("check", str(pipeline))
    assert status == 2
    assert "Four" in output
