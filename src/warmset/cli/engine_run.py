"""What `run` and `demo` do with an engine: its options, its workers, its part of the report."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from warmset.engines.errors import EngineError
from warmset.engines.settings import WorkerSettings

from .places import OnWorkers, PreparePipeline
from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .documents import Document
    from .pipeline import RunOptions
    from .pipeline_file import Pipeline

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_WORKERS = 2
_NOT_HERE = {
    "serve": "--serve",
    "report_file": "--report",
    "record_profile": "--record-profile",
    "warm_up": "--warm-up",
}


class Engine(NamedTuple):
    """
    The engine that was asked for.

    Args:
        name: "dask" or "ray"; None for this process.
        address: Of a running cluster.
        workers: How many; None where that is not said.
    """

    name: str | None
    address: str | None
    workers: int | None

    @property
    def text(self) -> str | None:
        """What the headline says of it."""
        if self.name is None:
            return None
        if self.address is not None and self.workers is None:
            return f"engine {self.name} at {self.address}"
        where = "" if self.address is None else f" at {self.address}"
        return f"engine {self.name}{where} with {self.workers or _WORKERS} workers"


def engine_options(command: _Command) -> _Command:
    """Add the options of engines."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["dask", "ray"]),
            help="Run the steps on worker processes, each with a registry, and each class where it"
            " is warm; needs the extra of that name.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="With --engine: a cluster that runs already, as tcp://host:8786 for Dask, and"
            " host:6379 or auto for Ray; without it one is started here.",
        ),
        click.option(
            "--engine-workers",
            type=click.IntRange(min=1),
            help=f"With --engine: how many worker processes to start; {_WORKERS} by default.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def checked_engine(
    name: str | None, address: str | None, workers: int | None, others: dict[str, Any]
) -> Engine:
    """
    Check what was asked for, before anything is started.

    Args:
        name: Of the engine.
        address: Of a cluster.
        workers: How many.
        others: Options of the command.

    Returns:
        The engine.

    Raises:
        UsageError: Options do not go together.
    """
    if name is None:
        for option, value in (("--address", address), ("--engine-workers", workers)):
            if value is not None:
                raise click.UsageError(f"{option} goes with --engine")
        return Engine(None, None, None)
    for key, option in _NOT_HERE.items():
        if others.get(key):
            raise click.UsageError(
                f"{option} does not go with --engine: it looks at a registry of this process"
            )
    if name == "dask" and address is not None and workers is not None:
        raise click.UsageError(
            "--engine-workers does not go with --address: a Dask cluster has its own workers"
        )
    return Engine(name, address, workers)


def documents_at_once(engine: Engine) -> int:
    """Give how many documents are under way at once, where that is not said."""
    return 1 if engine.name is None else 2 * (engine.workers or _WORKERS)


def start_workers(
    engine: Engine, pipeline: Pipeline, documents: Sequence[Document], options: RunOptions
) -> OnWorkers:
    """
    Start an engine, with registries for a pipeline.

    Args:
        engine: The engine.
        pipeline: The pipeline.
        documents: What its rules are given.
        options: How it is run.

    Returns:
        The workers; whoever asked for them closes them.

    Raises:
        Refused: The engine is not installed, or cannot be reached or used.
    """
    prepare = PreparePipeline(
        pipeline,
        documents,
        runs=options.runs if options.per_run else 0,
        trim=options.trim,
        search=[place for place in sys.path if place],
        own=engine.address is None,
    )
    settings = WorkerSettings({}, settings=pipeline.settings, prepare=prepare)
    try:
        start = import_module(f"warmset.engines.{engine.name}").start
        # What it tells of its own workers is not what was asked for. After its import, which sets
        # levels itself.
        for name in ("distributed", "distributed.scheduler", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.ERROR)
        cluster = start(settings, address=engine.address, workers=engine.workers or _WORKERS)
    except EngineError as error:
        raise Refused(f"--engine {engine.name}: {error}") from error
    return OnWorkers(cluster, pipeline, options)
