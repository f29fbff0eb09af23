"""Profiles on the command line: recorded by a run, tried by `warm-up`, used by the next run."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke

from warmset.memory.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = """
[[steps]]
class = "Counter"
method = "count"
arguments = { text = "$document.text" }

[[steps]]
class = "Sink"
method = "take"
"""
RULES = '[options]\nSink.rule = "fakes.rule_with_parameters"\n'


@pytest.fixture
def file(write: Any, pipeline_text: Any, fakes: list[object]) -> Callable[..., str]:
    def make(steps: str = STEPS, **options: Any) -> str:
        return str(write(pipeline_text(steps, **options)))

    return make


@pytest.fixture
def recorded(file: Callable[..., str], tmp_path: Path) -> tuple[str, str]:
    """A pipeline, and the profile of two runs of it."""
    pipeline, profile = file(extra=RULES), str(tmp_path / "profile.json")
    status, output = invoke("run", pipeline, "--runs", "2", "--record-profile", profile)
    assert status == 0, output
    return pipeline, profile


def test_a_run_records_a_profile(recorded: tuple[str, str]) -> None:
    """It includes the look-ups of rules, and the uses of both runs."""
    profile = Profile.load(recorded[1])
    assert profile.skipped == ()
    assert list(profile.classes) == ["Counter", "Sink"]
    assert (profile.classes["Counter"].class_path, profile.classes["Counter"].builds) == (
        "fakes.Counter",
        2,
    )
    assert (profile.classes["Counter"].uses, profile.classes["Sink"].uses) == (6, 4)


def test_the_next_run_is_warmed_up_by_it(recorded: tuple[str, str], tmp_path: Path) -> None:
    """Its first run has no miss, and the report lists the classes that were built."""
    pipeline, profile = recorded
    data_file = tmp_path / "report.json"
    status, output = invoke(
        "run", pipeline, "--runs", "1", "--warm-up", profile, "--json", str(data_file)
    )
    assert status == 0
    assert "warm-up: built " in output
    data = json.loads(data_file.read_text())
    # The rule of Sink looks Counter up, which was warm when Sink was recorded: Sink may come first.
    warmed = data["warm_up"]
    built = {each["class_name"] for each in warmed["built"]}
    assert sorted({*built, *warmed["warm"]}) == ["Counter", "Sink"]
    assert "Sink" in built
    assert (data["runs"][0]["hits"], data["runs"][0]["misses"]) == (4, 0)


def test_a_profile_can_be_tried(recorded: tuple[str, str]) -> None:
    """The table shows the outcome for each class."""
    pipeline, profile = recorded
    status, output = invoke("warm-up", profile, "--pipeline", pipeline, "--workers", "1")
    assert status == 0
    rows = [line.split() for line in output.splitlines()]
    assert rows[0] == ["profile.json:", "2", "classes,", "1", "recording"]
    assert rows[1] == ["class", "outcome", "seconds", "why"]
    # Measured times decide the order. Sink's rule looks Counter up, so if Sink comes first, Counter
    # is already warm at its turn.
    outcomes = {row[0]: row[1] for row in rows[2:4]}
    assert outcomes["Sink"] == "built"
    assert outcomes["Counter"] in ("built", "warm")
    built = list(outcomes.values()).count("built")
    assert output.splitlines()[4].startswith(f"built {built} in ")


def test_the_result_as_json(recorded: tuple[str, str]) -> None:
    pipeline, profile = recorded
    status, output = invoke("warm-up", profile, "--pipeline", pipeline, "--deadline", "0", "--json")
    data = json.loads(output)
    # A warm-up that skips everything is not a success.
    assert (status, data["profile"], data["built"]) == (3, profile, [])
    assert {each["reason"] for each in data["skipped"]} == {"the deadline has passed"}


def test_the_total_size_can_be_limited(recorded: tuple[str, str]) -> None:
    """A class whose size is unknown is skipped then."""
    pipeline, profile = recorded
    data = json.loads(Path(profile).read_text())
    assert all(entry["bytes"] is not None for entry in data["classes"].values())
    for entry in data["classes"].values():
        entry["bytes"] = None
    Path(profile).write_text(json.dumps(data))
    status, output = invoke("warm-up", profile, "--pipeline", pipeline, "--max-mb", "1")
    assert status == 3
    assert "its size is unknown" in output


def test_a_profile_that_matches_only_in_part(recorded: tuple[str, str], tmp_path: Path) -> None:
    """The settings file registers one of two classes, and the profile has a later format."""
    config = tmp_path / "warmset.toml"
    config.write_text('[classes]\nCounter = "fakes.Counter"\n')
    data = json.loads(Path(recorded[1]).read_text())
    data["format_version"], data["classes"]["Counter"]["colour"] = 2, "red"
    Path(recorded[1]).write_text(json.dumps(data))
    status, output = invoke("warm-up", recorded[1], "--config", str(config))
    assert status == 0
    assert "no class of that name is registered" in output
    assert "note: format_version = 2" in output
    assert "note: classes.Counter: unknown key 'colour'" in output


def test_the_default_table_is_taken_without_a_file(
    recorded: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "default.toml"
    config.write_text('[classes]\nCounter = "fakes.Counter"\n')
    monkeypatch.setenv("WARMSET_CONFIG", str(config))
    status, output = invoke("warm-up", recorded[1])
    assert status == 0
    assert "built 1 in " in output


def test_without_the_classes_of_the_profile_it_is_not_a_success(
    recorded: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint says how to name the file that has the classes."""
    monkeypatch.delenv("WARMSET_CONFIG", raising=False)
    status, output = invoke("warm-up", recorded[1])
    assert status == 3
    assert output.splitlines()[-1] == (
        "hint: no class of the profile is registered: the default table (WARMSET_CONFIG, entry"
        " points) has 0 classes; name the file that has them with --pipeline or --config"
    )


