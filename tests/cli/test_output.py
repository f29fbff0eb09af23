"""Escaping: every command prints foreign text through one module."""

from __future__ import annotations

import ast
import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from invoking import invoke_apart

import warmset
from warmset import observe
from warmset.cli import output
from warmset.cli.tables import new_table, render_table
from warmset.share import HostBudget

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "\x1b]0;TITLE\x07\x1b[2J\x9b2J\nPASS: forged\u202e\udcff[bold]m[/bold]"
CLI = Path(warmset.__file__).parent / "cli"


def calls(tree: ast.AST) -> set[str]:
    """The names of all calls in a module, such as ``click.echo``."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_no_module_prints_by_itself() -> None:
    """Only `output` prints, and only it makes texts for screens; the others write own text."""
    allowed = {
        ("__init__.py", "print"),  # without the extra, and without foreign text
        ("command_error.py", "print"),  # into a given file, escaped
        ("report.py", "stream.write"),  # tables, whose cells are escaped
        ("top_screen.py", "Text"),  # joins lines of `output`
    }
    found = {
        (path.name, name)
        for path in CLI.rglob("*.py")
        if path.name != "output.py"
        for name in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name in ("click.echo", "click.secho", "print", "Text", "rich.print")
        or (name.endswith((".write", ".print")) and name != "console.print")
    }
    assert found - {("tables.py", "console.print")} <= allowed


def check(text: str) -> None:
    """Assert that each line is printable and that none was forged."""
    for line in text.splitlines():
        assert line.isprintable(), ascii(line)
        assert not line.startswith("PASS: forged")
    text.encode("utf-8")


@pytest.fixture
def hostile_process(place: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process, serving a registry whose names, errors and program are hostile."""
    monkeypatch.setattr(sys, "argv", [f"/x/{HOSTILE}.py"])
    monkeypatch.delattr(sys.modules["__main__"], "__spec__", raising=False)
    module = ModuleType("hostile")

    class Fails:
        def __init__(self) -> None:
            raise RuntimeError(HOSTILE)

    class Works:
        pass

    for cls in (Fails, Works):
        cls.__module__, cls.__qualname__ = "hostile", cls.__name__
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "hostile", module)
    paths = {f"F{HOSTILE}": "hostile.Fails", f"W{HOSTILE}": "hostile.Works"}
    with warmset.MethodRegistry(paths, host_budget=HostBudget(0.5, name="b")) as registry:
        with pytest.raises(warmset.MethodRegistryError):
            registry.get_instance(f"F{HOSTILE}")
        registry.get_instance(f"W{HOSTILE}")
        with observe.serve(registry, name=f"R{HOSTILE}"):
            yield registry


@pytest.mark.skipif(os.name != "posix", reason="needs Unix sockets")
@pytest.mark.parametrize(
    "words", [["stats"], ["stats", "nope"], ["stats", f"R{HOSTILE}"], ["stats", "--host=b"]]
)
def test_stats_of_a_hostile_process(hostile_process: Any, words: list[str]) -> None:
    status, printed, errors = invoke_apart(*words)
    check(printed)
    check(errors)
    assert status == (4 if words[-1] == "nope" else 0) or not printed
    assert "TITLE" in printed + errors


@pytest.mark.skipif(os.name != "posix", reason="needs Unix sockets")
def test_json_of_a_hostile_process(hostile_process: Any) -> None:
    """The exact names, in ASCII."""
    status, printed, _ = invoke_apart("stats", "--json")
    assert (status, printed.isascii()) == (0, True)
    check(printed)
    (process,) = json.loads(printed)["processes"]
    assert process["registries"][0]["name"] == f"R{HOSTILE}"


def test_run_check_and_warm_up(
    fakes: list[object], write: Callable[..., Path], tmp_path: Path
) -> None:
    """Names and values of a pipeline file, errors of its methods, and names of documents."""
    (tmp_path / "texts" / "c\x1b[2J\nPASS: forged.txt").write_text("c", encoding="utf-8")
    quoted = json.dumps("S" + HOSTILE.replace("\udcff", ""))
    file = write(
        f"""
        [classes]
        {quoted} = "fakes.Sink"
        [documents]
        files = ["texts/*.txt"]
        [[steps]]
        name = {quoted}
        class = {quoted}
        method = "fail"
        [[steps]]
        class = {quoted}
        method = "fail_on_b"
        arguments = {{ name = "$name" }}
        """
    )
    for words in (["run", "--runs", "2"], ["check"], ["run", "--max-cache-size", "-1"]):
        status, printed, errors = invoke_apart(*words, str(file))
        check(printed)
        check(errors)
        assert "TITLE" in printed + errors or status in (0, 2)
    profile = tmp_path / f"p{HOSTILE}"[:80].replace("/", "")
    for words in (["warm-up", str(profile)], ["check", str(profile)], ["run", f"--no{HOSTILE}"]):
        status, printed, errors = invoke_apart(*words)
        assert status == 2
        check(printed)
        check(errors)


def test_tables_and_screens() -> None:
    table = new_table(gap=1)
    table.add_column("x", no_wrap=True)
    table.add_row(HOSTILE)
    text = render_table(table, io.StringIO())
    check(text)
    assert "[bold]m[/bold]" in text
    cell = output.text_cell(HOSTILE)
    assert cell.plain.isprintable()
    assert not cell.spans


def test_a_stream_that_cannot_encode_a_name() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(stream):
        output.echo("Ä\udcff")
    stream.flush()
    assert stream.buffer.getvalue() == b"\\xc4\\udcff\n"  # type: ignore[attr-defined]
