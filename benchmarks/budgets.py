"""The budgets of the design, and whether the figures meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .results import COMPILED, PURE
from .rows.calls import PARTIAL
from .subjects import PIPELINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .results import Row

TWINS = ("hit-one", "get-method", "handle", "execute-2")
"""The hits on which the compiled core must be so many times as fast as the pure one."""


class Verdict(NamedTuple):
    """One budget: what was measured, and whether that meets it; None: nothing to judge by."""

    work: str
    budget: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        """The verdict in one word."""
        return {True: "met", False: "missed", None: "not judged"}[self.met]


class _Ratio(NamedTuple):
    work: str
    row: str
    most: float
    to: str
    subject: str = COMPILED

    def judge(self, rows: Mapping[str, Row]) -> Verdict:
        row = rows.get(self.row)
        ratio = None if row is None else row.ratio(self.subject, self.to)
        measured = "not measured" if ratio is None else f"{ratio:.2f} x"
        met = None if ratio is None else ratio <= self.most
        to = self.to if self.to == FORMER else f"`{self.to}`"
        return Verdict(self.work, f"<= {self.most:g} x {to}", measured, met)


FORMER = PIPELINE.name
HITS = (
    _Ratio("`get_instance` hit", "hit-one", 1.3, "dict.get"),
    _Ratio("rotating over 64 names", "hit-64", 1.4, "dict.get"),
    _Ratio("rotating over 10^3 names", "hit-1000", 1.4, "dict.get"),
    _Ratio("names equal, not the same object", "hit-equal", 2.0, "dict.get"),
    _Ratio("`get_method` hit", "get-method", 1.4, "getattr"),
    _Ratio("`has_method` of a warm class", "has-method", 5.0, "hasattr"),
    _Ratio("handle call", "handle", 1.35, PARTIAL),
    _Ratio("`execute`, 2 arguments", "execute-2", 1.7, PARTIAL),
)
CHANGES = (
    _Ratio("miss with a trivial constructor", "miss", 1.0, FORMER),
    _Ratio("build and evict at 10^3", "evict-1000", 1.0, "cachetools TTLCache"),
    _Ratio("`evict_expired`, each", "expired", 1.0, FORMER),
    _Ratio("`get_stats` of 1,000", "stats", 1.0, FORMER),
)
TWIN = (
    _Ratio("pure core: `get_instance` hit", "hit-one", 0.5, FORMER, PURE),
    _Ratio("pure core: `get_method` hit", "get-method", 0.6, FORMER, PURE),
    _Ratio("pure core: miss", "miss", 2.0, FORMER, PURE),
)


def judge(rows: Sequence[Row], free_threaded: bool) -> list[Verdict]:
    """
    Compare figures with budgets.

    Args:
        rows: What was measured.
        free_threaded: Whether the interpreter runs without its lock.

    Returns:
        A verdict for each budget, also for those whose rows were not measured.
    """
    table = {row.name: row for row in rows}
    return [
        *(ratio.judge(table) for ratio in HITS),
        _below(table, "`get_instance` hit", "hit-one", "functools.lru_cache"),
        *(ratio.judge(table) for ratio in CHANGES),
        _flat(table),
        *(ratio.judge(table) for ratio in TWIN),
        _twins(table),
        _most(table, "bytes of a registered name", "bytes-slot", 160, "bytes"),
        _most(table, "bytes of a cached instance beyond that", "bytes-entry", 200, "bytes"),
        _most(table, "`import warmset`, beyond bare Python", "import", 12, "ms"),
        _undisturbed(table),
        _threads(table, free_threaded),
    ]


def twin_ratio(rows: Sequence[Row]) -> float | None:
    """How many times as fast as the pure core the compiled one is on a hit, at worst."""
    table = {row.name: row for row in rows}
    ratios = [table[name].ratio(PURE, COMPILED) for name in TWINS if name in table]
    known = [ratio for ratio in ratios if ratio is not None]
    return min(known) if known else None


def _below(table: Mapping[str, Row], work: str, name: str, other: str) -> Verdict:
    row = table.get(name)
    ours, theirs = (row.median(COMPILED), row.median(other)) if row is not None else (None, None)
    if row is None or ours is None or theirs is None:
        return Verdict(work, f"below `{other}`", "not measured", None)
    measured = f"{ours:.0f} {row.unit} against {theirs:.0f} {row.unit}"
    return Verdict(work, f"below `{other}`", measured, ours < theirs)


def _flat(table: Mapping[str, Row]) -> Verdict:
    capacities = [row for name, row in table.items() if name.startswith("evict-")]
    work = "build and evict, smallest to largest capacity"
    medians = [median for row in capacities if (median := row.median(COMPILED)) is not None]
    if len(medians) < 2:
        return Verdict(work, "<= 1.3 x", "not measured", None)
    ratio = max(medians) / min(medians)
    return Verdict(work, "<= 1.3 x from one end to the other", f"{ratio:.2f} x", ratio <= 1.3)


def _twins(table: Mapping[str, Row]) -> Verdict:
    ratio = twin_ratio(list(table.values()))
    measured = "not measured" if ratio is None else f"{ratio:.1f} x at least"
    met = None if ratio is None else ratio >= 5
    return Verdict("compiled core against its pure twin", ">= 5 x on hits", measured, met)


def _most(table: Mapping[str, Row], work: str, name: str, most: float, unit: str) -> Verdict:
    row = table.get(name)
    ours = row.median(COMPILED) if row is not None else None
    measured = "not measured" if ours is None else f"{ours:.3g} {unit}"
    return Verdict(work, f"<= {most:g} {unit}", measured, None if ours is None else ours <= most)


def _undisturbed(table: Mapping[str, Row]) -> Verdict:
    work, budget = "p99 of a hit while another class builds", "<= 2 x the p99 in quiet"
    quiet, build = table.get("latency-quiet"), table.get("latency-build")
    before = quiet.median(COMPILED) if quiet is not None else None
    during = build.median(COMPILED) if build is not None else None
    if before is None or during is None:
        return Verdict(work, budget, "not measured", None)
    return Verdict(work, budget, f"{during / before:.2f} x", during / before <= 2.0)


def _threads(table: Mapping[str, Row], free_threaded: bool) -> Verdict:
    work = "throughput of 1 to 4 threads"
    budget = ">= 0.6 x a shared `dict.get`; never below one thread's"
    shares, growth = [], []
    for name, row in table.items():
        if not name.startswith("threads-") or int(name.rpartition("-")[2]) > 4:
            continue
        ratio = row.ratio(COMPILED, row.floor)
        alone = table.get(name.rpartition("-")[0] + "-1")
        single = alone.median(COMPILED) if alone is not None else None
        ours = row.median(COMPILED)
        if ratio is not None and single is not None and ours:
            shares.append(1.0 / ratio)
            growth.append(single / ours)
    if not shares:
        return Verdict(work, budget, "not measured", None)
    measured = f"{min(shares):.2f} x; {min(growth):.2f} x one thread's"
    if not free_threaded:
        return Verdict(work, budget, f"{measured} (with the interpreter lock)", None)
    return Verdict(work, budget, measured, min(shares) >= 0.6 and min(growth) >= 1.0)
