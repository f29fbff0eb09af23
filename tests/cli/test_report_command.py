"""The option ``--report``: the page of a run, and errors before and after the runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke

import warmset
from warmset.cli import html_report

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = '[[steps]]\nclass = "Counter"\nmethod = "count"\narguments = { text = "$document.text" }\n'
FAIL = '[[steps]]\nclass = "Sink"\nmethod = "fail"\narguments = { name = "$document.name" }\n'
INTERRUPT = (
    '[[steps]]\nclass = "Sink"\nmethod = "interrupt"\narguments = { name = "$document.name" }\n'
)


@pytest.fixture
def file(write: Any, pipeline_text: Any, fakes: list[object]) -> Callable[..., str]:
    def make(steps: str = COUNT, **options: Any) -> str:
        return str(write(pipeline_text(steps, **options)))

    return make


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_writes_a_page(
    file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """The same with and without the progress bar."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    target = tmp_path / "out.html"
    words = ["--runs=3", "--max-growth-mb=1000", "--report", str(target)]
    status, _ = invoke("run", file(COUNT + FAIL), "--max-failures=0.5", *words)
    assert status == 0
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    for part in ("pipeline.toml", "PASS", "fakes.Counter", "ValueError: never", "cleared 6"):
        assert part in text
    assert text.count("<svg ") == 10
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


def test_a_page_with_all_run_options(file: Callable[..., str], tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    status, _ = invoke(
        "run", file(), "--runs=3", "--workers=2", "--no-clear", "--per-run", "--max-cache-size=1",
        "--max-growth-mb=1000", "--report", str(target),
    )  # fmt: skip
    assert status == 0
    text = target.read_text(encoding="utf-8")
    assert "size 2, shutdown 1" in text
    assert "Counter@2" not in text


def test_an_interrupted_run_writes_a_page(file: Callable[..., str], tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    status, _ = invoke("run", file(INTERRUPT), "--report", str(target))
    assert status == 130
    assert "The runs were interrupted in run 2" in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("no/such/report.html", "cannot write 'no/such/report.html': No such file or directory"),
        (".", "is a directory"),
        ("/dev/null", "cannot write '/dev/null': it is not a regular file"),
        ("x" * 255, "File name too long"),
    ],
)
def test_a_bad_target_is_exit_status_2_and_runs_nothing(
    file: Callable[..., str], fakes: list[object], target: str, text: str
) -> None:
    status, output = invoke("run", file(), "--report", target)
    assert status == 2
    assert "--report" in output
    assert text in output
    assert fakes == []


def test_a_late_write_error_is_reported_after_the_table(
    file: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results of the runs are not lost."""

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(html_report, "write_report", fail)
    target = str(tmp_path / "out.html")
    status, output = invoke("run", file(), "--max-growth-mb=1000", "--runs=2", "--report", target)
    assert status == 2
    assert "PASS" in output
    assert output.splitlines()[-1] == (
        f"warmset: --report: cannot write {target!r}: No space left on device"
    )


def test_a_missing_extra_is_reported_in_one_line(
    file: Callable[..., str],
    fakes: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html_report, "_PACKAGES", ("os", "nowhere_to_be_found"))
    status, output = invoke("run", file(), "--report", str(tmp_path / "out.html"))
    assert (status, fakes) == (2, [])
    assert output == (
        "warmset: --report needs the 'report' extra: pip install \"warmset[report]\""
        " (not installed: nowhere_to_be_found)\n"
    )


def test_plotting_packages_are_imported_after_the_runs(tmp_path: Path) -> None:
    """Without a report they are not imported at all."""
    (tmp_path / "probe.py").write_text(
        "import sys\n"
        "class Probe:\n"
        "    def check(self):\n"
        "        assert not {'matplotlib', 'jinja2', 'numpy'} & set(sys.modules)\n"
    )
    (tmp_path / "pipeline.toml").write_text(
        '[classes]\nProbe = "probe.Probe"\n[[steps]]\n'
        'class = "Probe"\nmethod = "check"\neach = "run"\n'
    )
    code = (
        "import sys; from warmset.cli import main\n"
        "words = ['run', 'pipeline.toml', '--runs', '2', '--strict', '--max-growth-mb', '1000']\n"
        "assert main(words) == 0\n"
        "assert 'warmset.cli.html_report' not in sys.modules\n"
        "assert main([*words, '--report', 'out.html']) == 0\n"
        "assert 'matplotlib' in sys.modules\n"
    )
    source = str(Path(warmset.__file__).parent.parent)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "out.html").exists()
