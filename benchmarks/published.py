"""The four hits by pyperf, for figures that are published: ``python -m benchmarks.published``."""

from __future__ import annotations

from .cores import CORES
from .tracked import HITS, hit


def main() -> None:
    """Run pyperf over the hits on both cores, and over the floors."""
    import pyperf

    # The workers are started in the same way, so that relative imports work in them.
    runner = pyperf.Runner(program_args=("-m", "benchmarks.published"))
    runner.metadata["description"] = "hits of warmset on both cores, and what they are made of"
    for name in HITS:
        for subject in ("floor", *CORES):
            made = hit(name, subject)
            runner.timeit(
                f"{name} {subject}", stmt=made.expression, globals=dict(made.names), duplicate=10
            )


if __name__ == "__main__":
    main()
