"""The pipeline's own registry, as docs/upgrading.md writes it, over a stand-in of its shape."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import policy_pipeline
import pytest
from policy_pipeline import CLASS_PATHS, MetricsSink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pipeline(ws: Any) -> Iterator[Any]:
    """The class of the registry, defined as the page defines it."""
    policy_pipeline.forget()

    class PipelineRegistry(ws.MethodRegistry):  # type: ignore[name-defined,misc]
        def __init__(self, class_paths: Any = None, **settings: Any) -> None:
            super().__init__(CLASS_PATHS if class_paths is None else class_paths, **settings)
            if "MunicipalOntology" in self:
                self.register("MunicipalOntology", CLASS_PATHS["MunicipalOntology"], pin=True)
            for name in ("SemanticAnalyzer", "ContradictionDetector"):
                self.register_instantiation_rule(name, self._with_ontology)
            self.register("MetricsSink", CLASS_PATHS["MetricsSink"], closer=None)
            self.register_instantiation_rule("MetricsSink", lambda cls: cls.shared())

        def _with_ontology(self, cls: Any) -> Any:
            return cls(ontology=self.get_instance("MunicipalOntology"))

    yield PipelineRegistry
    policy_pipeline.forget()


@pytest.mark.counts
def test_one_ontology_for_all_analysers_and_threads(ws: Any, pipeline: Any) -> None:
    """However many ask at once, through rules that ask the registry."""
    registry = pipeline(max_cache_size=3)
    executor = ws.MethodExecutor(method_registry=registry)
    barrier = Barrier(8)
    calls = (
        ("SemanticAnalyzer", "themes", {"text": "school"}, ["education"]),
        ("ContradictionDetector", "detect", {"text": "it is not so"}, True),
        ("PolicyTextProcessor", "segment", {"text": "a. b"}, ["a", "b"]),
        ("BayesianScorer", "score", {"evidence": 0}, 0.5),
    )

    def work(at: int) -> list[bool]:
        barrier.wait(60.0)
        results = []
        for turn in range(40):
            name, method, arguments, expected = calls[(at + turn) % len(calls)]
            results.append(executor.execute(name, method, **arguments) == expected)
        return results

    with ThreadPoolExecutor(8) as pool:
        assert all(all(results) for results in pool.map(work, range(8)))
    assert policy_pipeline.loaded.count("MunicipalOntology") == 1
    assert registry.stats().evictions > 0
    registry.close()
    assert policy_pipeline.closed[-1] == "MunicipalOntology"  # after those that use it
    assert registry.stats().close_failures == 0


@pytest.mark.counts
def test_runs_with_a_clear_between_them(ws: Any, pipeline: Any) -> None:
    """Everything is built once for each run and closed after it; the singleton stays open."""
    registry = pipeline()
    executor = ws.MethodExecutor(method_registry=registry)
    for _ in range(10):
        executor.execute("SemanticAnalyzer", "themes", text="budget")
        executor.execute("MetricsSink", "record", value=1)
        cleared = executor.clear_instance_cache()
        assert cleared["entries_cleared"] == 3
    assert policy_pipeline.loaded == ["MunicipalOntology", "SemanticAnalyzer"] * 10
    assert sorted(policy_pipeline.closed) == sorted(policy_pipeline.loaded)
    sink = MetricsSink.shared()
    assert (len(sink.values), sink.is_closed) == (10, False)
    assert executor.get_registry_stats()["cached_instances"] == 0


def test_a_class_that_fails_is_retried_or_not(ws: Any, pipeline: Any, timer: Any) -> None:
    """As `retry_after_seconds` says; `math.inf` is what the former registry did."""
    for seconds, builds in ((30.0, 2), (math.inf, 1)):
        policy_pipeline.loaded.clear()
        registry = pipeline(retry_after_seconds=seconds, timer=timer)
        executor = ws.MethodExecutor(method_registry=registry)
        for _ in range(3):
            with pytest.raises(AttributeError):
                executor.execute("UnavailableEmbedder", "embed", text="x")
        assert not executor.has_method("UnavailableEmbedder", "embed")
        timer.advance(31.0)
        with pytest.raises(ws.MethodRegistryError):
            registry.get_instance("UnavailableEmbedder")
        assert policy_pipeline.loaded.count("UnavailableEmbedder") == builds
        assert registry._failed_classes == {"UnavailableEmbedder"}


def test_hooks_are_overridden_and_replaced(ws: Any, pipeline: Any) -> None:
    """In a subclass, and on an instance as tests do it."""
    asked: list[str] = []

    class Traced(pipeline):  # type: ignore[misc]
        def _instantiate_class(self, class_name: str, cls: type) -> Any:
            asked.append(class_name)
            return super()._instantiate_class(class_name, cls)

    registry = Traced()
    registry.get_instance("SemanticAnalyzer")
    assert asked == ["SemanticAnalyzer", "MunicipalOntology"]
    stand_in = object()
    registry._instantiate_class = lambda class_name, cls: stand_in
    assert registry.get_instance("BayesianScorer") is stand_in


def test_the_table_of_a_file_with_the_rules_of_the_subclass(pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / "warmset.toml"
    path.write_text(
        "[registry]\nmax_cache_size = 3\n[classes]\n"
        'MunicipalOntology = "policy_pipeline.MunicipalOntology"\n'
        'SemanticAnalyzer = "policy_pipeline.SemanticAnalyzer"\n'
        'BayesianScorer = "policy_pipeline.BayesianScorer"\n'
        "[options.BayesianScorer]\nkwargs = { prior = 0.25 }\n"
    )
    registry = pipeline.from_file(path)
    assert registry.settings.max_cache_size == 3
    assert registry.get_instance("BayesianScorer").prior == 0.25
    analyzer = registry.get_instance("SemanticAnalyzer")
    assert analyzer.ontology is registry.get_instance("MunicipalOntology")
