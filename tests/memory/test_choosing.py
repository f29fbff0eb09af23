"""Who leaves: the heap against a naive choice, policies that fail, threads and re-entry."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset.memory.choosing import Chooser


class FakeSlot:
    """What a chooser reads of a slot."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = self.epoch = self.uses = self.holds = 0
        self.pinned = False
        self.last_used = self.built_at = 0.0
        self.build_seconds = 1.0
        self.bytes = -1
        self.worth: Any = 0.0


class FakeRegistry:
    """Slots that come and go as a chooser is told."""

    def __init__(self, policy: Any, count: int = 6) -> None:
        self.slots = [FakeSlot(f"S{number}") for number in range(count)]
        self.priorities: dict[str, int] = {}
        self.chooser = Chooser(policy, lambda name: self.priorities.get(name, 0))

    @property
    def _cached(self) -> int:
        return len(self._warm_slots())

    def _warm_slots(self) -> list[Any]:
        return [slot for slot in self.slots if slot.kind == 1]

    def enter(self, slot: FakeSlot, now: float, tell: bool = True) -> None:
        slot.kind, slot.uses, slot.last_used = 1, 1, now
        if tell:
            self.chooser.note(slot, now)  # type: ignore[arg-type]

    def leave(self, slot: FakeSlot) -> None:
        slot.kind = 0
        slot.epoch += 1
        self.chooser.left(slot.name, slot.uses, slot.built_at, slot.last_used)

    def victim(self, now: float = 0.0, spare: Any = None) -> str | None:
        chosen = self.chooser.victim(self, now, spare)  # type: ignore[arg-type]
        return None if chosen is None else chosen[0].name


class ByAttribute:
    """The worth is what the test has put into the slot."""

    def worth(self, slot: Any, now: float) -> Any:
        if isinstance(slot.worth, Exception):
            raise slot.worth
        return slot.worth


def warm(policy: Any, *worths: Any) -> FakeRegistry:
    """A registry with an instance for each worth; the later ones were used later."""
    registry = FakeRegistry(policy, len(worths))
    for now, (slot, worth) in enumerate(zip(registry.slots, worths, strict=True)):
        slot.worth = worth
        registry.enter(slot, float(now))
    return registry


# -- the order -----------------------------------------------------------------------------------


def test_the_least_worth_leaves_first_and_priority_comes_before_it() -> None:
    """Whatever is worth little stays before what has a lower priority."""
    registry = warm(ByAttribute(), 3.0, 1.0, 2.0)
    assert registry.victim() == "S1"
    registry.priorities["S0"] = -1
    registry.chooser.note(registry.slots[0], 0.0)  # type: ignore[arg-type]
    assert registry.victim() == "S0"


def test_of_equal_worth_the_least_recently_used_leaves() -> None:
    """Not the one that was built first."""
    registry = warm(ByAttribute(), 1.0, 1.0)
    registry.slots[0].last_used, registry.slots[0].uses = 9.0, 2
    assert registry.victim() == "S1"


def test_a_choice_is_no_removal() -> None:
    """It is chosen again while it has not left: an eviction may be refused."""
    registry = warm(ByAttribute(), 1.0, 2.0)
    assert [registry.victim(), registry.victim()] == ["S0", "S0"]
    registry.leave(registry.slots[0])
    assert registry.victim() == "S1"
    registry.leave(registry.slots[1])
    assert registry.victim() is None


def test_held_pinned_and_spared_stay() -> None:
    """And are chosen again as soon as they may."""
    registry = warm(ByAttribute(), 1.0, 2.0, 3.0)
    held, pinned, spare = registry.slots
    held.holds, pinned.pinned = 1, True
    assert registry.victim(spare=spare) is None
    assert registry.victim() == "S2"
    pinned.pinned = False
    assert registry.victim() == "S1"
    held.holds = 0
    assert registry.victim() == "S0"


def test_what_came_in_by_another_way_is_found() -> None:
    """At the very next choice, not when nothing else is left."""
    registry = warm(ByAttribute(), 5.0, 6.0, 7.0)
    written = FakeSlot("Written")
    written.worth = 1.0
    registry.slots.append(written)
    registry.enter(written, 0.0, tell=False)
    assert registry.victim() == "Written"


