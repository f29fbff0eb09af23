"""The output of `run`: text, table, JSON, exit status, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from invoking import invoke

import warmset
from warmset.cli import app, report
from warmset.cli.pipeline_calls import Failure, FailureGroup
from warmset.cli.pipeline_run import Outcome, RunRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Write = Callable[..., Path]
    Text = Callable[..., str]

MB = 1_000_000
COUNT = '[[steps]]\nclass = "Counter"\nmethod = "count"\narguments = { text = "$document.text" }\n'
FAIL = '[[steps]]\nclass = "Sink"\nmethod = "fail"\narguments = { name = "$document.name" }\n'
LEAK = '[[steps]]\nclass = "Sink"\nmethod = "leak"\neach = "run"\n'
HEADINGS = "run seconds calls MB MB MB hits misses rate tions cached"


def record(run: int, rss_mb: float, first_mb: float = 100.0, **changes: Any) -> RunRecord:
    numbers: dict[str, Any] = {
        "run": run,
        "complete": True,
        "seconds": 1.5,
        "calls": 10,
        "failed": 0,
        "skipped": 0,
        "rss_before_clear_bytes": round(rss_mb * MB) + MB,
        "rss_bytes": round(rss_mb * MB),
        "growth_bytes": round((rss_mb - first_mb) * MB),
        "hits": 9,
        "misses": 1,
        "evictions": 0,
        "cached": 1,
    }
    return RunRecord(**{**numbers, **changes})


def outcome(records: Sequence[RunRecord], **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "records": tuple(records),
        "failures": (),
        "failed": 0,
        "skipped": 0,
        "calls": 10,
        "ended": "finished",
    }
    return Outcome(**{**values, **changes})


@pytest.fixture
def file(write: Write, pipeline_text: Text, fakes: list[object]) -> Callable[..., str]:
    def make(steps: str = COUNT, **options: Any) -> str:
        return str(write(pipeline_text(steps, **options)))

    return make


def test_failures_are_reported_in_groups() -> None:
    """The largest groups, each with its first failure."""
    groups = tuple(
        FailureGroup(Failure(2, f"s{at}", "C", "m", "d", "ValueError: x"), 10 - at)
        for at in range(report.FAILURES_SHOWN + 2)
    )
    result = outcome([], failure_groups=groups, failed=49, calls=60, skipped=2)
    lines = list(report.failure_lines(result))
    assert lines[0] == "49 of 60 calls failed, 2 skipped because of them:"
    assert lines[1] == "  10 x step 's0', C.m: ValueError: x (first in run 2, document 'd')"
    assert lines[-1] == "  and 9 more, of 2 other kinds"
    assert len(lines) == report.FAILURES_SHOWN + 2


def test_a_run_prints_table_and_verdict(file: Callable[..., str]) -> None:
    status, text = invoke("run", file(), "--runs", "3", "--max-growth-mb", "1000")
    assert status == 0
    lines = text.splitlines()
    assert lines[0].startswith("pipeline.toml: 3 classes, 1 step, 2 documents; warmset ")
    assert lines[1] == "3 runs, 1 worker, cache cleared after each run, max_cache_size 100"
    assert lines[3].split() == HEADINGS.split()
    rows = [line.split() for line in lines[4:7]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert {(row[2], *row[6:]) for row in rows} == {("2", "1", "1", "50.0%", "0", "1")}
    assert all(float(row[4]) > -100.0 for row in rows)
    assert rows[0][5] == "-"
    assert rows[1][5][0] in "+-"
    assert lines[7].startswith("PASS: RSS ")
    assert len(lines) == 8
    assert all(len(line) <= 80 for line in lines[2:7])


def test_a_table_wider_than_the_screen_is_not_truncated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    big = record(2, 123_456.7, hits=10**12, misses=10**11, evictions=10**11, failed=10**9)
    report.print_table((record(1, 100), big), sys.stdout)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split() == [
        *[
            "2",
            "1.50",
            "10",
            "123456.7",
            "1.0",
            "+123356.7",
            "1000000000000",
            "100000000000",
            "90.9%",
        ],
        *["100000000000", "1", "1000000000", "0"],
    ]


def test_growth_beyond_the_bound_is_exit_status_1(file: Callable[..., str]) -> None:
    words = ("run", file(LEAK + COUNT), "--runs", "3")
    status, text = invoke(*words)
    assert (status, "FAIL: RSS grew by" in text) == (1, True)
    status, text = invoke(*words, "--max-growth-mb", "500")
    assert (status, "PASS: RSS grew by" in text) == (0, True)


def test_failed_calls_are_no_pass(file: Callable[..., str]) -> None:
    """Unless they are expected; --strict stops at the first one."""
    words = ("run", file(COUNT + FAIL), "--runs", "2", "--max-growth-mb", "1000")
    status, text = invoke(*words, "--max-failures", "0.5")
    assert status == 0
    assert "PASS: 4 of 8 calls failed (50.0%, bound 0.5); RSS" in text
    status, text = invoke(*words)
    assert status == 1
    assert "4 of 8 calls failed:" in text
    assert (
        "  4 x step 'Sink.fail', Sink.fail: ValueError: never"
        " (first in run 1, document 'texts/a.txt')"
    ) in text
    assert "FAIL: 4 of 8 calls failed (50.0%, bound 0); RSS" in text
    assert [line.split()[-2:] for line in text.splitlines()[4:6]] == [["2", "0"]] * 2
    status, text = invoke(*words, "--strict")
    assert status == 3
    assert "1 of 2 calls failed:" in text
    assert "* not complete" in text
    assert "growth needs two complete runs" in text


def test_a_pipeline_whose_calls_all_fail_is_exit_status_3(file: Callable[..., str]) -> None:
    assert invoke("run", file(FAIL), "--runs", "2", "--max-growth-mb", "1000")[0] == 3


def test_options_override_the_file(file: Callable[..., str]) -> None:
    path = file(extra="[registry]\nmax_cache_size = 5")
    status, text = invoke(
        "run", path, "--runs=2", "--workers=2", "--no-clear", "--no-trim", "--per-run",
        "--max-cache-size=1", "--cache-ttl-seconds=0", "--max-growth-mb=1000",
    )  # fmt: skip
    assert status == 0
    assert text.splitlines()[1] == (
        "2 runs, 2 workers, cache not cleared, free memory not returned,"
        " new class names for each run, max_cache_size 1"
    )
    assert text.splitlines()[5].split()[-2:] == ["1", "1"]


def test_the_report_as_json(file: Callable[..., str], tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    path = file(COUNT + FAIL, extra="[registry]\nretry_after_seconds = inf")
    status, _ = invoke("run", path, "--runs=2", "--json", str(target), "--max-growth-mb", "1000")
    data = json.loads(target.read_text(encoding="utf-8"))
    assert status == data["exit_status"] == 1
    assert data["pipeline"] == path
    assert data["warmset"] == warmset.__version__
    assert data["implementation"] == warmset.implementation
    assert data["classes"]["Counter"] == "fakes.Counter"
    assert (data["documents"], data["ended"]) == (2, "finished")
    assert data["options"] == {
        "runs": 2, "workers": 1, "clear": True, "per_run": False, "strict": False, "trim": True,
    }  # fmt: skip
    assert data["registry"]["max_cache_size"] == 100
    assert data["registry"]["retry_after_seconds"] == "inf"
    assert (data["calls"], data["failed"], data["skipped"]) == (8, 4, 0)
    assert data["failures"][0]["error"] == "ValueError: never"
    first, second = data["runs"]
    assert set(first) == {*RunRecord.__slots__, "hit_rate", "returned_bytes"}
    assert second["growth_bytes"] == second["rss_bytes"] - first["rss_bytes"]
    assert [(group["count"], group["first"]) for group in data["failure_groups"]] == [
        (4, data["failures"][0])
    ]
    assert data["verdict"]["status"] == "fail"
    assert (data["verdict"]["reasons"], data["verdict"]["failed_share"]) == (["calls"], 0.5)
    assert data["verdict"]["bound_bytes"] == 1000 * MB


@pytest.mark.parametrize(
    "words",
    [
        ("--runs", "0"),
        ("--workers", "0"),
        ("--max-growth-mb", "-1"),
        ("--max-cache-size", "0"),
        ("--cache-ttl-seconds", "nan"),
        ("--json", "no/such/directory/report.json"),
        ("--no-such-option",),
    ],
)
def test_a_bad_option_is_exit_status_2_and_runs_nothing(
    file: Callable[..., str], fakes: list[object], words: tuple[str, ...]
) -> None:
    status, text = invoke("run", file(), *words)
    assert status == 2
    assert words[0].strip("-").replace("-", "_") in text.replace("-", "_")
    assert fakes == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[registry]\nmax_cache_size = 0", "max_cache_size = 0"),
        ('[classes]\nA = "m.A"\n[documents]\nfiles = ["*.md"]\n[[steps]]\nclass = "A"\n'
         'method = "m"\n', "files = '*.md'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_and_exit_status_2(write: Write, text: str, part: str) -> None:
    path = write(text)
    status, output = invoke("run", str(path))
    assert status == 2
    assert output.startswith(f"warmset: {path}: ")
    assert part in output
    assert output.count("\n") == 1


def test_version_names_the_core() -> None:
    status, text = invoke("--version")
    assert (status, text) == (0, f"warmset {warmset.__version__} ({warmset.implementation})\n")


def test_help_lists_the_exit_statuses() -> None:
    result = CliRunner().invoke(app.cli, ["run", "--help"])
    assert result.exit_code == 0
    for part in (
        "  1    the verdict is FAIL",
        "  130  interrupted by Ctrl-C",
        "--max-growth-mb",
        "10^6 bytes",
    ):
        assert part in result.output


def test_without_a_command_the_help_is_shown() -> None:
    status, text = invoke()
    assert status == 2
    assert "demo" in text


# -- in a subprocess -----------------------------------------------------------------------------


def start(*words: str, modules: Path, **options: Any) -> subprocess.Popen[str]:
    source = Path(warmset.__file__).parent.parent
    path = os.pathsep.join([str(modules), str(source)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, "-m", "warmset.cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        # Background jobs of a shell ignore Ctrl-C, and their children inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


WAITING = """
import os, signal, time
class Waiter:
    def wait(self, name):
        if name == "two":
            Waiter.seen = getattr(Waiter, "seen", 0) + 1
            if Waiter.seen == 3:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)  # interrupted at once by the signal
