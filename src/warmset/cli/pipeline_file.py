"""
Reads a pipeline file, checks it as a whole, and returns it as immutable values.

Every error that can be found without importing a class is reported here, so that a run does not
fail halfway because of a misspelt name. The run imports the classes, the rules and the source of
the documents.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmset.setting_table import SETTINGS
from warmset.settings import SettingsError
from warmset.settings_file import (
    FILE_TABLES,
    check_dotted,
    load_toml,
    read_settings_file,
    read_tables,
)
from warmset.toml_tables import ErrorCollector, check_table, unknown_keys

from .file_errors import file_error
from .pipeline_steps import check_steps

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from warmset.settings import RegistrySettings
    from warmset.settings_file import SettingsFile

    from .pipeline_steps import Step

# Tables that a pipeline file has and a settings file has not.
PIPELINE_TABLES = ("documents", "steps")
# Tables of earlier files, and what replaces them.
_REPLACED = {
    "build": "[options.NAME] with kwargs = { ... } for each class",
    "rules": "[options.NAME] with rule = 'package.module.callable' for each class",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """
    The source of the documents: either files or a callable.

    Args:
        base: The directory that relative globs start from.
        files: Globs; empty if there is a `source`.
        source: Dotted path to a callable that yields (name, text).
        limit: The most documents to load; None for no limit.
        max_characters: The most characters to keep of each document; None for no limit.
        encoding: The encoding of the files.
    """

    base: Path
    files: tuple[str, ...] = ()
    source: str | None = None
    limit: int | None = None
    max_characters: int | None = None
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """
    The contents of a valid pipeline file.

    Args:
        file: The path of the file, as it was given.
        settings: The table ``[registry]``.
        class_paths: The table ``[classes]``.
        class_options: The tables ``[options.NAME]``, as in `SettingsFile`.
        families: The tables ``[families.NAME]``, as in `SettingsFile`.
        documents: The table ``[documents]``; None if the file has none.
        steps: The steps in the order of the file.
    """

    file: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]
    class_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    families: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    documents: DocumentSource | None = None
    steps: tuple[Step, ...]

    @property
    def target_paths(self) -> dict[str, str]:
        """What the steps call: the classes, and then the families with their factories."""
        factories = {name: family["factory"] for name, family in self.families.items()}
        return {**self.class_paths, **factories}

    @property
    def dotted_paths(self) -> list[str]:
        """All that is imported: classes, factories, rules, and other callables."""
        named = ("rule", *(row.name for row in SETTINGS if row.as_path))
        rules = [
            each[key]
            for each in (*self.class_options.values(), *self.families.values())
            for key in named
            if each.get(key, "auto") != "auto"
        ]
        source = self.documents.source if self.documents is not None else None
        return [*self.target_paths.values(), *rules, *([] if source is None else [source])]


def load_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """
    Read and check a pipeline file.

    Args:
        path: The file.

    Returns:
        The pipeline.

    Raises:
        SettingsError: The file cannot be read or has an error; the message names the file, the
            table, the key and the value.
    """
    pipeline, errors = read_pipeline(path)
    if errors:
        raise errors[0]
    return pipeline


def read_pipeline(path: str | os.PathLike[str]) -> tuple[Pipeline, list[SettingsError]]:
    """
    Read a pipeline file and find all errors in it.

    Args:
        path: The file.

    Returns:
        The valid parts of the file, and the errors.

    Raises:
        SettingsError: The file cannot be read or is not valid TOML.
    """
    file = str(path)
    return _read(load_toml(file), file)


def read_file(path: str | os.PathLike[str]) -> tuple[Pipeline, list[SettingsError]]:
    """
    Read a pipeline file or a settings file, which has neither documents nor steps.

    Args:
        path: The file.

    Returns:
        The valid parts of the file, and the errors. A settings file gives a pipeline without steps.

    Raises:
        SettingsError: The file cannot be read or is not valid TOML.
    """
    file = str(path)
    content = load_toml(file)
    if not any(table in content for table in (*PIPELINE_TABLES, *_REPLACED)):
        loaded, errors = read_settings_file(file)
        return _pipeline(loaded, None, ()), errors
    return _read(content, file)


def _read(content: dict[str, Any], file: str) -> tuple[Pipeline, list[SettingsError]]:
    errors = ErrorCollector()
    for table, instead in _REPLACED.items():
        with errors:
            if table in content:
                del content[table]
                raise SettingsError(
                    f"{file}: top level: the table [{table}] is not read; expected {instead}",
                    file=file,
                    table="",
                    key=table,
                )
    with errors:
        unknown_keys(content, (*FILE_TABLES, *PIPELINE_TABLES), file=file, table_name="")
    common = read_tables(content, file=file, errors=errors)
    names, families = content.get("classes"), content.get("families")
    with errors:
        if names in (None, {}) and families in (None, {}):
            raise SettingsError(
                f"{file}: [classes]: missing or empty; expected at least one class or family"
            )
    names = names if isinstance(names, dict) else {}
    families = families if isinstance(families, dict) else {}
    documents = None
    if "documents" in content:
        with errors:
            documents = _check_documents(content["documents"], file, errors)
    steps: tuple[Step, ...] = ()
    with errors:
        steps = check_steps(
            content.get("steps", []), names, families, "documents" in content, file, errors
        )
    return _pipeline(common, documents, steps), errors.found


def _pipeline(
    common: SettingsFile, documents: DocumentSource | None, steps: tuple[Step, ...]
) -> Pipeline:
    return Pipeline(
        file=common.path,
        settings=common.settings,
        class_paths=dict(common.class_paths),
        # Plain dicts, which can be pickled: the pipeline is sent to the workers of an engine.
        class_options={name: dict(options) for name, options in common.class_options.items()},
        families={name: dict(family) for name, family in common.families.items()},
        documents=documents,
        steps=steps,
    )


def _check_documents(value: object, file: str, errors: ErrorCollector) -> DocumentSource:
    table = check_table(value, file=file, table_name="documents")
    with errors:
        known = ("files", "source", "limit", "max_characters", "encoding")
        unknown_keys(table, known, file=file, table_name="documents")
    if ("files" in table) == ("source" in table):
        given = "both" if "files" in table else "neither"
        raise SettingsError(
            f"{file}: [documents]: {given} of files and source; expected exactly one of them",
            file=file,
            table="documents",
        )
    files = table.get("files", [])
    with errors:
        if "files" in table and not _are_globs(files):
            raise file_error(file, "documents", "files", files, "a list of one or more globs")
    source = table.get("source")
    with errors:
        if source is not None:
            source = check_dotted(source, file=file, table_name="documents", key="source")
    for key in ("limit", "max_characters"):
        with errors:
            _check_number(table.get(key, 1), key, file)
    encoding = table.get("encoding", "utf-8")
    with errors:
        try:
            codecs.lookup(encoding)
        except (LookupError, TypeError, ValueError) as error:
            raise file_error(
                file, "documents", "encoding", encoding, "the name of an encoding, such as 'utf-8'"
            ) from error
    return DocumentSource(
        base=Path(file).parent,
        files=tuple(files) if isinstance(files, list) else (),
        source=source,
        limit=table.get("limit"),
        max_characters=table.get("max_characters"),
        encoding=encoding,
    )


def _are_globs(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(glob, str) and glob for glob in value)


def _check_number(number: object, key: str, file: str) -> None:
    if type(number) is not int or number < 1:
        raise file_error(file, "documents", key, number, "a whole number, 1 or more")
