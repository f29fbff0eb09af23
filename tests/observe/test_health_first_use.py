"""What a first registry gets wrong and health reports: weak mode alone, rules of misspelt names."""

from __future__ import annotations

from typing import Any


def test_builds_on_nearly_every_look_up_are_a_finding(ws: Any, timer: Any) -> None:
    settings = ws.RegistrySettings.memory_constrained()
    registry = ws.MethodRegistry.from_settings(settings, {"Alpha": "samples.Alpha"}, timer=timer)
    assert registry.health() == ()
    for _ in range(12):
        registry.get_instance("Alpha")
    assert registry.stats().builds == 12
    (finding,) = [each for each in registry.health() if each.kind.value == "hit_rate_low"]
    assert "enable_weakref=False" in finding.advice
    kept = registry.get_instance("Alpha")
    timer.advance(301.0)
    registry.health()
    for _ in range(12):
        assert registry.get_instance("Alpha") is kept
    timer.advance(301.0)
    assert all(each.kind.value != "hit_rate_low" for each in registry.health())


def test_rules_of_names_that_are_not_registered_are_a_finding(make: Any) -> None:
    registry = make()
    registry.register_instantiation_rule("Alpha", lambda cls: cls())
    registry.register_instantiation_rule("Alhpa", lambda cls: cls())
    (finding,) = registry.health()
    assert finding.kind.value == "rules_unmatched"
    assert finding.figure == 1
    assert "Alhpa" in finding.advice
    assert registry.get_stats()["unmatched_rules"] == ["Alhpa"]
    registry.register("Alhpa", "samples.Beta")
    assert registry.health() == ()