def test_what_comes_back_with_its_own_epoch_is_found() -> None:
    """As an instance that left while it was held, and is revived."""
    registry = warm(ByAttribute(), 1.0, 2.0)
    registry.leave(registry.slots[0])
    assert registry.victim() == "S1"
    registry.slots[0].kind, registry.slots[0].epoch = 1, 0
    assert registry.victim() == "S0"


def test_of_equal_worth_and_time_the_first_leaves() -> None:
    """However often their worth was told anew; a clock may not have moved between them."""
    registry = FakeRegistry(ByAttribute(), 4)
    for slot in registry.slots:
        registry.enter(slot, 1.0)
    assert [registry.victim(1.0) for _ in range(9)] == ["S0"] * 9


def test_a_name_may_get_another_slot() -> None:
    """As a class that is unregistered and registered again."""
    registry = warm(ByAttribute(), 1.0, 1.0)
    registry.leave(registry.slots[0])
    again = FakeSlot("S0")
    again.epoch, registry.slots[0] = 0, again
    registry.enter(again, 0.0)
    assert registry.victim() == "S0"
    registry.leave(again)
    assert registry.victim() == "S1"


@pytest.mark.parametrize("falling", [3, 40])
def test_a_worth_that_fell_by_time_alone_is_noticed(falling: int) -> None:
    """After as many choices as there are candidates, at the latest."""
    registry = warm(ByAttribute(), *map(float, range(100, 150)))
    registry.slots[falling].worth = 1.0
    assert f"S{falling}" in [registry.victim() for _ in range(50)]


def test_order_tells_all_and_changes_nothing() -> None:
    """The front leaves first."""
    registry = warm(ByAttribute(), 3.0, 1.0, 2.0)
    registry.slots[2].pinned = True
    assert registry.chooser.order(registry, 0.0) == [  # type: ignore[arg-type]
        ("S1", 1.0),
        ("S0", 3.0),
    ]
    assert registry.victim() == "S1"


def test_the_heap_stays_small() -> None:
    """Whatever is used, told anew, and comes and goes."""
    registry = FakeRegistry(ByAttribute(), 10)
    for turn in range(5_000):
        slot = registry.slots[turn % 10]
        if slot.kind:
            registry.leave(slot)
        registry.enter(slot, float(turn))
        registry.victim(float(turn))
    assert len(registry.chooser._heap) <= 100
    assert len(registry.chooser._told) == 10


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "write", "leave", "use", "hold", "pin", "rank", "choose"]),
            st.integers(0, 5),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_the_same_as_a_naive_choice(steps: list[tuple[str, int, int]]) -> None:
    """For worths that rise by use only."""
    registry = FakeRegistry(ByAttribute())
    for now, (step, number, value) in enumerate(steps):
        slot = registry.slots[number]
        if step in ("enter", "write") and not slot.kind:
            slot.worth = float(value)
            registry.enter(slot, float(now), tell=step == "enter")
        elif step == "leave" and slot.kind:
            registry.leave(slot)
        elif step == "use" and slot.kind:
            slot.uses += 1
            slot.last_used = float(now)
            slot.worth += value
        elif step == "hold":
            slot.holds = value % 2
        elif step == "pin":
            slot.pinned = value % 2 == 1
        elif step == "rank" and slot.kind:
            registry.priorities[slot.name] = value % 3
            registry.chooser.note(slot, float(now))  # type: ignore[arg-type]
        elif step == "choose":
            spare = slot if value % 2 else None
            free = [
                (registry.priorities.get(s.name, 0), s.worth, s.last_used, s.name)
                for s in registry._warm_slots()
                if not s.holds and not s.pinned and s is not spare
            ]
            chosen = registry.victim(float(now), spare)
            assert chosen == (min(free)[-1] if free else None)
            if chosen is not None and value % 3:
                registry.leave(next(s for s in registry.slots if s.name == chosen))


# -- policies that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [ValueError("no"), math.nan, math.inf, "much", None])
def test_what_a_policy_cannot_judge_leaves_first_by_last_use(wrong: Any, caplog: Any) -> None:
    """It is said once; the others are judged as ever."""
    registry = warm(ByAttribute(), -5.0, wrong, wrong, -9.0)
    with caplog.at_level(logging.WARNING, logger="warmset"):
        left = []
        while (name := registry.victim(10.0)) is not None:
            left.append(name)
            registry.leave(next(s for s in registry.slots if s.name == name))
    assert left == ["S1", "S2", "S3", "S0"]


