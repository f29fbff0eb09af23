"""
Renders the page: the template, the texts around the plots and tables, and escaping.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from warmset._text import printable
from warmset.events import RemovalCause

from ..report import headline, version_text
from .charts import draw_plots
from .formatting import cause_name, megabytes, percent, seconds_text
from .recorder import CAUSES
from .report_data import MAX_CLASS_ROWS, collect_report_data

if TYPE_CHECKING:
    from ..pipeline_file import Pipeline
    from ..pipeline_run import Outcome
    from ..run_options import RunOptions
    from ..verdict import Verdict
    from .recorder import Recorder
    from .report_data import ReportData

__all__ = ["make_page"]

MAX_GROUPS = 50
MAX_SURVIVORS = 50
_WORDS = {"pass": "PASS", "fail": "FAIL", "none": "NO VERDICT"}


@dataclass(frozen=True, slots=True)
class _Fact:
    label: str
    value: str
    note: str = ""


def make_page(
    pipeline: Pipeline,
    documents: int,
    options: RunOptions,
    outcome: Outcome,
    verdict: Verdict,
    recorder: Recorder,
) -> str:
    """
    Render the page.

    Args:
        pipeline: The pipeline.
        documents: The number of documents.
        options: The options of the runs.
        outcome: The result of the runs.
        verdict: The verdict.
        recorder: The recorder that was attached during the runs.

    Returns:
        A self-contained HTML page.
    """
    data = collect_report_data(pipeline, outcome, verdict, recorder)
    descriptions = _descriptions(pipeline, options, data)
    plots = {
        name: {
            # Drawn by this package, and already escaped.
            width: Markup(svg)
            for width, svg in (("wide", plot.wide), ("narrow", plot.narrow))
        }
        for name, plot in draw_plots(data, descriptions).items()
    }
    file = os.path.basename(pipeline.file)
    conditions = headline(pipeline, documents, options).removeprefix(f"{file}: ")
    return _environment().get_template("page.html.j2").render(
        title=file,
        conditions=conditions.replace("\n", "; "),
        verdict={
            "status": verdict.status,
            "word": _WORDS[verdict.status],
            "text": verdict.text.partition(": ")[2],
            "bound_bytes": verdict.bound_bytes,
        },
        ended=outcome.ended,
        runs=data.runs,
        facts=_facts(options, outcome, verdict, data),
        failure_groups=outcome.failure_groups[:MAX_GROUPS],
        failure_summary=_failure_summary(outcome),
        survivors=[
            survivor.replace(": referenced by", "", 1).splitlines()
            for survivor in outcome.survivors[:MAX_SURVIVORS]
        ],
        survivor_summary=_survivor_summary(outcome),
        data=data,
        advice=recorder.advice(),
        descriptions=descriptions,
        plots=plots,
        settings=_settings(pipeline, options),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        # Any text that is not Markup comes from the user.
        finalize=lambda value: (
            printable(value) if isinstance(value, str) and type(value) is not Markup else value
        ),
        loader=PackageLoader(__package__, "."),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        cause=cause_name, mb=megabytes, percent=percent, seconds=seconds_text
    )
    return environment


def _facts(
    options: RunOptions, outcome: Outcome, verdict: Verdict, data: ReportData
) -> list[_Fact]:
    hits = sum(row.hits for row in data.run_rows)
    lookups = hits + sum(row.misses for row in data.run_rows)
    tallies = [row.tally for row in _all_rows(data)]
    removals = [sum(tally.removals[cause] for tally in tallies) for cause in CAUSES]
    evictions = sum(removals[cause] for cause in CAUSES if cause.evicted)
    growth, slope = verdict.max_growth_bytes, verdict.slope_bytes
    failures = f"{outcome.skipped:,} skipped because of them" if outcome.skipped else ""
    return [
        _Fact("Runs", f"{data.runs:,}", f"of {options.runs:,}"),
        _Fact(
            "Largest growth of RSS",
            "-" if growth is None else f"{megabytes(growth, signed=True)} MB",
            f"bound {megabytes(verdict.bound_bytes)} MB",
        ),
        _Fact(
            "Growth by the slope",
            "-" if slope is None else f"{megabytes(slope, signed=True)} MB",
            f"bound {megabytes(verdict.slope_bound_bytes)} MB",
        ),
        _Fact("Hit rate", percent(hits / lookups if lookups else None), f"{lookups:,} look-ups"),
        _Fact(
            "Builds",
            f"{sum(tally.builds for tally in tallies):,}",
            f"{seconds_text(sum(tally.build_seconds for tally in tallies))} in total",
        ),
        _Fact("Evictions", f"{evictions:,}", f"of {sum(removals):,} removals"),
        _Fact("Failed calls", f"{outcome.failed:,}", failures or f"of {outcome.calls:,}"),
        _Fact(
            "Survivors",
            "-" if verdict.survivors is None else f"{verdict.survivors:,}",
            "not searched for" if verdict.survivors is None else "removed, still referenced",
        ),
    ]


def _failure_summary(outcome: Outcome) -> str:
    text = f"{outcome.failed:,} of {outcome.calls:,} calls failed"
    if outcome.skipped:
        text += f", and {outcome.skipped:,} steps were skipped because of them"
    text += ", grouped by step and type of error"
    if len(outcome.failure_groups) > MAX_GROUPS:
        text += f"; the {MAX_GROUPS} largest groups are listed"
    return f"{text}."


def _survivor_summary(outcome: Outcome) -> str:
    count = len(outcome.survivors)
    text = f"{count:,} removed instance{' is' if count == 1 else 's are'} still referenced after"
    text += " the last run; each is listed with what refers to it"
    if count > MAX_SURVIVORS:
        text += f". The first {MAX_SURVIVORS} are listed"
    return f"{text}."


# -- descriptions of the plots --------------------------------------------------------------------


def _descriptions(
    pipeline: Pipeline, options: RunOptions, data: ReportData
) -> dict[str, tuple[str, str]]:
    return {
        "rss": ("Resident memory over runs", _rss_text(options, data)),
        "hits": ("Hit rate of each run", _hits_text(data)),
        "removals": ("Removals by cause", _removals_text(data)),
        "builds": ("Build time of each class", _builds_text(data)),
        "timeline": ("Warm instances over time", _timeline_text(pipeline, options, data)),
    }


def _rss_text(options: RunOptions, data: ReportData) -> str:
    if not data.run_rows:
        return ""
    sizes = [row.rss_bytes for row in data.run_rows]
    level = megabytes(data.level_bytes)
    text = (
        f"RSS after each run was between {megabytes(min(sizes))} and {megabytes(max(sizes))} MB."
        f" The bound is {megabytes(data.level_bytes + data.bound_growth_bytes)} MB: the level of"
        f" {level} MB, which is the median of the first half of the runs, plus"
        f" {megabytes(data.bound_growth_bytes)} MB."
    )
    if not options.clear:
        text += " The cache was not cleared between runs."
    return text


def _hits_text(data: ReportData) -> str:
    rates = [row.hit_rate for row in data.run_rows if row.hit_rate is not None]
    if not rates:
        return "There were no look-ups."
    if percent(min(rates)) == percent(max(rates)):
        return f"Hits divided by look-ups: {percent(min(rates))} in every run."
    return f"Hits divided by look-ups: from {percent(min(rates))} to {percent(max(rates))}."


def _removals_text(data: ReportData) -> str:
    if not data.causes:
        return "There were no removals."
    rows = [row.removals for row in data.run_rows]
    rows += [data.unfinished_removals] if data.unfinished_removals else []
    counts = [f"{cause_name(cause)} {sum(row[cause] for row in rows):,}" for cause in data.causes]
    return f"Removals in each run and when the cache was cleared after it: {', '.join(counts)}." + (
        " Shutdown: the registry was closed after the last run."
        if RemovalCause.SHUTDOWN in data.causes
        else ""
    )


def _builds_text(data: ReportData) -> str:
    rows = [row for row in data.class_rows if row.tally.builds]
    if not rows:
        return "There were no builds."
    text = (
        "The mean build time of each class, with a line to the longest build, sorted by total build"
        " time. Builds that a class requests from the registry are included in its own time."
    )
    if data.others is not None:
        text += (
            f" The {MAX_CLASS_ROWS} classes with the longest total build time have a row each; the"
            f" other {data.other_classes:,} share one."
        )
    return text


def _timeline_text(pipeline: Pipeline, options: RunOptions, data: ReportData) -> str:
    if not data.timeline:
        return "No instance was warm at any time."
    text = (
        "Each bar is an instance, from the end of its build to its removal; thin lines mark the"
        " beginning of runs."
    )
    if data.others is not None:
        text += (
            f" Only the {len(data.class_rows)} classes with the longest total build time are shown."
        )
    if options.per_run:
        text += (
            " All instances of one class share a row, regardless of the run that they belong to."
        )
    if pipeline.settings.enable_weakref:
        text += (
            " Instances are kept by weak reference: the bar of a collected instance ends at the"
            " next look-up of its name."
        )
    if data.span_gap_seconds:
        text += (
            f" Gaps of up to {seconds_text(data.span_gap_seconds)} between bars are not shown,"
            " to keep the page small."
        )
    return text


def _all_rows(data: ReportData) -> list[Any]:
    return [*data.class_rows, *([data.others] if data.others else [])]


def _settings(pipeline: Pipeline, options: RunOptions) -> list[tuple[str, str]]:
    settings = [
        ("warmset", version_text()),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]
    given = {**asdict(options), **pipeline.settings.as_options()}
    return settings + [(name, _setting(value)) for name, value in given.items()]


def _setting(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
