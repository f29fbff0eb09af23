"""Logs: one logger per area, structured fields, no record for a hit, no effect of errors."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import textwrap
from typing import Any

import pytest

BUILT_IN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that `extra` added."""
    return {name: value for name, value in vars(record).items() if name not in BUILT_IN}


def test_a_build_is_logged(make: Any, timer: Any, samples: Any, records: Any) -> None:
    """At INFO, with its seconds."""
    samples.script["Alpha"] = lambda instance: timer.advance(2.5)
    registry = make()
    registry.get_instance("Alpha")
    (record,) = records.kept
    assert (record.name, record.levelname) == ("warmset.builds", "INFO")
    assert record.getMessage() == "built 'Alpha' in 2.500 s"
    assert fields(record) == {
        "class_name": "Alpha",
        "class_path": "samples.Alpha",
        "build_seconds": 2.5,
        "bytes": None,
    }


def test_a_hit_logs_nothing(ws: Any, make: Any, records: Any) -> None:
    """Nor does any other access to a cached instance."""
    registry = make()
    executor = ws.MethodExecutor(method_registry=registry)
    registry.get_instance("Alpha")
    records.kept.clear()
    registry.get_instance("Alpha")
    registry.get_method("Alpha", "echo")("x")
    registry.bind("Alpha", "echo")("x")
    executor.execute("Alpha", "echo", text="x")
    registry.stats(), registry.holders(), registry.has_method("Alpha", "echo")
    assert records.kept == []


def test_a_removal_is_logged_with_its_cause(make: Any, timer: Any, records: Any) -> None:
    """With the figures of the instance."""
    registry = make(cache_ttl_seconds=10)
    registry.get_instance("Alpha")
    timer.advance(4)
    registry.get_instance("Alpha")
    timer.advance(11)
    registry.evict_expired()
    (record,) = records.of("removals")
    assert record.levelname == "INFO"
    assert record.getMessage() == "removed 'Alpha': idle; 2 uses, 15.0 s old, idle for 11.0 s"
    assert fields(record) == {
        "class_name": "Alpha",
        "cause": "idle",
        "age_seconds": 15.0,
        "idle_seconds": 11.0,
        "access_count": 2,
        "build_seconds": 0.0,
        "held": False,
        "bytes": None,
    }


@pytest.mark.counts
def test_each_cause_is_logged(make: Any, records: Any) -> None:
    """A clear has a record of its own, and held instances are marked."""
    registry = make(max_cache_size=1)
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    registry.discard("Beta")
    with registry.use("Beta"):
        registry.clear_cache()
    registry.get_instance("Alpha")
    registry.close()
    logged = [(getattr(r, "class_name", None), r.cause) for r in records.of("removals")]
    assert logged == [
        ("Alpha", "size"),
        ("Beta", "discarded"),
        ("Beta", "cleared"),
        (None, "cleared"),
        ("Alpha", "shutdown"),
    ]
    held, cleared = records.of("removals")[2:4]
    assert held.getMessage().endswith(", still held")
    assert cleared.getMessage() == "cleared the cache: 1 instances, and 0 weakly kept"
    assert (cleared.entries_cleared, cleared.weakrefs_cleared) == (1, 0)


@pytest.mark.counts
def test_failures_are_warnings(make: Any, records: Any) -> None:
    """Of builds and closers, with class and cause."""
    registry = make({"Broken": "samples.Broken"})
    with pytest.raises(RuntimeError):
        registry.get_instance("Broken")
    (failed,) = records.of("builds")
    assert failed.levelname == "WARNING"
    assert "no instance of 'Broken'" in failed.getMessage()
    assert (failed.class_name, failed.stage, failed.error_type) == ("Broken", "build", "ValueError")

    def fail(instance: Any) -> None:
        raise OSError("stuck")

    registry.register("Alpha", "samples.Alpha", closer=fail)
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    closing = records.of("removals")[-1]
    assert closing.levelname == "WARNING"
    assert closing.exc_info[0] is OSError
    assert (closing.class_name, closing.error_type) == ("Alpha", "OSError")


def test_no_field_hides_one_of_the_record(make: Any, timer: Any, records: Any) -> None:
    """`logging` rejects some names, and formatters would show the wrong value for others."""
    registry = make({"Broken": "samples.Broken", "Alpha": "samples.Alpha"}, max_cache_size=1)
    registry.add_build_listener(len)
    registry.get_instance("Alpha")
    registry.clear_cache()
    with pytest.raises(RuntimeError):
        registry.get_instance("Broken")
    registry.health()
    areas = {record.name for record in records.kept}
    assert {"warmset.builds", "warmset.removals", "warmset.health"} <= areas