def source():
    return [("one", ""), ("two", "")]
"""

WAITING_PIPELINE = """
[classes]
Waiter = "waiting.Waiter"
[documents]
source = "waiting.source"
[[steps]]
class = "Waiter"
method = "wait"
arguments = { name = "$document.name" }
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX signal")
def test_ctrl_c_prints_the_table_and_is_exit_status_130(write: Write, tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(WAITING, encoding="utf-8")
    path = write(WAITING_PIPELINE)
    process = start("run", str(path), modules=tmp_path, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[4:6]] == ["1", "2"]
    assert lines[6] == "interrupted in run 3, which the table does not contain"
    assert lines[7].startswith("PASS: RSS ")
    assert errors == ""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_the_progress_bar_is_on_stderr_and_only_on_a_terminal(write: Write, tmp_path: Path) -> None:
    import pty

    text = WAITING.replace("Waiter.seen == 3", "False")
    (tmp_path / "waiting.py").write_text(text, encoding="utf-8")
    words = ("run", str(write(WAITING_PIPELINE)), "--runs", "2")
    quiet = start(*words, modules=tmp_path, stderr=subprocess.PIPE)
    output, errors = quiet.communicate(timeout=60)
    assert errors == ""
    assert "\x1b" not in output
    master, slave = pty.openpty()
    with open(master, "rb", buffering=0) as screen:
        process = start(*words, modules=tmp_path, stderr=slave)
        os.close(slave)
        output, _ = process.communicate(timeout=60)
        shown = screen.read(65_536).decode()
    assert process.returncode == 0
    assert "4/4" in shown
    assert "\x1b" not in output


@pytest.mark.parametrize("package", ["click", "rich"])
def test_a_missing_extra_is_reported_in_one_line(tmp_path: Path, package: str) -> None:
    # A finder that raises the error of a package that is not installed.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Finder())\n",
        encoding="utf-8",
    )
    process = start("--version", modules=tmp_path, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output == ""
    assert errors == (
        "warmset: the command line needs the 'cli' extra: pip install \"warmset[cli]\"\n"
    )


def test_classes_need_not_be_installed(tmp_path: Path) -> None:
    """The working directory, or the directory of --app-dir, is on the import path."""
    app_dir = tmp_path / "app"
    app_dir.mkdir()
    (app_dir / "mine.py").write_text(
        "class Words:\n    def count(self, text):\n        return len(text.split())\n"
        "def texts():\n    yield 'one', 'a b c'\n"
    )
    pipeline = app_dir / "pipeline.toml"
    pipeline.write_text(
        '[classes]\nWords = "mine.Words"\n[documents]\nsource = "mine.texts"\n'
        '[[steps]]\nclass = "Words"\nmethod = "count"\narguments = { text = "$document.text" }\n'
    )
    code = "import sys; from warmset.cli import main; sys.exit(main(sys.argv[1:]))"
    for directory, words in ((app_dir, []), (tmp_path, ["--app-dir", "app"])):
        result = subprocess.run(
            # Isolated mode: like an installed script, it lacks the working directory in its path.
            [sys.executable, "-I", "-c", code, "run", str(pipeline), "--runs", "2", *words],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr + result.stdout


def test_instances_that_outlive_their_removal_are_reported(file: Callable[..., str]) -> None:
    """With their referrers; they are no PASS unless they are expected."""
    keeping = '[[steps]]\nclass = "Sink"\nmethod = "keep"\neach = "run"\n'
    words = ("run", file(keeping), "--runs", "2", "--max-growth-mb", "1000")
    status, text = invoke(*words)
    assert status == 1
    assert "FAIL: 2 removed instances are still referenced (bound 0); RSS" in text
    lines = text.splitlines()
    at = lines.index("2 instances removed but still referenced:")
    assert lines[at + 1].startswith("  Sink (")
    assert lines[at + 2].endswith(".kept[0]")
    assert invoke(*words, "--max-survivors", "4")[0] == 0
    status, text = invoke("run", file(keeping), "--runs", "1", "--no-trim")
    assert "still referenced" not in text
