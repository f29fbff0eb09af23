"""Tests of the default class table: the file named by WARMSET_CONFIG, and entry points."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install distributions that consist only of metadata, and hide all others."""
    monkeypatch.delenv("WARMSET_CONFIG", raising=False)
    # Import all required modules before the path is replaced.
    needed = ("importlib.metadata", "configparser", "difflib", "keyword", "pkgutil")
    for module in (*needed, "tomllib", "tomli"):
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
    site = tmp_path / "site"
    site.mkdir()
    # The result must not depend on the packages installed on this machine.
    monkeypatch.setattr(sys, "path", [str(site)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(
        name: str, points: str | bytes, *, group: str = "warmset.classes", metadata: bool = True
    ) -> Path:
        folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        if metadata:
            (folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
            )
        if isinstance(points, str):
            points = f"[{group}]\n{points}\n".encode()
        (folder / "entry_points.txt").write_bytes(points)
        importlib.invalidate_caches()
        return folder

    return install


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def config(content: str) -> Path:
        path = tmp_path / "some-name.toml"
        path.write_text(content, encoding="utf-8")
        monkeypatch.setenv("WARMSET_CONFIG", str(path))
        return path

    return config


def fails(ws: Any) -> Any:
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.sources.default_class_paths()
    return caught.value


def test_without_sources_the_table_is_empty(ws: Any, install: Any) -> None:
    assert ws.sources.default_class_paths() == {}


def test_entry_points(ws: Any, install: Any) -> None:
    install("first-dist", "Tagger = pkg.mod:Tagger\nInner = pkg.mod:Outer.Inner")
    install("second-dist", "Embedder = other.mod:Embedder\nDotted = other.mod.Dotted")
    install("third-dist", "Other = not even a path", group="other.group")
    assert ws.sources.default_class_paths() == {
        "Tagger": "pkg.mod.Tagger",
        "Inner": "pkg.mod.Outer.Inner",
        "Embedder": "other.mod.Embedder",
        "Dotted": "other.mod.Dotted",
    }


def test_a_stricter_entry_point_reader(
    ws: Any, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `importlib_metadata` rejects an unrelated entry point, the files are read as text."""
    install("first-dist", "Tagger = pkg.mod:Tagger\n# a comment\nInner = pkg.mod:Outer.Inner [x]")
    install("other-dist", "Other = not even a path", group="other.group")

    def refuse(**group: str) -> Any:
        raise ValueError("Invalid object reference", "not even a path")

    monkeypatch.setattr(importlib.metadata, "entry_points", refuse)
    assert ws.sources.default_class_paths() == {
        "Tagger": "pkg.mod.Tagger",
        "Inner": "pkg.mod.Outer.Inner",
    }
    install("bad-dist", "Tagger = pkg.my-mod:Tagger")
    error = fails(ws)
    assert "package.module.Class" in str(error)


def test_entry_point_syntax_of_the_specification(ws: Any, install: Any) -> None:
    install("dist", "A = pkg.mod : A\nB = pkg.mod:B [extra1,extra2]\nC = pkg.mod:C[extra]")
    assert ws.sources.default_class_paths() == {
        "A": "pkg.mod.A",
        "B": "pkg.mod.B",
        "C": "pkg.mod.C",
    }


def test_nothing_is_imported(ws: Any, install: Any) -> None:
    install("dist", "A = no_such_module_at_all.mod:A")
    assert ws.sources.default_class_paths() == {"A": "no_such_module_at_all.mod.A"}


def test_file(ws: Any, install: Any, config: Any) -> None:
    config('[registry]\nmax_cache_size = 3\n[classes]\nB = "b.B"\nA = "a:A"\n')
    assert list(ws.sources.default_class_paths().items()) == [("B", "b.B"), ("A", "a.A")]


def test_the_file_takes_precedence_over_entry_points(ws: Any, install: Any, config: Any) -> None:
    install("dist", "A = dist.mod:A\nB = dist.mod:B")
    config('[classes]\nC = "file.C"\nA = "file.A"\n')
    assert list(ws.sources.default_class_paths().items()) == [
        ("C", "file.C"),
        ("A", "file.A"),
        ("B", "dist.mod.B"),
    ]


@pytest.mark.parametrize("value", [None, ""])
def test_file_in_the_working_directory_is_not_read(
    ws: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    (tmp_path / "warmset.toml").write_text('[classes]\nA = "a.A"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if value is not None:
        monkeypatch.setenv("WARMSET_CONFIG", value)
    assert ws.sources.default_class_paths() == {}


def test_the_environment_is_read_on_each_call(ws: Any, install: Any, config: Any) -> None:
    assert ws.sources.default_class_paths() == {}
    config('[classes]\nA = "a.A"\n')
    assert ws.sources.default_class_paths() == {"A": "a.A"}
    config('[classes]\nA = "a.B"\n')
    assert ws.sources.default_class_paths() == {"A": "a.B"}


@pytest.mark.parametrize(
    "content", ["[classes", "[classes]\nA = 'A'\n", "[registry]\nmax_cache_size = 0\n", "x = 1\n"]
)
def test_an_invalid_file(ws: Any, install: Any, config: Any, content: str) -> None:
    path = config(content)
    install("dist", "A = a:A")
    error = fails(ws)
    assert error.file == str(path)
    assert str(path) in str(error)


def test_a_missing_file(
    ws: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        monkeypatch.setenv("WARMSET_CONFIG", str(path))
        assert fails(ws).file == str(path)


@pytest.mark.parametrize(
    "value",
    ["Tagger", "pkg.my-mod:Tagger", ":Tagger", "pkg.mod:", "pkg:a:b", "pkg.class:C", "", "[x]"],
)
def test_malformed_entry_point(ws: Any, install: Any, value: str) -> None:
    install("good-dist", "Good = pkg:Good")
    install("bad-dist", f"Tagger = {value}")
    error = fails(ws)
    text = str(error)
    assert "distribution 'bad-dist'" in text
    assert repr(value) in text
    assert "package.module.Class" in text
    assert (error.file, error.table, error.key) == (None, "warmset.classes", "Tagger")
    assert isinstance(error.__cause__, ValueError)


def test_entry_point_without_a_name(ws: Any, install: Any) -> None:
    install("bad-dist", "= pkg.mod:Tagger")
    assert "distribution 'bad-dist'" in str(fails(ws))


def test_the_file_overrides_a_malformed_entry_point(ws: Any, install: Any, config: Any) -> None:
    install("bad-dist", "Tagger = nonsense\nOther = pkg:Other")
    config('[classes]\nTagger = "pkg.Tagger"\n')
    assert ws.sources.default_class_paths() == {"Tagger": "pkg.Tagger", "Other": "pkg.Other"}


def test_distributions_with_conflicting_paths(ws: Any, install: Any) -> None:
    install("first-dist", "Tagger = first.mod:Tagger")
    install("second-dist", "Tagger = second.mod:Tagger")
    error = fails(ws)
    text = str(error)
    for told in ("'first-dist'", "'second-dist'", "'first.mod:Tagger'", "'second.mod:Tagger'"):
        assert told in text
    assert "WARMSET_CONFIG" in text
    assert (error.table, error.key) == ("warmset.classes", "Tagger")


def test_a_distribution_with_conflicting_paths(ws: Any, install: Any) -> None:
    install("dist", "Tagger = first.mod:Tagger\nTagger = second.mod:Tagger")
    assert "'dist'" in str(fails(ws))


def test_distributions_with_the_same_path(ws: Any, install: Any) -> None:
    install("first-dist", "Tagger = pkg.mod:Tagger")
    install("second-dist", "Tagger = pkg.mod.Tagger")
    assert ws.sources.default_class_paths() == {"Tagger": "pkg.mod.Tagger"}


def test_the_file_resolves_a_conflict(ws: Any, install: Any, config: Any) -> None:
    install("first-dist", "Tagger = first.mod:Tagger")
    install("second-dist", "Tagger = second.mod:Tagger")
    config('[classes]\nTagger = "second.mod.Tagger"\n')
    assert ws.sources.default_class_paths() == {"Tagger": "second.mod.Tagger"}
    assert ws.sources.entry_point_paths(decided=["Tagger"]) == {}
    with pytest.raises(ws.settings.SettingsError):
        ws.sources.entry_point_paths()


def test_the_first_version_on_the_path_is_used(
    ws: Any, install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install("dist", "Tagger = new.mod:Tagger")
    install("zzz", "Other = pkg:Other")
    old = tmp_path / "old" / folder.name
    old.mkdir(parents=True)
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("new.mod", "old.mod")
        (old / file.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(old.parent)])
    assert ws.sources.default_class_paths() == {"Tagger": "new.mod.Tagger", "Other": "pkg.Other"}


def test_distribution_without_metadata(ws: Any, install: Any) -> None:
    install("half-removed", "Tagger = pkg.mod:Tagger", metadata=False)
    assert ws.sources.default_class_paths() == {"Tagger": "pkg.mod.Tagger"}
    install("other", "Tagger = nonsense")
    assert "'other'" in str(fails(ws))


def test_malformed_entry_point_of_a_distribution_without_metadata(ws: Any, install: Any) -> None:
    install("half-removed", "Tagger = nonsense", metadata=False)
    assert "a distribution without a name: 'nonsense'" in str(fails(ws))


def test_unreadable_entry_points(ws: Any, install: Any) -> None:
    install("good-dist", "Good = pkg:Good")
    install("broken-dist", b"[warmset.classes]\nA = \xff\xfe\n")
    error = fails(ws)
    assert "distribution 'broken-dist'" in str(error)
    assert error.table == "warmset.classes"
    assert error.__cause__ is not None


def test_the_result_is_a_new_dict(ws: Any, install: Any, config: Any) -> None:
    config('[classes]\nA = "a.A"\n')
    ws.sources.default_class_paths()["B"] = "b.B"
    assert ws.sources.default_class_paths() == {"A": "a.A"}