@pytest.mark.counts
@pytest.mark.parametrize("culprit", ["handler", "filter", "formatter"])
def test_a_handler_that_raises_has_no_effect(
    make: Any, samples: Any, records: Any, capsys: Any, culprit: str
) -> None:
    """All results are unchanged; the error is shown on stderr."""

    def fail(*_: Any) -> Any:
        raise ValueError("disk full")

    if culprit == "handler":
        records.emit = fail
    elif culprit == "filter":
        records.addFilter(fail)
    else:
        formatter = logging.Formatter()
        formatter.format = fail  # type: ignore[method-assign]
        records.setFormatter(formatter)
        records.emit = records.format
    registry = make({"Alpha": "samples.Alpha", "Broken": "samples.Broken"})
    registry.get_instance("Alpha")
    assert registry.clear_cache()["entries_cleared"] == 1
    assert samples.closed == ["Alpha"]
    with pytest.raises(RuntimeError, match="no model file"):
        registry.get_instance("Broken")
    assert "disk full" in capsys.readouterr().err


def test_a_handler_may_use_the_registry(make: Any, records: Any) -> None:
    """For example, a handler that sends records through a cached client."""
    registry = make()
    sent = []
    emit = records.emit

    def send(record: logging.LogRecord) -> None:
        emit(record)
        sent.append(registry.get_instance("Gamma").echo(record.getMessage()))
        with registry.use("Gamma"):
            registry.discard("Beta")

    records.emit = send
    registry.get_instance("Alpha")
    registry.get_instance("Beta")
    registry.clear_cache()
    assert len(sent) == len(records.kept)
    assert registry.stats().listener_failures == 0


def test_as_json_through_structlog(make: Any, records: Any) -> None:
    """Its formatter includes the fields of `extra`."""
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
            ],
            processor=structlog.processors.JSONRenderer(),
        )
    )
    logging.getLogger("warmset").addHandler(handler)
    try:
        registry = make()
        registry.get_instance("Alpha")
    finally:
        logging.getLogger("warmset").removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    record.pop("_ray_timestamp_ns", None)  # Ray, once imported, adds it to every record
    assert record == {
        "event": "built 'Alpha' in 0.000 s",
        "logger": "warmset.builds",
        "level": "info",
        "class_name": "Alpha",
        "class_path": "samples.Alpha",
        "build_seconds": 0.0,
        "bytes": None,
    }


def test_as_json_through_python_json_logger(make: Any, records: Any) -> None:
    """Through its formatter."""
    formatter = pytest.importorskip("pythonjsonlogger.json").JsonFormatter("%(name)s %(message)s")
    registry = make()
    registry.get_instance("Alpha")
    registry.discard("Alpha")
    line = json.loads(formatter.format(records.of("removals")[0]))
    assert line["name"] == "warmset.removals"
    assert (line["class_name"], line["cause"], line["access_count"]) == ("Alpha", "discarded", 1)


def child(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a separate interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_logging_is_imported_only_when_it_is_needed() -> None:
    """Builds, removals and clears do not import it; a failure does."""
    result = child(
        """
        import sys
        import warmset
        registry = warmset.MethodRegistry({"D": "json.JSONDecoder", "B": "json.Nothing"})
        registry.get_instance("D")
        registry.clear_cache()
        registry.close
        assert "logging" not in sys.modules
        try:
            registry.get_instance("B")
        except warmset.MethodRegistryError:
            pass
        assert "logging" in sys.modules
        """
    )
    assert result.stderr.startswith("no instance of 'B', after ")
    assert len(result.stderr.splitlines()) == 1


def test_a_partially_imported_logging_module_has_no_effect() -> None:
    """A finaliser may run while `logging` is being imported."""
    result = child(
        """
        import sys, types
        import warmset
        registry = warmset.MethodRegistry({"D": "json.JSONDecoder", "B": "json.Nothing"})
        sys.modules["logging"] = types.ModuleType("logging")
        registry.get_instance("D")
        try:
            registry.get_instance("B")
        except warmset.MethodRegistryError as error:
            print("raised")
        del sys.modules["logging"]
        """
    )
    assert result.stdout == "raised\n"
    assert "writing a log record failed" in result.stderr
