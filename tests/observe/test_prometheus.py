"""The Prometheus collector, against known traffic."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import pytest
from traffic import serve_known_traffic

pytest.importorskip("prometheus_client")
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families

Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def collected(observe: Any, rss: Any) -> Any:
    """Registers a collector over registries; returns it and a function that scrapes."""

    def collected(registries: Any, **options: Any) -> tuple[Any, Any]:
        target = CollectorRegistry()
        collector = observe("prometheus").WarmsetCollector(registries, **options)
        target.register(collector)

        def scrape() -> Scrape:
            text = generate_latest(target).decode()
            return {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

        scrape.target = target  # type: ignore[attr-defined]
        return collector, scrape

    return collected


def forget(registry: Any) -> None:
    """Release the frames that the traceback of a remembered failure references."""
    registry.forget_failures()
    gc.collect()


def value(scraped: Scrape, metric: str, **labels: str) -> float:
    """One sample; of the registry "default" unless the labels name another one."""
    labels = {"registry": "default", **labels}
    return scraped[f"warmset_{metric}", tuple(sorted(labels.items()))]


def labelled(scraped: Scrape, metric: str, label: str) -> dict[str, float]:
    """The samples of a metric by one label."""
    return {
        dict(labels)[label]: figure
        for (name, labels), figure in scraped.items()
        if name == f"warmset_{metric}" and label in dict(labels)
    }


@pytest.mark.counts
def test_a_scrape_exports_every_figure(make: Any, timer: Any, samples: Any, collected: Any) -> None:
    """Of known traffic."""
    registry = make(max_cache_size=2, cache_ttl_seconds=0)
    _, scrape = collected(registry)
    kept = serve_known_traffic(registry, timer, samples)
    scraped = scrape()
    assert labelled(scraped, "lookups_total", "result") == {"hit": 4, "miss": 5}
    assert labelled(scraped, "builds_total", "result") == {"success": 4, "failure": 1}
    assert labelled(scraped, "removals_total", "cause") == {
        "idle": 0,
        "size": 1,
        "memory": 0,
        "aged": 0,
        "recycled": 0,
        "invalid": 0,
        "collected": 0,
        "cleared": 0,
        "discarded": 1,
        "replaced": 0,
        "shutdown": 0,
    }
    figures = {
        "evictions_total": 1,
        "waits_total": 0,
        "closed_total": 1,
        "close_failures_total": 0,
        "left_open_total": 1,
        "listener_failures_total": 0,
        "cached_instances": 2,
        "max_cached_instances": 2,
        "weak_instances": 0,
        "held_instances": 1,
        "leaked_instances": 0,
        "waiting_threads": 0,
        "registered_classes": 4,
        "failed_classes": 1,
    }
    assert {name: value(scraped, name) for name in figures} == figures
    assert value(scraped, "build_duration_seconds_count") == 4
    assert value(scraped, "build_duration_seconds_sum") == 8.0
    buckets = labelled(scraped, "build_duration_seconds_bucket", "le")
    assert buckets["1.0"] == 0
    assert buckets["2.5"] == buckets["+Inf"] == 4
    assert scraped["warmset_process_resident_memory_bytes", ()] == 100_000_000
    assert not [name for name, _ in scraped if name == "warmset_cached_bytes"]
    timer.advance(61)
    assert value(scrape(), "leaked_instances") == 1, "the caller still references the first Alpha"
    del kept
    forget(registry)
    assert value(scrape(), "leaked_instances") == 0


def test_a_scrape_exports_each_class(make: Any, timer: Any, samples: Any, collected: Any) -> None:
    """Both its cached instance and its builds."""
    registry = make(max_cache_size=2, cache_ttl_seconds=0)
    _, scrape = collected(registry)
    kept = serve_known_traffic(registry, timer, samples)
    scraped = scrape()
    assert labelled(scraped, "class_instances", "class_name") == {"Alpha": 1, "Beta": 1}
    assert labelled(scraped, "class_uses", "class_name") == {"Alpha": 1, "Beta": 1}
    assert labelled(scraped, "class_holders", "class_name") == {"Alpha": 0, "Beta": 1}
    del kept
    forget(registry)
    assert labelled(scrape(), "class_holders", "class_name") == {"Alpha": 0, "Beta": 0}
    assert labelled(scraped, "class_build_seconds_total", "class_name") == {
        "Alpha": 4.0,
        "Beta": 2.0,
        "Gamma": 2.0,
        "Delta": 0.0,
    }
    assert value(scraped, "class_builds_total", class_name="Alpha", result="success") == 2
    assert value(scraped, "class_builds_total", class_name="Delta", result="failure") == 1


def test_the_limit_of_class_labels(make: Any, collected: Any) -> None:
    """The most used classes have labels; no counter falls when labels are reassigned."""
    names = [f"C{number}" for number in range(20)]
    registry = make(dict.fromkeys(names, "collections.OrderedDict"))
    _, scrape = collected(registry, max_classes=3)

    def use(order: list[str]) -> Scrape:
        for times, name in enumerate(order, 1):
            for _ in range(times * 10):
                registry.get_instance(name)
        return scrape()  # type: ignore[no-any-return]

    before = use(names)
    assert set(labelled(before, "class_uses", "class_name")) == {"C17", "C18", "C19", "other"}
    assert sum(labelled(before, "class_uses", "class_name").values()) == 10 * sum(range(21))
    assert value(before, "class_instances", class_name="other") == 17
    for name in names[:3]:
        for _ in range(1000):
            registry.get_instance(name)
    for _ in range(3):
        registry.clear_cache()
        after = use(names[::-1])
        assert len(labelled(after, "class_builds_total", "class_name")) <= 4
        for key, figure in before.items():
            if key[0].endswith("_total") and key in after:
                assert after[key] >= figure, key
        before = after
    assert set(labelled(after, "class_uses", "class_name")) == {"C0", "C1", "C2", "other"}
    _, none = collected(registry, max_classes=0)
    assert set(labelled(none(), "class_uses", "class_name")) == {"other"}


def test_several_registries_have_their_own_label(make: Any, collected: Any) -> None:
    """Registries can be added later; names are unique."""
    one, other = make(), make()
    collector, scrape = collected({"one": one})
    collector.add("other", other)
    other.get_instance("Alpha")
    assert labelled(scrape(), "cached_instances", "registry") == {"one": 0, "other": 1}
    with pytest.raises(ValueError, match="'one'"):
        collector.add("one", other)
    with pytest.raises(TypeError, match="must be a registry"):
        collector.add("third", object())
    with pytest.raises(TypeError, match="must be a string"):
        collector.add(3, other)


def test_closed_and_collected_registries_are_not_exported(make: Any, collected: Any) -> None:
    """The collector keeps no registry alive."""
    one, other, third = make(), make(), make()
    collector, scrape = collected({"one": one, "other": other, "third": third})
    one.close()
    del other
    gc.collect()
    assert set(labelled(scrape(), "cached_instances", "registry")) == {"third"}
    collector.add("one", make())  # its name is free again
    collector.close()
    assert labelled(scrape(), "cached_instances", "registry") == {}
    listeners = third.extensions
    assert [each._listeners.all() for each in listeners if hasattr(each, "_listeners")] == [[]]


def test_an_error_in_one_registry_does_not_affect_the_others(
    make: Any, collected: Any, records: Any
) -> None:
    """The error is logged once, and counted at each scrape."""
    broken, sound = make(), make()
    _, scrape = collected({"broken": broken, "sound": sound})
    broken.warm_entries = None  # not callable
    for times in (1, 2):
        scraped = scrape()
        assert set(labelled(scraped, "cached_instances", "registry")) == {"sound"}
        assert value(scraped, "collection_errors_total", registry="broken") == times
    (record,) = records.of("metrics")
    assert "'broken' could not be read" in record.getMessage()
    del broken.warm_entries
    assert set(labelled(scrape(), "cached_instances", "registry")) == {"broken", "sound"}


def test_a_scrape_changes_nothing(make: Any, timer: Any, collected: Any) -> None:
    """Neither counters, nor recency, nor idle times."""
    registry = make()
    _, scrape = collected(registry)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    timer.advance(7)
    before = registry.stats()
    assert scrape() == scrape()
    assert registry.stats() == before


def test_waiting_threads_are_exported(make: Any, samples: Any, collected: Any) -> None:
    """As long as they wait for another thread's build."""
    registry = make()
    _, scrape = collected(registry)
    entered, go = threading.Event(), threading.Event()

    def slow(instance: Any) -> None:
        entered.set()
        assert go.wait(30)

    samples.script["Alpha"] = slow
    threads = [threading.Thread(target=registry.get_instance, args=("Alpha",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert entered.wait(30)
    pause = threading.Event()
    while value(scrape(), "waiting_threads") < 2:
        pause.wait(0.001)
    go.set()
    for thread in threads:
        thread.join(30)
    assert value(scrape(), "waiting_threads") == 0
    assert value(scrape(), "waits_total") == 2


def test_bytes_are_exported_where_they_are_known(make: Any, collected: Any) -> None:
    """Of all cached instances together."""
    registry = make()
    _, scrape = collected(registry)
    registry.get_instance("Alpha")
    registry.set_bytes(registry.slots["Alpha"].entry, 12_345)
    assert value(scrape(), "cached_bytes") == 12_345


def test_the_text_is_well_formed(make: Any, timer: Any, samples: Any, collected: Any) -> None:
    """Also as OpenMetrics; names follow the conventions, and each metric has a help text."""
    registry = make(max_cache_size=2)
    collector, scrape = collected(registry)
    serve_known_traffic(registry, timer, samples)
    text = openmetrics.generate_latest(scrape.target).decode()
    assert text.endswith("# EOF\n")
    described = {family.name: family for family in collector.describe()}
    for family in collector.collect():
        assert family.name in described
        assert family.name.startswith("warmset_")
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_total", "_count", "_sum", "_ms", "_mb"))
        for sample in family.samples:
            assert (family.type == "counter") is sample.name.endswith("_total")


def test_a_second_collector_is_rejected(make: Any, collected: Any, observe: Any) -> None:
    """By prometheus_client, which gets the names from `describe`."""
    _, scrape = collected(make())
    second = observe("prometheus").WarmsetCollector(make())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        scrape.target.register(second)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"registries": 3}, TypeError),
        ({"max_classes": -1}, ValueError),
        ({"max_classes": 1.5}, TypeError),
        ({"buckets": ()}, ValueError),
        ({"buckets": (2.0, 1.0)}, ValueError),
        ({"buckets": (1.0, float("inf"))}, ValueError),
    ],
)
def test_invalid_options_are_rejected(make: Any, observe: Any, options: Any, error: Any) -> None:
    """The error names the option."""
    options = {"registries": make(), **options}
    with pytest.raises(error, match=r"(registries|max_classes|buckets) must"):
        observe("prometheus").WarmsetCollector(**options)


