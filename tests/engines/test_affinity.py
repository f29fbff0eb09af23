"""Tests of `Router`: which worker a call goes to."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from warmset.engines import affinity
from warmset.engines.affinity import Router, Ticket
from warmset.family_keys import FamilyKey


def make(workers: int = 4, *, threads: int = 1, **options: Any) -> Router:
    return Router({f"w{at}": threads for at in range(workers)}, **options)


def check_consistent(router: Router) -> None:
    """Check that queues are not negative and that classes refer to existing workers."""
    workers = set(router.workers())
    for worker in router._workers.values():
        assert worker.queued >= 0.0
    assigned = [len(worker.classes) for worker in router._workers.values()]
    assert router._assigned == sum(assigned)
    for class_name, known in router._classes.items():
        assert set(known.warm_on) <= workers
        assert set(known.in_progress) <= workers
        assert all(count > 0 for count in known.in_progress.values())
        firsts = [w.name for w in router._workers.values() if class_name in w.classes]
        assert len(firsts) <= 1
        if known.warm_on:
            assert len(firsts) == 1


def test_a_class_stays_on_its_worker() -> None:
    router = make()
    first = router.choose("A")
    assert first.built
    router.done(first)
    for _ in range(50):
        ticket = router.choose("A")
        assert (ticket.worker, ticket.built) == (first.worker, False)
        router.done(ticket)
    assert router.placements() == {"A": (first.worker,)}
    check_consistent(router)


def test_no_worker_gets_more_than_its_share() -> None:
    """At most 1.25 times the mean, at any moment."""
    router = make(8)
    for at in range(1, 401):
        router.choose(f"class {at}")
        counts = Counter(worker for (worker,) in router.placements().values())
        assert max(counts.values()) <= -(-1.25 * at // 8)
    check_consistent(router)


def test_independent_clients_agree_on_most_assignments() -> None:
    """Not on all, because the bound makes the last assignments depend on their order."""
    one, other = make(16), make(16)
    names = [f"class {at}" for at in range(400)]
    for name in names:
        one.choose(name)
    random.Random(1).shuffle(names)
    for name in names:
        other.choose(name)
    mine, theirs = one.placements(), other.placements()
    agreed = sum(mine[name] == theirs[name] for name in names)
    assert agreed >= 0.75 * len(names)


def test_a_class_gets_another_worker_when_waiting_costs_more_than_a_build() -> None:
    router = make(2)
    router.learn("A", call_seconds=0.1, build_seconds=1.0)
    tickets = [router.choose("A") for _ in range(40)]
    assert len({ticket.worker for ticket in tickets}) == 1  # 4.0 s and a build are queued
    tickets += [router.choose("A") for _ in range(40)]
    assert len({ticket.worker for ticket in tickets}) == 2
    assert [ticket.built for ticket in tickets].count(True) == 2
    check_consistent(router)
    for ticket in tickets:
        router.done(ticket)
    assert router.longest_wait() == pytest.approx(0.0)
    check_consistent(router)


def test_a_class_gets_no_other_worker_before_its_build_time_is_known() -> None:
    router = make(4)
    assert len({router.choose("A").worker for _ in range(1000)}) == 1


def test_equally_busy_workers_do_not_exchange_classes() -> None:
    """Classes with equal load stay on their workers, however long the queues are."""
    router = make(4)
    for at in range(20):
        router.learn(f"class {at}", call_seconds=0.01, build_seconds=0.3)
    for _ in range(200):
        for at in range(20):
            router.choose(f"class {at}")
    assert sum(map(len, router.placements().values())) <= 1.2 * 20
    check_consistent(router)


def test_an_unused_additional_worker_is_forgotten(timer: Any) -> None:
    """After a minute; the first worker is never forgotten."""
    router = make(2, timer=timer)
    router.learn("A", call_seconds=2.0, build_seconds=0.2)
    tickets = [router.choose("A") for _ in range(4)]
    assert len(router.placements()["A"]) == 2
    for ticket in tickets:
        router.done(ticket)
    timer.advance(61.0)
    router.done(router.choose("A"))
    assert len(router.placements()["A"]) == 1
    timer.advance(600.0)
    assert router.choose("A").worker == tickets[0].worker
    check_consistent(router)


def test_the_classes_of_a_lost_worker_are_reassigned() -> None:
    router = make(3)
    for at in range(30):
        router.choose(f"class {at}")
    before = router.placements()
    lost = router.remove_worker("w1")
    assert sorted(lost) == sorted(name for name, where in before.items() if where == ("w1",))
    for at in range(30):
        where = router.choose(f"class {at}").worker
        assert where != "w1"
        if before[f"class {at}"] != ("w1",):
            assert (where,) == before[f"class {at}"]
    assert router.remove_worker("w1") == []
    check_consistent(router)


def test_a_ticket_of_a_lost_worker_is_ignored() -> None:
    router = make(1)
    ticket = router.choose("A")
    router.set_workers({"other": 2})
    router.done(ticket)
    router.done(Ticket("never seen", "nowhere", 1.0, False))
    assert router.choose("A").worker == "other"
    check_consistent(router)


def test_an_additional_worker_becomes_the_first_when_that_is_lost() -> None:
    router = make(2)
    router.learn("A", call_seconds=2.0, build_seconds=0.2)
    for _ in range(4):
        router.choose("A")
    first, second = router.placements()["A"]
    router.remove_worker(first)
    assert router.placements()["A"] == (second,)
    check_consistent(router)


def test_without_affinity_the_shortest_queue_is_chosen() -> None:
    router = make(3, affinity=False)
    assert sorted(router.choose("A").worker for _ in range(3)) == ["w0", "w1", "w2"]


def test_invalid_arguments_raise() -> None:
    with pytest.raises(LookupError, match="no worker to call 'A' on"):
        Router().choose("A")
    with pytest.raises(ValueError, match="threads of worker 'w' must be 1 or more, got 0"):
        Router().add_worker("w", 0)
    with pytest.raises(TypeError, match="class name"):
        make().choose(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_random_operations(seed: int, timer: Any) -> None:
    """The router stays consistent under any sequence of operations."""
    chance = random.Random(seed)
    router = make(3, timer=timer)
    tickets: list[Ticket] = []
    added = 3
    for _ in range(600):
        what = chance.random()
        if what < 0.5 and router.workers():
            tickets.append(router.choose(f"class {chance.randrange(12)}"))
        elif what < 0.85 and tickets:
            router.done(tickets.pop(chance.randrange(len(tickets))))
        elif what < 0.88 and len(router.workers()) > 1:
            router.remove_worker(chance.choice(router.workers()))
        elif what < 0.92:
            router.add_worker(f"w{added}", chance.randrange(1, 4))
            added += 1
        elif what < 0.96:
            name = f"class {chance.randrange(12)}"
            router.learn(name, call_seconds=chance.random(), build_seconds=chance.random())
        else:
            timer.advance(chance.random() * 50)
            if router.workers():
                router.mark_cold(chance.choice(router.workers()))
        check_consistent(router)


def test_keys_of_families_are_routed_like_classes() -> None:
    router = Router({"a": 1, "b": 1, "c": 1})
    keys = [FamilyKey("Model", key) for key in (1, "1", "fr", ("fr", 1))] + ["Model[fr]"]
    first = {key: router.choose(key).worker for key in keys}
    assert {key: router.choose(key).worker for key in keys} == first
    assert set(router.placements()) == set(keys)
    check_consistent(router)
    with pytest.raises(TypeError, match="class name must be a str"):
        router.choose(("Model", "fr"))  # type: ignore[arg-type]


def test_keys_share_the_durations_of_their_family() -> None:
    router = Router({"a": 1, "b": 1})
    router.learn("Model", call_seconds=2.0, build_seconds=3.0)
    assert router.choose(FamilyKey("Model", "fr")).seconds == 5.0
    router.learn_times({"Model": 1.0}, {"Model": 1.0})
    assert router.choose(FamilyKey("Model", "de")).seconds == 2.0


def test_keys_without_number_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not called for longest, and that are not being called."""
    monkeypatch.setattr(affinity, "_MAX_KEYS", 10)
    router = Router({"a": 1, "b": 1, "c": 1})
    router.done(router.choose("Class"))
    kept = router.choose(FamilyKey("Model", "kept"))
    where: dict[int, str] = {}
    for number in range(200):
        ticket = router.choose(FamilyKey("Model", number))
        where[number] = ticket.worker
        router.done(ticket)
        assert len(router.placements()) <= 12  # the class, and one that is being called
        check_consistent(router)
    assert kept.class_name in router.placements()
    router.done(kept)
    again = [router.choose(FamilyKey("Model", number)).worker for number in range(20)]
    assert sum(where[number] == worker for number, worker in enumerate(again)) >= 10
