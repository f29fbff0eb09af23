"""The table, as text for a terminal and as Markdown for the docs."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from .results import COMPILED, PURE, Absent, Figure
from .standing import standings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .budgets import Verdict
    from .results import Row
    from .subjects import Subject

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Hits": ("hit-one", "hit-64", "hit-1000", "hit-zipf", "hit-equal"),
    "Weak mode": ("weak",),
    "Methods": ("get-method", "has-method"),
    "Handles": ("handle",),
    "`execute`": ("execute-",),
    "Misses": ("miss",),
    "A build, by what takes part": ("part-",),
    "Build and evict, by capacity": ("evict-",),
    "Expiry": ("expired",),
    "Statistics": ("stats",),
    "Views of 10^4 entries": ("view-",),
    "Latency of hits while another class builds": ("latency-",),
    "Threads, a name each": ("threads-different-",),
    "Threads, one name": ("threads-one-",),
    "Memory": ("bytes-",),
    "Names": ("scale-register-", "scale-bytes-", "scale-hit-"),
    "Families": ("scale-miss-", "scale-growth-"),
    "Start of a process": ("import", "start"),
}
"""Heading -> how the names of its rows begin."""


def number(value: float) -> str:
    """Three digits that count, and separators for thousands."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text(rows: Sequence[Row], verdicts: Iterable[Verdict], machine: Mapping[str, str]) -> str:
    """
    Make the table for a terminal.

    Args:
        rows: What was measured.
        verdicts: The judged budgets.
        machine: What it was measured on.

    Returns:
        One line for each row in which warmset is ahead or behind, one for each subject of each
        row, then one for each budget.
    """
    lines = [f"{label}: {fact}" for label, fact in machine.items()]
    for core in (COMPILED, PURE):
        places = standings(rows, core)
        if places:
            lines += ["", f"{core:57}{'the former':>12}{'the best':>12}"]
        for place in places:
            lines.append(
                f"  {place.word:8}{place.row:47}{_times(place.former):>12}"
                f"{number(place.ratio):>12}  {place.best}"
            )
    lines += ["", f"{'':44}{'median':>14}{'spread':>12}{'x floor':>12}{'x compiled':>12}"]
    for row in rows:
        lines.append(f"{row.name}: {row.title}, {row.unit}")
        for subject, cell in row.cells.items():
            if isinstance(cell, Absent):
                lines.append(f"  {subject:42}  {cell.reason}")
                continue
            mark = f"{subject} (floor)" if subject == row.floor else subject
            lines.append(
                f"  {mark:42}{number(cell.median):>14}{'±' + number(cell.spread):>12}"
                f"{_times(row.ratio(subject, row.floor)):>12}"
                f"{_times(row.ratio(subject, COMPILED)):>12}"
            )
    lines += ["", f"{'budgets':50}{'':54}{'measured'}"]
    for verdict in verdicts:
        budget = verdict.budget.replace("`", "")
        lines.append(
            f"  {verdict.work.replace('`', ''):48}{budget:54}{verdict.measured:66}  {verdict.word}"
        )
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else number(ratio)


def markdown(
    rows: Sequence[Row],
    verdicts: Iterable[Verdict],
    machine: Mapping[str, str],
    subjects: Iterable[Subject],
) -> str:
    """
    Make the page for the docs.

    Args:
        rows: What was measured.
        verdicts: The judged budgets.
        machine: What it was measured on.
        subjects: Who took part, and how each was used.

    Returns:
        The page, from the template `performance.md` of this package.
    """
    template = (files(__package__) / "performance.md").read_text(encoding="utf-8")
    budgets = _lines(
        ("work", "budget", "measured", ""),
        [(verdict.work, verdict.budget, verdict.measured, verdict.word) for verdict in verdicts],
    )
    used = _lines(
        ("subject", "how it is used"),
        [(subject.name, subject.about) for subject in subjects],
    )
    places = "\n\n".join(_places(rows, core) for core in (COMPILED, PURE))
    facts = "\n".join(f"- {label}: {fact}" for label, fact in machine.items())
    parts = {
        "machine": facts,
        "standings": places,
        "budgets": budgets,
        "tables": _tables(rows),
        "subjects": used,
    }
    for name, part in parts.items():
        template = template.replace(f"<!-- {name} -->", part)
    return template


def _places(rows: Sequence[Row], core: str) -> str:
    lines = [
        (
            place.word,
            place.title,
            _times(place.former) or "-",
            f"{number(place.ratio)} ({place.best})",
        )
        for place in standings(rows, core)
    ]
    return _lines((f"**{core}**", "", "the former registry", "the best of the others"), lines)


def _tables(rows: Sequence[Row]) -> str:
    parts = []
    for heading, beginnings in GROUPS.items():
        group = [row for row in rows if row.name.startswith(beginnings)]
        if group:
            parts.append(f"### {heading}\n\n{_matrix(group)}")
    return "\n\n".join(parts)


def _matrix(rows: Sequence[Row]) -> str:
    """One line for each subject, one column for each row of a group."""
    subjects = list(dict.fromkeys(subject for row in rows for subject in row.cells))
    reasons: dict[str, list[str]] = {}
    lines = []
    for subject in subjects:
        cells = [row.cells.get(subject) for row in rows]
        for cell in cells:
            if isinstance(cell, Absent) and subject not in reasons.setdefault(cell.reason, []):
                reasons[cell.reason].append(subject)
        if any(isinstance(cell, Figure) for cell in cells):
            bold = "**" if subject in (COMPILED, PURE) else ""
            name = f"{bold}{subject}{bold}"
            lines.append((name, *(_cell(row, subject) for row in rows)))
    table = _lines(("", *(f"{row.title}, {row.unit}" for row in rows)), lines)
    floor = next((row.floor for row in rows if row.floor is not None), None)
    notes = [f"In brackets: times {floor}."] if floor is not None else []
    notes += [f"{', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return "\n\n".join([table, *notes])


def _cell(row: Row, subject: str) -> str:
    cell = row.cells.get(subject)
    if not isinstance(cell, Figure):
        return "-"
    ratio = row.ratio(subject, row.floor)
    of_floor = f" ({number(ratio)})" if ratio is not None and subject != row.floor else ""
    return f"{number(cell.median)} ±{number(cell.spread)}{of_floor}"


def _lines(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    table = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)
