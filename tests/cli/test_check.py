"""``warmset check`` lists every error at once and neither builds nor calls anything."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import pytest

from warmset.cli import demo, main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODULE = """
built = []


class Tagger:
    extra: object
    size = 3

    def __init__(self, model="small", *, fast=False):
        built.append("Tagger")
        self.late = self.tag

    def tag(self, text, limit: int = 3):
        raise AssertionError("called")

    @staticmethod
    def free(a):
        raise AssertionError("called")

    @classmethod
    def kind(cls, b):
        raise AssertionError("called")

    @property
    def chosen(self):
        raise AssertionError("called")

    def any(self, *values, **named):
        raise AssertionError("called")


class Anything:
    def __getattr__(self, name):
        raise AssertionError("called")


def rule(cls):
    raise AssertionError("called")


def texts():
    raise AssertionError("called")


number = 3
"""


@pytest.fixture
def check(
    tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], tuple[int, list[str]]]]:
    """A function that checks a file; returns the status and the lines without the file name."""
    modules = tmp_path / "app"
    modules.mkdir()
    (modules / "checked.py").write_text(MODULE)
    (modules / "exiting.py").write_text("raise SystemExit(3)\n")
    (modules / "broken.py").write_text("import no_such_package\n")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(text: str) -> tuple[int, list[str]]:
        path = write(text)
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            status = main(["check", str(path), "--app-dir", str(modules)])
        built = getattr(sys.modules.get("checked"), "built", [])
        assert built == []
        return status, output.getvalue().replace(f"{path}: ", "").splitlines()

    yield run
    for name in ("checked", "exiting", "broken"):
        sys.modules.pop(name, None)


def step(method: str, arguments: str = "", class_name: str = "Tagger") -> str:
    return (
        f'[[steps]]\nclass = "{class_name}"\nmethod = "{method}"\neach = "run"\n'
        f'name = "{method}"\narguments = {{ {arguments} }}\n'
    )


CLASSES = '[classes]\nTagger = "checked.Tagger"\n'


def test_a_valid_file(check: Callable[[str], tuple[int, list[str]]]) -> None:
    """Exit status 0 and one line."""
    text = (
        f'{CLASSES}Ruled = "checked.Tagger"\n[build]\nTagger = {{ model = "large", fast = true }}\n'
        '[rules]\nRuled = "checked.rule"\n[documents]\nsource = "checked.texts"\n'
        + step("tag", 'text = "$documents.texts"')
        + step("free", "a = 1")
        + step("kind", "b = 1")
        + step("any", "whatever = 1")
        + step("chosen")
    )
    assert check(text) == (0, ["2 classes and 5 steps are valid"])


def test_all_errors_are_listed_at_once(check: Callable[[str], tuple[int, list[str]]]) -> None:
    """Errors in the file, classes, methods and arguments, with the nearest names."""
    status, lines = check(
        "[registry]\nmax_cache_size = 0\ncache_ttl_secs = 3\n"
        f'{CLASSES}Taggr = "checked.Taggr"\nNowhere = "chekced.Tagger"\nBad = "nodots"\n'
        'Left = "exiting.X"\nBroken = "broken.X"\n'
        '[build]\nTagger = { modle = "large" }\nNobody = {}\n'
        '[rules]\nTaggr = "checked.ruel"\nNowhere = "checked.number"\n'
        '[documents]\nfiles = ["nothing/*.txt"]\nlimit = 0\n'
        + step("tga", 'text = "a"')
        + step("tag", 'txt = "a", text = "$documents.txets"')
        + step("size")
        + '[[steps]]\nclass = "Tager"\nmethod = "tag"\n[[steps]]\nclass = "Tagger"\n'
    )
    assert status == 2
    for part in (
        "[registry]: max_cache_size = 0",
        "[registry]: unknown cache_ttl_secs = 3 (nearest: 'cache_ttl_seconds'",
        "[classes]: Bad = 'nodots'",
        "[classes]: class 'Taggr' (checked.Taggr): module 'checked' has no attribute 'Taggr';"
        " nearest: 'Tagger'",
        "[classes]: class 'Nowhere' (chekced.Tagger): importing module 'chekced' failed",
        "[classes]: Left = 'exiting.X'",
        "[classes]: class 'Broken' (broken.X): importing module 'broken' failed",
        "[build.Tagger]: the constructor takes no argument 'modle' (nearest: 'model')",
        "[build]: Nobody = {}",
        "[rules]: Taggr = 'checked.ruel'",
        "(nearest: 'rule')",
        "[rules]: Nowhere = 'checked.number'; expected a callable, not int",
        "[documents]: files = 'nothing/*.txt'; expected a glob that matches a file",
        "[documents]: limit = 0",
        "[steps.tga]: method = 'tga' (nearest: 'tag'); expected a method of checked.Tagger",
        "[steps[2]]: arguments.text = '$documents.txets' (nearest: '$documents.texts'",
        "[steps.tag]: tag takes no argument 'txt' (nearest: 'text'); expected text, limit",
        "[steps.size]: method = 'size'; expected a method, not int",
        "[steps[4]]: class = 'Tager' (nearest: 'Tagger', 'Taggr')",
        "[steps[5]]: no 'method'",
    ):
        assert sum(part in line for line in lines) == 1, f"{part}\n" + "\n".join(lines)
    assert lines[-1] == f"{len(lines) - 1} errors"


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (step("tag"), "[steps.tag]: arguments = {}; expected also 'text', for tag"),
        (
            step("tag", 'text = "a", limit = "b"'),
            "[steps.tag]: arguments.limit = 'b'; expected int, got str",
        ),
        (step("free", "self = 1, a = 2"), "[steps.free]: free takes no argument 'self'"),
        (step("kind", "a = 2"), "[steps.kind]: kind takes no argument 'a'"),
        (step("tag", 'self = 1, text = "a"'), "[steps.tag]: tag takes no argument 'self'"),
    ],
)
def test_arguments_are_compared_with_the_signature(
    check: Callable[[str], tuple[int, list[str]]], steps: str, line: str
) -> None:
    """Missing, unexpected and mistyped arguments; a value that the run fills in has no type yet."""
    status, lines = check(CLASSES + steps)
    assert status == 2
    assert any(each.startswith(line) for each in lines), lines


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CLASSES + step("late"), "its constructor sets it"),
        (CLASSES + step("extra"), "it is annotated without a value"),
        (CLASSES + '[rules]\nTagger = "checked.rule"\n' + step("other"), "its rule may return"),
        (
            '[classes]\nTagger = "checked.Anything"\n' + step("other"),
            "the class defines __getattr__",
        ),
    ],
)
def test_a_method_that_may_exist_on_the_instance_is_a_note(
    check: Callable[[str], tuple[int, list[str]]], text: str, why: str
) -> None:
    """The exit status is 0."""
    status, lines = check(text)
    assert status == 0, lines
    assert lines[0].startswith("note: step ")
    assert why in lines[0]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """It is reported in one line with exit status 2."""
    errors = io.StringIO()
    with redirect_stderr(errors):
        assert main(["check", str(tmp_path / "none.toml")]) == 2
    assert errors.getvalue().startswith("warmset: ")
    assert errors.getvalue().count("\n") == 1


@pytest.mark.skipif(bool(demo.missing_packages()), reason="the demo's packages are not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_demo_is_valid() -> None:
    """The pipeline file of the demo, with the classes of its packages."""
    result = subprocess.run(
        [sys.executable, "-m", "warmset.cli", "check", str(demo.PIPELINE_FILE)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 classes and 10 steps are valid" in result.stdout
