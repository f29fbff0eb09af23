"""``warmset warm-up``; and what `run` and `demo` do with profiles: record one, warm up by one."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from warmset.memory.profiles import Profile, ProfileError
from warmset.settings import SettingsError

from .app_path import app_dir_option, put_first
from .exit_codes import BAD_FILE, FAILED, INTERRUPTED, PASSED, exit_status_help
from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from warmset import MethodRegistry
    from warmset.memory.recording import ProfileRecorder
    from warmset.memory.warming import WarmUpEvent, WarmUpReport

__all__ = ["Warming", "profile_options", "warm_up"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_EPILOG = f"""
{exit_status_help(PASSED, BAD_FILE, FAILED, INTERRUPTED)}

What is built first, what is left out, and why: docs/warm-up.md. MB is 10^6 bytes.
"""


def profile_options(command: _Command) -> _Command:
    """Add the options that `Warming` takes."""
    recorded = click.option(
        "--record-profile",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Record what classes are used for and what they cost, and write it as a profile.",
    )
    warmed = click.option(
        "--warm-up",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Build ahead of the first run what is in a profile.",
    )
    return recorded(warmed(command))


class Warming:
    """
    What `run` and `demo` do with profiles.

    Args:
        record_profile: Where to write one; None for nowhere.
        warm_up: Which one to warm up by; None for none.
        per_run: Whether each run registers its classes anew, under names that no profile knows.

    Raises:
        UsageError: The options do not go together, or a profile could not be written.
        Refused: There is no such profile.
    """

    def __init__(self, record_profile: Path | None, warm_up: Path | None, *, per_run: bool) -> None:
        if per_run and (record_profile or warm_up):
            given = "--record-profile" if record_profile else "--warm-up"
            raise click.UsageError(f"{given} does not go with --per-run, which renames the classes")
        if record_profile is not None and not record_profile.absolute().parent.is_dir():
            # Known before the runs, not after them.
            raise click.UsageError(f"--record-profile: no directory {str(record_profile.parent)!r}")
        self.report: WarmUpReport | None = None
        self._target = record_profile
        self._profile = None if warm_up is None else read_profile(warm_up)
        self._recorder: ProfileRecorder | None = None
        self._registry: MethodRegistry | None = None

    def watch(self, registry: MethodRegistry, progress: Progress | None) -> None:
        """Record what a registry does from now on, and warm it up."""
        if self._target is not None:
            self._registry = registry  # the recorder does not keep it
            self._recorder = registry.record_profile()
        if self._profile is not None:
            with bar(progress) as told:
                self.report = registry.warm_up(self._profile, progress=told)

    def save(self) -> None:
        """
        Write what was recorded, if anything was.

        Raises:
            Refused: The profile cannot be written.
        """
        if self._target is None or self._recorder is None:
            return
        try:
            self._recorder.stop().save(self._target)
        except OSError as error:
            raise Refused(
                f"--record-profile: cannot write {str(self._target)!r}: {error.strerror or error}"
            ) from error


def read_profile(path: Path) -> Profile:
    """
    Read a profile for a command.

    Args:
        path: The file.

    Returns:
        The profile.

    Raises:
        Refused: It is none.
    """
    try:
        return Profile.load(path)
    except ProfileError as error:
        raise Refused(str(error)) from error


@contextmanager
def bar(progress: Progress | None) -> Iterator[Callable[[WarmUpEvent], None] | None]:
    """Give what shows a warm-up as a bar of a display; None where there is no display."""
    if progress is None:
        yield None
        return
    task = progress.add_task("warm-up", total=None)
    under_way: dict[str, None] = {}

    def told(event: WarmUpEvent) -> None:
        if event.state == "begun":
            under_way[event.class_name] = None
        else:
            under_way.pop(event.class_name, None)
        names = ", ".join(under_way)
        progress.update(
            task, total=event.total, completed=event.done, description=f"warm-up {names}".strip()
        )

    try:
        yield told
    finally:
        progress.refresh()  # also what is faster than its pace is seen once
        progress.remove_task(task)


@click.command(
    "warm-up", epilog=_EPILOG, short_help="Try a profile: build what it would build, and tell."
)
@click.argument("profile_json", metavar="PROFILE.json", type=click.Path(path_type=Path))
@click.option(
    "--pipeline",
    type=click.Path(path_type=Path),
    metavar="PIPELINE.toml",
    help="Classes, rules and settings of a pipeline file.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="WARMSET.toml",
    help="Classes and settings of a warmset.toml.",
)
@click.option("--demo", is_flag=True, help="Those of `warmset demo`.")
@app_dir_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Threads that build; by default one for each processor, at most 4.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Begin nothing after so many seconds, nor what would not end in them.",
)
@click.option("--max-mb", type=click.FloatRange(min=0), help="Build no more than so many MB.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def warm_up(
    profile_json: Path,
    pipeline: Path | None,
    config: Path | None,
    demo: bool,
    app_dir: Path,
    workers: int | None,
    deadline: float | None,
    max_mb: float | None,
    as_json: bool,
) -> int:
    """
    Build what a profile says is worth it, and tell what was built and what was left out.

    Without --pipeline, --config or --demo the classes are those of the default table: the file
    that WARMSET_CONFIG names, and the entry points.
    """
    if (pipeline is not None) + (config is not None) + demo > 1:
        raise click.UsageError("only one of --pipeline, --config and --demo can be given")
    profile = read_profile(profile_json)
    put_first(app_dir)
    with _registry(pipeline, config, demo) as registry:
        report = _shown(registry, profile, workers, deadline, max_mb)
    if as_json:
        data = {"profile": str(profile_json), **report.as_dict()}
        click.echo(json.dumps(data, indent=2))
    else:
        known, times = len(profile.classes), profile.recordings
        click.echo(
            f"{profile_json.name}: {known} class{'' if known == 1 else 'es'},"
            f" {times} recording{'' if times == 1 else 's'}"
        )
        _print_table(report)
        for note in report.notes:
            click.echo(f"note: {note}")
        click.echo(str(report).partition("\n")[0])
    return FAILED if report.failed else PASSED


def _registry(pipeline: Path | None, config: Path | None, demo: bool) -> MethodRegistry:
    from warmset import MethodRegistry

    try:
        if config is not None:
            return MethodRegistry.from_file(config)
        if demo:
            from .demo import PIPELINE_FILE, check_packages, prepare_process

            check_packages()
            prepare_process()
            pipeline = PIPELINE_FILE
        if pipeline is None:
            return MethodRegistry()
        from .documents import load_documents
        from .pipeline import make_registry
        from .pipeline_file import load_pipeline

        loaded = load_pipeline(pipeline)
        source = loaded.documents
        return make_registry(loaded, load_documents(source, loaded.file) if source else ())
    except SettingsError as error:
        raise Refused(str(error)) from error


def _shown(
    registry: MethodRegistry,
    profile: Profile,
    workers: int | None,
    deadline: float | None,
    max_mb: float | None,
) -> WarmUpReport:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    options: dict[str, Any] = {
        "workers": workers,
        "deadline": deadline,
        "max_bytes": None if max_mb is None else round(max_mb * 1_000_000),
    }
    console = Console(stderr=True)
    if not console.is_terminal:
        return registry.warm_up(profile, **options)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress, bar(progress) as told:
        return registry.warm_up(profile, progress=told, **options)


def _print_table(report: WarmUpReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("class", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("why", no_wrap=True)
    rows = [
        *((name, "built", f"{seconds:.3f}", "") for name, seconds in report.built),
        *((name, "warm", "-", "others built it, or needed it before") for name in report.warm),
        *((name, "failed", "-", reason) for name, reason in report.failed),
        *((name, "skipped", "-", reason) for name, reason in report.skipped),
    ]
    for row in rows:
        table.add_row(*(cell.replace("\n", " ") for cell in row))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    # Wider than the terminal is better than cut off: this is also read in a log.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    # Not by rich itself, which would end the process if the reader has gone.
    with console.capture() as captured:
        console.print(table)
    click.echo(captured.get(), nl=False)
