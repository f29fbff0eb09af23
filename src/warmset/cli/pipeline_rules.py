"""How a pipeline's classes are registered: constructor arguments, rules, and the names of a run."""

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
        registry: Where to.
        pipeline: What it says of its classes.
        documents: What its rules are given.
        run: The run that the classes are registered for, as ``Name@3`` for the third; None for all
            runs.

    Returns:
        Class name in the pipeline file -> class name in the registry.
    """
    names = {name: class_name(name, run) for name in pipeline.class_paths}
    seen = RunRegistry(registry, names)
    for name, path in pipeline.class_paths.items():
        registry.register_class(names[name], path)
        if name in pipeline.build:
            rule = _constructor_rule(pipeline.build[name])
        elif name in pipeline.rules:
            rule = _dotted_rule(pipeline.rules[name], seen, documents)
        else:
            continue
        registry.register_instantiation_rule(names[name], rule)
    return names


def class_name(name: str, run: int | None) -> str:
    """Give the name that a class has in the registry."""
    return name if run is None else f"{name}@{run}"


class RunRegistry:
    """
    What a rule sees of the registry: the class names of its own run, without the run's number.

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
        Give the instance of a class of the pipeline, which is built if need be.

        Args:
            class_name: The name in the pipeline file.

        Returns:
            The instance of this run.

        Raises:
            MethodRegistryError: It cannot be had.
        """
        return self._registry.get_instance(self._names.get(class_name, class_name))


def _constructor_rule(arguments: Mapping[str, Any]) -> Callable[[type], Any]:
    def build(cls: type) -> Any:
        # A copy for each instance: a constructor may keep what it is given and change it.
        return cls(**copy.deepcopy(dict(arguments)))

    return build


def _dotted_rule(
    path: str, registry: RunRegistry, documents: Sequence[Document]
) -> Callable[[type], Any]:
    def build(cls: type) -> Any:
        rule = import_dotted(path)
        offered = {"registry": registry, "documents": documents}
        taken = inspect.signature(rule).parameters
        return rule(cls, **{name: offered[name] for name in offered if name in taken})

    return build
