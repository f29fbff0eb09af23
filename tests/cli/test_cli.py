"""The command line as a whole: help, exit statuses, completion, --serve."""

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
COMMANDS = ["run", "demo", "warm-up", "plan", "check", "top", "stats", "completion"]


def test_the_help_lists_every_command() -> None:
    """In the intended order, each with a complete sentence; and every exit status."""
    text = CliRunner().invoke(app.cli, ["--help"]).output
    listed = re.findall(r"^  ([\w-]+)  +(\S.*)$", text[text.index("Commands:") :], re.MULTILINE)
    listed = [(name, summary) for name, summary in listed if not name.isdigit()]
    assert [name for name, _ in listed] == COMMANDS
    assert all(text.endswith(".") and not text.endswith("..") for _, text in listed)
    for code in exit_codes.EXIT_CODES:
        assert re.search(rf"^    {code} +\S", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    """No line is longer than 100 characters."""
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(app.cli, [command, flag])
        assert result.exit_code == 0
        assert all(len(line) <= 100 for line in result.output.splitlines())


def test_no_other_exit_status_is_used() -> None:
    """Outside the table, no number is returned, raised or assigned as a status."""
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


def test_the_docs_have_the_same_table_as_the_code() -> None:
    """Every status with the same text."""
    table = re.findall(r"^\| (\d+) \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code): text for code, text in table} == exit_codes.EXIT_CODES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """The scripts of all supported shells are valid."""
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["completion", shell]) == 0
    assert f"_WARMSET_COMPLETE={shell}_complete" in output.getvalue()
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=output.getvalue(), text=True, check=True, timeout=60)


def test_an_unknown_shell_is_refused() -> None:
    """The message lists the supported shells."""
    errors = io.StringIO()
    with redirect_stderr(errors):
        assert main(["completion", "tcsh"]) == 2
    assert "bash" in errors.getvalue()


def test_completion_of_commands() -> None:
    """The command responds to the requests of the completion script."""
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

CLIENT = """
import json, os
from warmset.observe import client
class Client:
    def request(self, target):
        (process,) = client.processes()[0]
        with process.connect() as connection:
            answer = connection.ask("stats")
        with open(target, "w") as file:
            json.dump(answer, file)
"""


def test_a_run_serves_a_live_view(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name of the pipeline file; changes only if they are allowed."""
    (tmp_path / "self_client.py").write_text(CLIENT)
    target = tmp_path / "answer.json"
    pipeline = tmp_path / "nightly.toml"
    pipeline.write_text(
        f'[classes]\nClient = "self_client.Client"\n[[steps]]\nclass = "Client"\n'
        f'method = "request"\neach = "run"\narguments = {{ target = "{target}" }}\n'
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


def test_a_live_view_that_cannot_be_served_is_an_error(
    place: str, write: Callable[..., Path], pipeline_text: Callable[..., str], fakes: list[object]
) -> None:
    """Nothing runs."""
    os.mkdir(place, 0o755)
    steps = '[[steps]]\nclass = "Counter"\nmethod = "count"\narguments = { text = "a" }\n'
    path = str(write(pipeline_text(steps)))
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        assert main(["run", path, "--serve"]) == 2
        assert main(["run", path, "--allow-changes"]) == 2
    assert "warmset: --serve: " in errors.getvalue()
    assert "--allow-changes needs --serve" in errors.getvalue()
    assert fakes == []


@pytest.mark.parametrize("module", ["warmset", "warmset.cli"])
def test_the_package_runs_as_a_module(module: str) -> None:
    """`python -m warmset` is the command where its script is not on the path."""
    source = Path(warmset.__file__).parent.parent
    process = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"warmset {warmset.__version__} (")
