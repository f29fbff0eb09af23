"""
The page: words around the plots and tables, every text of the user's escaped.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from warmset.events import RemovalCause

from ..report import headline, version_text
from .charts import draw_plots
from .numbers import MOST_CLASS_ROWS, collect_numbers
from .recorder import CAUSES
from .wording import cause_name, clean, megabytes, percent, seconds_text

if TYPE_CHECKING:
    from ..pipeline import Outcome, RunOptions
    from ..pipeline_file import Pipeline
    from ..report import Verdict
    from .numbers import Numbers
    from .recorder import Recorder

__all__ = ["make_page"]

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
    Make the page.

    Args:
        pipeline: What ran.
        documents: How many documents it ran over.
        options: How it ran.
        outcome: What came out.
        verdict: The verdict.
        recorder: What was seen meanwhile.

    Returns:
        HTML that needs nothing but itself.
    """
    numbers = collect_numbers(pipeline, outcome, verdict, recorder)
    descriptions = _descriptions(pipeline, options, numbers)
    plots = {
        name: {
            # Ours, and escaped where it was drawn.
            width: Markup(svg)
            for width, svg in (("wide", plot.wide), ("narrow", plot.narrow))
        }
        for name, plot in draw_plots(numbers, descriptions).items()
    }
    file = os.path.basename(pipeline.file)
    how_it_ran = headline(pipeline, documents, options).removeprefix(f"{file}: ")
    return _environment().get_template("page.html.j2").render(
        title=file,
        how_it_ran=how_it_ran.replace("\n", "; "),
        verdict={
            "status": verdict.status,
            "word": _WORDS[verdict.status],
            "text": verdict.text.partition(": ")[2],
            "bound_bytes": verdict.bound_bytes,
        },
        ended=outcome.ended,
        runs=numbers.runs,
        facts=_facts(options, outcome, verdict, numbers),
        failures=outcome.failures,
        failure_summary=_failure_summary(outcome),
        numbers=numbers,
        descriptions=descriptions,
        plots=plots,
        settings=_settings(pipeline, options),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        # What is no Markup of ours is text of the user's.
        finalize=lambda value: clean(value) if type(value) is str else value,
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
    options: RunOptions, outcome: Outcome, verdict: Verdict, numbers: Numbers
) -> list[_Fact]:
    hits = sum(row.hits for row in numbers.run_rows)
    lookups = hits + sum(row.misses for row in numbers.run_rows)
    tallies = [row.tally for row in _all_rows(numbers)]
    removals = [sum(tally.removals[cause] for tally in tallies) for cause in CAUSES]
    evictions = sum(removals[cause] for cause in CAUSES if cause.evicted)
    growth = verdict.max_growth_bytes
    failures = f"{outcome.skipped:,} skipped for them" if outcome.skipped else ""
    return [
        _Fact("Runs", f"{numbers.runs:,}", f"of {options.runs:,}"),
        _Fact(
            "Largest growth of RSS",
            "-" if growth is None else f"{megabytes(growth, signed=True)} MB",
            f"bound {megabytes(verdict.bound_bytes)} MB",
        ),
        _Fact("Hit rate", percent(hits / lookups if lookups else None), f"{lookups:,} look-ups"),
        _Fact(
            "Builds",
            f"{sum(tally.builds for tally in tallies):,}",
            f"{seconds_text(sum(tally.build_seconds for tally in tallies))} in all",
        ),
        _Fact("Evictions", f"{evictions:,}", f"of {sum(removals):,} removals"),
        _Fact("Failed calls", f"{outcome.failed:,}", failures or f"of {outcome.calls:,}"),
    ]


def _failure_summary(outcome: Outcome) -> str:
    text = f"{outcome.failed:,} of {outcome.calls:,} calls failed"
    if outcome.skipped:
        text += f", and {outcome.skipped:,} steps were skipped for them"
    if outcome.failed > len(outcome.failures):
        text += f"; the first {len(outcome.failures)} are listed"
    return f"{text}."


