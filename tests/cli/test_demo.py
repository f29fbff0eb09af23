"""The demo: its file, its documents, missing packages, and the run itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

import warmset
from warmset.cli import app, demo, main
from warmset.cli.documents import load_documents
from warmset.cli.pipeline_file import load_pipeline

needs_packages = pytest.mark.skipif(
    bool(demo.missing_packages()), reason=f"not installed: {', '.join(demo.missing_packages())}"
)


def test_the_file_is_valid_and_its_documents_load() -> None:
    pipeline = load_pipeline(demo.PIPELINE_FILE)
    assert len(pipeline.class_paths) >= 6
    assert {step.class_name for step in pipeline.steps} == set(pipeline.class_paths)
    assert not any(path.startswith("warmset.") for path in pipeline.class_paths.values())
    rules = [options["rule"] for options in pipeline.class_options.values() if "rule" in options]
    assert len(rules) == 6
    assert all(hasattr(demo, path.rpartition(".")[2]) for path in rules)
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    assert len(documents) > 50
    assert all(document.text for document in documents)


def test_the_file_can_be_shown() -> None:
    result = CliRunner().invoke(app.cli, ["demo", "--show"])
    assert result.output == demo.PIPELINE_FILE.read_text(encoding="utf-8")


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_PACKAGES", {"os": "os", "nowhere_to_be_found": "no-where"})
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "warmset: the demo needs the 'demo' extra: pip install \"warmset[demo]\""
        " (not installed: no-where)\n"
    )


def test_variables_that_are_set_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "3"})
    demo.prepare_process()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@needs_packages
def test_the_demo_runs_over_other_documents(tmp_path: Path) -> None:
    # One short document: fewer than the dimensions and the neighbours to search for.
    text = "One sentence about cats. Another one, about dogs."
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    words = ["demo", "--documents", str(tmp_path / "*.txt"), "--runs", "1", "--strict"]
    source = Path(warmset.__file__).parent.parent
    # In a subprocess, because the packages emit warnings and change settings.
    process = subprocess.run(
        [sys.executable, "-m", "warmset.cli", *words],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "1 document;" in process.stdout
    assert process.stdout.splitlines()[-1].startswith("NO VERDICT")


SAME = """
import json
import os
import sys
from pathlib import Path

from warmset.cli import demo

demo.prepare_process()

from warmset._process_memory import resident_bytes
from warmset.cli.documents import load_documents
from warmset.cli.engine import Engine, start_workers
from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import run_on
from warmset.cli.run_options import RunOptions
from warmset.cli.targets import LocalTarget

source = demo.PIPELINE_FILE.read_text()
names = ["sentences", "language", "sentiment", "vector", "topic", "reduced", "nearest", "embedding"]
Path("same.toml").write_text(
    source.replace("[classes]", "[classes]\\nNotes = 'notes.Notes'")
    + "[[steps]]\\nclass = 'Notes'\\nmethod = 'write'\\n"
    + "arguments = { name = '$document.name', values = ["
    + ", ".join(f"'$steps.{name}'" for name in ["all reduced", *names])
    + "] }\\n"
)
pipeline = load_pipeline("same.toml")
documents = load_documents(pipeline.documents, pipeline.file)[:12]
os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
sys.path.insert(0, os.getcwd())
results_by_engine = {}
for engine in ("local", *sys.argv[1:]):
    Path("notes").mkdir()
    os.environ["NOTES"] = os.path.abspath("notes")
    options = RunOptions(runs=1, workers=1 if engine == "local" else 4)
    target = (
        LocalTarget(pipeline, documents, options, resident_bytes)
        if engine == "local"
        else start_workers(Engine(engine, None, None), pipeline, documents, options)
    )
    outcome = run_on(target, pipeline, documents, options)
    assert not outcome.failed, outcome.failures
    results_by_engine[engine] = {
        file.name: json.loads(file.read_text()) for file in sorted(Path("notes").iterdir())
    }
    Path("notes").rename(f"notes-{engine}")
for engine, results in results_by_engine.items():
    assert len(results) == 12
    assert results == results_by_engine["local"], engine
    print(engine, len(results))
"""
# The last step of the pipeline: writes what the others returned for a document.
NOTES = """
import json
import os


def plain(value):
    if hasattr(value, "toarray"):
        value = value.toarray()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return round(value, 9) if isinstance(value, float) else str(value)


class Notes:
    def write(self, name, values):
        with open(os.path.join(os.environ["NOTES"], name), "w") as file:
            json.dump([plain(value) for value in values], file)
"""


@needs_packages
def test_the_engines_give_the_same_results(tmp_path: Path) -> None:
    """The results of all steps for each document, to nine digits."""
    engines = [
        engine
        for engine, package in (("dask", "distributed"), ("ray", "ray"))
        if importlib.util.find_spec(package)
    ]
    if not engines:
        pytest.skip("neither dask nor ray is installed")
    (tmp_path / "notes.py").write_text(NOTES, encoding="utf-8")
    script = tmp_path / "same.py"
    # In a function, because workers of Dask import the script.
    body = textwrap.indent(SAME, "    ")
    script.write_text(
        f"def main():\n{body}\n\nif __name__ == '__main__':\n    main()\n", encoding="utf-8"
    )
    process = subprocess.run(
        [sys.executable, str(script), *engines],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["local", *engines]
