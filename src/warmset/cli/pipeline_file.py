"""
The pipeline file: read, checked as a whole, and turned into immutable values.

Whatever can be known to be wrong without importing a class is refused here, so that a run does not
stop in the middle for a misspelt name. Classes, rules and the source of the documents are imported
by the run.

A string that begins with ``$`` is a reference, wherever it stands in the arguments of a step:
``$document.name``, ``$document.text``, ``$documents.names``, ``$documents.texts`` and
``$steps.NAME``; ``$$`` stands for a literal dollar.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmset.resolver import shown
from warmset.settings import RegistrySettings, SettingsError, unknown_keys
from warmset.settings_file import check_classes, load_toml

from .faults import fault

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

_DOTTED = "a dotted path 'package.module.callable'"
_DOCUMENT_REFERENCES = ("$document.name", "$document.text")
_CORPUS_REFERENCES = ("$documents.names", "$documents.texts")
_STEP_PREFIX = "$steps."


@dataclass(frozen=True, slots=True)
class Reference:
    """
    A value that a run puts in: of the document, of all documents, or of an earlier step.

    Args:
        scope: ``"document"``, ``"documents"`` or ``"steps"``.
        name: ``"name"``, ``"text"``, ``"names"``, ``"texts"``, or the name of the step.
    """

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Step:
    """
    One call of a method.

    Args:
        name: Unique in the pipeline.
        class_name: The class name in ``[classes]``.
        method: The method.
        per_document: Whether it is called for each document, or once per run before them.
        arguments: Keyword -> value, with `Reference` for what is put in.
        needs: The names of the steps whose results it takes.
    """

    name: str
    class_name: str
    method: str
    per_document: bool
    arguments: Mapping[str, Any]
    needs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """
    Where the documents come from: files, or a callable, never both.

    Args:
        base: The directory that relative globs start from.
        files: Globs; empty where there is a `source`.
        source: Dotted path to a callable that yields (name, text).
        limit: The most documents to take.
        max_characters: The most characters to take of each.
        encoding: Of the files.
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
    A pipeline file, checked.

    Args:
        file: The file, as it was named.
        settings: The table ``[registry]``.
        class_paths: The table ``[classes]``.
        build: Class name -> keyword arguments of its constructor.
        rules: Class name -> dotted path of its rule.
        documents: The table ``[documents]``; None where no step needs documents.
        steps: In the order of the file.
    """

    file: str
    settings: RegistrySettings
    class_paths: Mapping[str, str]
    build: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    documents: DocumentSource | None = None
    steps: tuple[Step, ...]


def load_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """
    Read and check a pipeline file.

    Args:
        path: The file.

    Returns:
        What it says.

    Raises:
        SettingsError: It cannot be read, or something in it is not as expected; the text names
            file, table, key and value.
    """
    file = str(path)
    content = load_toml(file)
    known = ("registry", "classes", "build", "rules", "documents", "steps")
    unknown_keys(content, known, file=file, table_name="")
    settings = RegistrySettings.from_table(content.get("registry", {}), file=file)
    class_paths = check_classes(content.get("classes", {}), file=file)
    if not class_paths:
        raise SettingsError(f"{file}: [classes]: missing or empty; expected at least one class")
    build = _check_build(content.get("build", {}), class_paths, file)
    rules = _check_rules(content.get("rules", {}), class_paths, build, file)
    documents = None
    if "documents" in content:
        documents = _check_documents(content["documents"], file)
    steps = _check_steps(content.get("steps", []), class_paths, documents is not None, file)
    return Pipeline(
        file=file,
        settings=settings,
        class_paths=class_paths,
        build=build,
        rules=rules,
        documents=documents,
        steps=steps,
    )


def _table(value: object, file: str, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{file}: [{name}]: {shown(value)}; expected a table", file=file)
    return value


def _is_dotted(value: object) -> bool:
    if not isinstance(value, str):
        return False
    parts = value.split(".")
    return len(parts) > 1 and all(part.isidentifier() and not iskeyword(part) for part in parts)


def _known_class(
    name: str, value: object, classes: Mapping[str, str], file: str, table: str
) -> None:
    if name not in classes:
        expected = "a class name from [classes] on the left"
        raise fault(file, table, name, value, expected, near=classes, misspelt=name)


def _check_build(
    value: object, classes: Mapping[str, str], file: str
) -> dict[str, Mapping[str, Any]]:
    build: dict[str, Mapping[str, Any]] = {}
    for name, arguments in _table(value, file, "build").items():
        _known_class(name, arguments, classes, file, "build")
        if not isinstance(arguments, dict):
            raise fault(file, "build", name, arguments, "a table of keyword arguments")
        build[name] = arguments
    return build


def _check_rules(
    value: object, classes: Mapping[str, str], build: Mapping[str, object], file: str
) -> dict[str, str]:
    rules: dict[str, str] = {}
    for name, path in _table(value, file, "rules").items():
        _known_class(name, path, classes, file, "rules")
        if not _is_dotted(path):
            raise fault(file, "rules", name, path, _DOTTED)
        if name in build:
            raise fault(file, "rules", name, path, "[build] or [rules] for a class, not both")
        rules[name] = path
    return rules


def _check_documents(value: object, file: str) -> DocumentSource:
    table = _table(value, file, "documents")
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
    if "files" in table and not (
        isinstance(files, list) and files and all(isinstance(glob, str) and glob for glob in files)
    ):
        raise fault(file, "documents", "files", files, "a list of one or more globs")
    source = table.get("source")
    if source is not None and not _is_dotted(source):
        raise fault(file, "documents", "source", source, _DOTTED)
    for key in ("limit", "max_characters"):
        number = table.get(key, 1)
        if type(number) is not int or number < 1:
            raise fault(file, "documents", key, number, "a whole number, 1 or more")
    encoding = table.get("encoding", "utf-8")
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError, ValueError) as error:
        raise fault(
            file, "documents", "encoding", encoding, "the name of an encoding, such as 'utf-8'"
        ) from error
    return DocumentSource(
        base=Path(file).parent,
        files=tuple(files),
        source=source,
        limit=table.get("limit"),
        max_characters=table.get("max_characters"),
        encoding=encoding,
    )


def _check_steps(
    value: object, classes: Mapping[str, str], has_documents: bool, file: str
) -> tuple[Step, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise SettingsError(
            f"{file}: [[steps]]: {shown(value)}; expected one or more tables", file=file
        )
    names = [_step_name(row, f"steps[{at}]", file) for at, row in enumerate(value, 1)]
    earlier: dict[str, Step] = {}
    for at, row in enumerate(value, 1):
        table = f"steps[{at}]"
        name = names[at - 1]
        if name in earlier:
            raise fault(file, table, "name", name, "a name that no other step has")
        later = [other for other in names[at - 1 :] if other not in earlier]
        checker = _StepChecker(file, table, earlier, later, has_documents)
        earlier[name] = checker.step(name, row, classes)
    return tuple(earlier.values())


def _step_name(row: Mapping[str, Any], table: str, file: str) -> str:
    for key in ("class", "method"):
        if key not in row:
            raise SettingsError(
                f"{file}: [{table}]: no {key!r}; expected the keys class and method",
                file=file,
                table=table,
                key=key,
            )
    name = row.get("name", f"{row['class']}.{row['method']}")
    if not isinstance(name, str) or not name:
        raise fault(file, table, "name", name, "a non-empty string")
    return name


class _StepChecker:
    # One step being read: what its references may name depends on where it stands.

    def __init__(
        self,
        file: str,
        table: str,
        earlier: Mapping[str, Step],
        later: list[str],
        has_documents: bool,
    ) -> None:
        self.file = file
        self.table = table
        self.earlier = earlier
        self.later = later
        self.has_documents = has_documents
        self.per_document = True
        self.needs: set[str] = set()

    def step(self, name: str, row: Mapping[str, Any], classes: Mapping[str, str]) -> Step:
        known = ("name", "class", "method", "each", "arguments")
        unknown_keys(row, known, file=self.file, table_name=self.table)
        class_name, method = row["class"], row["method"]
        if not isinstance(class_name, str) or class_name not in classes:
            raise self._fault("class", class_name, "a name from [classes]", near=classes)
        if not isinstance(method, str) or not method.isidentifier():
            raise self._fault("method", method, "the name of a method")
        each = row.get("each", "document")
        if each not in ("document", "run"):
            raise self._fault("each", each, "'document' or 'run'", near=("document", "run"))
        self.per_document = each == "document"
        if self.per_document and not self.has_documents:
            raise self._fault("each", each, "'run', or a table [documents]")
        arguments = row.get("arguments", {})
        if not isinstance(arguments, dict):
            raise self._fault("arguments", arguments, "a table of keyword arguments")
        parsed = {key: self._value(f"arguments.{key}", item) for key, item in arguments.items()}
        return Step(name, class_name, method, self.per_document, parsed, frozenset(self.needs))

    def _fault(self, key: str, value: object, expected: str, *, near: Any = ()) -> SettingsError:
        return fault(self.file, self.table, key, value, expected, near=near)

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(key, item) for item in value]
        if isinstance(value, dict):
            return {name: self._value(f"{key}.{name}", item) for name, item in value.items()}
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value.startswith("$$"):
            return value[1:]
        return self._reference(key, value)

    def _reference(self, key: str, value: str) -> Reference:
        if value.startswith(_STEP_PREFIX):
            return self._step_reference(key, value)
        if value in _CORPUS_REFERENCES and self.has_documents:
            return Reference("documents", value.partition(".")[2])
        if value in _DOCUMENT_REFERENCES and self.per_document:
            return Reference("document", value.partition(".")[2])
        if value in _CORPUS_REFERENCES:
            raise self._fault(key, value, "a table [documents] for this reference")
        allowed = [*_CORPUS_REFERENCES, *(f"{_STEP_PREFIX}{name}" for name in self.earlier)]
        if self.per_document:
            allowed = [*_DOCUMENT_REFERENCES, *allowed]
        elif value in _DOCUMENT_REFERENCES:
            raise self._fault(
                key,
                value,
                "$documents.names or $documents.texts: a step with each = 'run' sees all documents",
            )
        raise self._fault(
            key,
            value,
            "$document.name, $document.text, $documents.names, $documents.texts or $steps.NAME"
            " ('$$' for a literal dollar)",
            near=allowed,
        )

    def _step_reference(self, key: str, value: str) -> Reference:
        name = value[len(_STEP_PREFIX) :]
        step = self.earlier.get(name)
        if step is None and name in self.later:
            raise self._fault(key, value, "an earlier step, not this one or a later one")
        if step is None:
            near = [f"{_STEP_PREFIX}{known}" for known in self.earlier]
            raise self._fault(key, value, "$steps. and the name of an earlier step", near=near)
        if step.per_document and not self.per_document:
            raise self._fault(
                key, value, "a step with each = 'run': this one runs before the documents"
            )
        self.needs.add(name)
        return Reference("steps", name)
