"""``warmset plan``: the table, the page, and what is not a profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke

if TYPE_CHECKING:
    from pathlib import Path

LOG = "seconds,class_name,build_seconds,bytes\n" + "".join(
    f"{at},{'ABC'[at % 3]},{at % 3 + 1},{(at % 3 + 1) * 1_000_000}\n" for at in range(30)
)


@pytest.fixture
def log(tmp_path: Path) -> str:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return str(path)


def test_a_bound_that_is_too_small(log: str) -> None:
    status, output = invoke("plan", log, "--size", "2")
    assert status == 0
    assert "30 uses of 3 classes replayed; policy lru, exact" in output
    assert "smallest bound within 5 % of the best: max_cache_size=3, with 3 builds, 6.0 s" in output
    assert "the roster of 3 classes (6.0 MB) exceeds max_cache_size=2 by 1" in output
    assert "classes that evict each other at 2: " in output
    row = next(line for line in output.splitlines() if "given" in line)
    assert row.split() == ["2", "30", "60.0", "5.0", "given"]


def test_a_budget(log: str) -> None:
    status, output = invoke("plan", log, "--memory", "8MB", "--policy", "cost")
    assert status == 0
    assert "policy cost, by a replay for each bound" in output
    assert "fits into max_cache_bytes=8000000 (8.0 MB)" in output


def test_json_and_page(log: str, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    status, output = invoke("plan", log, "--json", "--report", str(page))
    assert status == 0
    assert json.loads(output)["recommended"]["bound"] == 3
    text = page.read_text(encoding="utf-8")
    assert text.count('class="wide"') == text.count('class="narrow"') == 1  # a chart for a phone
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "smallest within 5 %" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    path, page = tmp_path / "log.csv", tmp_path / "plan.html"
    path.write_text("seconds,class_name\n" + "1,<b>\x1b[31m\n2,B\n" * 5)
    status, output = invoke("plan", str(path), "--size", "1", "--report", str(page))
    assert status == 0
    assert "\x1b" not in output
    assert "<b>" not in page.read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--memory", "2GiB", "--size", "3"), "only one of --memory and --size"),
        (("--memory", "much"), "'much' is not a size"),
        (("--memory", "0"), "'0' is not a size"),
        (("--report", "/nowhere/plan.html"), "--report: cannot write"),
    ],
)
def test_wrong_options(log: str, words: tuple[str, ...], problem: str) -> None:
    status, output = invoke("plan", log, *words)
    assert status == 2
    assert problem in output


@pytest.mark.parametrize(
    ("size", "expected"),
    [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5k", 1500), ("7", 7), ("1Mi", 1 << 20)],
)
def test_sizes(size: str, expected: int) -> None:
    from warmset.cli.byte_size import ByteSize

    assert ByteSize().convert(size, None, None) == expected


def test_a_budget_needs_sizes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("seconds,class_name\n1,A\n2,B\n")
    status, output = invoke("plan", str(path), "--memory", "1GB")
    assert status == 2
    assert "has no sizes, which --memory needs" in output


def test_what_is_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    assert invoke("plan", str(path))[0] == 2
    path.write_text('{"format": "warmset-profile", "format_version": 1, "classes": {}}')
    status, output = invoke("plan", str(path))
    assert status == 2
    assert "has no order of uses" in output


def test_a_recorded_run(write: Any, pipeline_text: Any, fakes: Any, tmp_path: Path) -> None:
    """The order of uses of a run with one worker is exact."""
    steps = (
        '[[steps]]\nclass = "Counter"\nmethod = "count"\narguments = { text = "$document.text" }\n'
    )
    pipeline = str(write(pipeline_text(steps)))
    profile = str(tmp_path / "profile.json")
    status, output = invoke("run", pipeline, "--runs", "2", "--record-profile", profile)
    assert status == 0, output
    status, output = invoke("plan", profile)
    assert status == 0, output
    assert "uses of 1 class replayed" in output
    assert "of unknown size" not in output


def test_less_than_a_second_is_not_shown_as_none() -> None:
    from warmset.cli.plan_text import _seconds

    shown = [_seconds(each) for each in (0.0, 0.0634, 0.5, 1.0, 1234.56)]
    assert shown == ["0.0", "0.063", "0.5", "1.0", "1,234.6"]
