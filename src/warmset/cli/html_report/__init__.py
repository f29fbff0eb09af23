"""
The report as one HTML page that needs nothing but itself: no network, no script, no other file.

`matplotlib` draws it, as SVG with real text: such plots follow the page's colours and fonts, print
well, and are a few tens of kilobytes, where plotly's script alone is some 4 MB. It comes with the
extra ``report`` and is imported after the runs, so that it is not in what they measure.
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
    from ..pipeline import Outcome, RunOptions
    from ..pipeline_file import Pipeline
    from ..report import Verdict

__all__ = ["Recorder", "check_target", "missing_packages", "write_report"]

_PACKAGES = ("jinja2", "matplotlib")


def missing_packages() -> list[str]:
    """
    Find which packages of the extra ``report`` are not installed.

    Returns:
        Their names; nothing is imported.
    """
    return [name for name in _PACKAGES if find_spec(name) is None]


def check_target(target: Path) -> None:
    """
    See to it, before the runs, that a report can be written after them.

    Args:
        target: The file.

    Raises:
        OSError: It cannot; no file is left behind, and one that was there is as it was.
    """
    target = _resolved(target)
    _beside(target).touch(exist_ok=False)
    _beside(target).unlink()


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
    Write the report, whole or not at all.

    Args:
        target: The file.
        pipeline: What ran.
        documents: How many documents it ran over.
        options: How it ran.
        outcome: What came out.
        verdict: The verdict.
        recorder: What was seen meanwhile.

    Raises:
        OSError: The file cannot be written.
    """
    from .page import make_page

    page = make_page(pipeline, documents, options, outcome, verdict, recorder)
    target = _resolved(target)
    beside = _beside(target)
    try:
        beside.write_text(page, encoding="utf-8")
        if target.exists():
            shutil.copymode(target, beside)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _resolved(target: Path) -> Path:
    # A link stays a link to the file that is written. A device must not be replaced by a file.
    target = Path(os.path.realpath(target))
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OSError(None, "it is not a regular file")
    return target


def _beside(target: Path) -> Path:
    # In the same directory, or it could not be put in place in one step.
    return target.with_name(f".{target.name}.{os.getpid()}.part")
