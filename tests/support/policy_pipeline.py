"""
A stand-in of the shape of the pipeline: classes by name, a shared ontology, a singleton, rules.

docs/upgrading.md replaces `OldRegistry` and `OldExecutor`, of which it needs the shape only.
"""

from __future__ import annotations

from typing import Any

CLASS_PATHS = {
    "MunicipalOntology": "policy_pipeline.MunicipalOntology",
    "PolicyTextProcessor": "policy_pipeline.PolicyTextProcessor",
    "SemanticAnalyzer": "policy_pipeline.SemanticAnalyzer",
    "BayesianScorer": "policy_pipeline.BayesianScorer",
    "ContradictionDetector": "policy_pipeline.ContradictionDetector",
    "MetricsSink": "policy_pipeline.MetricsSink",
    "UnavailableEmbedder": "policy_pipeline.UnavailableEmbedder",
}
loaded: list[str] = []
closed: list[str] = []


class MunicipalOntology:
    """Takes long to load; every analyser refers to one and the same."""

    def __init__(self) -> None:
        loaded.append("MunicipalOntology")
        self.terms = {"budget": "finance", "school": "education"}
        self.is_closed = False

    def lookup(self, word: str) -> str | None:
        assert not self.is_closed, "used after it was closed"
        return self.terms.get(word)

    def close(self) -> None:
        self.is_closed = True
        closed.append("MunicipalOntology")


class _Analyzer:
    def __init__(self, ontology: MunicipalOntology) -> None:
        loaded.append(type(self).__name__)
        self.ontology = ontology

    def close(self) -> None:
        self.ontology.lookup("budget")  # it still needs it
        closed.append(type(self).__name__)


class SemanticAnalyzer(_Analyzer):
    def themes(self, text: str) -> list[str]:
        found = [self.ontology.lookup(word) for word in text.lower().split()]
        return [theme for theme in found if theme]


class ContradictionDetector(_Analyzer):
    def detect(self, text: str, threshold: float = 0.5) -> bool:
        return " not " in text


class PolicyTextProcessor:
    def __init__(self, language: str = "es") -> None:
        loaded.append("PolicyTextProcessor")
        self.language = language

    def segment(self, text: str) -> list[str]:
        return [part.strip() for part in text.split(".") if part.strip()]


class BayesianScorer:
    def __init__(self, prior: float = 0.5) -> None:
        loaded.append("BayesianScorer")
        self.prior = prior

    def score(self, evidence: int) -> float:
        return self.prior / (self.prior + (1 - self.prior) * 0.5**evidence)

    def _private(self) -> str:
        return "private"


class MetricsSink:
    """A singleton of the process, which other code uses, too."""

    _instance: MetricsSink | None = None

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.is_closed = False

    @classmethod
    def shared(cls) -> MetricsSink:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def record(self, value: Any) -> None:
        assert not self.is_closed
        self.values.append(value)

    def close(self) -> None:
        self.is_closed = True


class UnavailableEmbedder:
    def __init__(self) -> None:
        loaded.append("UnavailableEmbedder")
        raise OSError("the model is not on this machine")

    def embed(self, text: str) -> list[float]:
        return []


def forget() -> None:
    """Forget what was loaded and closed."""
    loaded.clear()
    closed.clear()
    MetricsSink._instance = None
