"""
The report as a self-contained HTML page: no network access, no script, no other file.

`matplotlib` draws the plots as SVG with real text. They follow the colours and fonts of the page,
print well, and take a few tens of kilobytes, whereas plotly's script alone takes about 4 MB.
matplotlib belongs to the ``report`` extra and is imported after the runs, so that the runs do not
measure it.
"""

from __future__ import annotations

import os
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .recorder import Recorder

if TYPE_CHECKING:
    from ..pipeline_file import Pipeline
    from ..pipeline_run import Outcome
    from ..run_options import RunOptions
    from ..verdict import Verdict

__all__ = ["Recorder", "check_target", "missing_packages", "write_report"]

_PACKAGES = ("jinja2", "matplotlib")


def missing_packages() -> list[str]:
    """
    Find the packages of the ``report`` extra that are not installed, without importing them.

    Returns:
        The names of the packages.
    """
    return [name for name in _PACKAGES if find_spec(name) is None]


def check_target(target: Path) -> None:
    """
    Check before the runs that the report can be written after them.

    Args:
        target: The file.

    Raises:
        OSError: The file cannot be written. No file is created or changed.
    """
    target = _resolved(target)
    _temporary_file(target).touch(exist_ok=False)
    _temporary_file(target).unlink()


def write_report(
    target: Path,
    pipeline: Pipeline,
    documents: int,
    options: RunOptions,
    outcome: Outcome,
    verdict: Verdict,
    recorder: Recorder,
) -> None:
    """
    Write the report atomically.

    Args:
        target: The file.
        pipeline: The pipeline.
        documents: The number of documents.
        options: The options of the runs.
        outcome: The result of the runs.
        verdict: The verdict.
        recorder: The recorder that was attached during the runs.

    Raises:
        OSError: The file cannot be written.
    """
    from .page import make_page

    page = make_page(pipeline, documents, options, outcome, verdict, recorder)
    target = _resolved(target)
    temporary = _temporary_file(target)
    try:
        temporary.write_text(page, encoding="utf-8")
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _resolved(target: Path) -> Path:
    # A symbolic link is kept and its target is written. A device must not be replaced by a file.
    target = Path(os.path.realpath(target))
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OSError(None, "it is not a regular file")
    return target


def _temporary_file(target: Path) -> Path:
    # In the same directory, because a rename is atomic only within one file system.
    return target.with_name(f".{target.name}.{os.getpid()}.part")
