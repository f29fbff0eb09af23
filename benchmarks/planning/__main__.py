"""
Compare what a running registry predicts with replays, and autosize with the best fixed bound.

It writes docs/planning.md, between its markers, and docs/planning.svg. The rows that were measured
are kept in a file, so that an interrupted run continues where it ended.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmset.cli.line_chart import Line, line_chart
from warmset.memory.policies import CostPolicy
from warmset.memory.policy_cache import PolicyCache
from warmset.planning.simulation import LruCache, simulate

from .. import machine
from ..policies.traces import TRACES, replayable, traces
from .drive import drive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from warmset.planning.simulation import Simulated

    from ..policies.traces import Trace

    Row = dict[str, Any]

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- begin: figures -->", "<!-- end: figures -->"
MULTIPLES = (1.25, 1.5, 2.0)
BOUNDS = (("max_cache_bytes", 0.1), ("max_cache_bytes", 0.3), ("max_cache_size", 0.3))
"""Setting, and its part of the bytes or the number of all classes that a trace asks for."""
GOALS = {"lru": 0.05, "cost": 0.15}
AUTOSIZE_GOAL = 0.1
AUTOSIZE_TRACES = ("drift", "day and night")
UNBOUNDED = 10_000
CHART_TRACE, CHART_BOUND = "drift", ("max_cache_bytes", 0.1)


def replay(trace: Trace, policy: str, *, size: float = UNBOUNDED, budget: float = 0) -> Simulated:
    """Replay a trace within a bound."""
    known, budget = replayable(trace), budget or float("inf")
    if policy == "lru":
        return simulate(known, LruCache(known.sizes, max_size=size, max_bytes=budget))
    return simulate(known, PolicyCache(known, CostPolicy(), max_size=size, max_bytes=budget))


def bound_of(trace: Trace, setting: str, part: float) -> int:
    """Return a bound that is a part of what the trace asks for."""
    classes = len({number for _, number in trace.requests})
    return max(1, int(part * (trace.bytes if setting == "max_cache_bytes" else classes)))


def validate(trace: Trace, policy: str, setting: str, part: float) -> Row:
    """Compare the predictions of a registry at one bound with replays at larger ones."""
    bound = bound_of(trace, setting, part)
    by_bytes = setting == "max_cache_bytes"
    bounds = {"max_cache_size": UNBOUNDED, "max_cache_bytes": 0, setting: bound}
    driven = drive(trace, multiples=MULTIPLES, policy=policy, **bounds)
    points = []
    for multiple in MULTIPLES:
        larger = max(bound + 1, int(bound * multiple))
        limits = {"budget": larger} if by_bytes else {"size": larger}
        real = replay(trace, policy, **limits)
        builds, seconds = driven.predicted[setting, multiple]
        points.append([builds, real.builds, seconds, real.build_seconds])
    return {
        "kind": "prediction", "trace": trace.name, "policy": policy, "setting": setting,
        "part": part, "builds": driven.builds, "points": points,
    }  # fmt: skip


def size_itself(trace: Trace, part: float) -> Row:
    """Compare autosize with the best fixed bound within the same budget of bytes."""
    budget = bound_of(trace, "max_cache_bytes", part)
    driven = drive(trace, max_cache_size="auto", max_cache_bytes=budget)
    classes = len(trace.sizes)
    fixed = [replay(trace, "lru", size=size, budget=budget) for size in range(1, classes + 1)]
    # Of bounds with equal build seconds, the one that needs the least memory.
    best = min(fixed, key=lambda each: (round(each.build_seconds, 6), each.mean_bytes))
    return {
        "kind": "autosize", "trace": trace.name, "part": part,
        "seconds": driven.build_seconds, "bytes": driven.mean_bytes,
        "best_seconds": best.build_seconds, "best_bytes": best.mean_bytes,
        "best_size": fixed.index(best) + 1,
    }  # fmt: skip


def wanted(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Name all rows: kind, trace, and what else distinguishes them."""
    everything = [*TRACES, "demo"]
    for name in names or everything:
        for setting, part in BOUNDS:
            yield "prediction", name, "lru", setting, str(part)
    for name in names or [each for each in everything if each.startswith(AUTOSIZE_TRACES)]:
        for part in ("0.1", "0.3"):
            yield "autosize", name, part
    for setting, part in BOUNDS:
        for name in names or everything:
            yield "prediction", name, "cost", setting, str(part)


def key_of(row: Row) -> tuple[str, ...]:
    """Return the name of a row, as `wanted` does."""
    if row["kind"] == "autosize":
        return "autosize", row["trace"], str(row["part"])
    return "prediction", row["trace"], row["policy"], row["setting"], str(row["part"])


def measure(key: tuple[str, ...]) -> Row:
    """Measure one row."""
    (trace,) = traces([key[1]])
    if key[0] == "autosize":
        return size_itself(trace, float(key[2]))
    return validate(trace, key[2], key[3], float(key[4]))


# -- the page ------------------------------------------------------------------------------------


def errors(row: Row) -> list[float]:
    """Return the relative errors of the predicted builds."""
    return [builds / real - 1.0 for builds, real, _, _ in row["points"]]


