"""Tests of the eviction order: the heap against a naive choice, failing policies, threads."""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fake_entries import ByAttribute, FakeEntry, FakeRegistry, FakeSlot, warm
from hypothesis import given, settings
from hypothesis import strategies as st
from managers import manager_of

from warmset.codes import SIZE
from warmset.memory.policies import LruPolicy
from warmset.testing.structure import eviction_order

if TYPE_CHECKING:
    import random


# -- the order -----------------------------------------------------------------------------------


def test_the_order_is_by_priority_then_by_worth() -> None:
    registry = warm(ByAttribute(), 3.0, 1.0, 2.0)
    assert registry.victim_name() == "E1"
    first = registry.entries[0]
    first.slot.priority = -1
    registry.chooser.note(first, 0.0)  # type: ignore[arg-type]
    assert registry.victim_name() == "E0"


def test_of_equal_worth_the_least_recently_used_is_chosen() -> None:
    """Not the one that was built first."""
    registry = warm(ByAttribute(), 1.0, 1.0)
    registry.entries[0].last_used, registry.entries[0].uses = 9.0, 2
    assert registry.victim_name() == "E1"


def test_of_equal_worth_and_last_use_the_one_built_first_is_chosen() -> None:
    """However often their worth is determined; the clock may not have moved between them."""
    registry = FakeRegistry(ByAttribute())
    for number in range(4):
        registry.add(FakeEntry(f"E{number}", last_used=1.0))
    assert [registry.victim_name(1.0) for _ in range(9)] == ["E0"] * 9


def test_a_chosen_entry_stays_a_candidate_until_it_is_removed() -> None:
    """Its eviction may fail."""
    registry = warm(ByAttribute(), 1.0, 2.0)
    assert [registry.victim_name(), registry.victim_name()] == ["E0", "E0"]
    registry.remove(registry.entries[0])
    assert registry.victim_name() == "E1"
    registry.remove(registry.entries[0])
    assert registry.victim_name() is None


def test_held_pinned_and_spared_entries_are_not_chosen() -> None:
    registry = warm(ByAttribute(), 1.0, 2.0, 3.0)
    held, pinned, spare = registry.entries
    held.holds, pinned.slot.pinned = 1, True
    assert registry.victim_name(spare=spare) is None
    assert registry.victim_name() == "E2"
    pinned.slot.pinned = False
    assert registry.victim_name() == "E1"
    held.holds = 0
    assert registry.victim_name() == "E0"


def test_an_entry_cached_without_a_build_is_found_at_the_next_choice() -> None:
    registry = warm(ByAttribute(), 5.0, 6.0, 7.0)
    registry.add(FakeEntry("Written", worth=1.0), report=False)
    assert registry.victim_name() == "Written"


def test_entries_that_were_never_reported_are_found() -> None:
    registry = FakeRegistry(LruPolicy())
    for name, used in (("A", 2.0), ("B", 1.0)):
        registry.add(FakeEntry(name, last_used=used), report=False)
    assert [entry.name for entry in registry.drain()] == ["B", "A"]


def test_entries_of_the_same_name_are_different_candidates() -> None:
    """Such as an instance and its replacement."""
    registry = warm(ByAttribute(), 1.0, 1.0)
    registry.remove(registry.entries[0])
    again = registry.add(FakeEntry("E0", worth=0.5))
    assert registry.victim() is again
    registry.remove(again)
    assert registry.victim_name() == "E1"


def test_a_removed_entry_does_not_become_a_candidate() -> None:
    """It may be removed while its build is still being reported."""
    registry = warm(ByAttribute(), 1.0)
    removed = registry.entries[0]
    registry.remove(removed)
    registry.chooser.note(removed, 0.0)  # type: ignore[arg-type]
    assert not registry.chooser._judged


@pytest.mark.parametrize("falling", [3, 40])
def test_a_worth_that_fell_with_time_is_noticed(falling: int) -> None:
    """After as many choices as there are candidates, at the latest."""
    registry = warm(ByAttribute(), *map(float, range(100, 150)))
    registry.entries[falling].worth = 1.0
    assert f"E{falling}" in [registry.victim_name() for _ in range(50)]


