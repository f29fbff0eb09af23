"""The alert rules and the dashboard: well formed, with existing metrics and equal thresholds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")
yaml = pytest.importorskip("yaml")

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "observability.md"
METRIC = re.compile(r"\bwarmset_\w+")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")


@pytest.fixture
def files(observe: Any) -> Any:
    """The module."""
    return observe("files")


@pytest.fixture
def exported(make: Any, observe: Any) -> dict[str, set[str]]:
    """Each sample of a collector that has every figure -> its labels."""
    registry, broken = make(), make()
    collector = observe("prometheus").WarmsetCollector({"one": registry, "broken": broken})
    registry.get_instance("Alpha")
    registry.set_bytes(registry.slots["Alpha"].entry, 1)
    broken.warm_entries = None  # not callable
    return {
        sample.name: {*sample.labels, "job", "instance"}
        for family in collector.collect()
        for sample in family.samples
    }


def rules(files: Any) -> list[dict[str, Any]]:
    """The rules of the file."""
    (group,) = yaml.safe_load(files.read(files.ALERTS))["groups"]
    return list(group["rules"])


def check(expression: str, exported: dict[str, set[str]]) -> set[str]:
    """Return the metrics of an expression; fail unless they and their labels exist."""
    metrics = set(METRIC.findall(expression))
    assert metrics, expression
    assert metrics <= exported.keys(), metrics - exported.keys()
    known = set.union(*(exported[metric] for metric in metrics))
    labels = set(MATCHER.findall(expression))
    for group in GROUPING.findall(expression):
        labels |= {label.strip() for label in group.split(",")}
    assert labels <= known, labels - known
    return metrics


def test_each_rule_uses_existing_metrics(files: Any, exported: Any) -> None:
    """And existing labels."""
    for rule in rules(files):
        check(rule["expr"], exported)
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_the_check_finds_unknown_names(exported: Any) -> None:
    """The check itself can fail."""
    for expression in (
        'warmset_hits_total{registry="a"}',
        "sum by (klass) (warmset_lookups_total)",
    ):
        with pytest.raises(AssertionError):
            check(expression, exported)


def test_each_finding_has_a_rule(files: Any, observe: Any) -> None:
    """With the same name."""
    health = observe("health")
    assert {rule["labels"]["finding"] for rule in rules(files)} == {
        kind.value for kind in health.FindingKind
    }
    for rule in rules(files):
        words = rule["labels"]["finding"].split("_")
        assert rule["alert"] == "Warmset" + "".join(word.capitalize() for word in words)


THRESHOLDS = {
    # finding: (threshold, its text in the table, its text in the rule)
    "hit_rate_low": ("min_hit_rate", "below {}", "< {}"),
    "eviction_rate_high": ("max_evictions_per_build", "above {}", "> {}"),
    "nearly_full": ("max_utilisation", "above {}", "> {}"),
    "rss_growing": ("max_rss_growth_bytes", "above {} MB", "> {}e6"),
    "instances_leaked": ("max_leaked", "above {}", "> {}"),
    "instances_left_open": ("max_left_open", "above {}", "> {}"),
    "closes_failing": ("max_close_failures", "above {}", "> {}"),
    "services_failing": ("max_service_failures", "above {}", "> {}"),
    "builds_failing": ("max_failed_classes", "above {}", "> {}"),
    "thrashing": ("max_thrashing", "above {}", "> {}"),
    "instances_invalid": ("max_invalid", "above {}", "> {}"),
    "rules_unmatched": ("max_unmatched_rules", "above {}", "> {}"),
    "oversized": ("max_unused", "above {}", "> {}"),
}


def test_page_rules_and_defaults_have_the_same_thresholds(files: Any, observe: Any) -> None:
    """They list the same findings, too."""
    health = observe("health")
    defaults = health.HealthThresholds()
    table = {
        match[1]: match[2].strip()
        for match in re.finditer(
            r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
        )
        if match[1] in THRESHOLDS
    }
    assert set(table) == set(THRESHOLDS) == {kind.value for kind in health.FindingKind}
    by_finding = {rule["labels"]["finding"]: rule for rule in rules(files)}
    for finding, (name, in_table, in_rule) in THRESHOLDS.items():
        figure = getattr(defaults, name)
        if finding == "rss_growing":
            figure = round(figure / 1e6)
        assert table[finding] == in_table.format(figure), finding
        assert re.search(
            re.escape(in_rule.format(figure)) + r"(?![\w.])", by_finding[finding]["expr"]
        ), finding
    assert f">= {defaults.min_lookups}" in by_finding["hit_rate_low"]["expr"]
    assert f">= {defaults.min_builds}" in by_finding["eviction_rate_high"]["expr"]
    assert f"{defaults.min_lookups} look-ups" in PAGE.read_text(encoding="utf-8")
    assert f"{defaults.min_builds} builds" in PAGE.read_text(encoding="utf-8")


def test_severities_are_those_of_the_findings(files: Any, observe: Any) -> None:
    """Alert rules and health checks agree."""
    source = Path(observe("health").__file__).read_text(encoding="utf-8")
    pairs = re.findall(r"FindingKind\.(\w+),\s+Severity\.(\w+)", source)
    assert len(pairs) == len(observe("health").FindingKind)
    assert {kind.lower(): severity.lower() for kind, severity in pairs} == {
        rule["labels"]["finding"]: rule["labels"]["severity"] for rule in rules(files)
    }


def test_the_dashboard_uses_existing_metrics(files: Any, exported: Any) -> None:
    """Panels do not overlap, have unique numbers, and together show every kind of metric."""
    dashboard = json.loads(files.read(files.DASHBOARD))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    taken = set()
    shown: set[str] = set()
    for panel in panels:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["description"]
        for target in panel["targets"]:
            shown |= check(target["expr"], exported)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            shown |= check(variable["definition"], exported)
    assert {
        "warmset_lookups_total",
        "warmset_build_duration_seconds_bucket",
        "warmset_removals_total",
        "warmset_cached_bytes",
        "warmset_process_resident_memory_bytes",
        "warmset_waiting_threads",
        "warmset_close_failures_total",
    } <= shown


def test_they_can_be_written(files: Any, tmp_path: Path, capsys: Any) -> None:
    """By a call and by a command; an invalid name or folder is an error."""
    assert files.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "warmset-alerts.yml"),
        str(tmp_path / "warmset-dashboard.json"),
    ]
    written = (tmp_path / "warmset-alerts.yml").read_text(encoding="utf-8")
    assert written == files.read(files.ALERTS)
    assert files.main([]) == 2
    assert files.main([str(tmp_path / "nowhere")]) == 1
    with pytest.raises(ValueError, match=r"expected 'alerts\.yml'"):
        files.read("../health.py")


def test_the_command_runs_without_extras() -> None:
    """It imports no monitoring library."""
    result = subprocess.run(
        [sys.executable, "-m", "warmset.observe.files", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("usage: python -m warmset.observe.files FOLDER")


@pytest.fixture
def promtool() -> str:
    """Prometheus's own checker, if it is installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def test_promtool_accepts_the_rules(files: Any, promtool: str, tmp_path: Path) -> None:
    """Each expression and template."""
    files.write(tmp_path)
    result = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "warmset-alerts.yml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    """An input of a promtool test, one value per minute."""
    every = {"job": "app", "instance": "a:1", "registry": "default", **labels}
    text = ",".join(f'{label}="{value}"' for label, value in every.items() if value)
    return {"series": f"warmset_{name}{{{text}}}", "values": values}


UNHEALTHY = [
    series("lookups_total", "0+40x30", result="hit"),
    series("lookups_total", "0+60x30", result="miss"),
    series("builds_total", "0+10x30", result="success"),
    series("builds_total", "0+0x30", result="failure"),
    series("evictions_total", "0+4x30"),
    series("avoidable_builds_total", "0+4x30"),
    series("unused_instances", "51+0x30"),
    series("cached_instances", "95+0x30"),
    series("max_cached_instances", "100+0x30"),
    series("process_resident_memory_bytes", "1000000000+5000000x30", registry=""),
    series("leaked_instances", "2+0x30"),
    series("left_open_total", "0+1x30"),
    series("close_failures_total", "0+1x30"),
    series("failed_classes", "1+0x30"),
]
HEALTHY = [
    series("lookups_total", "0+60x30", result="hit"),
    series("lookups_total", "0+40x30", result="miss"),
    series("builds_total", "0+10x30", result="success"),
    series("builds_total", "0+0x30", result="failure"),
    series("evictions_total", "0+3x30"),
    series("avoidable_builds_total", "0+3x30"),
    series("unused_instances", "50+0x30"),
    series("cached_instances", "60+1x30"),
    series("max_cached_instances", "100+0x30"),
    series("process_resident_memory_bytes", "1000000000+5000000x30", registry=""),
    series("leaked_instances", "0+0x30"),
    series("left_open_total", "7+0x30"),
    series("close_failures_total", "7+0x30"),
    series("failed_classes", "0+0x30"),
]


@pytest.mark.parametrize(
    ("inputs", "fires"), [(UNHEALTHY, True), (HEALTHY, False)], ids=["unhealthy", "healthy"]
)
def test_promtool_sees_the_rules_fire(
    files: Any, promtool: str, tmp_path: Path, inputs: Any, fires: bool
) -> None:
    """All of them for the unhealthy process, none for the healthy one."""
    files.write(tmp_path)
    tests = []
    for rule in rules(files):
        assert "$value" in rule["annotations"]["summary"] or "registry" in str(rule)
        tests.append({"eval_time": "25m", "alertname": rule["alert"], "exp_alerts": []})
    document = {
        "rule_files": ["warmset-alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": tests}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    result = subprocess.run(
        [promtool, "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    output = result.stdout + result.stderr
    # The test expects no alerts, so promtool fails and names those that fire.
    fired = {rule["alert"] for rule in rules(files) if f"alertname: {rule['alert']}" in output}
    assert fired == ({rule["alert"] for rule in rules(files)} if fires else set()), output
    assert result.returncode == int(fires), output
