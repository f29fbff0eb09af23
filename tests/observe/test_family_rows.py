"""Rows and commands of the live view for the instances of families."""

from __future__ import annotations

from typing import Any

import pytest
from samples import Alpha


@pytest.fixture
def registry(make: Any) -> Any:
    registry = make({"Model[fr]": "samples.Beta"}, max_cache_size=100)
    models = registry.family("Model", lambda key: Alpha())
    for key in (1, "1", "fr", ("de", 1), "x" * 100, "x" * 101):
        models.get(key)
    return registry


def rows_of(ws: Any, registry: Any) -> dict[str, Any]:
    from warmset.observe.rows import describe

    rows = describe(registry, "main")["classes"]
    found = {row["class_name"]: row for row in rows}
    assert len(found) == len(rows)  # a table shows one row for each name
    return found


def test_each_key_has_a_row(ws: Any, registry: Any) -> None:
    found = rows_of(ws, registry)
    assert found["Model[fr]"]["state"] == "cold"
    assert found["Model[fr]"]["class_path"] == "samples.Beta"
    assert {"Model[1]", "Model['1']", "Model[fr] (family)", "Model[de, 1]"} < found.keys()
    assert [row["state"] for row in found.values()].count("warm") == 6
    with registry.use(ws.family_keys.FamilyKey("Model", "1")):
        found = rows_of(ws, registry)
        assert found["Model['1']"]["state"] == "held"
        assert found["Model['1']"]["holders"] == 1
        assert found["Model[1]"]["holders"] == 0


def test_failed_and_removed_keys_have_rows(ws: Any, registry: Any) -> None:
    def load(key: Any) -> Any:
        raise OSError(key)

    failing = registry.family("Failing", load)
    for key in (2, "2"):
        with pytest.raises(ws.BuildError):
            failing.get(key)
    key = ws.family_keys.FamilyKey("Model", 1)
    with registry.use(key):
        registry.discard(key)
        found = rows_of(ws, registry)
    assert found["Failing[2]"]["state"] == found["Failing['2']"]["state"] == "failed"
    assert found["Model[1]"]["state"] == "removed"
    assert found["Model['1']"]["state"] == "warm"


def test_commands_find_the_key_of_a_row(ws: Any, registry: Any) -> None:
    from warmset.observe.rows import find_shown

    models = registry.families["Model"]
    for name, key in [("Model[1]", 1), ("Model['1']", "1"), ("Model[fr] (family)", "fr")]:
        assert find_shown(registry, name).key == ws.family_keys.FamilyKey("Model", key)
    assert find_shown(registry, "Model[fr]").key == "Model[fr]"
    assert find_shown(registry, "Model[es]") is None
    assert find_shown(registry, "Nothing") is None
    assert len(models.warm()) == 6


def test_metrics_tell_keys_apart(ws: Any, registry: Any) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    from warmset.observe.prometheus import WarmsetCollector

    collected = prometheus.CollectorRegistry()
    collected.register(WarmsetCollector(registry))
    text = prometheus.generate_latest(collected).decode()
    for name in ("Model['1']", "Model[1]"):
        assert f'warmset_class_instances{{class_name="{name}",registry="default"}} 1.0' in text
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(lines)) == len(lines)
