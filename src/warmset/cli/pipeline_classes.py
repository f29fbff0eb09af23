"""Registers a pipeline's classes: their options, rules, and the class names of each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from warmset import file_classes
from warmset.family_keys import FamilyKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    Register the classes and the families of a pipeline, with their options and rules.

    Args:
        registry: The registry.
        pipeline: The pipeline.
        documents: The documents, for its rules.
        run: The run to register the classes for, as ``Name@3`` for run 3; None for all runs.

    Returns:
        Class name or family in the pipeline file -> its name in the registry.
    """
    names = {name: registered_name(name, run) for name in pipeline.target_paths}
    file_classes.register_classes(
        registry,
        pipeline.class_paths,
        pipeline.class_options,
        names=names,
        view=None if run is None else RunRegistry(registry, names),
        documents=None if pipeline.documents is None else documents,
    )
    file_classes.register_families(registry, pipeline.families, names=names)
    return names


def registered_name(name: str, run: int | None) -> str:
    """Return the name of a class in the registry."""
    return name if run is None else f"{name}@{run}"


class RunRegistry:
    """
    The registry as a rule sees it if each run has class names of its own (`--per-run`).

    Look-ups take the class names of the pipeline file. Everything else is the registry's.

    Args:
        registry: The registry.
        names: Class name in the pipeline file -> class name in the registry.
    """

    __slots__ = ("_names", "_registry")

    def __init__(self, registry: MethodRegistry, names: Mapping[str, str]) -> None:
        self._registry = ref(registry)
        self._names = names

    def _look_up(self, method: str, class_name: Any, *more: Any) -> Any:
        name: Any = self._names.get(class_name, class_name)
        if type(class_name) is FamilyKey and class_name.family in self._names:
            name = FamilyKey(self._names[class_name.family], class_name.key)
        return getattr(self._registry(), method)(name, *more)

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
        return self._look_up("get_instance", class_name)

    def get_method(self, class_name: str, method_name: str) -> Any:
        """As `get_instance`, for a bound method."""
        return self._look_up("get_method", class_name, method_name)

    def has_method(self, class_name: str, method_name: str) -> Any:
        """As `get_instance`, for whether a method can be expected."""
        return self._look_up("has_method", class_name, method_name)

    def use(self, class_name: str) -> Any:
        """As `get_instance`, for a lease."""
        return self._look_up("use", class_name)

    def bind(self, class_name: str, method_name: str) -> Any:
        """As `get_instance`, for a handle."""
        return self._look_up("bind", class_name, method_name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._registry(), name)
