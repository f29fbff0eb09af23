"""
Profiles on the command line: ``warmset warm-up``, and the profile options of `run` and `demo`.

`run` and `demo` record a profile with ``--record-profile`` and warm up from one with ``--warm-up``.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from warmset._text import printable
from warmset.memory.profiles import Profile, ProfileError
from warmset.settings import SettingsError

from .app_dir import app_dir_option, missing_module_hints, prepend_to_import_path
from .command_error import CommandError
from .exit_codes import BAD_INPUT, FAILED, INTERRUPTED, PASSED, exit_status_help
from .output import echo, echo_json, echo_own
from .tables import new_table, render_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from warmset import MethodRegistry
    from warmset.memory.recording import ProfileRecorder
    from warmset.memory.warm_up import WarmUpEvent, WarmUpReport

__all__ = ["ProfileSession", "profile_options", "warm_up"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_EPILOG = f"""
{exit_status_help(PASSED, BAD_INPUT, FAILED, INTERRUPTED)}

docs/warm-up.md explains the build order and the reasons for skipping a class. MB is 10^6 bytes.
"""


def profile_options(command: _Command) -> _Command:
    """Add the options ``--record-profile`` and ``--warm-up``, which `ProfileSession` takes."""
    recorded = click.option(
        "--record-profile",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Record the uses, the build costs and the sizes of each class, and write them as a"
        " profile.",
    )
    warmed = click.option(
        "--warm-up",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Build the classes of a profile before the first run.",
    )
    return recorded(warmed(command))


class ProfileSession:
    """
    Records a profile of a run and warms its registry up from another.

    Args:
        record_profile: The file to write; None to record no profile.
        warm_up: The profile to warm up from; None for no warm-up.
        per_run: Whether each run registers its classes under new names, which no profile has.

    Raises:
        UsageError: The options cannot be combined, or the directory of the new profile is missing.
        CommandError: The profile to warm up from cannot be read.
    """

    def __init__(self, record_profile: Path | None, warm_up: Path | None, *, per_run: bool) -> None:
        if per_run and (record_profile or warm_up):
            given = "--record-profile" if record_profile else "--warm-up"
            raise click.UsageError(
                f"{given} cannot be combined with --per-run, which renames the classes"
            )
        if record_profile is not None and not record_profile.absolute().parent.is_dir():
            # Reported before the runs instead of after them.
            raise click.UsageError(f"--record-profile: no directory {str(record_profile.parent)!r}")
        self.report: WarmUpReport | None = None
        self._target = record_profile
        self._profile = None if warm_up is None else read_profile(warm_up)
        self._recorder: ProfileRecorder | None = None
        self._registry: MethodRegistry | None = None

    def start(self, registry: MethodRegistry, progress: Progress | None) -> None:
        """
        Start recording, and warm the registry up.

        Args:
            registry: The registry of the run.
            progress: The display for the progress bar; None to show none.
        """
        if self._target is not None:
            self._registry = registry  # the recorder has only a weak reference to it
            self._recorder = registry.record_profile()
        if self._profile is not None:
            with progress_bar(progress) as show:
                self.report = registry.warm_up(self._profile, progress=show)

    def note_uses(self) -> None:
        """Record what was used since the last call; called after each step."""
        if self._recorder is not None:
            self._recorder.note_uses()

    def save(self) -> None:
        """
        Write the recorded profile, if one was recorded.

        Raises:
            CommandError: The profile cannot be written.
        """
        if self._target is None or self._recorder is None:
            return
        try:
            self._recorder.stop().save(self._target)
        except OSError as error:
            raise CommandError(
                f"--record-profile: cannot write {str(self._target)!r}: {error.strerror or error}"
            ) from error


def read_profile(path: Path) -> Profile:
    """
    Read a profile.

    Args:
        path: The file.

    Returns:
        The profile.

    Raises:
        CommandError: The file cannot be read or is not a profile.
    """
    try:
        return Profile.load(path)
    except ProfileError as error:
        raise CommandError(str(error)) from error


@contextmanager
def progress_bar(
    progress: Progress | None,
) -> Iterator[Callable[[WarmUpEvent], None] | None]:
    """
    Add a progress bar of a warm-up to a display while the context is active.

    Args:
        progress: The display; None to show no bar.

    Returns:
        A context with the callback for the events of the warm-up; None without a display.
    """
    if progress is None:
        yield None
        return
    task = progress.add_task("warm-up", total=None)
    building: dict[str, None] = {}

    def show(event: WarmUpEvent) -> None:
        if event.state == "begun":
            building[event.class_name] = None
        else:
            building.pop(event.class_name, None)
        names = printable(", ".join(building))
        progress.update(
            task, total=event.total, completed=event.done, description=f"warm-up {names}".strip()
        )

    try:
        yield show
    finally:
        progress.refresh()  # so that a warm-up shorter than the refresh interval is shown once
        progress.remove_task(task)


@click.command(
    "warm-up", epilog=_EPILOG, short_help="Try a profile: build its classes and report the result."
)
@click.argument("profile_json", metavar="PROFILE.json", type=click.Path(path_type=Path))
@click.option(
    "--pipeline",
    type=click.Path(path_type=Path),
    metavar="PIPELINE.toml",
    help="Use the classes, rules and settings of a pipeline file.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="WARMSET.toml",
    help="Use the classes and settings of a warmset.toml.",
)
@click.option("--demo", is_flag=True, help="Use the classes, rules and settings of `warmset demo`.")
@app_dir_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of threads that build; by default one for each processor, at most 4.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Start no build that is not expected to finish within this time.",
)
@click.option(
    "--max-mb", type=click.FloatRange(min=0), help="Skip instances beyond this total size."
)
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
    Build the classes that a profile recommends, and report which were built and which were skipped.

    Without --pipeline, --config or --demo, the classes come from the default table: the file that
    WARMSET_CONFIG names, and the entry points.
    """
    if (pipeline is not None) + (config is not None) + demo > 1:
        raise click.UsageError("only one of --pipeline, --config and --demo can be given")
    profile = read_profile(profile_json)
    prepend_to_import_path(app_dir)
    with _make_registry(pipeline, config, demo) as registry:
        report = _warm_up_with_bar(registry, profile, workers, deadline, max_mb)
        hints = list(_hints(registry, profile, report, pipeline or config, app_dir))
    if as_json:
        data = {"profile": str(profile_json), **report.as_dict()}
        echo_json(data)
    else:
        classes, recordings = len(profile.classes), profile.recordings
        echo(
            f"{profile_json.name}: {classes} class{'' if classes == 1 else 'es'},"
            f" {recordings} recording{'' if recordings == 1 else 's'}"
        )
        _print_table(report)
        for note in report.notes:
            echo(f"note: {note}")
        echo(str(report).partition("\n")[0])
    for line in hints:
        echo(f"hint: {line}", err=as_json)
    skipped_all = bool(report.skipped) and not report.built and not report.warm
    return FAILED if report.failed or skipped_all else PASSED


