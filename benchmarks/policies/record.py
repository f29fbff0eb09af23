"""
Record the calls of the demo pipeline: ``WARMSET_PURE=1 python -m benchmarks.policies.record``.

It needs the extra ``demo``, and writes demo.json. The pure core is used because its look-up can be
watched; what is asked for and when is the same on both.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warmset
from warmset.cli.demo import PIPELINE_FILE, prepare_process
from warmset.cli.documents import load_documents
from warmset.cli.pipeline_file import load_pipeline
from warmset.cli.pipeline_run import run_pipeline
from warmset.cli.run_options import RunOptions

if TYPE_CHECKING:
    from warmset.events import BuildEvent


def main() -> int:
    """Run the demo once and write what was asked for."""
    if warmset.implementation != "pure":
        print("set WARMSET_PURE=1: the pure core's look-up can be watched", file=sys.stderr)
        return 2
    from warmset._core_py import RegistryCore

    prepare_process()
    calls: list[tuple[float, str]] = []
    builds: dict[str, BuildEvent] = {}
    began = time.perf_counter()
    get_instance, enter = RegistryCore.get_instance, RegistryCore.enter

    def note(class_name: str) -> None:
        calls.append((round(time.perf_counter() - began, 4), class_name))

    def watched_get_instance(self: Any, class_name: str) -> Any:
        note(class_name)
        return get_instance(self, class_name)

    def watched_enter(self: Any, class_name: str, hold: Any) -> Any:
        note(class_name)
        return enter(self, class_name, hold)

    RegistryCore.get_instance = watched_get_instance  # type: ignore[method-assign]
    RegistryCore.enter = watched_enter  # type: ignore[method-assign]
    pipeline = load_pipeline(PIPELINE_FILE)
    settings = pipeline.settings.replace(sizer="measured", max_cache_size=1000)
    pipeline = replace(pipeline, settings=settings)
    assert pipeline.documents is not None
    documents = load_documents(pipeline.documents, pipeline.file)
    run_pipeline(
        pipeline,
        documents,
        RunOptions(runs=1),
        watch=lambda registry: registry.add_build_listener(
            lambda event: builds.__setitem__(event.class_name, event)
        ),
    )
    # What follows upon itself is one: no policy can tell the difference.
    kept = [call for at, call in enumerate(calls) if not at or call[1] != calls[at - 1][1]]
    recorded = {
        "classes": {
            name: {"build_seconds": round(event.seconds, 5), "bytes": max(1, event.bytes or 0)}
            for name, event in builds.items()
        },
        "calls": [call for call in kept if call[1] in builds],
    }
    path = Path(__file__).with_name("demo.json")
    path.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(recorded['calls'])} calls of {len(builds)} classes written to {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
