"""Pipeline files: their contents, and the message for each error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from warmset.cli.documents import load_documents
from warmset.cli.pipeline_file import DocumentSource, load_pipeline
from warmset.cli.pipeline_steps import Reference
from warmset.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[..., Path]

COUNT = '[[steps]]\nclass = "Counter"\nmethod = "count"\n'


def document_steps(arguments: str) -> str:
    return f'[classes]\nCounter = "m.C"\n[documents]\nfiles = ["*.txt"]\n{COUNT}{arguments}'


def test_a_file_with_all_tables_and_keys(write: Write) -> None:
    path = write(
        """
        [registry]
        max_cache_size = 7
        [classes]
        Counter = "fakes.Counter"
        Sink = "fakes.Sink"
        [options.Counter]
        kwargs = { factor = 2 }
        pin = true
        [options.Sink]
        rule = "fakes:plain_rule"
        max_age_seconds = 3
        [documents]
        source = "fakes.source"
        limit = 2
        max_characters = 100
        encoding = "latin-1"
        [[steps]]
        name = "all"
        class = "Sink"
        method = "take_all"
        each = "run"
        arguments = { names = "$documents.names", texts = "$documents.texts" }
        [[steps]]
        class = "Counter"
        method = "count"
        arguments = { text = "$document.text" }
        [[steps]]
        name = "last"
        class = "Sink"
        method = "take"
        [steps.arguments]
        nested = ["$document.name", { deep = "$steps.Counter.count" }]
        literal = "$$5"
        number = 4
        corpus = "$steps.all"
        """
    )
    pipeline = load_pipeline(path)
    assert pipeline.file == str(path)
    assert pipeline.settings.max_cache_size == 7
    assert pipeline.class_paths == {"Counter": "fakes.Counter", "Sink": "fakes.Sink"}
    assert pipeline.class_options == {
        "Counter": {"kwargs": {"factor": 2}, "pin": True},
        "Sink": {"rule": "fakes.plain_rule", "max_age_seconds": 3},
    }
    assert pipeline.documents == DocumentSource(
        base=path.parent, source="fakes.source", limit=2, max_characters=100, encoding="latin-1"
    )
    first, second, last = pipeline.steps
    assert (first.name, first.per_document, second.name) == ("all", False, "Counter.count")
    assert last.arguments == {
        "nested": [Reference("document", "name"), {"deep": Reference("steps", "Counter.count")}],
        "literal": "$5",
        "number": 4,
        "corpus": Reference("steps", "all"),
    }
    assert last.needs == {"Counter.count", "all"}


def test_documents_are_optional_if_no_step_needs_them(write: Write) -> None:
    path = write(f'[classes]\nCounter = "m.C"\n{COUNT}each = "run"\n')
    assert load_pipeline(path).documents is None


CLASSES = '[classes]\nCounter = "m.C"\nSink = "m.S"\n'
DOCUMENTS = '[documents]\nfiles = ["*.txt"]\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[classes", ["not valid TOML"]),
        ("[klasses]\nA = 'm.A'", ["klasses", "'classes'"]),
        ("[registry]\nmax_cache_size = 0\n", ["[registry]", "max_cache_size = 0"]),
        ("[registry]\nmax_cash_size = 5\n", ["[registry]", "max_cash_size", "'max_cache_size'"]),
        ("", ["[classes]", "at least one class"]),
        ("[classes]\nA = 'nodots'\n", ["[classes]", "A = 'nodots'", "package.module.Class"]),
        (CLASSES, ["[[steps]]", "one or more tables"]),
        (f"{CLASSES}[options.Countr]\n", ["[options]", "Countr = {}", "'Counter'"]),
        (f"{CLASSES}[options]\nCounter = 3\n", ["[options.Counter]", "3", "a table"]),
        (f"{CLASSES}[options.Sink]\nkwargs = 3\n", ["kwargs = 3", "keyword arguments"]),
        (f"{CLASSES}[options.Sink]\npni = true\n", ["pni = True", "'pin'"]),
        (f"{CLASSES}[options.Sink]\npin = 3\n", ["pin = 3", "a bool"]),
        (f"{CLASSES}[options.Sink]\nrule = 'm f.g'\n", ["rule = 'm f.g'", "dotted path"]),
        (f"{CLASSES}[options.Sink]\nrule = 4\n", ["[options.Sink]", "rule = 4", "dotted path"]),
        (
            f"{CLASSES}[options.Sink]\nkwargs = {{}}\nrule = 'm.f'\n",
            ["[options.Sink]", "kwargs = {}", "not both"],
        ),
        (f"{CLASSES}[build]\nSink = {{}}\n", ["[build]", "[options.NAME]", "kwargs"]),
        (f"{CLASSES}[rules]\nSink = 'm.f'\n", ["[rules]", "[options.NAME]", "rule"]),
        (f"{CLASSES}[documents]\nlimit = 3\n", ["[documents]", "neither", "exactly one"]),
        (f"{CLASSES}{DOCUMENTS}source = 'm.f'\n", ["[documents]", "both", "exactly one"]),
        (f"{CLASSES}[documents]\nfiles = 'a'\n", ["[documents]", "files = 'a'", "list"]),
        (f"{CLASSES}[documents]\nfiles = []\n", ["[documents]", "files = []", "one or more"]),
        (f"{CLASSES}[documents]\nsource = 'f'\n", ["source = 'f'", "dotted path"]),
        (f"{CLASSES}{DOCUMENTS}limit = 0\n", ["limit = 0", "1 or more"]),
        (f"{CLASSES}{DOCUMENTS}limit = true\n", ["limit = True", "1 or more"]),
        (f"{CLASSES}{DOCUMENTS}max_characters = 'x'\n", ["max_characters = 'x'"]),
        (f"{CLASSES}{DOCUMENTS}encoding = 'utf-9'\n", ["encoding = 'utf-9'", "encoding"]),
        (f"{CLASSES}{DOCUMENTS}encoding = 9\n", ["encoding = 9", "encoding"]),
        (f"{CLASSES}{DOCUMENTS}limits = 9\n", ["limits = 9", "'limit'"]),
        (f"{CLASSES}{DOCUMENTS}steps = 3\n", ["steps = 3"]),
        (f"{CLASSES}{COUNT}", ["[steps[1]]", "each = 'document'", "[documents]"]),
        (f"{CLASSES}{DOCUMENTS}[[steps]]\nmethod = 'm'\n", ["[steps[1]]", "'class'"]),
        (f"{CLASSES}{DOCUMENTS}[[steps]]\nclass = 'Sink'\n", ["[steps[1]]", "'method'"]),
        (
            f"{CLASSES}{DOCUMENTS}[[steps]]\nclass = 'Sinc'\nmethod = 'm'\n",
            ["class = 'Sinc'", "'Sink'", "[classes]"],
        ),
        (f"{CLASSES}{DOCUMENTS}[[steps]]\nclass = 4\nmethod = 'm'\n", ["class = 4"]),
        (f"{CLASSES}{DOCUMENTS}[[steps]]\nclass = 'Sink'\nmethod = 'a b'\n", ["method = 'a b'"]),
        (f"{CLASSES}{DOCUMENTS}{COUNT}each = 'runs'\n", ["each = 'runs'", "'run'"]),
        (f"{CLASSES}{DOCUMENTS}{COUNT}name = ''\n", ["name = ''", "non-empty"]),
        (f"{CLASSES}{DOCUMENTS}{COUNT}args = {{}}\n", ["args = {}", "arguments"]),
        (f"{CLASSES}{DOCUMENTS}{COUNT}arguments = 3\n", ["arguments = 3", "keyword"]),
        (f"{CLASSES}{DOCUMENTS}{COUNT}{COUNT}", ["[steps[2]]", "'Counter.count'", "no other step"]),
    ],
)
def test_each_error_names_its_location(write: Write, text: str, parts: list[str]) -> None:
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load_pipeline(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ('"$document.txt"', ["arguments.text = '$document.txt'", "'$document.text'"]),
        ('"$"', ["arguments.text = '$'", "'$$' for a literal dollar"]),
        ('["x", "$steps.nothing"]', ["arguments.text = '$steps.nothing'", "earlier step"]),
        ('{ deep = "$stepps.a" }', ["arguments.text.deep = '$stepps.a'"]),
        ('"$steps.Counter.count"', ["$steps.Counter.count", "not this one or a later one"]),
    ],
)
def test_an_invalid_reference_is_an_error(write: Write, value: str, parts: list[str]) -> None:
    path = write(document_steps(f"arguments = {{ text = {value} }}\n"))
    with pytest.raises(SettingsError) as caught:
        load_pipeline(path)
    for part in ["[steps[1]]", *parts]:
        assert part in str(caught.value)


def test_a_step_may_refer_to_earlier_steps_only(write: Write) -> None:
    steps = COUNT.replace("count", "first") + COUNT + 'name = "second"\n'
    text = f"{CLASSES}{DOCUMENTS}{steps}"
    first = 'method = "first"\n'
    late = text.replace(first, f"{first}arguments.x = '$steps.second'\n")
    with pytest.raises(SettingsError, match="not this one or a later one"):
        load_pipeline(write(late))
    with pytest.raises(SettingsError, match=r"nearest: '\$steps\.Counter\.first'"):
        load_pipeline(write(f"{text}arguments.x = '$steps.Counter.frist'\n"))


def test_a_run_step_may_refer_to_all_documents_and_run_steps_only(write: Write) -> None:
    run_step = f'{COUNT}each = "run"\n'
    head = f"{CLASSES}{DOCUMENTS}"
    with pytest.raises(SettingsError, match="has no document"):
        load_pipeline(write(f"{head}{run_step}arguments.x = '$document.text'\n"))
    after = f"{head}{COUNT}{run_step}name = 'r'\narguments.x = '$steps.Counter.count'\n"
    with pytest.raises(SettingsError, match="runs before the documents"):
        load_pipeline(write(after))
    with pytest.raises(SettingsError, match=r"a table \[documents\]"):
        load_pipeline(write(f"{CLASSES}{run_step}arguments.x = '$documents.texts'\n"))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.toml"):
        load_pipeline(tmp_path / "nothing.toml")


def test_files_are_loaded_in_order_once_and_truncated(write: Write, tmp_path: Path) -> None:
    write("")
    source = DocumentSource(base=tmp_path, files=("texts/b*", "**/*.txt"), max_characters=4)
    documents = load_documents(source, "p.toml")
    assert [(document.name, document.text) for document in documents] == [
        ("texts/b.txt", "b ha"),
        ("texts/a.txt", "some"),
    ]


def test_a_directory_name_may_contain_glob_characters(tmp_path: Path) -> None:
    odd = tmp_path / "odd [1]"
    odd.mkdir()
    (odd / "x.txt").write_text("x", encoding="utf-8")
    documents = load_documents(DocumentSource(base=odd, files=("*.txt",)), "p.toml")
    assert [document.name for document in documents] == ["x.txt"]


def test_documents_that_cannot_be_loaded_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"files = '\*\.md'; expected a glob that matches"):
        load_documents(DocumentSource(base=tmp_path, files=("*.md",)), "p.toml")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingsError, match=r"bad\.txt.*read as utf-8.*UnicodeDecodeError"):
        load_documents(DocumentSource(base=tmp_path, files=("*.txt",)), "p.toml")


@pytest.mark.usefixtures("fakes")
def test_a_callable_yields_documents_up_to_the_limit(tmp_path: Path) -> None:
    source = DocumentSource(base=tmp_path, source="fakes.source", limit=2)
    assert [document.name for document in load_documents(source, "p.toml")] == ["one", "two"]


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("fakes.bad_source", "it yielded 'two'"),
        ("fakes.failing_source", "OSError: no such thing"),
        ("fakes.empty_source", "at least one document"),
        ("fakes.sourc", "nearest: 'source'"),
        ("fakes_not_there.source", "cannot import 'fakes_not_there'"),
        ("fakes.log", "not callable"),
    ],
)
def test_an_unsuitable_callable_is_an_error(tmp_path: Path, path: str, part: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_documents(DocumentSource(base=tmp_path, source=path), "p.toml")
    assert f"p.toml: [documents]: source = '{path}'" in str(caught.value)
    assert part in str(caught.value)
