"""The benchmarks' own behaviour: the table, the budgets, missing peers, the former registry."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from benchmarks import bytecodes, check_ratio, report
from benchmarks.__main__ import ordered, parser, status
from benchmarks.budgets import judge, twin_ratio
from benchmarks.results import COMPILED, PURE, Absent, Figure, Row, figure
from benchmarks.rows import threads
from benchmarks.standing import standings
from benchmarks.subjects.base import Kept, Subject, absence
from benchmarks.subjects.pipeline import PipelineRegistry
from benchmarks.timing import loop, turns, walk
from benchmarks.workload import NAME, Tagger, numbered, work, zipf

ROOT = Path(__file__).resolve().parent.parent


def row(name: str, floor: str | None, unit: str = "ns", **cells: float | str) -> Row:
    """A row of known numbers; a text is the reason of one that is absent."""
    names = {"compiled": COMPILED, "pure": PURE, "dict": "dict.get", "lru": "functools.lru_cache"}
    return Row(
        name,
        f"the work of {name}",
        unit,
        floor,
        {
            names.get(subject, subject): Absent(value)
            if isinstance(value, str)
            else Figure(value, value / 10)
            for subject, value in cells.items()
        },
    )


HIT = row("hit-one", "dict.get", dict=20, compiled=30, pure=1500, lru=60, peer="no module 'peer'")


# -- the table -------------------------------------------------------------------------------------


def test_the_table_gives_medians_spread_and_ratios() -> None:
    """To the floor of the row, and to the compiled core."""
    lines = report.text([HIT], [], {"processor": "abacus"}).splitlines()
    assert lines[0] == "processor: abacus"
    (pure,) = [line for line in lines if PURE in line and "±" in line]
    assert pure.split()[-4:] == ["1,500", "±150", "75.0", "50.0"]
    (floor,) = [line for line in lines if "dict.get" in line]
    assert floor.split() == ["dict.get", "(floor)", "20.0", "±2.00", "1.00", "0.67"]


def test_a_missing_peer_is_a_line_with_the_reason() -> None:
    """In the text and on the page."""
    lines = report.text([HIT], [], {}).splitlines()
    assert [line.split(maxsplit=1) for line in lines if "peer" in line] == [
        ["peer", "no module 'peer'"]
    ]
    page = report.markdown([HIT], [], {}, [])
    assert "peer: no module 'peer'." in page
    assert "| peer |" not in page


def test_the_page_has_every_part() -> None:
    """Machine, budgets, tables and subjects take the places that the template keeps for them."""
    subject = Subject("dict.get", "as it is", lambda work, size: Kept("", Tagger))
    page = report.markdown([HIT], judge([HIT], False), {"processor": "abacus"}, [subject])
    assert "<!--" not in page
    assert "- processor: abacus" in page
    assert f"| **{COMPILED}** | 30.0 ±3.00 (1.50) |" in page
    assert "| `get_instance` hit | <= 1.3 x `dict.get` | 1.50 x | missed |" in page
    assert "| dict.get | as it is |" in page


def test_rows_in_which_a_core_is_behind_come_first() -> None:
    """A floor is nobody to be behind, and level is within a twentieth."""
    rows = [
        row("hit-one", "dict.get", dict=20, compiled=30, pure=1500, lru=60),
        row("miss", "dict.get", dict=20, compiled=30, pure=60, lru=10),
        row("expired", None, compiled=30, pure=60, lru=31),
        row("stats", "dict.get", dict=20, compiled=30),
    ]
    places = standings(rows)
    assert [(place.row, place.word) for place in places] == [
        ("miss", "behind"),
        ("expired", "level"),
        ("hit-one", "ahead"),
    ]
    assert [place.word for place in standings(rows, PURE)] == ["behind"] * 3
    assert {place.best for place in places} == {"functools.lru_cache"}
    page = report.markdown(rows, [], {}, [])
    assert "| behind | the work of miss | - | 0.33 (functools.lru_cache) |" in page
    assert "behind  miss" in report.text(rows, [], {})


def test_bytecodes_of_the_pure_core_are_counted() -> None:
    counts = bytecodes.counted()
    assert set(counts) == set(bytecodes.CALLS)
    assert all(10 < count < 10_000 for count in counts.values())
    assert counts["pure get_instance, bytecodes"] < counts["pure handle, bytecodes"]


def test_every_row_has_a_heading() -> None:
    """A row that no group of the page takes would be lost."""
    names = ("hit-64", "weak", "handle", "execute-6", "evict-1000", "latency-build", "bytes-rss")
    rows = [row(name, None, compiled=5) for name in names]
    page = report.markdown(rows, [], {}, [])
    assert all(f"the work of {name}, ns" in page for name in names)


def test_a_figure_is_median_and_median_deviation() -> None:
    """One wild sample changes little."""
    assert figure([3.0, 1.0, 2.0, 1000.0, 4.0], scale=10.0) == Figure(30.0, 10.0)


# -- budgets ---------------------------------------------------------------------------------------


def words(rows: list[Row], free_threaded: bool = False) -> dict[str, str]:
    """Work and budget -> verdict."""
    return {f"{v.work} {v.budget}": v.word for v in judge(rows, free_threaded)}


def test_budgets_are_met_or_missed() -> None:
    """By the ratio to the floor, by a fixed bound, or by the ends of a scale."""
    former = "the former registry"

    def measured(more: float) -> list[Row]:
        """What meets each budget exactly, or misses it by that much."""
        return [
            row("hit-one", "dict.get", dict=20, lru=26.1 + more,
                compiled=26 + more, pure=130 + 5 * more, **{former: 260}),
            row("hit-64", "dict.get", dict=20, compiled=28 + more),
            row("hit-1000", "dict.get", dict=20, compiled=28 + more),
            row("hit-equal", "dict.get", dict=20, compiled=40 + more),
            row("get-method", "getattr", getattr=50, compiled=70 + more, pure=600 + 9 * more,
                **{former: 1000}),
            row("has-method", "hasattr", hasattr=20, compiled=100 + more),
            row("handle", "direct call", compiled=135 + more, pure=5000,
                **{"functools.partial": 100}),
            row("execute-2", "direct call", compiled=170 + more, pure=5000,
                **{"functools.partial": 100}),
            row("miss", "dict.get", compiled=1000 + more, pure=2000 + more, **{former: 1000}),
            row("evict-1000", None, compiled=1000 + more, **{"cachetools TTLCache": 1000}),
            row("evict-100000", None, compiled=1300 + 2 * more),
            row("expired", None, compiled=100 + more, **{former: 100}),
            row("stats", None, "us", compiled=100 + more, **{former: 100}),
            row("bytes-slot", None, "bytes", compiled=160 + more),
            row("bytes-entry", None, "bytes", compiled=200 + more),
            row("import", None, "ms", compiled=12 + more),
            row("latency-quiet", "dict.get", dict=90, compiled=100),
            row("latency-build", "dict.get", dict=90, compiled=200 + more),
        ]  # fmt: skip

    others = ["compiled core against its pure twin", "`get_instance` hit below", "throughput"]
    for more, word in ((0.0, "met"), (1.0, "missed")):
        found = words(measured(more))
        assert {
            verdict for work, verdict in found.items() if not work.startswith(tuple(others))
        } == {word}
        assert len(found) == 23


def test_nothing_measured_is_nothing_judged() -> None:
    """An empty run meets no budget."""
    assert set(words([]).values()) == {"not judged"}


@pytest.mark.parametrize(
    ("compiled", "free_threaded", "word"),
    [((20, 20), True, "met"), ((20, 21), True, "missed"), ((30, 30), True, "missed"),
     ((20, 20), False, "not judged")],
)  # fmt: skip
def test_threads_are_judged_without_the_interpreter_lock(
    compiled: tuple[int, int], free_threaded: bool, word: str
) -> None:
    """Against a shared dict with as many threads, and against one thread."""
    rows = [
        row(f"threads-one-{count}", "dict.get", dict=15, compiled=taken)
        for count, taken in enumerate(compiled, 1)
    ]
    (verdict,) = [word for work, word in words(rows, free_threaded).items() if "threads" in work]
    assert verdict == word


def test_the_required_ratio_decides_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    """At worst over all hits; and a ratio that was not measured is not there."""
    rows = [HIT, row("handle", "direct", direct=20, compiled=50, pure=300)]
    assert twin_ratio(rows) == 6.0
    assert status(rows, 6.0) == 0
    assert status(rows, 6.1) == 1
    assert "only 6.0 times" in capsys.readouterr().err
    assert status([], 0.0) == 0
    assert status([], 1.0) == 1
    assert "not measured" in capsys.readouterr().err


def test_the_ratio_of_tracked_hits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of pytest-benchmark."""
    report = {
        "benchmarks": [
            {"extra_info": {"hit": "handle", "subject": subject}, "stats": {"median": median}}
            for subject, median in (("floor", 1.0), ("compiled", 2.0), ("pure", 12.0))
        ]
    }
    assert check_ratio.ratios(report) == {"handle": 6.0}
    file = tmp_path / "hits.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    assert check_ratio.main([str(file), "6"]) == 0
    assert check_ratio.main([str(file), "6.1"]) == 1
    assert "compiled is 6.0 times as fast as pure" in capsys.readouterr().out
    with pytest.raises(ValueError, match="both cores"):
        check_ratio.ratios({"benchmarks": report["benchmarks"][:2]})


