"""
Checks the steps of a pipeline file.

A string that begins with ``$`` anywhere in the arguments of a step is a reference:
``$document.name``, ``$document.text``, ``$documents.names``, ``$documents.texts`` and
``$steps.NAME``; ``$$`` stands for a literal dollar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmset.family_keys import FamilyKey
from warmset.resolver import safe_repr
from warmset.settings import SettingsError
from warmset.toml_tables import ErrorCollector, unknown_keys

from .file_errors import file_error

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Reference", "Step", "check_steps"]

_DOCUMENT_REFERENCES = ("$document.name", "$document.text")
_CORPUS_REFERENCES = ("$documents.names", "$documents.texts")
_STEP_PREFIX = "$steps."


@dataclass(frozen=True, slots=True)
class Reference:
    """
    A value that the run fills in: of the document, of all documents, or of an earlier step.

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
        name: The name of the step, unique in the pipeline.
        class_name: The class name in ``[classes]``, or a family in ``[families]``.
        method: The name of the method.
        per_document: Whether it is called for each document, or once per run before all documents.
        arguments: Keyword -> value; a `Reference` is filled in by the run.
        needs: The names of the steps whose results it uses.
        key: With a family, the key of the instance, or a `Reference` to it; else None.
    """

    name: str
    class_name: str
    method: str
    per_document: bool
    arguments: Mapping[str, Any]
    needs: frozenset[str]
    key: Any = None


def check_steps(
    value: object,
    classes: Mapping[str, Any],
    families: Mapping[str, Any],
    has_documents: bool,
    file: str,
    errors: ErrorCollector,
) -> tuple[Step, ...]:
    """
    Check the steps of a pipeline file.

    Args:
        value: The tables ``[[steps]]``.
        classes: The classes of the file.
        families: Its families.
        has_documents: Whether it has documents.
        file: The file; for the text of the errors.
        errors: Takes the errors.

    Returns:
        The valid steps.

    Raises:
        SettingsError: There are no steps.
    """
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise SettingsError(
            f"{file}: [[steps]]: {safe_repr(value)}; expected one or more tables (without steps it"
            " is a settings file, for MethodRegistry.from_file)",
            file=file,
        )
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, row in enumerate(value, 1):
        with errors:
            rows.append((f"steps[{number}]", _step_name(row, f"steps[{number}]", file), row))
    names = [name for _, name, _ in rows]
    earlier: dict[str, Step] = {}
    for index, (table, name, row) in enumerate(rows):
        later = [other for other in names[index:] if other not in earlier]
        with errors:
            if name in earlier:
                raise file_error(file, table, "name", name, "a name that no other step has")
            checker = _StepChecker(file, table, earlier, later, has_documents, errors)
            # Also for a step with errors, so that references to it are not reported as errors.
            earlier[name] = checker.step(name, row, classes, families)
    return tuple(step for step in earlier.values() if step.class_name and step.method)


def _step_name(row: Mapping[str, Any], table: str, file: str) -> str:
    for key in ("class", "method"):
        if key not in row:
            raise SettingsError(
                f"{file}: [{table}]: no {key!r}; expected the keys class and method",
                file=file,
                table=table,
                key=key,
            )
    target = row["class"]
    if isinstance(target, str) and target and _is_key(row.get("key")):
        target = FamilyKey(target, _as_key(row["key"]))
    name = row.get("name", f"{target}.{row['method']}")
    if not isinstance(name, str) or not name:
        raise file_error(file, table, "name", name, "a non-empty string")
    return name


def _is_key(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_key, value))
    return isinstance(value, (str, int, Reference))


def _as_key(value: Any) -> Any:
    return tuple(map(_as_key, value)) if isinstance(value, list) else value


class _StepChecker:
    # Checks one step; its references may only name steps before it.

    def __init__(
        self,
        file: str,
        table: str,
        earlier: Mapping[str, Step],
        later: list[str],
        has_documents: bool,
        errors: ErrorCollector,
    ) -> None:
        self.errors = errors
        self.file = file
        self.table = table
        self.earlier = earlier
        self.later = later
        self.has_documents = has_documents
        self.per_document = True
        self.needs: set[str] = set()

    def step(
        self,
        name: str,
        row: Mapping[str, Any],
        classes: Mapping[str, Any],
        families: Mapping[str, Any],
    ) -> Step:
        with self.errors:
            known = ("name", "class", "key", "method", "each", "arguments")
            unknown_keys(row, known, file=self.file, table_name=self.table)
        class_name, method = row["class"], row["method"]
        with self.errors:
            targets = [*classes, *families]
            if not isinstance(class_name, str) or class_name not in targets:
                class_name, wrong = "", class_name
                expected = "a name from [classes]" + (" or [families]" if families else "")
                raise self._error("class", wrong, expected, near=targets)
        with self.errors:
            if not isinstance(method, str) or not method.isidentifier():
                method, wrong = "", method
                raise self._error("method", wrong, "the name of a method")
        each = row.get("each", "document")
        with self.errors:
            if each not in ("document", "run"):
                raise self._error("each", each, "'document' or 'run'", near=("document", "run"))
            self.per_document = each == "document"
            if self.per_document and not self.has_documents:
                raise self._error("each", each, "'run', or a table [documents]")
        of_family = None
        with self.errors:
            of_family = self._key(row, class_name, classes)
        arguments = row.get("arguments", {})
        parsed: dict[str, Any] = {}
        with self.errors:
            if not isinstance(arguments, dict):
                raise self._error("arguments", arguments, "a table of keyword arguments")
            for key, item in arguments.items():
                parsed[key] = None
                with self.errors:
                    parsed[key] = self._value(f"arguments.{key}", item)
        needs = frozenset(self.needs)
        return Step(name, class_name, method, self.per_document, parsed, needs, of_family)

    def _key(self, row: Mapping[str, Any], class_name: str, classes: Mapping[str, Any]) -> Any:
        if not class_name:  # it is unknown what the class was meant to be
            return None
        if class_name in classes:
            if "key" in row:
                raise self._error("key", row["key"], f"no key: {class_name!r} is a class")
            return None
        if "key" not in row:
            raise SettingsError(
                f"{self.file}: [{self.table}]: no 'key'; expected the key of an instance of the"
                f" family {class_name!r}, as key = 'fr' or key = '$document.name'",
                file=self.file,
                table=self.table,
                key="key",
            )
        if not _is_key(row["key"]):
            expected = "a string, a whole number, or a list of them"
            raise self._error("key", row["key"], expected)
        return _as_key(self._value("key", row["key"]))

    def _error(self, key: str, value: object, expected: str, *, near: Any = ()) -> SettingsError:
        return file_error(self.file, self.table, key, value, expected, near=near)

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
            raise self._error(key, value, "a table [documents] for this reference")
        allowed = [*_CORPUS_REFERENCES, *(f"{_STEP_PREFIX}{name}" for name in self.earlier)]
        if self.per_document:
            allowed = [*_DOCUMENT_REFERENCES, *allowed]
        elif value in _DOCUMENT_REFERENCES:
            raise self._error(
                key,
                value,
                "$documents.names or $documents.texts, because a step with each = 'run' has no"
                " document",
            )
        raise self._error(
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
            raise self._error(key, value, "an earlier step, not this one or a later one")
        if step is None:
            near = [f"{_STEP_PREFIX}{known}" for known in self.earlier]
            raise self._error(key, value, "$steps. and the name of an earlier step", near=near)
        if step.per_document and not self.per_document:
            raise self._error(
                key, value, "a step with each = 'run', because this step runs before the documents"
            )
        self.needs.add(name)
        return Reference("steps", name)
