"""The command line as one tool: help, exit statuses, completion, --serve."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import warmset
from warmset.cli import app, exit_codes, main

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCES = sorted(Path(app.__file__).parent.glob("*.py"))
DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
COMMANDS = ["run", "demo", "warm-up", "check", "top", "stats", "completion"]


def test_the_help_reads_as_one_tool() -> None:
    """Every command in the order in which one needs it, each told in a whole sentence."""
    text = CliRunner().invoke(app.cli, ["--help"]).output
    listed = re.findall(r"^  ([\w-]+)  +(\S.*)$", text[text.index("Commands:") :], re.MULTILINE)
    listed = [(name, told) for name, told in listed if not name.isdigit()]
    assert [name for name, _ in listed] == COMMANDS
    assert all(told.endswith(".") and not told.endswith("..") for _, told in listed)
    for code in exit_codes.EXIT_CODES:
        assert re.search(rf"^    {code} +\S", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    """Within 100 columns, whatever the terminal says."""
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(app.cli, [command, flag])
        assert result.exit_code == 0
        assert all(len(line) <= 100 for line in result.output.splitlines())


def test_no_other_exit_status_is_used() -> None:
    """Numbers stand in the table only: none is returned, raised or assigned elsewhere."""
    found = []
    for path in SOURCES:
        if path.name == "exit_codes.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            value: ast.expr | None = None
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("exit", "_exit"):
                value = node.args[0] if node.args else None
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and "exit_code" in ast.dump(node):
                value = node.value
            elif isinstance(node, ast.FunctionDef) and ast.unparse(node.returns or node) == "int":
                found += [
                    f"{path.name}:{each.lineno}"
                    for each in ast.walk(node)
                    if isinstance(each, ast.Return)
                    and isinstance(each.value, ast.Constant)
                    and type(each.value.value) is int
                ]
            if isinstance(value, ast.Constant) and type(value.value) is int:
                found.append(f"{path.name}:{value.lineno}")
    assert found == []


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    """Every status, in the same words."""
    table = re.findall(r"^\| (\d+) \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code): text for code, text in table} == exit_codes.EXIT_CODES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Of the shells that click knows."""
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["completion", shell]) == 0
    assert f"_WARMSET_COMPLETE={shell}_complete" in output.getvalue()
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=output.getvalue(), text=True, check=True, timeout=60)


def test_another_shell_is_refused() -> None:
    """With those that there are."""
    errors = io.StringIO()
    with redirect_stderr(errors):
        assert main(["completion", "tcsh"]) == 2
    assert "bash" in errors.getvalue()


def test_the_script_completes() -> None:
    """What it asks the command is answered."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(warmset.__file__).parent.parent),
        "_WARMSET_COMPLETE": "bash_complete",
        "COMP_WORDS": "warmset st",
        "COMP_CWORD": "1",
    }
    code = "import sys; from warmset.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "plain,stats\n"


# -- --serve -------------------------------------------------------------------------------------

ASKING = """
import json, os
from warmset.observe import asking
class Asker:
    def ask(self, target):
        (process,) = asking.processes()[0]
        with process.connect() as connection:
            answer = connection.ask("stats")
        with open(target, "w") as file:
            json.dump(answer, file)
"""


def test_a_run_can_be_looked_at(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name of its file, while it runs and no longer; changes if they are allowed."""
    (tmp_path / "asking_itself.py").write_text(ASKING)
    target = tmp_path / "answer.json"
    pipeline = tmp_path / "nightly.toml"
    pipeline.write_text(
        f'[classes]\nAsker = "asking_itself.Asker"\n[[steps]]\nclass = "Asker"\nmethod = "ask"\n'
        f'each = "run"\narguments = {{ target = "{target}" }}\n'
    )
    errors = io.StringIO()
    for words, offers in (([], []), (["--allow-changes"], ["evict", "clear", "pin", "unpin"])):
        with redirect_stdout(io.StringIO()), redirect_stderr(errors):
            status = main(
                ["run", str(pipeline), "--runs=1", "--app-dir", str(tmp_path), "--serve", *words]
            )
        assert status == 0, errors.getvalue()
        answer = json.loads(target.read_text())
        assert answer["pid"] == os.getpid()
        (registry,) = answer["registries"]
        assert (registry["name"], registry["offers"]) == ("nightly", offers)
        assert [row["state"] for row in registry["classes"]] == ["held"]
    assert f"served as 'nightly': warmset top {os.getpid()}" in errors.getvalue()


def test_serving_that_cannot_be_is_an_error(
    place: str, write: Callable[..., Path], pipeline_text: Callable[..., str], fakes: list[object]
) -> None:
    """It was asked for: nothing runs."""
    os.mkdir(place, 0o755)
    steps = '[[steps]]\nclass = "Counter"\nmethod = "count"\narguments = { text = "a" }\n'
    path = str(write(pipeline_text(steps)))
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        assert main(["run", path, "--serve"]) == 2
        assert main(["run", path, "--allow-changes"]) == 2
    assert "warmset: --serve: " in errors.getvalue()
    assert "--allow-changes goes with --serve" in errors.getvalue()
    assert fakes == []
