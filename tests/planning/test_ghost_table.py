"""The table of ghosts: a bounded number of records of a fixed size, found by hash."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset.codes import SIZE
from warmset.planning.ghost_table import Ghost, GhostTable
from warmset.planning.ghosts import MOST_GHOSTS
from warmset.planning.miss_log import MOST_MISSES, Miss, MissLog


def ghost(number: int, **facts: Any) -> Ghost:
    known = {"bytes": 10 * number, "last_used": float(number), "cause": SIZE}
    return Ghost(hash(f"C{number}"), **{**known, **facts})


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=400), st.integers(1, 20))
def test_it_is_a_bounded_list(changes: list[tuple[bool, int]], most: int) -> None:
    """As a list of at most so many records would be, the newest last."""
    table = GhostTable(most)
    expected: list[Ghost] = []
    for added, number in changes:
        one = ghost(number)
        known = next((each for each in expected if each.name_hash == one.name_hash), None)
        if known is not None:
            expected.remove(known)
        if added:
            table.add(one)
            expected = [*expected, one][-most:]
        else:
            assert table.pop(one.name_hash) == known
        # A table that is nearly full may overwrite its oldest record although another one is free.
        expected = expected[-len(table) :] if len(table) else []
        assert len(table) >= min(len(expected), most * 3 // 4)
        assert [table.at(position) for position in table.positions()] == expected[::-1]
        for at, each in enumerate(expected):
            position = table.find(each.name_hash)
            later = expected[at + 1 :]
            assert table.newer(position) == (len(later), sum(other.bytes for other in later))
        assert table.newest_sizes() == [each.bytes for each in expected[::-1]]


def test_a_record_takes_between_32_and_64_bytes() -> None:
    """All arrays together, with what Python allocates for them; and the number is bounded."""
    table = GhostTable(MOST_GHOSTS)
    empty = table.nbytes
    for number in range(3 * MOST_GHOSTS):
        table.add(ghost(number))
    assert len(table) == MOST_GHOSTS
    assert 32 <= table.nbytes / MOST_GHOSTS <= 64
    values = [getattr(table, name) for name in vars(table)]
    sums = [table._counts._tree, table._sums._tree]
    allocated = sum(sys.getsizeof(each) for each in [*values, *sums] if hasattr(each, "itemsize"))
    assert allocated / MOST_GHOSTS <= 64
    table.clear()
    assert (len(table), table.nbytes) == (0, empty)


def test_levels_are_counted() -> None:
    table = GhostTable(64)
    for number in range(4):
        table.add(ghost(number, levels=0b11 if number else 0b10))
    assert table.level_counts[:3] == [3, 4, 0]
    assert table.level_bytes[:2] == [60, 60]
    table.drop_level(table.find(ghost(3).name_hash), 0b01)
    assert (table.level_counts[:2], table.level_bytes[:2]) == ([2, 4], [30, 60])
    table.drop_level(table.find(ghost(0).name_hash), 0b10)
    assert len(table) == 3
    table.pop(ghost(2).name_hash)
    assert table.level_counts[:2] == [1, 2]


def test_large_records_are_listed_and_not_summed() -> None:
    table = GhostTable(64)
    table.add(ghost(1))
    table.add(ghost(2, bytes=1000), large=True)
    table.add(ghost(3))
    position = table.find(ghost(1).name_hash)
    assert table.newer(position) == (2, 30)
    assert table.newer_large(position) == [1000]
    assert table.is_large(table.find(ghost(2).name_hash))
    assert sorted(table.used_since(1.0)) == [30, 1000]
    table.pop(ghost(2).name_hash)
    assert not table.has_large
    assert table.newer(position) == (1, 30)


def test_the_worth_is_the_value_times_the_expected_rate() -> None:
    table = GhostTable(64)
    table.add(ghost(1, value=8.0, mean_gap=3.0, last_used=0.0))
    table.add(ghost(2, value=8.0, mean_gap=-1.0, last_used=0.0))
    one, other = (table.find(ghost(number).name_hash) for number in (1, 2))
    asked: list[tuple[float, float]] = []

    def rate(gap: float, idle: float) -> float:
        asked.append((gap, idle))
        return 0.5

    assert [table.worth(one, 8.0, rate), table.worth(other, 7.0, rate)] == [4.0, 4.0]
    assert asked == [(3.0, 8.0), (-1.0, 7.0)]


def test_the_log_keeps_the_latest_builds() -> None:
    log = MissLog()
    assert list(log.since(0.0)) == []
    for number in range(MOST_MISSES + 10):
        log.add(Miss(float(number), f"C{number}", SIZE, 0.5, number, 0, 0.0))
    assert len(log) == MOST_MISSES
    assert log.forgotten_before == 10.0
    found = list(log.since(float(MOST_MISSES)))
    assert [miss.class_name for miss in found] == [
        f"C{number}" for number in range(MOST_MISSES + 9, MOST_MISSES - 1, -1)
    ]
    assert found[0].seconds == pytest.approx(0.5)
    assert len(list(log.since(-1.0))) == MOST_MISSES


def test_many_random_changes_leave_a_valid_table() -> None:
    choose, table = random.Random(3), GhostTable(256)
    for _ in range(20_000):
        number = choose.randrange(400)
        if choose.random() < 0.7:
            table.add(ghost(number, levels=choose.randrange(8)))
        else:
            table.pop(ghost(number).name_hash)
    records = [table.at(position) for position in table.positions()]
    assert len(records) == len(table) <= 256
    for level in range(3):
        having = [each for each in records if each.levels >> level & 1]
        assert table.level_counts[level] == len(having)
        assert table.level_bytes[level] == sum(each.bytes for each in having)