def test_a_class_that_fails_is_exit_status_3(file: Callable[..., str], tmp_path: Path) -> None:
    """The other classes are built; during `run` the failure does not change the exit status."""
    step = '[[steps]]\nclass = "Broken"\nmethod = "run"\narguments = { text = "x" }\n'
    pipeline, profile = file(STEPS), tmp_path / "profile.json"
    known = {"uses": 1, "builds": 1, "failures": 0}
    profile.write_text(
        json.dumps(
            {
                "format": "warmset-profile",
                "format_version": 1,
                "classes": {"Broken": known, "Counter": known},
            }
        )
    )
    status, output = invoke("warm-up", str(profile), "--pipeline", pipeline)
    assert status == 3
    assert "cannot be built" in output
    assert "built 1 in" in output
    assert step
    assert invoke("run", pipeline, "--runs", "1", "--warm-up", str(profile))[0] == 0


@pytest.mark.parametrize(
    ("content", "part"), [("", "not JSON"), ("[]", "not a JSON object"), ("{}", "'format' is not")]
)
def test_an_invalid_profile_is_one_line_and_exit_status_2(
    file: Callable[..., str], tmp_path: Path, content: str, part: str
) -> None:
    profile = tmp_path / "bad.json"
    profile.write_text(content)
    pipeline = file()
    for words in (("warm-up", str(profile)), ("run", pipeline, "--warm-up", str(profile))):
        status, output = invoke(*words)
        assert (status, output.count("\n")) == (2, 1)
        assert part in output
        assert "expected a profile" in output


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--per-run", "--record-profile", "p.json"), "--record-profile cannot be combined with"),
        (("--per-run", "--warm-up", "p.json"), "--warm-up cannot be combined with --per-run"),
        (("--record-profile", "no/such/p.json"), "no directory 'no/such'"),
        (("--warm-up", "nowhere.json"), "cannot be read: No such file"),
    ],
)
def test_bad_options_are_reported_before_the_runs(
    file: Callable[..., str], fakes: list[object], options: tuple[str, ...], part: str
) -> None:
    status, output = invoke("run", file(), *options)
    assert status == 2
    assert part in output
    assert fakes == []


def test_only_one_source_of_classes(recorded: tuple[str, str]) -> None:
    status, output = invoke("warm-up", recorded[1], "--demo", "--pipeline", recorded[0])
    assert status == 2
    assert "only one of" in output


def test_a_terminal_shows_a_progress_bar(recorded: tuple[str, str], tmp_path: Path) -> None:
    """The output to a pipe has none."""
    pipeline, profile = recorded
    for words in (
        ("warm-up", profile, "--pipeline", pipeline),
        ("run", pipeline, "--runs", "1", "--warm-up", profile),
    ):
        outer, inner = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "warmset.cli", *words],
                stdout=subprocess.PIPE,
                stderr=inner,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
                cwd=tmp_path / "modules",
            )
            os.close(inner)
            shown = b""
            while True:
                try:
                    part = os.read(outer, 4096)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                shown += part
            output, _ = process.communicate(timeout=60)
        finally:
            os.close(outer)
        assert process.returncode == 0
        assert b"warm-up" in shown
        assert b"2/2" in shown
        assert b"\x1b" not in output
