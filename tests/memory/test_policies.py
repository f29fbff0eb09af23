"""Who leaves: policies, priorities, and the chooser against one that is too simple to be wrong."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset.memory.choosing import Chooser
from warmset.memory.policies import CostPolicy, LruPolicy, policy_of

if TYPE_CHECKING:
    import random


def slot(name: str, **facts: Any) -> Any:
    """What a policy and a chooser see of a slot."""
    known = {"uses": 1, "built_at": 0.0, "last_used": 0.0, "build_seconds": 1.0, "bytes": 100}
    state = {"epoch": 0, "kind": 1, "holds": 0, "pinned": False, "leaving": None}
    return SimpleNamespace(**{"name": name, **known, **state, **facts})


class Shelf:
    """What a chooser sees of a registry."""

    def __init__(self, slots: list[Any]) -> None:
        self.slots = slots

    @property
    def _cached(self) -> int:
        return len(self._warm_slots())

    def _warm_slots(self) -> list[Any]:
        return [one for one in self.slots if one.kind]


# -- cost ----------------------------------------------------------------------------------------


def test_worth_goes_by_cost_bytes_and_use() -> None:
    cost = CostPolicy()
    base = slot("A", uses=10, last_used=90.0)

    def worth(**other: Any) -> float:
        return cost.worth(slot("A", **{"uses": 10, "last_used": 90.0, **other}), 100.0)

    same = cost.worth(base, 100.0)
    assert worth(build_seconds=2.0) == pytest.approx(same + 1.0)  # twice as much
    assert worth(bytes=200) == pytest.approx(same - 1.0)
    assert worth(uses=20) > same
    assert cost.worth(base, 1000.0) < same
    assert math.isfinite(worth(build_seconds=0.0, bytes=-1, uses=0, last_used=-5.0))


def test_earlier_stays_count_less_and_less() -> None:
    """Of two that look alike now, the one that was used more often before is worth more."""
    cost = CostPolicy()
    cost.left("often", 100, 0.0, 100.0)
    cost.left("seldom", 2, 0.0, 100.0)
    now = {"built_at": 110.0, "last_used": 110.0}
    assert cost.worth(slot("often", **now), 115.0) > cost.worth(slot("seldom", **now), 115.0)
    for turn in range(20):  # it has changed its habits
        cost.left("often", 1, 1000.0 * turn + 200.0, 1000.0 * turn + 200.0)
    gaps, seconds = cost._gaps("often", 1, 21_000.0, 21_000.0)
    assert seconds / gaps > 900.0


def test_what_is_revived_is_not_learned_twice() -> None:
    cost = CostPolicy()
    cost.left("A", 5, 0.0, 10.0)
    before = dict(cost._past)
    cost.left("A", 5, 0.0, 10.0)
    assert cost._past == before


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmset.memory.policies._MOST_NAMES", 10)
    cost = CostPolicy()
    for number in range(100):
        cost.left(str(number), 1, 0.0, float(number))
    assert list(cost._past) == [str(number) for number in range(90, 100)]


def test_policies_by_name() -> None:
    own = LruPolicy()
    assert isinstance(policy_of("lru"), LruPolicy)
    assert isinstance(policy_of("cost"), CostPolicy)
    assert policy_of(own) is own


# -- the chooser ---------------------------------------------------------------------------------


def drained(chooser: Chooser, shelf: Shelf, now: float = 0.0) -> list[str]:
    """The order in which all leave."""
    order = []
    while (chosen := chooser.victim(shelf, now)) is not None:  # type: ignore[arg-type]
        order.append(chosen[0].name)
        chosen[0].kind = 0
    return order


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-1, 1), st.integers(0, 50), st.booleans(), st.booleans()),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
def test_it_chooses_as_a_sort_would(facts: Any, chance: random.Random) -> None:
    """By priority, then by worth; uses that came after the note count."""
    priorities = {str(at): priority for at, (priority, *_) in enumerate(facts)}
    slots = [
        slot(str(at), last_used=float(used), holds=int(held), pinned=pinned)
        for at, (_, used, held, pinned) in enumerate(facts)
    ]
    shelf = Shelf(slots)
    chooser = Chooser(LruPolicy(), priorities.__getitem__)
    for one in slots:
        chooser.note(one, 0.0)
    for one in slots:
        if chance.random() < 0.3:
            one.uses += 1
            one.last_used += chance.randrange(50)
    free = [one for one in slots if not one.holds and not one.pinned]
    expected = sorted((priorities[o.name], o.last_used) for o in free)
    by_name = {o.name: (priorities[o.name], o.last_used) for o in slots}
    assert [by_name[name] for name in drained(chooser, shelf)] == expected
    for one in slots:
        one.holds = 0
        one.pinned = False
    assert len(drained(chooser, shelf)) == len(slots) - len(free)


def test_what_was_noted_by_nobody_is_found() -> None:
    """As what was written from outside."""
    shelf = Shelf([slot("A", last_used=2.0), slot("B", last_used=1.0)])
    assert drained(Chooser(LruPolicy(), lambda name: 0), shelf) == ["B", "A"]


def test_the_heap_does_not_grow_with_churn() -> None:
    chooser = Chooser(LruPolicy(), lambda name: 0)
    one = slot("A")
    for epoch in range(5_000):
        one.epoch = epoch
        chooser.note(one, 0.0)
    assert len(chooser._heap) <= 130


@pytest.mark.parametrize("count", [100, 1_000, 10_000])
def test_a_choice_is_cheap(count: int) -> None:
    """The policy is asked ten times or so for each, however many there are."""
    asked = 0

    class Counting:
        def worth(self, slot: Any, now: float) -> float:
            nonlocal asked
            asked += 1
            return float(slot.last_used)

    slots = [slot(str(at), last_used=float(at)) for at in range(count)]
    chooser = Chooser(Counting(), lambda name: 0)
    for one in slots:
        chooser.note(one, 0.0)
    asked = 0
    for _ in range(count // 2):
        chosen = chooser.victim(Shelf(slots), 0.0)  # type: ignore[arg-type]
        assert chosen is not None
        chosen[0].kind = 0
    assert asked <= 10 * (count // 2) + count


# -- in a registry -------------------------------------------------------------------------------


def left(registry: Any) -> dict[str, int]:
    removals = registry.stats().as_dict()["removals"]
    return {cause: count for cause, count in removals.items() if count}


def test_who_has_less_priority_leaves_first(make: Any) -> None:
    """Whatever the order of use."""
    registry = make({}, max_cache_size=2)
    registry.register_class("Alpha", "samples.Alpha", priority=1)
    for name in ("Beta", "Gamma", "Delta"):
        registry.register_class(name, f"samples.{name}")
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert registry._ring() == ["Delta", "Alpha"]
    assert left(registry) == {"size": 2}


def test_a_priority_may_come_while_there_are_instances(make: Any) -> None:
    registry = make(max_cache_size=3)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    registry.register_class("Gamma", "samples.Gamma", priority=-1)
    registry.get_instance("Delta")
    assert sorted(registry._ring()) == ["Alpha", "Beta", "Delta"]


def test_the_dear_one_stays(make: Any, samples: Any, timer: Any) -> None:
    """And what is worth less than who would leave for it is handed out and not kept."""
    registry = make(policy="cost", max_cache_size=2)
    for name, seconds in (("Alpha", 9.0), ("Beta", 5.0), ("Gamma", 0.001)):
        samples.script[name] = lambda _, seconds=seconds: timer.advance(seconds)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
        timer.advance(1)
        registry.get_instance(name)
    with registry.use("Gamma") as instance:
        assert instance.echo("x") == "x"
        assert sorted(registry._ring()) == ["Alpha", "Beta", "Gamma"]
    assert sorted(registry._ring()) == ["Alpha", "Beta"]
    assert left(registry) == {"size": 1}
    assert samples.closed == ["Gamma"]
    mine = registry.get_instance("Gamma")
    assert sorted(registry._ring()) == ["Alpha", "Beta"]
    assert mine.echo("y") == "y"
    assert (registry._blocked, registry._waiting_threads()) == (0, 0)


@pytest.fixture
def full(make: Any, samples: Any, timer: Any) -> Any:
    """A registry with one place, which is taken by what is dear: all else passes."""
    registry = make(policy="cost", max_cache_size=1)
    samples.script["Alpha"] = lambda _: timer.advance(9.0)
    registry.get_instance("Alpha")
    return registry


def test_two_threads_let_the_same_pass(full: Any) -> None:
    """It is counted once, and what one of them looks at is not what the other has noted since."""
    registry, memory = full, full._memory

    class Interleaved(dict[str, Any]):
        """Lets another thread in at the worst moment, once."""

        other: Any = None

        def __contains__(self, name: object) -> bool:
            there = super().__contains__(name)
            self.let_in()
            return there

        def setdefault(self, name: str, entry: Any = None) -> Any:
            self.let_in()
            return super().setdefault(name, entry)

        def pop(self, name: str, *default: Any) -> Any:
            self.let_in()
            return super().pop(name, *default)

        def let_in(self) -> None:
            other, self.other = self.other, None
            if other is not None:
                other()

    memory._passing = passing = Interleaved()
    with registry.use("Beta"):
        entry = passing.pop("Beta")
        registry._block(-1)
        passing.other = lambda: memory._let_pass(registry, *entry)
        memory._let_pass(registry, *entry)
        assert (list(passing), registry._blocked) == (["Beta"], 1)
        # A release has seen a hold that is over; by the time it takes the entry it is a newer one.
        slot, epoch, cause, more_than = entry
        passing["Beta"] = (slot, epoch - 1, cause, more_than)
        passing.other = lambda: passing.update(Beta=entry)
        memory.released(registry)
        assert (list(passing), registry._blocked) == (["Beta"], 1)
    assert (list(passing), registry._blocked) == ([], 0)
    assert registry._ring() == ["Alpha"]


def test_what_was_given_back_just_before_it_was_to_pass(full: Any) -> None:
    """There is no release to come that would let it leave."""
    with full.use("Beta"):
        (entry,) = full._memory._passing.values()
        full._memory._passing.clear()
        full._block(-1)
    full._memory._let_pass(full, *entry)
    assert full._ring() == ["Alpha"]
    assert full._blocked == 0


def test_what_passes_is_kept_where_there_is_room_by_then(full: Any) -> None:
    with full.use("Beta"):
        full.discard("Alpha")
    assert full._ring() == ["Beta"]
    assert full._blocked == 0


def test_a_policy_of_ones_own(make: Any) -> None:
    class Alphabetical:
        def worth(self, slot: Any, now: float) -> float:
            return -float(ord(slot.name[0]))

    registry = make(policy=Alphabetical(), max_cache_size=2)
    for name in ("Gamma", "Alpha", "Delta", "Beta"):
        registry.get_instance(name)
    assert sorted(registry._ring()) == ["Alpha", "Beta"]


@pytest.mark.parametrize("worth", [math.nan, math.inf, "much", None, KeyError("x")])
def test_a_policy_that_fails_falls_back_to_the_last_use(make: Any, caplog: Any, worth: Any) -> None:
    """It is said once."""

    class Failing:
        def worth(self, slot: Any, now: float) -> Any:
            if isinstance(worth, Exception):
                raise worth
            return worth

    registry = make(policy=Failing(), max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert len(registry._ring()) == 2
    said = [r.getMessage() for r in caplog.records if r.name == "warmset.memory"]
    assert len(said) == 1
    assert "Failing' cannot tell what 'Alpha' is worth, its last use counts" in said[0]


def test_a_policy_may_use_the_registry(make: Any) -> None:
    class Asking:
        def worth(self, slot: Any, now: float) -> float:
            registry.stats()
            registry.has_method(slot.name, "echo")
            return float(slot.last_used)

    registry = make(policy=Asking(), max_cache_size=2)
    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        registry.get_instance(name)
    assert len(registry._ring()) == 2


@pytest.mark.parametrize("policy", ["cost", "lru"])
def test_threads(make: Any, policy: str, samples: Any) -> None:
    """The bound holds when all is given back, and nothing closed is handed out."""
    registry = make({}, policy=policy, max_cache_size=2)
    names = ("Alpha", "Beta", "Gamma", "Delta")
    for at, name in enumerate(names):
        registry.register_class(name, f"samples.{name}", priority=at % 2)
    errors: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for turn in range(400):
                with registry.use(names[(turn * 7 + offset) % 4]) as instance:
                    instance.echo()
                registry.get_instance(names[turn % 4])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    registry.sweep()
    assert registry.stats().cached <= 2
    assert registry._blocked == 0


# -- adaptive TTL --------------------------------------------------------------------------------


def test_the_idle_limit_follows_from_use(make: Any, timer: Any) -> None:
    """And is told with its numbers."""
    registry = make(adaptive_ttl=True, adaptive_ttl_min_seconds=5, adaptive_ttl_max_seconds=1000)
    assert "nothing is known of its use yet" in str(_built(registry, "Alpha"))
    for _ in range(20):
        timer.advance(10)
        registry.get_instance("Alpha")
    registry.discard("Alpha")
    timer.advance(10)
    told = _built(registry, "Alpha")
    assert told.idle_limit_seconds == pytest.approx(30.0, rel=0.2)
    assert "(adaptive): 3 x its usual gap of 10 s is 30 s" in str(told)
    timer.advance(50)
    assert registry.evict_expired() == 1


def test_a_ttl_of_its_own_is_not_adapted(make: Any, timer: Any) -> None:
    registry = make({}, adaptive_ttl=True)
    registry.register_class("Alpha", "samples.Alpha", cache_ttl_seconds=7)
    for _ in range(3):
        registry.get_instance("Alpha")
        timer.advance(6)
        registry.discard("Alpha")
    assert _built(registry, "Alpha").idle_limit_seconds == 7.0


def test_what_takes_long_to_build_stays_longer(make: Any, samples: Any, timer: Any) -> None:
    registry = make(adaptive_ttl=True)
    samples.script["Alpha"] = lambda _: timer.advance(20)
    for _ in range(3):
        registry.get_instance("Alpha")
        timer.advance(1)
        registry.get_instance("Alpha")
        registry.discard("Alpha")
    assert _built(registry, "Alpha").idle_limit_seconds == 1200.0


def _built(registry: Any, name: str) -> Any:
    registry.get_instance(name)
    return registry.explain(name)
