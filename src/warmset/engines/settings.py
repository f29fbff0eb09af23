"""The picklable settings from which each worker creates its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from ..api import Registry
from ..file_classes import register_classes, register_families
from ..resolver import check_name, import_dotted, safe_repr
from ..settings import RegistrySettings
from ..targets import checked_table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from ..legacy import MethodRegistry

__all__ = ["WorkerSettings"]


class WorkerSettings:
    """
    The settings of the registries on all workers, immutable.

    Args:
        class_paths: Class name -> class path.
        settings: The settings of the registry; None means the defaults.
        class_options: Class name -> options of `register`, or those that a file may have, with the
            dotted path of a `rule`.
        rules: Class name -> rule: a function that can be imported on the workers, its dotted path,
            or a pair of either and a version.
        families: Family -> arguments of `Registry.family`, "factory" among them: a path, or a
            function or class that can be imported on the workers.
        prepare: A function that can be imported on the workers. Each worker calls it with its
            registry before the first build, for settings that cannot be pickled.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A name or path is malformed.

    The settings must be picklable. A store whose key was passed as bytes is not, see
    `warmset.share`.
    """

    __slots__ = ("class_options", "class_paths", "families", "prepare", "rules", "settings")

    class_paths: dict[str, str]
    settings: RegistrySettings
    class_options: dict[str, dict[str, Any]]
    rules: dict[str, tuple[Callable[[type], Any] | str, str | None]]
    families: dict[str, dict[str, Any]]
    prepare: Callable[[MethodRegistry], Any] | None

    def __init__(
        self,
        class_paths: Mapping[str, str],
        *,
        settings: RegistrySettings | None = None,
        class_options: Mapping[str, Mapping[str, Any]] | None = None,
        rules: Mapping[str, Any] | None = None,
        families: Mapping[str, Mapping[str, Any]] | None = None,
        prepare: Callable[[MethodRegistry], Any] | None = None,
    ) -> None:
        if settings is None:
            settings = RegistrySettings()
        if not isinstance(settings, RegistrySettings):
            raise TypeError(f"settings must be RegistrySettings or None, got {safe_repr(settings)}")
        if prepare is not None and not callable(prepare):
            raise TypeError(f"prepare must be a callable or None, got {safe_repr(prepare)}")
        put = object.__setattr__
        put(self, "class_paths", dict(checked_table(class_paths)))
        put(self, "settings", settings)
        put(self, "class_options", {n: dict(o) for n, o in (class_options or {}).items()})
        put(self, "rules", {n: _rule(n, rule) for n, rule in (rules or {}).items()})
        put(self, "families", {n: dict(family) for n, family in (families or {}).items()})
        put(self, "prepare", prepare)
        for name in (*self.class_options, *self.rules):
            if name not in self.class_paths:
                raise ValueError(f"options or a rule for {name!r}, which is not in class_paths")
        # Invalid paths and options raise here instead of on every worker.
        with Registry(self.class_paths) as registry:
            register_families(registry, self.families)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> WorkerSettings:
        """
        Read the settings from a ``warmset.toml``.

        Args:
            path: The file, which is read in this process, not on the workers.
            options: The arguments `rules`, `families` and `prepare`. Families are added to those of
                the file.

        Returns:
            The settings.

        Raises:
            SettingsError: The file cannot be read or is invalid.
        """
        from ..settings_file import load_settings_file

        loaded = load_settings_file(path)
        options["families"] = {**loaded.families, **(options.get("families") or {})}
        return cls(
            loaded.class_paths,
            settings=loaded.settings,
            class_options=loaded.class_options,
            **options,
        )

    def make_registry(self) -> MethodRegistry:
        """
        Create a registry from the settings.

        Returns:
            A new registry, which the caller must close.

        Raises:
            ImportError: A rule cannot be imported.
        """
        from .. import MethodRegistry

        registry = MethodRegistry({}, **self.settings.as_options())
        try:
            register_classes(registry, self.class_paths, self.class_options)
            for name, (rule, version) in self.rules.items():
                called = import_dotted(rule) if isinstance(rule, str) else rule
                registry.register_instantiation_rule(name, called, version=version)
            register_families(registry, self.families)
            if self.prepare is not None:
                self.prepare(registry)
        except BaseException:
            registry.close()
            raise
        return registry

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"WorkerSettings is immutable: cannot set {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            self.class_paths,
            self.settings,
            self.class_options,
            self.rules,
            self.families,
            self.prepare,
        )

    def __repr__(self) -> str:
        return f"<WorkerSettings: {len(self.class_paths)} classes>"


def _rebuild(
    class_paths: Any, settings: Any, class_options: Any, rules: Any, families: Any, prepare: Any
) -> WorkerSettings:
    return WorkerSettings(
        class_paths,
        settings=settings,
        class_options=class_options,
        rules=rules,
        families=families,
        prepare=prepare,
    )


def _rule(class_name: str, given: Any) -> tuple[Callable[[type], Any] | str, str | None]:
    class_name = check_name(class_name)
    rule, version = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not (callable(rule) or isinstance(rule, str)):
        raise TypeError(
            f"the rule of {class_name!r} must be a callable or a dotted path, got {safe_repr(rule)}"
        )
    return rule, version
