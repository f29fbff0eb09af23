"""Families of a pipeline file: steps with a key, in a run, a check, a warm-up and a plan."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from warmset import FamilyKey
from warmset.cli import main
from warmset.cli.documents import load_documents
from warmset.cli.pipeline_file import load_pipeline, read_pipeline
from warmset.cli.pipeline_run import make_registry, run_pipeline
from warmset.cli.pipeline_steps import Reference
from warmset.cli.run_options import RunOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Write = Callable[..., Path]

MODULE = """
calls = []


class Model:
    def __init__(self, key, size="small"):
        self.key, self.size = key, size

    def predict(self, text):
        calls.append((self.key, text))
        return self.key


class Language:
    def of(self, name):
        return "fr" if "a.txt" in name else "de"

    def bad(self, name):
        return 1.5


def load(key, size="small") -> Model:
    return Model(key, size)


def load_any(key):
    return Model(key)


def uses(cls, registry):
    from warmset import FamilyKey

    assert registry.get_instance(FamilyKey("Model", "fr")).key == "fr"
    return cls()
"""
FILE = """
[classes]
Language = "family_fakes.Language"

[families.Model]
factory = "family_fakes.{factory}"
max_cache_size = 2
{more}

[documents]
files = ["texts/*.txt"]

[[steps]]
name = "language"
class = "Language"
method = "of"
arguments = {{ name = "$document.name" }}

[[steps]]
class = "Model"
key = {key}
method = "predict"
arguments = {{ text = "$document.name" }}
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "family_fakes.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(directory))
    import family_fakes  # type: ignore[import-not-found]

    yield family_fakes.calls
    sys.modules.pop("family_fakes", None)


def text(key: str = '"$steps.language"', factory: str = "load", more: str = "") -> str:
    return FILE.format(key=key, factory=factory, more=more)


def run(path: Path, **options: Any) -> Any:
    pipeline = load_pipeline(path)
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    return run_pipeline(pipeline, documents, RunOptions(**{"runs": 2, **options}))


@pytest.mark.parametrize("per_run", [False, True])
def test_a_document_chooses_the_key(write: Write, calls: list[Any], per_run: bool) -> None:
    outcome = run(write(text()), per_run=per_run)
    assert outcome.failures == ()
    assert [key for key, _ in calls] == ["fr", "de"] * 2


@pytest.mark.parametrize(
    ("key", "expected"),
    [('"fr"', "fr"), ("3", 3), ('["fr", 1]', ("fr", 1)), ('["$steps.language", 1]', ("fr", 1))],
)
def test_keys_are_strings_numbers_and_lists(
    write: Write, calls: list[Any], key: str, expected: object
) -> None:
    assert run(write(text(key)), runs=1).failures == ()
    assert calls[0][0] == expected


def test_a_key_of_another_type_is_a_failed_call(write: Write, calls: list[Any]) -> None:
    outcome = run(write(text().replace('"of"', '"bad"')), runs=1)
    assert outcome.failed == 2
    assert "a key of a family must be a str" in outcome.failures[0].error


def test_steps_are_named_after_their_keys(write: Write, calls: list[Any]) -> None:
    again = (
        '\n[[steps]]\nclass = "Model"\nkey = "de"\nmethod = "predict"\narguments = { text = "x" }'
    )
    pipeline = load_pipeline(write(text('"fr"') + again))
    assert [step.name for step in pipeline.steps] == [
        "language",
        "Model[fr].predict",
        "Model[de].predict",
    ]
    assert [step.key for step in pipeline.steps] == [None, "fr", "de"]
    assert load_pipeline(write(text())).steps[1].key == Reference("steps", "language")


