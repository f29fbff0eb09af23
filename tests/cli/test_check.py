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


class Needy:
    def __init__(self, model):
        raise AssertionError("called")

    def any(self):
        raise AssertionError("called")


class Anything:
    def __getattr__(self, name):
        raise AssertionError("called")


def rule(cls):
    raise AssertionError("called")


def odd_rule(cls, registry, model):
    raise AssertionError("called")


def rule_of_documents(cls, documents):
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
        f'{CLASSES}Ruled = "checked.Tagger"\n'
        '[options]\nTagger.kwargs = { model = "large", fast = true }\n'
        'Ruled.rule = "checked.rule"\n[documents]\nsource = "checked.texts"\n'
        + step("tag", 'text = "$documents.texts"')
        + step("free", "a = 1")
        + step("kind", "b = 1")
        + step("any", "whatever = 1")
        + step("chosen")
    )
    assert check(text) == (0, ["2 classes and 5 steps are valid"])


def test_all_errors_are_listed_at_once(
    check: Callable[[str], tuple[int, list[str]]], tmp_path: Path
) -> None:
    """Errors in the file, classes, methods and arguments, with the nearest names."""
    status, lines = check(
        "[registry]\nmax_cache_size = 0\ncache_ttl_secs = 3\n"
        f'{CLASSES}Taggr = "checked.Taggr"\nNowhere = "chekced.Tagger"\nBad = "nodots"\n'
        'Left = "exiting.X"\nBroken = "broken.X"\n'
        'Ruled = "checked.Tagger"\nCounted = "checked.Tagger"\nOdd = "checked.Tagger"\n'
        '[options]\nTagger.kwargs = { modle = "large" }\nNobody = {}\nTagger.pni = true\n'
        'Ruled.rule = "checked.ruel"\nCounted.rule = "checked.number"\n'
        'Odd.rule = "checked.odd_rule"\n'
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
        "[options.Tagger]: the constructor takes no argument 'modle' (nearest: 'model')",
        "[options.Tagger]: unknown pni = True (nearest: 'pin'",
        "[options]: unknown Nobody = {}",
        "[options.Ruled]: rule = 'checked.ruel'",
        "(nearest: 'rule')",
        "[options.Counted]: rule = 'checked.number'; expected a callable, not int",
        "[options.Odd]: rule = 'checked.odd_rule'; expected a callable that takes the class, and"
        " possibly 'registry' and 'documents': missing a required argument: 'model'",
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
    hints = [line for line in lines if line.startswith("hint: ")]
    assert hints == [
        f"hint: module 'chekced' cannot be found: neither installed nor in {tmp_path / 'app'}, the"
        " directory given by --app-dir"
    ]
    assert lines[-1] == f"{len(lines) - 2} errors"


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
        (
            CLASSES + '[options]\nTagger.rule = "checked.rule"\n' + step("other"),
            "its rule may return",
        ),
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


# -- a settings file -------------------------------------------------------------------------------


def test_a_settings_file_is_checked_likewise(
    check: Callable[[str], tuple[int, list[str]]],
) -> None:
    """The tables that both kinds of file have mean the same."""
    options = '[options]\nTagger.kwargs = { model = "large" }\nRuled.rule = "checked.rule"\n'
    tables = f'[registry]\nmax_cache_size = 3\n{CLASSES}Ruled = "checked.Tagger"\n{options}'
    assert check(tables) == (0, ["2 classes are valid"])
    assert check(CLASSES) == (0, ["1 class is valid"])
    wrong = tables.replace("model", "modle").replace("checked.rule", "checked.rule_of_documents")
    status, lines = check(wrong)
    assert status == 2
    assert lines[0].startswith("[options.Tagger]: the constructor takes no argument 'modle'")
    assert "missing a required argument: 'documents'" in lines[1]
    assert lines[2:] == ["2 errors"]
    # In a pipeline, the same rule gets its documents.
    pipeline = wrong.replace("modle", "model") + '[documents]\nsource = "checked.texts"\n'
    assert check(pipeline + step("any", "", "Tagger"))[0] == 0


def test_a_constructor_that_needs_arguments(check: Callable[[str], tuple[int, list[str]]]) -> None:
    """A pipeline file has to give them; beside a settings file, code may register a rule."""
    text = '[classes]\nNeedy = "checked.Needy"\n'
    assert check(text)[0] == 0
    status, lines = check(text + step("any", "", "Needy"))
    assert status == 2
    assert lines[0] == "[options.Needy]: kwargs = {}; expected also 'model', for the constructor"


# -- hints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("", "module 'beside' can be imported with --app-dir project/conf"),
        ("..", "module 'beside' can be imported with --app-dir project"),
        ("../src", "module 'beside' can be imported with --app-dir project/src"),
        (
            None,
            "module 'beside' cannot be found: neither installed nor in ., the directory given by",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "run", "warm-up"])
def test_a_module_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, hint: str, command: str
) -> None:
    """The hint names the directory to give as --app-dir."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "project" / "conf" / "pipeline.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        '[classes]\nWords = "beside.sub.Words"\n'
        '[[steps]]\nclass = "Words"\nmethod = "count"\neach = "run"\n'
    )
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"format": "warmset-profile", "format_version": 1,'
        ' "classes": {"Words": {"uses": 1, "builds": 1, "failures": 0}}}'
    )
    if place is not None:
        package = file.parent / place / "beside"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "sub.py").write_text("class Words:\n    def count(self): return 1\n")
    words = [command, str(file)]
    if command == "warm-up":
        words = [command, str(profile), "--pipeline", str(file)]
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        status = main(words)
    assert status == (2 if command == "check" else 3)
    (line,) = [each for each in output.getvalue().splitlines() if each.startswith("hint: ")]
    assert line.startswith(f"hint: {hint}")
    if place is not None:
        directory = line.rpartition(" ")[2]
        with redirect_stdout(output), redirect_stderr(output):
            assert main([*words, "--app-dir", directory]) == 0
        for name in ("beside", "beside.sub"):
            sys.modules.pop(name, None)
