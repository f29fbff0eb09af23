"""The commands `run` and `demo`, and the group that all commands belong to."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmset._text import printable
from warmset.settings import SettingsError

from .app_dir import app_dir_option, missing_module_hints, prepend_to_import_path
from .check import check
from .command_error import CommandError
from .completion import completion
from .engine import check_engine, default_workers, start_workers
from .exit_codes import (
    BAD_INPUT,
    CLOSED_PIPE,
    FAILED,
    INTERRUPTED,
    NOT_PASSED,
    PASSED,
    exit_status_help,
)
from .output import echo, echo_own
from .plan import plan
from .report import version_text
from .run_arguments import run_arguments
from .stats import stats
from .top import top
from .warm_up import ProfileSession, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import Progress

    from warmset import MethodRegistry

    from .html_report import Recorder
    from .pipeline_file import Pipeline
    from .pipeline_run import Outcome
    from .run_options import RunOptions
    from .targets import Target

_EPILOG = f"""
{exit_status_help(PASSED, NOT_PASSED, BAD_INPUT, FAILED, INTERRUPTED, CLOSED_PIPE)}

The verdict is PASS if

\b
  calls      at most --max-failures of them failed;
  survivors  at most --max-survivors removed instances are still referenced;
  growth     no run exceeds the median RSS of the first half of the runs by more than the bound;
  slope      in the second half, memory in use rises by at most a quarter of the bound (from five
             runs on); it is RSS without what is free inside the interpreter's heap.