def goals(rows: Sequence[Row]) -> list[str]:
    """Print each goal with the result."""
    said = []
    for policy, goal in GOALS.items():
        judged = [row for row in rows if row["kind"] == "prediction" and row["policy"] == policy]
        if not judged:
            continue
        found = [(abs(error), row) for row in judged for error in errors(row)]
        missed = sorted({label(row) for error, row in found if error > goal})
        exact = sum(error < 0.0005 for error, _ in found)
        rest = sorted(error for error, row in found if label(row) not in missed)
        text = (
            f"{policy}: {len(found)} predictions of builds, {exact} of them exact; the goal of"
            f" {goal:.0%} is met by {sum(error <= goal for error, _ in found)}."
        )
        if missed:
            text += f" Not by: {'; '.join(missed)}. Of the other rows, the worst is off by"
            text += f" {rest[-1]:.1%}." if rest else " -."
        said.append(text)
    sized = [row for row in rows if row["kind"] == "autosize"]
    if sized:
        worst = max(row["seconds"] / row["best_seconds"] - 1.0 for row in sized)
        memory = [row["bytes"] / row["best_bytes"] - 1.0 for row in sized]
        said.append(
            f"autosize: at most {worst:+.1%} build seconds, where the goal is at most"
            f" {AUTOSIZE_GOAL:+.0%}, and {min(memory):+.1%} to {max(memory):+.1%} bytes on average."
        )
    return said


def label(row: Row) -> str:
    """Name a prediction in words."""
    return f"{row['trace']}, {row['part']:.0%} of the {unit(row)}"


def unit(row: Row) -> str:
    """Return what a bound counts."""
    return "bytes" if row["setting"] == "max_cache_bytes" else "classes"


def tables(rows: Sequence[Row]) -> str:
    """Format the figures as Markdown."""
    order = list(TRACES)
    order.append("demo")
    lines = []
    for policy in GOALS:
        lines += [
            f"Builds with `{policy}`: within the bound, and predicted from there / replayed at"
            " 1.25, 1.5 and 2 times the bound:",
            "",
            "| trace | bound | builds | 1.25 x | error | 1.5 x | error | 2 x | error |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        chosen = [r for r in rows if r["kind"] == "prediction" and r["policy"] == policy]
        for row in sorted(chosen, key=lambda r: (order.index(r["trace"]), r["setting"], r["part"])):
            cells = " | ".join(
                f"{builds:,} / {real:,} | {builds / real - 1.0:+.1%}"
                for builds, real, _, _ in row["points"]
            )
            lines.append(
                f"| {row['trace']} | {row['part']:.0%} of the {unit(row)} | {row['builds']:,} |"
                f" {cells} |"
            )
        lines.append("")
    lines += [
        '`max_cache_size="auto"` against the best fixed bound, both within the same budget of'
        " bytes:",
        "",
        "| trace | budget | best fixed bound | its build s | autosize, build s | | its mean MB |"
        " autosize, mean MB | |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(
        (r for r in rows if r["kind"] == "autosize"),
        key=lambda r: (order.index(r["trace"]), r["part"]),
    ):
        lines.append(
            f"| {row['trace']} | {row['part']:.0%} of the bytes | {row['best_size']} |"
            f" {row['best_seconds']:,.0f} | {row['seconds']:,.0f} |"
            f" {row['seconds'] / row['best_seconds'] - 1.0:+.1%} |"
            f" {row['best_bytes'] / 1e6:,.0f} | {row['bytes'] / 1e6:,.0f} |"
            f" {row['bytes'] / row['best_bytes'] - 1.0:+.1%} |"
        )
    return "\n".join(lines)


def draw(rows: Sequence[Row]) -> str:
    """Draw the builds of one trace: replayed, and predicted from the smallest bound."""
    (trace,) = traces([CHART_TRACE])
    setting, part = CHART_BOUND
    bound = bound_of(trace, setting, part)
    lines = []
    for policy in GOALS:
        real = [
            (multiple, float(replay(trace, policy, budget=bound * multiple).builds))
            for multiple in (1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875, 2.0)
        ]
        lines.append(Line(f"{policy}: replayed", real))
        found = [r for r in rows if key_of(r)[1:] == (trace.name, policy, setting, str(part))]
        points = [
            (multiple, float(point[0]))
            for row in found
            for multiple, point in zip(MULTIPLES, row["points"], strict=True)
        ]
        if points:
            lines.append(Line(f"{policy}: predicted at 1 x", points, connected=False))
    return line_chart(
        lines,
        title="Builds by budget, replayed and predicted",
        x_label=f"budget, as a multiple of {part:.0%} of all bytes; trace {trace.name}",
        y_label="builds",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("traces", nargs="*", help="only these traces; writes no page")
    parser.add_argument("--rows", type=Path, default=Path("planning-rows.jsonl"))
    parser.add_argument("--part", default="0/1", help="measure only each Nth row: 0/2 or 1/2")
    parser.add_argument("--only-write", action="store_true", help="measure nothing")
    chosen = parser.parse_args(arguments)
    kept = chosen.rows.read_text(encoding="utf-8").splitlines() if chosen.rows.exists() else []
    rows = {key_of(row): row for row in map(json.loads, kept)}
    turn, of = map(int, chosen.part.split("/"))
    keys = list(wanted(chosen.traces))
    for key in () if chosen.only_write else keys[turn::of]:
        if key not in rows:
            rows[key] = measure(key)
            with chosen.rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[key]) + "\n")
    found = [rows[key] for key in keys if key in rows]
    said = goals(found)
    text = tables(found)
    print(text, *said, sep="\n")
    if not chosen.traces and of == 1:
        facts = "; ".join(f"{name}: {fact}" for name, fact in machine.describe().items())
        page = DOCS / "planning.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        body = "\n".join(f"- {line}" for line in said)
        page.write_text(
            f"{before}{BEGIN}\n\n{body}\n\n{text}\n\n{facts}\n\n{END}{after}", encoding="utf-8"
        )
        (DOCS / "planning.svg").write_text(draw(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