def _hints(
    registry: MethodRegistry,
    profile: Profile,
    report: WarmUpReport,
    file: Path | None,
    app_dir: Path,
) -> Iterator[str]:
    if report.skipped and not any(name in registry for name in profile.classes):
        origin = (
            "the file" if file is not None else "the default table (WARMSET_CONFIG, entry points)"
        )
        yield (
            f"no class of the profile is registered: {origin} has {len(registry)} classes; name the"
            " file that has them with --pipeline or --config"
        )
    if report.failed:
        paths = [slot.path for slot in registry.slots.values() if slot.path is not None]
        yield from missing_module_hints(paths, file or Path("none"), app_dir)


def _make_registry(pipeline: Path | None, config: Path | None, demo: bool) -> MethodRegistry:
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
        from .pipeline_file import load_pipeline
        from .pipeline_run import make_registry

        loaded = load_pipeline(pipeline)
        source = loaded.documents
        return make_registry(loaded, load_documents(source, loaded.file) if source else ())
    except SettingsError as error:
        raise CommandError(str(error)) from error


def _warm_up_with_bar(
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
        "deadline_seconds": deadline,
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
    with (
        Progress(*columns, console=console, transient=True) as progress,
        progress_bar(progress) as show,
    ):
        return registry.warm_up(profile, progress=show, **options)


def _print_table(report: WarmUpReport) -> None:
    table = new_table(gap=2)
    table.add_column("class", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("why", no_wrap=True)
    rows = [
        *((name, "built", f"{seconds:.3f}", "") for name, seconds in report.built),
        *((name, "warm", "-", "already warm, or built by another look-up") for name in report.warm),
        *((name, "failed", "-", reason) for name, reason in report.failed),
        *((name, "skipped", "-", reason) for name, reason in report.skipped),
    ]
    for row in rows:
        table.add_row(*(cell.replace("\n", " ") for cell in row))
    echo_own(render_table(table, sys.stdout))