def test_the_order_can_be_read_without_changing_it() -> None:
    """The next victim comes first."""
    registry = warm(ByAttribute(), 3.0, 1.0, 2.0)
    registry.entries[2].slot.pinned = True
    order = registry.chooser.order(registry, 0.0)  # type: ignore[arg-type]
    assert [(each.name, worth) for each, worth in order] == [("E1", 1.0), ("E0", 3.0)]
    assert registry.victim_name() == "E1"


def test_the_heap_stays_small() -> None:
    """Whatever is used, built and removed."""
    registry = FakeRegistry(ByAttribute())
    for turn in range(5_000):
        if len(registry.entries) == 10:
            registry.remove(registry.entries[turn % 10])
        registry.add(FakeEntry(f"E{turn}", last_used=float(turn)))
        registry.victim(float(turn))
    assert len(registry.chooser._heap) <= 100
    assert len(registry.chooser._judged) == 10


def test_the_heap_does_not_grow_while_worths_are_determined() -> None:
    registry = warm(LruPolicy(), 0.0)
    for turn in range(5_000):
        registry.chooser.note(registry.entries[0], float(turn))  # type: ignore[arg-type]
    assert len(registry.chooser._heap) <= 130


def test_entries_that_come_and_go_without_a_choice_are_not_remembered() -> None:
    registry = warm(LruPolicy(), 0.0)
    for turn in range(5_000):
        registry.remove(registry.add(FakeEntry("A", last_used=float(turn))))
    assert len(registry.chooser._young[0]) <= 130


def test_the_worth_of_a_new_entry_is_soon_determined_anew() -> None:
    """It falls fast when a burst ends; nobody waits until its turn among all others comes."""
    registry = warm(ByAttribute(), *[5.0] * 200)
    burst = registry.add(FakeEntry("burst", worth=9.0))
    registry.victim()
    burst.worth = 1.0  # it comes up last
    registry.victim()
    assert registry.victim() is burst


@pytest.mark.parametrize("count", [100, 1_000, 10_000])
def test_the_cost_of_a_choice_does_not_grow_with_the_number_of_entries(count: int) -> None:
    """The policy is called about ten times for each, and a few times for each new entry."""
    calls = 0

    class Counting:
        def worth(self, entry: Any, now: float) -> float:
            nonlocal calls
            calls += 1
            return float(entry.last_used)

    registry = warm(Counting(), *[0.0] * count)
    calls = 0
    for _ in range(count // 2):
        chosen = registry.victim()
        assert chosen is not None
        registry.remove(chosen)
    assert calls <= (10 + 28) * (count // 2) + count


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["build", "write", "remove", "use", "hold", "pin", "rank", "choose"]),
            st.integers(0, 5),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_choices_equal_those_of_a_naive_search(steps: list[tuple[str, int, int]]) -> None:
    """For worths that increase with uses only."""
    registry = FakeRegistry(ByAttribute())
    slots = [FakeSlot() for _ in range(6)]
    cached: dict[int, FakeEntry] = {}
    for now, (step, number, value) in enumerate(steps):
        slot, entry = slots[number], cached.get(number)
        if step in ("build", "write") and entry is None:
            entry = FakeEntry(f"E{number}", slot=slot, worth=float(value), last_used=float(now))
            cached[number] = registry.add(entry, report=step == "build")
        elif step == "remove" and entry is not None:
            registry.remove(cached.pop(number))
        elif step == "use" and entry is not None:
            entry.uses += 1
            entry.last_used = float(now)
            entry.worth += value
        elif step == "hold" and entry is not None:
            entry.holds = value % 2
        elif step == "pin":
            slot.pinned = value % 2 == 1
        elif step == "rank" and entry is not None:
            slot.priority = value % 3
            registry.chooser.note(entry, float(now))  # type: ignore[arg-type]
        elif step == "choose":
            spare = entry if value % 2 else None
            free = [
                (e.slot.priority, e.worth, e.last_used, e.serial)
                for e in registry.entries
                if not e.holds and not e.slot.pinned and e is not spare
            ]
            chosen = registry.victim(float(now), spare)
            assert (None if chosen is None else chosen.serial) == min(free, default=(None,))[-1]
            if chosen is not None and value % 3:
                registry.remove(cached.pop(int(chosen.name[1:])))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, 1), st.integers(0, 50), st.booleans(), st.booleans()),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_draining_equals_sorting(facts: Any, chance: random.Random) -> None:
    """By priority, then by worth; uses after the last report count."""
    registry = FakeRegistry(LruPolicy())
    for number, (priority, used, held, pinned) in enumerate(facts):
        slot = FakeSlot(priority=priority, pinned=pinned)
        entry = FakeEntry(f"E{number}", slot=slot, last_used=float(used), holds=int(held))
        registry.add(entry)
    for entry in registry.entries:
        if chance.random() < 0.3:
            entry.uses += 1
            entry.last_used += chance.randrange(50)

    def key(entry: FakeEntry) -> tuple[int, float]:
        return entry.slot.priority, entry.last_used

    free = [entry for entry in registry.entries if not entry.holds and not entry.slot.pinned]
    assert list(map(key, registry.drain())) == sorted(map(key, free))
    kept = list(registry.entries)
    assert len(kept) == len(facts) - len(free)
    for entry in kept:
        entry.holds = 0
        entry.slot.pinned = False
    assert len(registry.drain()) == len(kept)


