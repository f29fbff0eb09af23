"""The live view's server: its answers, the changes that clients may make, and its end."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import re
import stat
import threading
import weakref
from typing import Any

import pytest
from threads import until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs Unix sockets")


def rows(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Class name -> row, of the only registry in an answer."""
    (registry,) = answer["registries"]
    return {row["class_name"]: row for row in registry["classes"]}


def test_nothing_is_served_by_default(make: Any, place: str) -> None:
    """There is no thread and no directory."""
    before = threading.active_count()
    make().get_instance("Alpha")
    assert threading.active_count() == before
    assert not os.path.exists(place)


def test_serve_is_a_name_of_the_package(ws: Any, make: Any, serving: Any) -> None:
    """`observe.serve` is imported at first use; unknown names raise."""
    observe = importlib.import_module("warmset.observe")
    assert observe.serve is serving.serve
    assert "serve" in dir(observe)
    with pytest.raises(AttributeError, match="no attribute 'surf'"):
        observe.surf  # noqa: B018
    registry = make()
    with observe.serve(registry, name="here") as served:
        assert served.path is not None
    assert repr(served) == "<served registry 'here'>"


def test_directory_and_socket_are_private(make: Any, serving: Any, place: str) -> None:
    """Modes 0700 and 0600, without a port."""
    registry = make()
    served = serving.serve(registry)
    assert stat.S_IMODE(os.lstat(place).st_mode) == 0o700
    found = os.lstat(served.path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert os.listdir(place) == [os.path.basename(served.path)]
    assert os.path.basename(served.path).startswith(f"{os.getpid()}-")


def test_list_describes_the_process(ws: Any, make: Any, serving: Any, connect: Any) -> None:
    """With its process ID and the names of its registries."""
    registry, other = make(), make()
    serving.serve(registry, name="main")
    serving.serve(other, allow_changes=True)
    answer = connect().ask("list")
    assert answer["ok"] is True
    assert answer["pid"] == os.getpid()
    assert answer["implementation"] == ws.implementation
    assert answer["rss_bytes"] > 1_000_000
    named, numbered = answer["registries"]
    assert named == {"name": "main", "offers": []}
    assert re.fullmatch(r"registry-\d+", numbered["name"])
    assert numbered["offers"] == ["evict", "clear", "pin", "unpin"]


@pytest.mark.counts
def test_figures_are_those_of_stats(make: Any, serving: Any, connect: Any, timer: Any) -> None:
    """And reading changes none of them."""
    registry = make(retry_after_seconds=float("inf"))
    serving.serve(registry, name="main")
    registry.get_instance("Alpha")
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    before = registry.stats()
    client = connect()
    for _ in range(3):
        (answer,) = client.ask("stats", registry="main")["registries"]
    assert registry.stats() == before
    assert answer["hits"] == answer["misses"] == 1
    assert answer["hit_rate"] == 0.5
    assert answer["removals"]["discarded"] == 1
    assert answer["settings"]["retry_after_seconds"] == "inf"
    assert (answer["name"], answer["closed"], answer["bytes"]) == ("main", 1, None)


def test_states_of_classes(
    ws: Any, make: Any, serving: Any, connect: Any, timer: Any, samples: Any
) -> None:
    """All of them at once."""
    paths = {name: f"samples.{name}" for name in ("Alpha", "Beta", "Gamma", "Delta", "Broken")}
    registry = make({**paths, "Slow": "samples.Alpha"}, cache_ttl_seconds=60)
    serving.serve(registry)
    client = connect()
    registry.get_instance("Alpha")
    timer.advance(2)
    holder, gone = registry.use("Beta"), registry.use("Delta")
    holder.__enter__()
    gone.__enter__()
    registry.discard("Delta")
    with pytest.raises(ws.BuildError):
        registry.get_instance("Broken")
    timer.advance(3)
    entered, go = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        assert go.wait(60)

    samples.script["Alpha"] = slow
    builder = threading.Thread(target=registry.get_instance, args=("Slow",), name="the-builder")
    builder.start()
    assert entered.wait(30)
    by_name = rows(client.ask("stats"))
    go.set()
    builder.join()
    holder.__exit__()
    gone.__exit__()
    states = {name: row["state"] for name, row in by_name.items()}
    assert states == {
        "Alpha": "warm",
        "Beta": "held",
        "Gamma": "cold",
        "Delta": "removed",
        "Broken": "failed",
        "Slow": "building",
    }
    alpha = by_name["Alpha"]
    assert (alpha["age_seconds"], alpha["idle_seconds"], alpha["uses"]) == (5.0, 5.0, 1)
    assert (alpha["expires"], alpha["expires_in_seconds"]) == ("idle in 55s", 55.0)
    assert (alpha["bytes"], alpha["class_path"]) == (None, "samples.Alpha")
    beta = by_name["Beta"]
    assert (beta["holders"], beta["held_seconds"], beta["idle_seconds"]) == (1, 3.0, None)
    assert beta["expires"] == "not while held"
    assert by_name["Delta"]["expires"] == "still held, closed at its release"
    assert by_name["Delta"]["held_seconds"] == 3.0
    assert by_name["Broken"]["detail"] == "retry in 27s: ValueError: no model file"
    assert "the-builder" in by_name["Slow"]["detail"]
    assert by_name["Gamma"]["uses"] is None
    assert list(by_name)[:2] == ["Beta", "Alpha"]


def test_a_removed_instance_is_not_counted_for_its_successor(
    make: Any, serving: Any, connect: Any, timer: Any
) -> None:
    """Holders are those of the cached instance; the maximum age also applies while it is held."""
    registry = make(max_age_seconds=100)
    serving.serve(registry)
    client = connect()
    with registry.use("Alpha"):
        registry.discard("Alpha")
        timer.advance(5)
        registry.get_instance("Alpha")
        row = rows(client.ask("stats"))["Alpha"]
        assert (row["state"], row["holders"], row["held_seconds"]) == ("warm", 0, None)
    with registry.use("Alpha"):
        row = rows(client.ask("stats"))["Alpha"]
        assert (row["state"], row["holders"], row["held_seconds"]) == ("held", 1, 0.0)
        assert (row["expires"], row["expires_in_seconds"]) == ("aged in 2m", 100.0)


def test_weakly_referenced_instances(make: Any, serving: Any, connect: Any) -> None:
    """They are removed with their last reference."""
    registry = make(enable_weakref=True)
    serving.serve(registry)
    client = connect()
    kept = registry.get_instance("Alpha")
    row = rows(client.ask("stats"))["Alpha"]
    assert (row["state"], row["expires"]) == ("weak", "when unreferenced")
    del kept
    assert rows(client.ask("stats"))["Alpha"]["state"] == "cold"


@pytest.mark.parametrize(
    ("options", "expires"),
    [
        ({"cache_ttl_seconds": 0, "max_cache_size": 4}, ["no limit"] * 3),
        (
            {"cache_ttl_seconds": 0, "max_cache_size": 3},
            ["LRU: after 3 builds", "LRU: after 2 builds", "LRU: next"],
        ),
        (
            {"cache_ttl_seconds": 600, "max_cache_size": 3},
            ["idle in 10m", "idle in 10m", "idle in 10m, LRU: next"],
        ),
    ],
)
def test_the_next_removal(
    make: Any, serving: Any, connect: Any, options: dict[str, Any], expires: list[str]
) -> None:
    """The bound is a reason only if there are more classes than it allows."""
    registry = make(**options)
    serving.serve(registry)
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    by_name = rows(connect().ask("stats"))
    assert [by_name[name]["expires"] for name in ("Gamma", "Beta", "Alpha")] == expires


def test_the_predicted_eviction_happens(make: Any, serving: Any, connect: Any) -> None:
    """After the predicted number of builds, skipping the held instance."""
    registry = make(cache_ttl_seconds=0, max_cache_size=3)
    serving.serve(registry)
    client = connect()
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    with registry.use("Alpha"):
        registry.get_instance("Gamma")
        assert rows(client.ask("stats"))["Beta"]["expires"] == "LRU: next"
        registry.get_instance("Delta")
        by_name = rows(client.ask("stats"))
    assert (by_name["Alpha"]["state"], by_name["Beta"]["state"]) == ("held", "cold")


def test_expired_and_not_yet_removed(make: Any, serving: Any, connect: Any, timer: Any) -> None:
    """Without a sweep, it stays until the next look-up."""
    registry = make(cache_ttl_seconds=10)
    serving.serve(registry)
    registry.get_instance("Alpha")
    timer.advance(11)
    row = rows(connect().ask("stats"))["Alpha"]
    assert row["expires"] == "expired: next look-up"
    assert row["expires_in_seconds"] == 0.0


def test_filter_and_limit(make: Any, serving: Any, connect: Any) -> None:
    """Cached classes come first, and omitted ones are counted."""
    registry = make()
    serving.serve(registry)
    registry.get_instance("Delta")
    client = connect()
    answer = client.ask("stats", limit=2)
    assert list(rows(answer)) == ["Delta", "Alpha"]
    assert answer["registries"][0]["classes_left_out"] == 2
    assert list(rows(client.ask("stats", filter="ETA"))) == ["Beta"]
    assert list(rows(client.ask("stats", filter="ta"))) == ["Delta", "Beta"]
    assert client.ask("stats", limit=-1)["error"].startswith("stats: limit must be from 0")


def test_evict_and_clear(
    make: Any, serving: Any, connect: Any, samples: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """If allowed; each change is logged, and removed instances are closed."""
    registry = make()
    serving.serve(registry, name="main", allow_changes=True)
    for name in ("Alpha", "Beta", "Gamma"):
        with registry.use(name):
            pass
    client = connect()
    caplog.set_level(logging.INFO, logger="warmset.observe")
    assert client.ask("evict", registry="main", **{"class": "Alpha"})["removed"] == 1
    assert client.ask("evict", registry="main", **{"class": "Alpha"})["removed"] == 0
    assert samples.closed == ["Alpha"]
    assert "evict of 'Alpha' in registry 'main', requested by process" in caplog.text
    assert client.ask("clear", registry="main")["removed"] == 2
    assert registry.stats().cached == 0
    assert (
        "no class 'Nobody'" in client.ask("evict", registry="main", **{"class": "Nobody"})["error"]
    )
    assert (
        "no registry 'x'; this process serves 'main'" in client.ask("clear", registry="x")["error"]
    )


@pytest.mark.parametrize("command", ["evict", "clear", "pin", "unpin"])
def test_changes_are_rejected_unless_allowed(
    make: Any, serving: Any, connect: Any, command: str
) -> None:
    """The error names the argument that would allow them; nothing changes."""
    registry = make()
    serving.serve(registry, name="main")
    registry.get_instance("Alpha")
    named = {} if command == "clear" else {"class": "Alpha"}
    answer = connect().ask(command, registry="main", **named)
    assert (answer["ok"], "allow_changes=True" in answer["error"]) == (False, True)
    assert registry.stats().cached == 1


def test_pin_and_unpin(make: Any, serving: Any, connect: Any) -> None:
    """Only registered classes."""
    registry = make()
    serving.serve(registry, name="main", allow_changes=True)
    client = connect()
    assert client.ask("pin", registry="main", **{"class": "Alpha"}) == {"ok": True}
    assert registry.pinned() == ["Alpha"]
    assert client.ask("unpin", registry="main", **{"class": "Alpha"}) == {"ok": True}
    assert registry.pinned() == []
    assert not client.ask("pin", registry="main", **{"class": "Nobody"})["ok"]


def test_limits_of_classes_pins_and_policies(
    make: Any, serving: Any, connect: Any, timer: Any
) -> None:
    """All are in the answer, with sizes; a custom policy or sizer by its name."""

    class Newest:
        def worth(self, slot: Any, now: float) -> float:
            return -slot.last_used  # type: ignore[no-any-return]

    registry = make({}, policy=Newest(), sizer=len_of, max_age_seconds=100, max_cache_size=3)
    registry.register("Alpha", "samples.Alpha", pin=True)
    registry.register("Beta", "samples.Beta", cache_ttl_seconds=9)
    registry.register("Gamma", "samples.Gamma", cache_ttl_seconds=0, max_age_seconds=0)
    registry.register("Delta", "samples.Delta")
    for name in ("Alpha", "Beta", "Gamma"):
        registry.get_instance(name)
    serving.serve(registry, name="main")
    (answer,) = connect().ask("stats")["registries"]
    assert answer["settings"]["policy"].endswith("Newest")
    assert answer["settings"]["sizer"] == "len_of"
    by_name = {row["class_name"]: row for row in answer["classes"]}
    assert by_name["Alpha"]["expires"] == "pinned, aged in 2m"
    assert by_name["Beta"]["expires"] == "idle in 9.0s, by policy"
    assert by_name["Gamma"]["expires"] == "by policy"
    assert [by_name[name]["bytes"] for name in ("Alpha", "Beta")] == [77, 77]
    assert answer["bytes"] == 231


def len_of(instance: Any) -> int:
    return 77


def test_the_thread_keeps_no_registry_alive(make: Any, serving: Any) -> None:
    """It ends with the last registry and removes the socket; the next registry starts a new one."""
    registry, other = make(), make()
    path = serving.serve(registry).path
    serving.serve(other)
    gone = weakref.ref(registry)
    del registry
    until(lambda: gc.collect() >= 0 and gone() is None)
    assert serving.server._thread is not None
    del other
    until(lambda: gc.collect() >= 0 and serving.server._thread is None)
    assert not os.path.exists(path)
    again = make()
    assert serving.serve(again).path != path


def test_a_closed_registry_is_not_served(make: Any, serving: Any) -> None:
    """`stop` has the same effect, and is idempotent."""
    registry, other = make(), make()
    serving.serve(registry)
    served = serving.serve(other)
    registry.close()
    until(lambda: len(serving.server._served) == 1)
    served.stop()
    served.stop()
    until(lambda: serving.server._thread is None)
    assert served.path is None


def test_serving_again_renames(make: Any, serving: Any, connect: Any) -> None:
    """Names are unique."""
    registry, other = make(), make()
    serving.serve(registry, name="one")
    serving.serve(registry, name="two", allow_changes=True)
    assert [known["name"] for known in connect().ask("list")["registries"]] == ["two"]
    with pytest.raises(ValueError, match="another registry of this process is served as 'two'"):
        serving.serve(other, name="two")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"name": ""}, ValueError, "non-empty and not a number, got ''"),
        ({"name": "12"}, ValueError, "not a number, got '12'"),
        ({"name": 3}, TypeError, "must be a str, got 3"),
        ({"allow_changes": 1}, TypeError, "must be a bool, got 1"),
    ],
)
def test_invalid_arguments(
    make: Any, serving: Any, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The error names the argument."""
    registry = make()
    with pytest.raises(error, match=text):
        serving.serve(registry, **arguments)
    with pytest.raises(TypeError, match="expected a registry to serve"):
        serving.serve({})


def test_the_setting_serves(make: Any, serving: Any, connect: Any) -> None:
    """From the constructor on; changes need a setting of their own."""
    quiet, loud = make(observe_socket=True), make(observe_socket=True, observe_changes=True)
    assert [known["offers"] for known in connect().ask("list")["registries"]] == [
        [],
        ["evict", "clear", "pin", "unpin"],
    ]
    assert quiet.settings.observe_socket
    assert loud.settings.observe_changes


def test_the_setting_never_prevents_a_registry(
    make: Any, serving: Any, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that is not private is only logged."""
    os.mkdir(place, 0o755)
    registry = make(observe_socket=True)
    registry.get_instance("Alpha")
    assert "is not served" in caplog.text
    assert "mode 0755; expected 0700" in caplog.text
    os.rmdir(place)


def test_commands_while_threads_use_the_registry(make: Any, serving: Any, connect: Any) -> None:
    """With look-ups and removals from several threads, the figures add up at every moment."""
    registry = make(cache_ttl_seconds=0, max_cache_size=2)
    serving.serve(registry, name="main", allow_changes=True)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for name in ("Alpha", "Beta", "Gamma", "Delta"):
                with registry.use(name):
                    pass

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        client = connect()
        for at in range(150):
            (answer,) = client.ask("stats")["registries"]
            assert answer["hits"] + answer["misses"] == answer["lookups"]
            assert len(answer["classes"]) >= 4
            if at % 10 == 0:
                assert client.ask("clear", registry="main")["ok"]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
