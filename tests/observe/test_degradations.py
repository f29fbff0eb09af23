"""What the system or the program withholds is reported once, and nothing else fails."""

from __future__ import annotations

import importlib
import logging
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["no psutil", "psutil without /proc"])
def blind(ws: Any, request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of the process cannot be measured."""

    def refuse(*_: Any) -> Any:
        raise FileNotFoundError("/proc")

    if request.param == "no psutil":
        monkeypatch.setitem(sys.modules, "psutil", None)
    else:
        psutil = pytest.importorskip("psutil")
        monkeypatch.setattr(psutil, "Process", refuse)
        monkeypatch.setattr(psutil, "virtual_memory", refuse)
    memory = importlib.import_module("warmset._process_memory")
    monkeypatch.setattr(memory, "open", refuse, raising=False)
    process = importlib.import_module("warmset.observe.process")
    monkeypatch.setattr(process, "_logged", set())


@pytest.mark.usefixtures("blind")
def test_reports_lack_the_memory_of_the_process(make: Any, samples: Any, caplog: Any) -> None:
    """A scrape, health, and a release work; it is logged once."""
    pytest.importorskip("prometheus_client")
    prometheus = importlib.import_module("warmset.observe.prometheus")
    registry = make()
    registry.get_instance("Alpha")
    collector = prometheus.WarmsetCollector(registry)
    for _ in range(2):
        families = {family.name: family for family in collector.collect()}
        assert families["warmset_cached_instances"].samples[0].value == 1.0
        assert not families["warmset_process_resident_memory_bytes"].samples
        assert isinstance(registry.health(), tuple)
    report = registry.release_memory()
    assert report.returned_bytes is None
    logged = [r for r in caplog.records if "cannot be measured" in r.getMessage()]
    assert len(logged) == 1


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("budget", [0.5, 10**12])
def test_a_budget_of_the_process_is_not_enforced(
    make: Any, samples: Any, caplog: Any, budget: Any
) -> None:
    """Builds and sweeps work; it is logged once."""
    registry = make(max_rss_bytes=budget)
    for name in ("Alpha", "Beta"):
        registry.get_instance(name)
    registry.sweep()
    assert registry.stats().cached == 2
    logged = [r for r in caplog.records if "max_rss_bytes is not enforced" in r.getMessage()]
    assert len(logged) == 1


def test_psutil_is_not_needed_to_measure(ws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux the system is asked."""
    memory = importlib.import_module("warmset._process_memory")
    limits = importlib.import_module("warmset.memory.limits")
    measured, total = memory.resident_bytes(), limits.memory_limit()
    monkeypatch.setitem(sys.modules, "psutil", None)
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has /proc/self/statm")
    assert 0.5 < memory.resident_bytes() / measured < 2.0
    assert 0.9 < limits.memory_limit() / total < 1.1


@pytest.fixture(params=["class_name", "error_type", "cause"])
def factory(request: Any) -> Iterator[str]:
    """A factory of log records that sets one of our fields itself."""
    before = logging.getLogRecordFactory()

    def make_record(*args: Any, **options: Any) -> logging.LogRecord:
        record = before(*args, **options)
        setattr(record, request.param, "the program's")
        return record

    logging.setLogRecordFactory(make_record)
    try:
        yield request.param
    finally:
        logging.setLogRecordFactory(before)


@pytest.mark.counts
def test_a_record_factory_with_our_fields(
    make: Any, samples: Any, caplog: Any, capsys: Any, factory: str
) -> None:
    """Its field stays; ours get a prefix, and nothing is lost."""
    registry = make()

    def fail(instance: Any) -> None:
        raise ValueError("no")

    registry.register("Alpha", "samples.Alpha", closer=fail)
    with caplog.at_level(logging.INFO, "warmset"):
        registry.get_instance("Alpha")
        registry.discard("Alpha")
    messages = " ".join(record.getMessage() for record in caplog.records)
    for expected in ("built 'Alpha'", "removed 'Alpha'", "closing the removed instance"):
        assert expected in messages
    assert {getattr(record, factory) for record in caplog.records} == {"the program's"}
    assert any(hasattr(record, f"warmset_{factory}") for record in caplog.records)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_repr_that_fails_in_a_log_record(
    make: Any, samples: Any, kind: type[BaseException]
) -> None:
    """The caller does not get its error."""

    class Listener:
        def __call__(self, event: Any) -> None:
            raise RuntimeError

        def __repr__(self) -> str:
            raise kind("no repr")

    registry = make()
    registry.add_build_listener(Listener())
    registry.get_instance("Alpha")
    assert registry.stats().listener_failures == 1


@pytest.mark.counts
def test_a_signal_handler_while_the_events_are_being_imported(
    make: Any, samples: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Look-ups, failures and removals work; nothing is logged of them."""
    partial = types.ModuleType("warmset.event_logs")
    monkeypatch.setitem(sys.modules, "warmset.event_logs", partial)
    monkeypatch.delattr(sys.modules["warmset"], "event_logs", raising=False)
    registry = make()
    registry.register("Broken", "samples.Broken")
    with caplog.at_level(logging.INFO, "warmset"):
        registry.get_instance("Alpha")
        with pytest.raises(RuntimeError, match="no model file"):
            registry.get_instance("Broken")
        registry.discard("Alpha")
        registry.get_instance("Alpha")
        assert registry.clear_cache()["entries_cleared"] == 1
    assert samples.closed == ["Alpha", "Alpha"]