RSS is the resident set size of the process, measured after each run: the cache has been cleared
(unless --no-clear), the garbage collected, and free memory of malloc returned to the system (unless
--no-trim: glibc's reserve varies by tens of MB between runs). The table shows the growth since run
1, which may not have settled; the verdict does not depend on it alone. MB is 10^6 bytes.

A step that fails is reported and counted. The steps of the same document that need its result are
skipped, and all others run.
"""


def run_app(arguments: Sequence[str] | None) -> int:
    """
    Run the command line; `click` and `rich` must be installed.

    Args:
        arguments: The arguments after the command's name; None for those of the process.

    Returns:
        The exit status.
    """
    try:
        # In standalone mode, click would turn Ctrl-C into exit status 1.
        status = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="warmset",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.ClickException as error:
        if not isinstance(error, CommandError):  # which escapes its own message
            # In place, since each subclass formats it in its own way.
            error.message = printable(error.message)  # type: ignore[misc]
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        echo("warmset: interrupted", err=True)
        return INTERRUPTED
    except (BrokenPipeError, _ClosedPipeError):
        # As in `warmset demo | head`. The rest of the buffer goes to the null device, because the
        # interpreter would report an error when it flushes the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return status if isinstance(status, int) else PASSED


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        echo(f"warmset {version_text()}")
        context.exit()


class _ClosedPipeError(Exception):
    # Replaces BrokenPipeError, which click would turn into exit status 1, the status for growth.
    pass


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            raise _ClosedPipeError from error

    # In the order in which a new user needs them, instead of alphabetical order.
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
    help="Show the version and the core in use.",
)
def cli() -> None:
    """
    Run pipelines over an instance registry, and inspect the registries of running processes.

    \b
    A first impression:     warmset demo
    Your own pipeline:      warmset check PIPELINE.toml, then warmset run PIPELINE.toml
    A running process:      warmset top, or warmset stats --json for scripts
    """


@cli.command(
    epilog=_EPILOG, short_help="Run a pipeline several times and check the growth of memory."
)
@click.argument("pipeline_toml", metavar="PIPELINE.toml", type=click.Path(path_type=Path))
@app_dir_option
@run_arguments
def run(pipeline_toml: Path, app_dir: Path, **options: Any) -> int:
    """
    Run the pipeline in a file several times and check the growth of memory.

    The file has the tables [registry], [classes] and [options.NAME] of a warmset.toml, and also
    [documents] and [[steps]]; the demo's file (see `warmset demo --show`) is a commented example.
    """
    from .pipeline_file import load_pipeline

    with _settings_errors():
        pipeline = load_pipeline(pipeline_toml)
    prepend_to_import_path(app_dir)
    return _execute(pipeline, app_dir=app_dir, **options)


@cli.command(epilog=_EPILOG, short_help="Run the built-in demo pipeline.")
@click.option(
    "--documents",
    multiple=True,
    metavar="GLOB",
    help="Text files to use instead of the built-in documents; may be given more than once.",
)
@click.option("--show", is_flag=True, help="Print the demo's pipeline file without running it.")
@run_arguments
def demo(documents: tuple[str, ...], show: bool, **options: Any) -> int:
    """
    Run the built-in demo pipeline: classes of third-party packages over Python's help topics.

    Needs the 'demo' extra and no network. For a stable RSS, the environment variables that limit
    the threads of numerical libraries are set to 1 for this process, unless they are already set.
    """
    from .demo import PIPELINE_FILE, check_packages, prepare_process
    from .pipeline_file import load_pipeline

    if show:
        echo_own(PIPELINE_FILE.read_text(encoding="utf-8"))
        return PASSED
    check_packages()
    prepare_process()
    with _settings_errors():
        pipeline = load_pipeline(PIPELINE_FILE)
    if documents:
        assert pipeline.documents is not None
        source = replace(pipeline.documents, base=Path(), files=documents, source=None)
        pipeline = replace(pipeline, documents=source)
    return _execute(pipeline, **options)


@contextmanager
def _settings_errors() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise CommandError(str(error)) from error


def _execute(
    pipeline: Pipeline,
    *,
    app_dir: Path | None = None,
    max_growth_mb: float | None,
    max_failures: float,
    max_survivors: int,
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
    from .run_options import RunOptions
    from .verdict import judge

    local_options = {
        "serve": serve,
        "report_file": report_file,
        "record_profile": record_profile,
        "warm_up": warm_up,
    }
    selected = check_engine(engine, address, engine_workers, local_options)
    if max_growth_mb is None:
        max_growth_mb = 20.0 if selected.name is None else 50.0
    run_options = RunOptions(workers=workers or default_workers(selected), **options)
    given = {"max_cache_size": max_cache_size, "cache_ttl_seconds": cache_ttl_seconds}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if record_profile is not None and pipeline.settings.sizer is None:
        changes["sizer"] = "measured"  # a profile without sizes cannot plan a budget of bytes
    try:
        settings = pipeline.settings.replace(**changes)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    pipeline = replace(pipeline, settings=settings)
    if json_file is not None and not json_file.parent.is_dir():
        # Reported before the runs instead of after them.
        raise click.UsageError(f"--json: no directory {str(json_file.parent)!r}")
    if allow_changes and not serve:
        raise click.UsageError("--allow-changes needs --serve")
    profiles = ProfileSession(record_profile, warm_up, per_run=run_options.per_run)
    recorder = None if report_file is None else _make_recorder(report_file, pipeline, run_options)
    source = pipeline.documents
    try:
        documents = load_documents(source, pipeline.file) if source is not None else ()
    except SettingsError as error:
        paths = [source.source] if source is not None and source.source is not None else []
        raise CommandError(str(error), hints=_hints(paths, pipeline, app_dir)) from error
    if run_options.trim and run_options.workers > 1:
        share_one_heap()
    for line in report.headline(pipeline, len(documents), run_options, selected.text).splitlines():
        echo(line)
    start_serving = _live_view_starter(pipeline, allow_changes) if serve else None
    target = None
    if selected.name is not None:
        target = start_workers(selected, pipeline, documents, run_options)
    outcome = _with_progress(
        pipeline, documents, run_options, recorder, start_serving, profiles, target
    )
    if profiles.report is not None:
        for line in f"warm-up: {profiles.report}".splitlines():
            echo(line)
    verdict = judge(
        outcome,
        max_growth_mb,
        max_failures=max_failures,
        max_survivors=max_survivors,
        searched=run_options.trim,
    )
    if outcome.records:
        report.print_table(outcome.records, sys.stdout)
    if outcome.workers:
        report.print_workers(outcome.workers, sys.stdout)
    for line in (*report.failure_lines(outcome), *report.survivor_lines(outcome)):
        echo(line)
    if outcome.failed:
        for hint in _hints(pipeline.dotted_paths, pipeline, app_dir):
            echo(f"hint: {hint}")
    if outcome.ended == "interrupted":
        echo(f"interrupted in run {len(outcome.records) + 1}, which the table does not contain")
    echo(verdict.text)
    if json_file is not None:
        data = report.as_data(pipeline, len(documents), run_options, outcome, verdict)
        data["engine"] = None if selected.name is None else selected._asdict()
        if profiles.report is not None:
            data["warm_up"] = profiles.report.as_dict()
        try:
            json_file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(
                f"--json: cannot write {str(json_file)!r}: {error.strerror}"
            ) from error
    if report_file is not None and recorder is not None:
        from .html_report import write_report

        arguments = (pipeline, len(documents), run_options, outcome, verdict, recorder)
        with _write_errors(report_file):
            write_report(report_file, *arguments)
    profiles.save()
    return report.exit_status(outcome, verdict)


def _hints(paths: list[str], pipeline: Pipeline, app_dir: Path | None) -> Iterator[str]:
    if app_dir is not None:
        yield from missing_module_hints(paths, Path(pipeline.file), app_dir)


def _make_recorder(target: Path, pipeline: Pipeline, options: RunOptions) -> Recorder:
    # Errors that would prevent the page from being written are reported before the runs.
    from .html_report import Recorder, check_target, missing_packages

    missing = missing_packages()
    if missing:
        raise CommandError(
            f"--report needs the 'report' extra: pip install \"warmset[report]\""
            f" (not installed: {', '.join(missing)})"
        )
    with _write_errors(target):
        check_target(target)
    return Recorder(list(pipeline.target_paths), per_run=options.per_run)


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(
            f"--report: cannot write {str(target)!r}: {error.strerror or error}"
        ) from error


def _live_view_starter(pipeline: Pipeline, allow_changes: bool) -> Callable[[MethodRegistry], None]:
    from warmset.observe.protocol import LiveViewError
    from warmset.observe.serving import serve

    def start(registry: MethodRegistry) -> None:
        name = Path(pipeline.file).stem
        if name.isdigit():
            name = f"pipeline-{name}"  # `warmset top` takes a number for a PID
        try:
            serve(registry, name=name, allow_changes=allow_changes)
        except LiveViewError as error:
            raise CommandError(f"--serve: {error}") from error
        echo(f"served as {name!r}: warmset top {os.getpid()}", err=True)

    return start


def _with_progress(
    pipeline: Pipeline,
    documents: Sequence[Any],
    options: RunOptions,
    recorder: Recorder | None,
    start_serving: Callable[[MethodRegistry], None] | None,
    profiles: ProfileSession,
    target: Target | None,
) -> Outcome:
    from rich.console import Console

    from .pipeline_run import run_on, run_pipeline

    def run(**callbacks: Any) -> Outcome:
        if target is None:
            return run_pipeline(pipeline, documents, options, watch=watch, **callbacks)
        return run_on(target, pipeline, documents, options, **callbacks)

    def watch(registry: MethodRegistry) -> None:
        if start_serving is not None:
            start_serving(registry)
        if recorder is not None:
            recorder.watch(registry)
        profiles.start(registry, display)

    display: Progress | None = None
    callbacks: dict[str, Any] = {"on_step": profiles.note_uses}
    if recorder is not None:
        callbacks["on_run"] = recorder.on_run
    console = Console(stderr=True)
    if not console.is_terminal:
        return run(**callbacks)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    steps = sum(len(documents) if step.per_document else 1 for step in pipeline.steps)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        display = progress
        task = progress.add_task("run 1", total=steps * options.runs)

        def on_run(number: int) -> None:
            progress.update(task, description=f"run {number}")
            if recorder is not None:
                recorder.on_run(number)

        def on_step() -> None:
            profiles.note_uses()
            progress.advance(task)

        return run(on_run=on_run, on_step=on_step)


for _command in (warm_up, plan, check, top, stats, completion):
    cli.add_command(_command)
