"""Registers a pipeline's classes: constructor arguments, rules, and the class names of each run."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from warmset.resolver import import_dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from warmset import MethodRegistry

    from .documents import Document
    from .pipeline_file import Pipeline


def register_classes(
    registry: MethodRegistry,
    pipeline: Pipeline,
    documents: Sequence[Document],
    *,
    run: int | None,
) -> Mapping[str, str]:
    """
    Register the classes of a pipeline, with their rules.

    Args:
        registry: The registry.
        pipeline: The pipeline.
        documents: The documents, for its rules.
        run: The run to register the classes for, as ``Name@3`` for run 3; None for all runs.

    Returns:
        Class name in the pipeline file -> class name in the registry.
    """
    names = {name: registered_name(name, run) for name in pipeline.class_paths}
    view = RunRegistry(registry, names)
    for name, path in pipeline.class_paths.items():
        registry.register(names[name], path)
        if name in pipeline.build:
            rule = _constructor_rule(pipeline.build[name])
        elif name in pipeline.rules:
            rule = _dotted_rule(pipeline.rules[name], view, documents)
        else:
            continue
        registry.register_instantiation_rule(names[name], rule)
    return names


def registered_name(name: str, run: int | None) -> str:
    """Return the name of a class in the registry."""
    return name if run is None else f"{name}@{run}"


class RunRegistry:
    """
    The registry as a rule sees it: with the class names of the pipeline file for its own run.

    Args:
        registry: The registry.
        names: Class name in the pipeline file -> class name in the registry.
    """

    __slots__ = ("_names", "_registry")

    def __init__(self, registry: MethodRegistry, names: Mapping[str, str]) -> None:
        self._registry = registry
        self._names = names

    def get_instance(self, class_name: str) -> Any:
        """
        Return the instance of a class of the pipeline, building it if necessary.

        Args:
            class_name: The name in the pipeline file.

        Returns:
            The instance of the rule's run.

        Raises:
            MethodRegistryError: The name is unknown, or the instance cannot be built.
        """
        return self._registry.get_instance(self._names.get(class_name, class_name))


def _constructor_rule(arguments: Mapping[str, Any]) -> Callable[[type], Any]:
    def build(cls: type) -> Any:
        # Each instance receives a copy, because a constructor may keep and change its arguments.
        return cls(**copy.deepcopy(dict(arguments)))

    return build


def _dotted_rule(
    path: str, registry: RunRegistry, documents: Sequence[Document]
) -> Callable[[type], Any]:
    def build(cls: type) -> Any:
        rule = import_dotted(path)
        available = {"registry": registry, "documents": documents}
        parameters = inspect.signature(rule).parameters
        return rule(cls, **{name: available[name] for name in available if name in parameters})

    return build
