"""
Replay the traces with each policy; print and write the table and the plot.

It writes docs/policies.md, between its markers, and docs/policies.png, and ends with 1 if a goal is
missed that `EXPLAINED` does not list.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import machine
from .contestants import CONTESTANTS
from .replay import Replayed, lower_bound, offline, replay
from .traces import traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .traces import Trace

DOCS = Path(__file__).resolve().parents[2] / "docs"
PARTS = (0.1, 0.3)
"""Budgets, as parts of the bytes of all classes that a trace asks for."""
OURS, BASE = "warmset cost", "warmset lru"
TUNED, UNSEEN = (2, 4), (1, 3)
"""Draws of the traces to which the policy was tuned, and others."""
RIVALS = ("cachetools LRUCache", "cachetools LFUCache", "cachebox LFUCache")
"""The peers that are replayed on these; their LRU builds what ours builds."""
MOST_BEHIND, MOST_BY_GREEDY = 1.02, 1.6
EXPLAINED = {
    ("drift, alike", 0.3), ("day and night, alike", 0.3), ("shift, alike", 0.3),
    ("come and go, alike", 0.1),
}  # fmt: skip
"""Where the second goal is missed: see `benchmarks.policies.informed`."""
BEGIN, END = "<!-- begin: figures -->", "<!-- end: figures -->"


class Row(NamedTuple):
    """One trace with one budget."""

    trace: Trace
    part: float
    budget: int
    results: dict[str, Replayed]
    offline: Replayed
    least_seconds: float
    draw: int = 0

    @property
    def title(self) -> str:
        """The trace and the budget."""
        title = f"{self.trace.name} at {self.part:.0%}"
        return f"{title}, draw {self.draw}" if self.draw else title

    @property
    def best_peer(self) -> str | None:
        """The name of the best of the others that keep to the budget."""
        bounded = [c.name for c in CONTESTANTS if c.package != "warmset" and c.bound == "bytes"]
        present = [name for name in bounded if name in self.results]
        return min(present, key=lambda name: self.results[name].build_seconds, default=None)

    @property
    def behind(self) -> float:
        """Our build seconds by those of the better of lru and the best peer."""
        names = [name for name in (BASE, self.best_peer) if name in self.results]
        return max((self.ratio(OURS, str(name)) for name in names), default=0.0)

    @property
    def by_greedy(self) -> float:
        """Our build seconds by those of the greedy rule that knows the future."""
        return self.results[OURS].build_seconds / self.offline.build_seconds

    @property
    def missed(self) -> list[str]:
        """What does not hold here."""
        missed = []
        if self.behind > MOST_BEHIND:
            missed.append(f"{self.behind:.2f} x the better of lru and the best peer")
        if self.by_greedy > MOST_BY_GREEDY:
            missed.append(f"{self.by_greedy:.2f} x greedy")
        return missed

    def ratio(self, name: str, to: str) -> float:
        """Build seconds of one by those of another."""
        return self.results[name].build_seconds / self.results[to].build_seconds


def measure(names: Sequence[str]) -> list[Row]:
    """Replay all with all."""
    rows = []
    for trace in traces(names):
        for part in PARTS:
            budget = int(trace.bytes * part)
            results = {
                contestant.name: replay(trace, contestant.make(trace, budget))
                for contestant in CONTESTANTS
                if contestant.missing is None
            }
            greedy = offline(trace, budget)
            known = min(r.build_seconds for r in (greedy, *results.values()) if r.peak_bytes)
            least = lower_bound(trace, budget, known)
            rows.append(Row(trace, part, budget, results, greedy, least))
    return rows


def measure_draws(names: Sequence[str], draws: Sequence[int]) -> list[Row]:
    """Replay other draws with ours, those peers that may be the best, and the greedy rule."""
    chosen = [c for c in CONTESTANTS if c.name in (OURS, *RIVALS) and c.missing is None]
    rows = []
    for draw in draws:
        for trace in traces(names, draw):
            for part in PARTS:
                budget = int(trace.bytes * part)
                results = {c.name: replay(trace, c.make(trace, budget)) for c in chosen}
                greedy = offline(trace, budget)
                rows.append(Row(trace, part, budget, results, greedy, 0.0, draw))
    return rows


def summary(title: str, rows: Sequence[Row]) -> str:
    """How the goals hold in some rows."""
    behind = max(rows, key=lambda row: row.behind)
    far = sorted(rows, key=lambda row: row.by_greedy)
    beyond = sum(row.by_greedy > MOST_BY_GREEDY for row in rows)
    return (
        f"{title}: at most {behind.behind:.2f} x the better of lru and the best peer "
        f"({behind.title}); {far[0].by_greedy:.2f} to {far[-1].by_greedy:.2f} x greedy, in the "
        f"middle {far[len(far) // 2].by_greedy:.2f} x, above {MOST_BY_GREEDY} x in {beyond} of "
        f"{len(rows)}."
    )


def goals(rows: Sequence[Row]) -> list[str]:
    """The goals and whether each row meets them; rows that miss one come first."""
    missed = [f"{row.title}: {'; '.join(row.missed)}" for row in rows if row.missed]
    mixed = [row for row in rows if row.trace.mixed and row.best_peer is not None]
    saved = {row.title: 1.0 - row.ratio(OURS, str(row.best_peer)) for row in mixed}
    met = [name for name, share in saved.items() if share >= 0.2]
    not_met = [f"{name} ({share:.0%})" for name, share in saved.items() if share < 0.2]
    least = sorted(row.results[OURS].build_seconds / row.least_seconds for row in rows)
    return [
        "Goals: at most 2 % behind the better of lru and the best peer, and at most "
        f"{MOST_BY_GREEDY} x the greedy rule that knows the future. "
        + (f"Missed in {len(missed)} of {len(rows)}: {', '.join(missed)}." if missed else "Met."),
        summary("All published traces", rows),
        "At least 20 % fewer build seconds than the best peer that keeps to the bytes, where "
        f"costs and sizes differ: in {len(met)} of {len(saved)}."
        + (f" Not in: {', '.join(not_met)}." if not_met else ""),
        f"From the bound below which nothing comes: {least[0]:.2f} to {least[-1]:.2f} x, in the "
        f"middle {least[len(least) // 2]:.2f} x.",
    ]


def table(rows: Sequence[Row]) -> str:
    """The figures, as Markdown."""
    names = [c.name for c in CONTESTANTS]
    lines = [
        "Build seconds of each, and in brackets its most bytes by the budget:",
        "",
        "| trace | budget | cost by the better of lru and peers | cost by greedy | goals | "
        f"{' | '.join(names)} | greedy, future known | bound |",
        f"|---|---|{'---|' * (len(names) + 5)}",
    ]
    for row in rows:
        cells = []
        for contestant in CONTESTANTS:
            result = row.results.get(contestant.name)
            if result is None:
                cells.append(f"{contestant.missing}")
                continue
            peak = f"{result.peak_bytes / row.budget:.2f}" if result.peak_bytes else "by count"
            text = f"{result.build_seconds:,.0f} ({peak})"
            cells.append(f"**{text}**" if contestant.name == OURS else text)
        lines.append(
            f"| {row.trace.name} | {row.part:.0%} | {row.behind:.3f} | {row.by_greedy:.2f} | "
            f"{'missed' if row.missed else 'met'} | {' | '.join(cells)} | "
            f"{row.offline.build_seconds:,.0f} | {row.least_seconds:,.0f} |"
        )
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars of build seconds, by those of lru."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [c.name for c in CONTESTANTS if c.missing is None and c.name != BASE]
    colours = ["#c2410c", "#f2a977", "#475569", "#64748b", "#94a3b8", "#b6c2d1", "#cbd5e1"]
    figure, axes = pyplot.subplots(1, len(PARTS), figsize=(13, 8), sharey=True)
    for axis, part in zip(axes, PARTS, strict=True):
        shown = [row for row in rows if row.part == part]
        height = 0.8 / len(names)
        for at, name in enumerate(names):
            axis.barh(
                [place - 0.4 + (at + 0.5) * height for place in range(len(shown))],
                [row.ratio(name, BASE) for row in shown],
                height,
                color=colours[at % len(colours)],
                label=name,
            )
        for place, row in enumerate(shown):
            known = row.offline.build_seconds / row.results[BASE].build_seconds
            axis.plot([known, known], [place - 0.42, place + 0.42], color="black", linewidth=1.5)
        axis.axvline(1.0, color="#0f172a", linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(shown)), [row.trace.name for row in shown])
        axis.set_xlabel(f"build seconds by those of lru, a budget of {part:.0%} of all bytes")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()  # and the other one with it
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="upper right",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle("Rebuild seconds by policy; the black line knows the future", x=0.02, ha="left")
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__)
    parser.add_argument("traces", nargs="*", help="only these traces; writes nothing")
    chosen = parser.parse_args(arguments)
    rows = measure(chosen.traces)
    said = goals(rows)
    unexpected = [row for row in rows if row.missed and (row.trace.name, row.part) not in EXPLAINED]
    if not chosen.traces:
        for title, draws in (("Even draws, tuned to", TUNED), ("Odd draws, unseen", UNSEEN)):
            said.append(summary(title, measure_draws((), draws)))
    text = table(rows)
    print(*said, text, sep="\n")
    if not chosen.traces:
        facts = "; ".join(f"{label}: {fact}" for label, fact in machine.describe().items())
        page = DOCS / "policies.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        body = "\n".join(f"- {line}" for line in said)
        page.write_text(
            f"{before}{BEGIN}\n\n{body}\n\n{text}\n\n{facts}\n\n{END}{after}", encoding="utf-8"
        )
        draw(rows, DOCS / "policies.png")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