# -- the command -----------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_measures_and_judges(pytestconfig: pytest.Config) -> None:
    """One row, and a ratio that nothing reaches; peers may be missing."""
    result = run("--quick", "--only", "hit-one", "--require-ratio", "1e9")
    assert result.returncode == 1, result.stderr
    if pytestconfig.getoption("--pure-only"):
        assert "the ratio of the two cores was not measured" in result.stderr
    else:
        assert "the compiled core is only" in result.stderr
    assert "hit-one: hit, one name, ns" in result.stdout
    for subject in ("dict.get (floor)", PURE, "cachebox TTLCache", "moka-py tti"):
        assert subject in result.stdout


def test_threads_come_first_where_there_is_no_interpreter_lock() -> None:
    """A peer's extension may turn it on."""
    assert ordered(["hit-one", "threads", "import"], False) == ["hit-one", "threads", "import"]
    assert ordered(["hit-one", "threads", "import"], True) == ["threads", "hit-one", "import"]


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the ones that there are."""
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(["--only", "hits"])
    assert refused.value.code == 2
    assert "hit-zipf" in capsys.readouterr().err


# -- subjects --------------------------------------------------------------------------------------


def test_a_subject_that_cannot_be_imported_says_so() -> None:
    """Naming the module."""

    def make(given: Any, size: int) -> Kept:
        import no_such_cache  # type: ignore[import-not-found]  # noqa: F401

        raise AssertionError

    assert absence(Subject("none", "", make)) == "no module 'no_such_cache'"


@pytest.mark.parametrize("fetched", [lambda name: Tagger(), lambda name: name])
def test_a_subject_that_does_other_work_is_refused(fetched: Any) -> None:
    """It builds at each look-up, or gives something else: its figures would mean nothing."""
    with pytest.raises(AssertionError, match=r"wrong (built twice|gave)"):
        absence(Subject("wrong", "", lambda given, size: Kept("None", fetched)))


def test_a_hit_that_misses_is_refused() -> None:
    """A look-up that finds nothing would be fast."""
    one = Tagger()
    with pytest.raises(AssertionError, match="the hit of wrong gave None"):
        absence(Subject("wrong", "", lambda given, size: Kept("None", lambda name: one)))


# -- timing ----------------------------------------------------------------------------------------


def test_cases_take_turns_and_are_net_of_the_loop() -> None:
    """Each round begins with another case."""
    order: list[str] = []

    def case(name: str, seconds: float) -> Any:
        def sample() -> float:
            order.append(name)
            return seconds

        return sample

    samples = turns({"a": case("a", 3.0), "b": case("b", 0.5)}, 3, lambda: 1.0)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert samples == {"a": [2.0] * 3, "b": [0.0] * 3}


def test_loops_do_the_work_as_often_as_they_say() -> None:
    """The unrolled one, and the one over names."""
    asked: collections.Counter[str] = collections.Counter()
    loop("call('x')", {"call": lambda name: asked.update([name])})(200)
    assert asked == {"x": 200}
    asked.clear()
    walk("call(name)", {"call": lambda name: asked.update([name])}, ["a", "b", "a"])(4)
    assert asked == {"a": 4, "b": 2}


def test_threads_share_the_work() -> None:
    """All loops run, each as often as it is told, and each is made in its own thread."""
    done: list[int] = []
    made: set[int] = set()

    def make() -> Any:
        made.add(threading.get_ident())
        return lambda times: done.append(times) or 0.0  # type: ignore[func-returns-value]

    together = threads.together([make] * 3, 50)
    assert done == [50, 50, 50]
    assert len(made) == 3
    assert together >= 0.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_stops_the_others() -> None:
    """What cannot be made ends the measurement, not the patience of who waits for it."""

    def fail() -> Any:
        raise OSError

    with pytest.raises(AssertionError, match="a thread raised"):
        threads.together([lambda: lambda times: 0.0, fail], 50)


def test_each_thread_has_a_bound_method_of_its_own() -> None:
    """The reference count of a shared one would be what is measured."""
    table = {NAME: Tagger()}
    shared = table.get
    bound: list[Any] = []
    kept = Kept("note(get, {name})", table.__getitem__, {
        "get": shared, "note": lambda get, name: bound.append((get, get(name)))
    })  # fmt: skip
    threads.looking_up(kept, NAME)(10)
    assert all(get is not shared and found is table[NAME] for get, found in bound)
    assert len(bound) == 10


def test_percentile_of_counted_durations() -> None:
    """The few that took longer than is counted come last."""
    counts = [0, 0, 98, 1]
    assert threads.percentile(counts, [900]) == 3.0
    assert threads.percentile(counts, [900], share=0.98) == 2.0
    assert threads.percentile([0, 1], [900, 800]) == 900.0
    with pytest.raises(ValueError, match="nothing"):
        threads.percentile([0], [])


def test_zipf_draws_the_same_names_each_time() -> None:
    """The most frequent about twice as often as the second."""
    names = numbered(100)
    drawn = zipf(names, 20_000)
    assert drawn == zipf(names, 20_000)
    (_, first), (_, second), *_ = collections.Counter(drawn).most_common()
    assert 1.7 < first / second < 2.3


# -- the pipeline's former registry ----------------------------------------------------------------


def former(timer: Any, count: int = 3, **options: Any) -> PipelineRegistry:
    """A registry over numbered names."""
    paths = work([NAME, *numbered(count)]).paths
    return PipelineRegistry(paths, **{"clock": timer, **options})


def test_the_former_registry_builds_once_and_calls(timer: Any) -> None:
    """By name; arguments are not checked."""
    registry = former(timer)
    assert registry.get_instance(NAME) is registry.get_instance(NAME)
    assert registry.execute(NAME, "score", text="x", limit=3) == "x"
    registry.inject_method("Virtual", "double", lambda x: 2 * x)
    assert registry.get_method("Virtual", "double")(4) == 8
    with pytest.raises(RuntimeError, match="no method 'none'"):
        registry.get_method(NAME, "none")
    stats = registry.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["total_instantiations"]) == (3, 1, 1)


def test_the_former_registry_expires_what_is_idle(timer: Any) -> None:
    """At a look-up and by `evict_expired`; a use starts the time anew."""
    registry = former(timer, cache_ttl_seconds=10.0)
    first = registry.get_instance("Tagger0")
    registry.get_instance("Tagger1")
    timer.advance(8.0)
    assert registry.get_instance("Tagger0") is first
    timer.advance(8.0)
    assert registry.evict_expired() == 1
    assert list(registry._cache) == ["Tagger0"]
    timer.advance(2.5)
    assert registry.get_instance("Tagger0") is not first
    assert registry.get_stats()["evictions"] == 2


def test_the_former_registry_exceeds_its_bound_by_one_and_evicts_the_oldest(timer: Any) -> None:
    """Room is made before the new entry is counted."""
    registry = former(timer, count=6, max_cache_size=2)
    for number in range(3):
        timer.advance(1.0)
        registry.get_instance(f"Tagger{number}")
    assert len(registry) == 3
    timer.advance(1.0)
    registry.get_instance("Tagger0")
    registry.get_instance("Tagger3")
    assert list(registry._cache) == ["Tagger0", "Tagger2", "Tagger3"]
    registry.get_instance("Tagger4")
    assert len(registry) == 3
    assert registry.clear_cache() == 3


def test_the_former_registry_never_tries_a_failed_class_again(timer: Any) -> None:
    """Nor does it say why."""
    registry = PipelineRegistry({"Broken": "json.NoSuchClass"}, clock=timer)
    with pytest.raises(RuntimeError, match="cannot be had"):
        registry.get_instance("Broken")
    registry._class_paths["Broken"] = "json.JSONDecoder"
    with pytest.raises(RuntimeError, match="failed before"):
        registry.get_instance("Broken")


def test_the_former_registry_constructs_under_its_lock(timer: Any, monkeypatch: Any) -> None:
    """Which is why a slow constructor stopped every other look-up."""
    registry = former(timer)
    locked: list[bool] = []
    monkeypatch.setattr(Tagger, "__init__", lambda self: locked.append(registry._lock.locked()))
    registry.get_instance(NAME)
    assert locked == [True]


def test_the_former_registry_keeps_weak_references(timer: Any) -> None:
    """As long as somebody else holds the instance."""
    registry = former(timer, enable_weakref=True)
    held = registry.get_instance(NAME)
    assert registry.get_instance(NAME) is held
    assert len(registry) == 0
    del held
    assert type(registry.get_instance(NAME)) is Tagger
    assert registry.get_stats()["total_instantiations"] == 2