def test_a_failure_is_logged_once(caplog: Any) -> None:
    """However often it fails."""
    with caplog.at_level(logging.WARNING, logger="warmset.memory"):
        registry = warm(ByAttribute(), ValueError("no"), ValueError("no"))
        registry.victim()
    (record,) = caplog.records
    assert "ByAttribute" in record.getMessage()
    assert record.exc_info is not None


def test_an_interrupt_in_a_policy_loses_nobody() -> None:
    """What was taken out of the heap goes back."""
    registry = warm(ByAttribute(), 1.0, 2.0, 3.0)

    class Interrupted(ByAttribute):
        def worth(self, slot: Any, now: float) -> float:
            raise KeyboardInterrupt

    mended, registry.chooser._policy = registry.chooser._policy, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        registry.victim()
    registry.chooser._policy = mended
    assert registry.victim() == "S0"
    assert len(registry.chooser._heap) >= 3


def test_a_worth_that_differs_at_each_look_ends() -> None:
    """Each candidate is asked for once a choice."""

    class Rising(ByAttribute):
        asked = 0.0

        def worth(self, slot: Any, now: float) -> float:
            self.asked += 1.0
            return self.asked

    policy = Rising()
    registry = warm(policy, *[0.0] * 20)
    before = policy.asked
    assert registry.victim() is not None
    assert policy.asked - before <= 22.0


# -- threads -------------------------------------------------------------------------------------


def test_a_policy_may_come_back_in() -> None:
    """The lock is not held while it is asked."""

    class Curious(ByAttribute):
        registry: FakeRegistry | None = None

        def worth(self, slot: Any, now: float) -> float:
            if self.registry is not None:
                registry, self.registry = self.registry, None
                thread = threading.Thread(target=registry.victim)
                thread.start()
                thread.join(10.0)
                assert not thread.is_alive()
                assert registry.victim() is not None
            return float(slot.worth)

    policy = Curious()
    registry = warm(policy, 1.0, 2.0)
    policy.registry = registry
    assert registry.victim() == "S0"


def test_two_threads_never_find_nobody() -> None:
    """Though one has every candidate out of the heap."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(ByAttribute):
        slow = False

        def worth(self, slot: Any, now: float) -> float:
            if self.slow and threading.current_thread() is not threading.main_thread():
                inside.set()
                assert go_on.wait(10.0)
            return float(slot.worth)

    policy = Slow()
    registry = warm(policy, 1.0, 2.0)
    registry.slots[1].holds = 1
    policy.slow = True
    thread = threading.Thread(target=registry.victim)
    thread.start()
    assert inside.wait(10.0)
    assert registry.victim() == "S0"
    go_on.set()
    thread.join(10.0)
    assert not thread.is_alive()


# -- what is handed out and not kept ---------------------------------------------------------------


class Passing(ByAttribute):
    """Weighs what was just built with the others."""

    def passes(self, slot: Any, now: float) -> bool:
        return True


def test_what_was_just_built_is_spared() -> None:
    """However little it is worth."""
    registry = warm(ByAttribute(), 5.0, 1.0)
    spare = registry.slots[1]
    spare.holds = 1
    assert registry.victim(spare=spare) == "S0"


def test_what_was_just_built_may_pass() -> None:
    """If it is worth least, though its caller holds it; but not twice, nor where it is pinned."""
    registry = warm(Passing(), 5.0, 1.0)
    spare = registry.slots[1]
    spare.holds = 1
    assert registry.victim(spare=spare) == "S1"
    again = registry.chooser.victim(registry, 0.0, spare, may_pass=False)  # type: ignore[arg-type]
    assert again is not None
    assert again[0].name == "S0"
    spare.pinned = True
    assert registry.victim(spare=spare) == "S0"


def test_a_policy_that_cannot_tell_what_passes_spares_it() -> None:
    """As one that does not say."""

    class Failing(Passing):
        def passes(self, slot: Any, now: float) -> bool:
            raise ValueError("no")

    registry = warm(Failing(), 5.0, 1.0)
    assert registry.victim(spare=registry.slots[1]) == "S0"
