"""The commands: options in, a report out, and the exit status."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from warmset.settings import SettingsError

from .app_path import app_dir_option, put_first
from .check import check
from .completion import completion
from .engine_run import checked_engine, documents_at_once, engine_options, start_workers
from .exit_codes import (
    BAD_FILE,
    CLOSED_PIPE,
    FAILED,
    GREW,
    INTERRUPTED,
    PASSED,
    exit_status_help,
)
from .refused import Refused as _Refused
from .report import version_text
from .stats import stats
from .top import top
from .warming import Warming, profile_options, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress

    from warmset import MethodRegistry

    from .html_report import Recorder
    from .pipeline import Outcome, RunOptions
    from .pipeline_file import Pipeline
    from .places import Place

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_EPILOG = f"""
{exit_status_help(PASSED, GREW, BAD_FILE, FAILED, INTERRUPTED, CLOSED_PIPE)}

RSS is the resident set size of the process after each run, once the cache was cleared (unless
--no-clear), the garbage collected, and the memory that malloc holds, but that is free, given back
(unless --no-trim: glibc's reserve changes by tens of MB from run to run). Growth is RSS less that
of run 1, so what is loaded once and stays (modules, models at module level) does not count. Judged
is the largest growth of any run, not that of the last: a process that must stay below a limit dies
of its largest size. MB is 10^6 bytes.

A step that fails is reported and counted; steps of the same document that need its result are
skipped, everything else goes on, and the exit status stays that of the growth.
"""


def run_app(arguments: Sequence[str] | None) -> int:
    """
    Run the command line, given that `click` and `rich` are there.

    Args:
        arguments: The words after the command's name; None takes those of the process.

    Returns:
        The exit status.
    """
    try:
        # Not standalone: there, click turns Ctrl-C into exit status 1.
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="warmset",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("warmset: interrupted", err=True)
        return INTERRUPTED
    except (BrokenPipeError, _ReaderGoneError):
        # As in `warmset demo | head`. What is left in the buffer goes to nowhere, or the
        # interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return status if isinstance(status, int) else PASSED


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"warmset {version_text()}")
        context.exit()


class _ReaderGoneError(Exception):
    # In place of BrokenPipeError, which click would make exit status 1 of: here, that is growth.
    pass


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error

    # In the order in which one needs them, not in that of the alphabet.
    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Commands,
    epilog=exit_status_help(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and which core is in use.",
)
def cli() -> None:
    """
    Run pipelines over an instance registry, and look into processes that have one.

    \b
    Try what memory does:   warmset demo
    Your own pipeline:      warmset check PIPELINE.toml, then warmset run PIPELINE.toml
    A process that runs:    warmset top, or warmset stats --json for scripts
    """


def _run_options(command: _Command) -> _Command:
    options = [
        click.option(
            "--runs",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            help="How often to run the whole pipeline, in this process.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            help="Threads that work on documents; the steps of one document stay in order. By"
            " default 1, and with --engine two for each of its workers.",
        ),
        click.option(
            "--clear/--no-clear",
            default=True,
            show_default=True,
            help="Clear the cache after each run.",
        ),
        click.option(
            "--per-run",
            is_flag=True,
            help="Register the classes anew for each run, as Name@2 in run 2: what a pipeline does"
            " that keys its instances by run or by tenant.",
        ),
        click.option(
            "--trim/--no-trim",
            default=True,
            show_default=True,
            help="Have the C library give free memory back before RSS is measured, and the workers"
            " share one heap of its, for that (glibc only).",
        ),
        click.option(
            "--max-growth-mb",
            type=click.FloatRange(min=0),
            help="The largest growth since run 1 that passes; 20 by default, and with --engine 50"
            " for each worker: the heaps of worker processes take a run more to settle.",
        ),
        click.option(
            "--max-cache-size", type=int, help="Instead of the value in the file's [registry]."
        ),
        click.option(
            "--cache-ttl-seconds",
            type=float,
            help="Instead of the value in the file's [registry]; 0 switches expiry off.",
        ),
        click.option("--strict", is_flag=True, help="Stop at the first step that fails."),
        click.option(
            "--json",
            "json_file",
            type=click.Path(dir_okay=False, writable=True, path_type=Path),
            metavar="FILE",
            help="Write the report as JSON, too.",
        ),
        click.option(
            "--report",
            "report_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.html",
            help="Write the report as one HTML page with plots, too; needs the extra 'report'.",
        ),
        click.option(
            "--serve",
            is_flag=True,
            help="Let `warmset top` and `warmset stats` look at the registry while it runs.",
        ),
        click.option(
            "--allow-changes", is_flag=True, help="With --serve: let `warmset top` evict and clear."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return engine_options(profile_options(command))


@cli.command(epilog=_EPILOG, short_help="Run a pipeline N times and judge the growth of memory.")
@click.argument("pipeline_toml", metavar="PIPELINE.toml", type=click.Path(path_type=Path))
@app_dir_option
@_run_options
def run(pipeline_toml: Path, app_dir: Path, **options: Any) -> int:
    """
    Run the pipeline in a file N times and judge the growth of memory.

    The file has the tables [registry], [classes], [build] or [rules], [documents] and [[steps]];
    the demo's file (see `warmset demo --show`) is a commented example.
    """
    from .pipeline_file import load_pipeline

    with _bad_input():
        pipeline = load_pipeline(pipeline_toml)
    put_first(app_dir)
    return _execute(pipeline, **options)


@cli.command(epilog=_EPILOG, short_help="Run the shipped pipeline: real classes, real text.")
@click.option(
    "--documents",
    multiple=True,
    metavar="GLOB",
    help="Text files instead of the shipped documents; may be given more than once.",
)
@click.option("--show", is_flag=True, help="Print the demo's pipeline file and run nothing.")
@_run_options
def demo(documents: tuple[str, ...], show: bool, **options: Any) -> int:
    """
    Run the shipped pipeline: classes of other people's packages over Python's help topics.

    Needs the extra 'demo' and no network. Unless they are set, the variables that limit the threads
    of numerical libraries are set to 1 for this process, for a stable RSS.
    """
    from .demo import PIPELINE_FILE, check_packages, prepare_process
    from .pipeline_file import load_pipeline

    if show:
        click.echo(PIPELINE_FILE.read_text(encoding="utf-8"), nl=False)
        return PASSED
    check_packages()
    prepare_process()
    with _bad_input():
        pipeline = load_pipeline(PIPELINE_FILE)
    if documents:
        assert pipeline.documents is not None
        source = replace(pipeline.documents, base=Path(), files=documents, source=None)
        pipeline = replace(pipeline, documents=source)
    return _execute(pipeline, **options)


@contextmanager
def _bad_input() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise _Refused(str(error)) from error


def _execute(
    pipeline: Pipeline,
    *,
    max_growth_mb: float | None,
    max_cache_size: int | None,
    cache_ttl_seconds: float | None,
    json_file: Path | None,
    report_file: Path | None,
    serve: bool,
    allow_changes: bool,
    record_profile: Path | None,
    warm_up: Path | None,
    engine: str | None,
    address: str | None,
    engine_workers: int | None,
    workers: int | None,
    **options: Any,
) -> int:
    from warmset._process_memory import share_one_heap

    from . import report
    from .documents import load_documents
    from .pipeline import RunOptions

    watching = {
        "serve": serve,
        "report_file": report_file,
        "record_profile": record_profile,
        "warm_up": warm_up,
    }
    chosen = checked_engine(engine, address, engine_workers, watching)
    if max_growth_mb is None:
        max_growth_mb = 20.0 if chosen.name is None else 50.0
    run_options = RunOptions(workers=workers or documents_at_once(chosen), **options)
    given = {"max_cache_size": max_cache_size, "cache_ttl_seconds": cache_ttl_seconds}
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        settings = pipeline.settings.replace(**changes)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    pipeline = replace(pipeline, settings=settings)
    if json_file is not None and not json_file.parent.is_dir():
        # Known before the runs, not after them.
        raise click.UsageError(f"--json: no directory {str(json_file.parent)!r}")
    if allow_changes and not serve:
        raise click.UsageError("--allow-changes goes with --serve")
    warming = Warming(record_profile, warm_up, per_run=run_options.per_run)
    recorder = None if report_file is None else _page_recorder(report_file, pipeline, run_options)
    with _bad_input():
        source = pipeline.documents
        documents = load_documents(source, pipeline.file) if source is not None else ()
    if run_options.trim and run_options.workers > 1:
        share_one_heap()
    click.echo(report.headline(pipeline, len(documents), run_options, chosen.text))
    server = _server(pipeline, allow_changes) if serve else None
    place = None
    if chosen.name is not None:
        place = start_workers(chosen, pipeline, documents, run_options)
    outcome = _with_progress(pipeline, documents, run_options, recorder, server, warming, place)
    if warming.report is not None:
        click.echo(f"warm-up: {warming.report}")
    verdict = report.judge(outcome, max_growth_mb)
    if outcome.records:
        report.print_table(outcome.records, sys.stdout)
    if outcome.workers:
        report.print_workers(outcome.workers, sys.stdout)
    for line in (*report.failure_lines(outcome), *report.survivor_lines(outcome)):
        click.echo(line)
    if outcome.ended == "interrupted":
        click.echo(f"interrupted in run {len(outcome.records) + 1}, which is not in the table")
    click.echo(verdict.text)
    if json_file is not None:
        data = report.as_data(pipeline, len(documents), run_options, outcome, verdict)
        data["engine"] = None if chosen.name is None else chosen._asdict()
        if warming.report is not None:
            data["warm_up"] = warming.report.as_dict()
        try:
            json_file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise _Refused(f"--json: cannot write {str(json_file)!r}: {error.strerror}") from error
    if report_file is not None and recorder is not None:
        from .html_report import write_report

        arguments = (pipeline, len(documents), run_options, outcome, verdict, recorder)
        with _writing(report_file):
            write_report(report_file, *arguments)
    warming.save()
    return report.exit_status(outcome, verdict)


def _page_recorder(target: Path, pipeline: Pipeline, options: RunOptions) -> Recorder:
    # Whatever would keep the page from being written is known before the runs, not after them.
    from .html_report import Recorder, check_target, missing_packages

    missing = missing_packages()
    if missing:
        raise _Refused(
            f"--report needs the 'report' extra: pip install \"warmset[report]\""
            f" (not installed: {', '.join(missing)})"
        )
    with _writing(target):
        check_target(target)
    return Recorder(list(pipeline.class_paths), per_run=options.per_run)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Refused(
            f"--report: cannot write {str(target)!r}: {error.strerror or error}"
        ) from error


def _server(pipeline: Pipeline, allow_changes: bool) -> Callable[[MethodRegistry], None]:
    from warmset.observe.protocol import LiveViewError
    from warmset.observe.serving import serve

    def start(registry: MethodRegistry) -> None:
        name = Path(pipeline.file).stem
        if name.isdigit():
            name = f"pipeline-{name}"  # a number would be taken for a process
        try:
            serve(registry, name=name, allow_changes=allow_changes)
        except LiveViewError as error:
            raise _Refused(f"--serve: {error}") from error
        click.echo(f"served as {name!r}: warmset top {os.getpid()}", err=True)

    return start


def _with_progress(
    pipeline: Pipeline,
    documents: Sequence[Any],
    options: RunOptions,
    recorder: Recorder | None,
    server: Callable[[MethodRegistry], None] | None,
    warming: Warming,
    place: Place | None,
) -> Outcome:
    from rich.console import Console

    from .pipeline import run_at, run_pipeline

    def run(**watched: Any) -> Outcome:
        if place is None:
            return run_pipeline(pipeline, documents, options, watch=watch, **watched)
        return run_at(place, pipeline, documents, options, **watched)

    def watch(registry: MethodRegistry) -> None:
        if server is not None:
            server(registry)
        if recorder is not None:
            recorder.watch(registry)
        warming.watch(registry, shown)

    shown: Progress | None = None
    watching: dict[str, Any] = {}
    if recorder is not None:
        watching["on_run"] = recorder.on_run
    console = Console(stderr=True)
    if not console.is_terminal:
        return run(**watching)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    steps = sum(len(documents) if step.per_document else 1 for step in pipeline.steps)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress
        task = progress.add_task("run 1", total=steps * options.runs)

        def on_run(number: int) -> None:
            progress.update(task, description=f"run {number}")
            if recorder is not None:
                recorder.on_run(number)

        return run(on_run=on_run, on_step=lambda: progress.advance(task))


for _command in (warm_up, check, top, stats, completion):
    cli.add_command(_command)
