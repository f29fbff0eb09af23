"""Loads the documents of a pipeline, from files or from a callable, once before the first run."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from warmset.resolver import error_text, import_dotted, safe_repr

from .file_errors import file_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline_file import DocumentSource


@dataclass(frozen=True, slots=True)
class Document:
    """
    A text with a name.

    Args:
        name: Its name in reports: the path relative to the pipeline file, or the name from the
            source.
        text: The whole text, or its first `max_characters`.
    """

    name: str
    text: str


def load_documents(source: DocumentSource, file: str) -> tuple[Document, ...]:
    """
    Load all documents.

    Args:
        source: The table [documents].
        file: The pipeline file, for error messages.

    Returns:
        At least one document. Files are in the order of the globs, and sorted by name within each.

    Raises:
        SettingsError: There is no document, a file cannot be read, or the callable fails.
    """
    found = _from_callable(source, file) if source.source else _from_files(source, file)
    documents = tuple(
        Document(name, text[: source.max_characters]) for name, text in islice(found, source.limit)
    )
    if not documents:
        raise file_error(file, "documents", "source", source.source, "at least one document")
    return documents


def _from_files(source: DocumentSource, file: str) -> Iterator[tuple[str, str]]:
    seen: dict[str, None] = {}
    for pattern in source.files:
        # The name of the base directory may contain the special characters of globs.
        rooted = os.path.join(glob.escape(str(source.base)), pattern)
        matches = sorted(
            path for path in glob.iglob(rooted, recursive=True) if os.path.isfile(path)
        )
        if not matches:
            raise file_error(file, "documents", "files", pattern, "a glob that matches a file")
        seen.update(dict.fromkeys(matches))
    for path in seen:
        try:
            text = Path(path).read_text(encoding=source.encoding)
        except (OSError, UnicodeError) as error:
            raise file_error(
                file,
                "documents",
                "files",
                path,
                f"a file that can be read as {source.encoding} ({error_text(error)})",
            ) from error
        yield os.path.relpath(path, source.base), text


def _from_callable(source: DocumentSource, file: str) -> Iterator[tuple[str, str]]:
    path = source.source
    assert path is not None
    expected = "a callable that yields (name, text)"
    try:
        for item in import_dotted(path)():
            if not (
                isinstance(item, tuple)
                and len(item) == 2
                and all(isinstance(part, str) for part in item)
            ):
                raise TypeError(f"it yielded {safe_repr(item, 80)}")
            yield item
    except Exception as error:
        raise file_error(
            file, "documents", "source", path, f"{expected} ({error_text(error)})"
        ) from error