# -- what is to be seen, in words ----------------------------------------------------------------


def _descriptions(
    pipeline: Pipeline, options: RunOptions, numbers: Numbers
) -> dict[str, tuple[str, str]]:
    return {
        "rss": ("Resident memory over runs", _rss_text(options, numbers)),
        "hits": ("Hit rate of each run", _hits_text(numbers)),
        "removals": ("Removals by cause", _removals_text(numbers)),
        "builds": ("Build time of each class", _builds_text(numbers)),
        "timeline": ("What was warm when", _timeline_text(pipeline, options, numbers)),
    }


def _rss_text(options: RunOptions, numbers: Numbers) -> str:
    if not numbers.run_rows:
        return ""
    sizes = [row.rss_bytes for row in numbers.run_rows]
    text = (
        f"RSS after each run was between {megabytes(min(sizes))} and {megabytes(max(sizes))} MB."
        f" The bound is {megabytes(numbers.first_rss_bytes + numbers.bound_growth_bytes)} MB, which"
        f" is that of run 1 plus {megabytes(numbers.bound_growth_bytes)} MB."
    )
    if not options.clear:
        text += " The cache was not cleared between runs."
    return text


def _hits_text(numbers: Numbers) -> str:
    rates = [row.hit_rate for row in numbers.run_rows if row.hit_rate is not None]
    if not rates:
        return "Nothing was looked up."
    if percent(min(rates)) == percent(max(rates)):
        return f"Hits by look-ups: {percent(min(rates))} throughout."
    return f"Hits by look-ups: from {percent(min(rates))} to {percent(max(rates))}."


def _removals_text(numbers: Numbers) -> str:
    if not numbers.causes:
        return "Nothing was removed."
    rows = [row.removals for row in numbers.run_rows]
    rows += [numbers.unfinished_removals] if numbers.unfinished_removals else []
    counts = [
        f"{cause_name(cause)} {sum(row[cause] for row in rows):,}" for cause in numbers.causes
    ]
    return f"Why instances left, in each run and the clearing after it: {', '.join(counts)}." + (
        " Shutdown is the end of the last run." if RemovalCause.SHUTDOWN in numbers.causes else ""
    )


def _builds_text(numbers: Numbers) -> str:
    rows = [row for row in numbers.class_rows if row.tally.builds]
    if not rows:
        return "Nothing was built."
    text = (
        "The mean of each class's builds, and a line to the longest, ordered by the sum of all; the"
        " building of what a class asks the registry for is in its time, too."
    )
    if numbers.others is not None:
        text += (
            f" The {MOST_CLASS_ROWS} classes that took longest have a row; the other"
            f" {numbers.other_classes:,} have one together."
        )
    return text


def _timeline_text(pipeline: Pipeline, options: RunOptions, numbers: Numbers) -> str:
    if not numbers.timeline:
        return "Nothing was warm at any time."
    text = "A bar from the end of a build to the instance's removal; thin lines where runs begin."
    if numbers.others is not None:
        text += f" Only the {len(numbers.class_rows)} classes that took longest to build are shown."
    if options.per_run:
        text += " All instances of one class share a row, whichever run they were registered for."
    if pipeline.settings.enable_weakref:
        text += (
            " Instances are kept weakly: that one was collected is seen at the next look-up of its"
            " name, which ends its bar."
        )
    if numbers.span_gap_seconds:
        text += (
            f" Gaps of up to {seconds_text(numbers.span_gap_seconds)} between bars are not shown,"
            " to keep the page small."
        )
    return text


def _all_rows(numbers: Numbers) -> list[Any]:
    return [*numbers.class_rows, *([numbers.others] if numbers.others else [])]


def _settings(pipeline: Pipeline, options: RunOptions) -> list[tuple[str, str]]:
    settings = [
        ("warmset", version_text()),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]
    given = {**asdict(options), **pipeline.settings.as_options()}
    return settings + [(name, _setting(value)) for name, value in given.items()]


def _setting(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