def test_no_build_is_lost_under_threads(make: Any, collected: Any) -> None:
    """One thread scrapes while others build, some within a build listener."""
    registry = make()
    _, scrape = collected(registry)
    registry.add_build_listener(
        lambda event: event.class_name == "Alpha" and registry.get_instance("Beta")
    )
    done = threading.Event()

    def build() -> None:
        for _ in range(200):
            registry.get_instance("Alpha")
            registry.clear_cache()

    def read() -> None:
        while not done.is_set():
            scrape()

    threads = [threading.Thread(target=build) for _ in range(4)]
    reader = threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    reader.join(60)
    scraped = scrape()
    builds = registry.stats().builds
    assert value(scraped, "build_duration_seconds_count") == builds
    successes = {
        labels: figure
        for (name, labels), figure in scraped.items()
        if name == "warmset_class_builds_total" and ("result", "success") in labels
    }
    assert sum(successes.values()) == builds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_can_be_scraped(make: Any, collected: Any) -> None:
    """Even if another thread was updating the totals at the fork."""
    registry = make()
    collector, scrape = collected(registry)
    tally = collector._registries.alive()[0][2]
    tally._adding.acquire()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            registry.get_instance("Alpha")
            status = int(value(scrape(), "build_duration_seconds_count") != 1)
        finally:
            os._exit(status)
    tally._adding.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_names_that_cannot_be_encoded(make: Any, samples: Any, collected: Any) -> None:
    """They cost nothing but their own label: the other figures are exported, too."""
    odd = "b\udcff\n"
    registry = make({odd: "samples.Alpha", "Beta": "samples.Beta"})
    other = make({odd: "samples.Alpha"})
    _, scrape = collected({"default": registry, odd: other})
    registry.get_instance(odd)
    registry.get_instance("Beta")
    scraped = scrape()
    assert value(scraped, "class_instances", class_name=r"b\udcff\n") == 1
    assert value(scraped, "class_builds_total", class_name=r"b\udcff\n", result="success") == 1
    assert value(scraped, "class_instances", class_name="Beta") == 1
    assert value(scraped, "registered_classes", registry=r"b\udcff\n") == len(other)
    assert ("warmset_collection_errors_total", (("registry", "default"),)) not in scraped
