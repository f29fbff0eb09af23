"""Classes, rules and options that are pickled by name."""

from __future__ import annotations

from typing import Any

import warmset


class Classifier:
    """Differs by what built it."""

    def __init__(self, weights: str = "random", scale: int = 1) -> None:
        self.weights = weights
        self.scale = scale
        self.open = True

    def predict(self) -> str:
        return self.weights * self.scale


def load_trained(cls: type) -> Any:
    return cls("trained")


def make_classifier(weights: str, scale: int = 1) -> Classifier:
    return Classifier(weights, scale)


def close(classifier: Classifier) -> None:
    classifier.open = False


def double(x: int) -> int:
    return 2 * x


def call(handle: Any) -> Any:
    """What a worker process does."""
    return handle()


class Owner:
    """Has a rule that is a method, and refers to the registry."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry

    def build(self, cls: type) -> Any:
        return cls(self.registry.get_instance("Shared").weights)


class Table(warmset.MethodRegistry):
    """A subclass with a table and a constructor of its own."""

    def __init__(self, where: str) -> None:
        self.where = where
        super().__init__({"C": "travelling.Classifier"})
        self.label = f"at {where}"
        self.register_instantiation_rule("C", self.build_here)

    def build_here(self, cls: type) -> Any:
        return cls(self.where)