# -- failing policies ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [ValueError("no"), math.nan, math.inf, "much", None])
def test_entries_without_a_valid_worth_are_chosen_first_by_last_use(wrong: Any) -> None:
    registry = warm(ByAttribute(), -5.0, wrong, wrong, -9.0)
    assert [entry.name for entry in registry.drain(10.0)] == ["E1", "E2", "E3", "E0"]


def test_a_failing_policy_is_logged_once(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="warmset.memory"):
        registry = warm(ByAttribute(), ValueError("no"), ValueError("no"))
        registry.victim()
    (record,) = caplog.records
    assert "ByAttribute" in record.getMessage()
    assert record.exc_info is not None


def test_an_interrupt_in_a_policy_loses_no_candidate() -> None:
    """Those that were taken out of the heap go back."""
    registry = warm(ByAttribute(), 1.0, 2.0, 3.0)

    class Interrupted(ByAttribute):
        def worth(self, entry: Any, now: float) -> float:
            raise KeyboardInterrupt

    policy, registry.chooser._policy = registry.chooser._policy, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        registry.victim()
    registry.chooser._policy = policy
    assert registry.victim_name() == "E0"
    assert len(registry.chooser._heap) >= 3


def test_a_worth_that_changes_at_each_call_does_not_loop() -> None:
    """At each choice it is determined once for each candidate, and again for new ones."""

    class Rising(ByAttribute):
        calls = 0.0

        def worth(self, entry: Any, now: float) -> float:
            self.calls += 1.0
            return self.calls

    policy = Rising()
    registry = warm(policy, *[0.0] * 20)
    before = policy.calls
    assert registry.victim() is not None
    assert policy.calls - before <= 22.0 + 28.0


# -- threads -------------------------------------------------------------------------------------


def test_a_policy_may_call_the_chooser() -> None:
    """No lock is held while the policy runs."""

    class Curious(ByAttribute):
        registry: FakeRegistry | None = None

        def worth(self, entry: Any, now: float) -> float:
            if self.registry is not None:
                registry, self.registry = self.registry, None
                thread = threading.Thread(target=registry.victim)
                thread.start()
                thread.join(10.0)
                assert not thread.is_alive()
                assert registry.victim() is not None
            return float(entry.worth)

    policy = Curious()
    registry = warm(policy, 1.0, 2.0)
    policy.registry = registry
    assert registry.victim_name() == "E0"


