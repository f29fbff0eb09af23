"""Documents: read from files or taken from a callable, once, before the first run."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from warmset.resolver import import_dotted, shown, told

from .faults import fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pipeline_file import DocumentSource


@dataclass(frozen=True, slots=True)
class Document:
    """
    One text.

    Args:
        name: What a report calls it: the file's path below the pipeline file, or the source's name.
        text: All of it, or its first `max_characters`.
    """

    name: str
    text: str


def load_documents(source: DocumentSource, file: str) -> tuple[Document, ...]:
    """
    Read all documents.

    Args:
        source: Where they come from.
        file: The pipeline file, for the text of an error.

    Returns:
        At least one document; files in the order of the globs, and by name within each.

    Raises:
        SettingsError: There is none, or one cannot be read, or the callable fails.
    """
    found = _from_callable(source, file) if source.source else _from_files(source, file)
    documents = tuple(
        Document(name, text[: source.max_characters]) for name, text in islice(found, source.limit)
    )
    if not documents:
        raise fault(file, "documents", "source", source.source, "at least one document")
    return documents


def _from_files(source: DocumentSource, file: str) -> Iterator[tuple[str, str]]:
    seen: dict[str, None] = {}
    for pattern in source.files:
        # The base is a plain directory, whose name may hold the characters of a glob.
        rooted = os.path.join(glob.escape(str(source.base)), pattern)
        matches = sorted(
            path for path in glob.iglob(rooted, recursive=True) if os.path.isfile(path)
        )
        if not matches:
            raise fault(file, "documents", "files", pattern, "a glob that matches a file")
        seen.update(dict.fromkeys(matches))
    for path in seen:
        try:
            text = Path(path).read_text(encoding=source.encoding)
        except (OSError, UnicodeError) as error:
            raise fault(
                file,
                "documents",
                "files",
                path,
                f"a file that can be read as {source.encoding} ({told(error)})",
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
                raise TypeError(f"it yielded {shown(item, 80)}")
            yield item
    except Exception as error:
        raise fault(file, "documents", "source", path, f"{expected} ({told(error)})") from error