@pytest.mark.parametrize("per_run", [False, True])
def test_a_rule_looks_a_key_up(write: Write, calls: list[Any], per_run: bool) -> None:
    path = write(text() + '\n[options.Language]\nrule = "family_fakes.uses"')
    assert run(path, runs=2, per_run=per_run).failures == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('key = "$steps.language"\n', "", "[steps[2]]: no 'key'; expected the key"),
        ('key = "$steps.language"', "key = 1.5", "key = 1.5; expected a string, a whole number"),
        ('key = "$steps.language"', 'key = "$steps.langage"', "nearest: '$steps.language'"),
        (
            'class = "Model"',
            'class = "Modle"',
            "(nearest: 'Model'); expected a name from [classes]",
        ),
        ('class = "Model"', 'class = "Language"', "expected no key: 'Language' is a class"),
    ],
)
def test_errors_of_steps(write: Write, calls: list[Any], old: str, new: str, expected: str) -> None:
    _, errors = read_pipeline(write(text().replace(old, new)))
    assert len(errors) == 1
    assert expected in str(errors[0])


def test_a_file_may_have_families_only(write: Write, calls: list[Any]) -> None:
    path = write(text('"fr"').replace('[classes]\nLanguage = "family_fakes.Language"', ""))
    _, errors = read_pipeline(path)
    assert len(errors) == 1
    assert "expected a name from [classes] or [families]" in str(errors[0])


def check(capsys: pytest.CaptureFixture[str], path: Path) -> tuple[int, str]:
    status = main(["check", str(path)])
    return status, capsys.readouterr().out


def test_check_accepts_a_family(
    write: Write, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(text())
    assert check(capsys, path) == (0, f"{path}: 1 class, 1 family and 2 steps are valid\n")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("family_fakes.load", "family_fakes.lod", "factory = 'family_fakes.lod'"),
        ("family_fakes.load", "family_fakes.calls", "expected a callable, not list"),
        ("max_cache_size = 2", "kwargs = { sise = 3 }", "did you mean 'size'?"),
        ("max_cache_size = 2", "args = [1, 2]", "too many positional arguments"),
        ('"predict"', '"predikt"', "has no visible method 'predikt': its factory may return"),
        ("text = ", "txt = ", "predict takes no argument 'txt' (nearest: 'text')"),
        ("family_fakes.load", "family_fakes.load_any", "annotate it with a class"),
    ],
)
def test_check_verifies_families_and_their_steps(
    write: Write,
    calls: list[Any],
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    expected: str,
) -> None:
    _, out = check(capsys, write(text().replace(old, new)))
    assert expected in out


def test_a_settings_file_with_families_only(
    write: Write, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write('[families.Model]\nfactory = "family_fakes.load"\n', "warmset.toml")
    assert check(capsys, path) == (0, f"{path}: 0 classes and 1 family are valid\n")


def test_profile_warm_up_and_plan_know_the_keys(
    write: Write, calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, profile, data = write(text()), tmp_path / "profile.json", tmp_path / "runs.json"
    command = ["run", str(path), "--runs", "2", "--record-profile", str(profile)]
    assert main([*command, "--json", str(data)]) == 0
    out = capsys.readouterr().out
    assert "1 class, 1 family, 2 steps" in out
    assert json.loads(data.read_text())["families"] == {"Model": "family_fakes.load"}
    assert main(["warm-up", str(profile), "--pipeline", str(path), "--json"]) == 0
    built = json.loads(capsys.readouterr().out)["built"]
    assert {row[0] if isinstance(row, list) else row["class_name"] for row in built} == {
        "Language",
        "Model[fr]",
        "Model[de]",
    }
    assert main(["plan", str(profile)]) == 0
    assert main(["run", str(path), "--runs", "1", "--warm-up", str(profile)]) == 0


def test_the_page_has_a_row_for_a_family(write: Write, calls: list[Any]) -> None:
    from warmset.cli.html_report import Recorder

    pipeline = load_pipeline(write(text()))
    recorder = Recorder(list(pipeline.target_paths))
    with make_registry(pipeline, ()) as registry:
        recorder.watch(registry)
        recorder.on_run(1)
        for key in ("fr", "de", "it"):
            registry.get_instance(FamilyKey("Model", key))
    assert [tally.builds for tally in recorder.class_tallies()] == [0, 3]


def test_a_bound_beyond_that_of_the_registry_is_a_warning(
    write: Write, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(text().replace("max_cache_size = 2", "max_cache_size = 101"))
    status, out = check(capsys, path)
    assert status == 0
    assert (
        f"warning: {path}: [families.Model]: max_cache_size=101 exceeds that of [registry]" in out
    )