def test_candidates_in_the_hands_of_another_thread_are_found() -> None:
    """Even if it has every candidate out of the heap."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(ByAttribute):
        slow = False

        def worth(self, entry: Any, now: float) -> float:
            if self.slow and threading.current_thread() is not threading.main_thread():
                inside.set()
                assert go_on.wait(10.0)
            return float(entry.worth)

    policy = Slow()
    registry = warm(policy, 1.0, 2.0)
    registry.entries[1].holds = 1
    policy.slow = True
    thread = threading.Thread(target=registry.victim)
    thread.start()
    assert inside.wait(10.0)
    assert registry.victim_name() == "E0"
    go_on.set()
    thread.join(10.0)
    assert not thread.is_alive()


# -- admission -----------------------------------------------------------------------------------


class Admitting(ByAttribute):
    """Does not require that a new instance is admitted."""

    def passes(self, entry: Any, now: float) -> bool:
        return True


def test_a_new_entry_is_spared() -> None:
    """However little it is worth."""
    registry = warm(ByAttribute(), 5.0, 1.0)
    spare = registry.entries[1]
    spare.holds = 1
    assert registry.victim_name(spare=spare) == "E0"


def test_a_new_entry_of_the_lowest_worth_is_chosen_if_the_policy_allows_it() -> None:
    """Although its caller holds it; but not if it is pinned."""
    registry = warm(Admitting(), 5.0, 1.0)
    spare = registry.entries[1]
    spare.holds = 1
    assert registry.victim_name(spare=spare) == "E1"
    spare.slot.pinned = True
    assert registry.victim_name(spare=spare) == "E0"
    spare.slot.pinned = False
    spare.worth = 9.0
    spare.uses += 1
    assert registry.victim_name(spare=spare) == "E0"


def test_a_new_entry_is_spared_if_the_policy_fails_to_decide() -> None:
    class Failing(Admitting):
        def passes(self, entry: Any, now: float) -> bool:
            raise ValueError("no")

    registry = warm(Failing(), 5.0, 1.0)
    assert registry.victim_name(spare=registry.entries[1]) == "E0"


# -- in a registry ---------------------------------------------------------------------------------


class Alphabetical:
    """The first names have the lowest worth."""

    def worth(self, entry: Any, now: float) -> float:
        return float(ord(entry.name[0]))


def test_written_instances_take_part(ws: Any, make: Any) -> None:
    """As written by the pipeline's own code."""
    registry = make(policy=Alphabetical(), max_cache_size=2)
    for name in ("Gamma", "Delta"):
        registry.get_instance(name)
    registry._cache["Alpha"] = ws.CacheEntry(object(), 0.0, 0.0)
    assert len(eviction_order(registry)) == 3
    registry.get_instance("Beta")  # which is spared
    assert sorted(eviction_order(registry)) == ["Beta", "Gamma"]


def test_the_order_is_made_anew_after_a_fork(make: Any) -> None:
    """A thread of the parent may have taken candidates out of the heap."""
    registry = make(policy=Alphabetical(), max_cache_size=2)
    for name in ("Delta", "Alpha"):
        registry.get_instance(name)
    registry.reset_after_fork()
    registry.get_instance("Gamma")
    assert sorted(eviction_order(registry)) == ["Delta", "Gamma"]


def test_a_finaliser_may_use_the_registry_during_a_choice(make: Any) -> None:
    registry = make(policy="cost", max_cache_size=2)

    class Last:
        def __del__(self) -> None:
            registry.get_instance("Delta")

    class Dropping(Alphabetical):
        drops = 3

        def worth(self, entry: Any, now: float) -> float:
            if self.drops:
                self.drops -= 1
                Last()
            return super().worth(entry, now)

    manager_of(registry).chooser._policy = Dropping()
    for name in ("Alpha", "Beta", "Gamma", "Alpha", "Beta"):
        registry.get_instance(name)
    assert len(eviction_order(registry)) == 2


@pytest.mark.parametrize("policy", [Alphabetical(), "cost"])
def test_no_candidate_is_lost_under_threads(make: Any, samples: Any, policy: Any) -> None:
    """When all is released the bound holds, and every entry can be chosen."""
    registry = make(policy=policy, max_cache_size=2)
    names = ("Alpha", "Beta", "Gamma", "Delta")
    failed: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for turn in range(300):
                with registry.use(names[(turn * (offset + 1) + offset) % 4]):
                    pass
                if turn % 50 == offset:
                    registry.discard(names[offset])
                if turn % 40 == 0:
                    registry.sweep()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not failed
    registry.sweep()
    assert registry.cached <= 2
    chooser = manager_of(registry).chooser
    order = chooser.order(registry, registry.now())
    assert len(order) == registry.cached
    for _ in range(registry.cached):
        chosen = chooser.victim(registry, registry.now())
        assert registry.evict(chosen, SIZE, more_than=0)
    assert registry.cached == 0
    assert not chooser._judged
