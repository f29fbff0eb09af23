"""The engine options of `run` and `demo`, and the start of the workers that they select."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from warmset.engines.errors import EngineError
from warmset.engines.settings import WorkerSettings

from .command_error import CommandError
from .targets import EngineTarget, PreparePipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .documents import Document
    from .pipeline_file import Pipeline
    from .run_options import RunOptions

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_DEFAULT_WORKERS = 2
_LOCAL_ONLY = {
    "serve": "--serve",
    "report_file": "--report",
    "record_profile": "--record-profile",
    "warm_up": "--warm-up",
}


class Engine(NamedTuple):
    """
    The engine that the command line selects.

    Args:
        name: "dask" or "ray"; None for this process.
        address: The address of a running cluster; None to start one.
        workers: The number of worker processes; None for the default.
    """

    name: str | None
    address: str | None
    workers: int | None

    @property
    def text(self) -> str | None:
        """The engine as the headline of the report describes it; None for this process."""
        if self.name is None:
            return None
        if self.address is not None and self.workers is None:
            return f"engine {self.name} at {self.address}"
        location = "" if self.address is None else f" at {self.address}"
        return f"engine {self.name}{location} with {self.workers or _DEFAULT_WORKERS} workers"


def engine_options(command: _Command) -> _Command:
    """Add the options that select an engine."""
    options = [
        click.option(
            "--engine",
            type=click.Choice(["dask", "ray"]),
            help="Run the steps on worker processes, each with its own registry. Steps whose"
            " classes are warm together run in one task for a batch of documents. Needs the extra"
            " of the same name.",
        ),
        click.option(
            "--address",
            metavar="ADDRESS",
            help="With --engine: the address of a running cluster, for example tcp://host:8786 for"
            " Dask, host:6379 or auto for Ray; by default a cluster is started on this machine.",
        ),
        click.option(
            "--engine-workers",
            type=click.IntRange(min=1),
            help="With --engine: the number of worker processes to start; by default"
            f" {_DEFAULT_WORKERS}.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_engine(
    name: str | None, address: str | None, workers: int | None, others: dict[str, Any]
) -> Engine:
    """
    Check the engine options before a cluster is started.

    Args:
        name: The option ``--engine``.
        address: The option ``--address``.
        workers: The option ``--engine-workers``.
        others: Other options of the command, by parameter name.

    Returns:
        The selected engine.

    Raises:
        UsageError: The options cannot be combined.
    """
    if name is None:
        for option, value in (("--address", address), ("--engine-workers", workers)):
            if value is not None:
                raise click.UsageError(f"{option} needs --engine")
        return Engine(None, None, None)
    for key, option in _LOCAL_ONLY.items():
        if others.get(key):
            raise click.UsageError(
                f"{option} cannot be combined with --engine: it needs a registry in this process"
            )
    if name == "dask" and address is not None and workers is not None:
        raise click.UsageError(
            "--engine-workers cannot be combined with --address: a Dask cluster has its own workers"
        )
    return Engine(name, address, workers)


def default_workers(engine: Engine) -> int:
    """Return the default of ``--workers``: how many threads, or with an engine tasks, there are."""
    return 1 if engine.name is None else 2 * (engine.workers or _DEFAULT_WORKERS)


def start_workers(
    engine: Engine, pipeline: Pipeline, documents: Sequence[Document], options: RunOptions
) -> EngineTarget:
    """
    Start an engine whose workers have registries for a pipeline.

    Args:
        engine: The selected engine.
        pipeline: The pipeline.
        documents: The documents, for its rules.
        options: The options of the runs.

    Returns:
        The target of the runs; the caller closes it.

    Raises:
        CommandError: The engine is not installed, or the cluster cannot be reached or used.
    """
    prepare = PreparePipeline(
        pipeline,
        documents,
        runs=options.runs if options.per_run else 0,
        trim=options.trim,
        import_path=[directory for directory in sys.path if directory],
        own_process=engine.address is None,
    )
    settings = WorkerSettings({}, settings=pipeline.settings, prepare=prepare)
    try:
        start = import_module(f"warmset.engines.{engine.name}").start
        # Messages about the cluster's own workers are not part of the report. The import of Dask
        # sets these levels, so they are changed after it.
        for name in ("distributed", "distributed.scheduler", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.ERROR)
        cluster = start(
            settings, address=engine.address, workers=engine.workers or _DEFAULT_WORKERS
        )
    except EngineError as error:
        raise CommandError(f"--engine {engine.name}: {error}") from error
    return EngineTarget(cluster, pipeline, options)
