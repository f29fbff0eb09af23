"""
Writes what follows from the table of settings into the source: python ci/generate_signatures.py.

With --check nothing is written, and files that are out of date are an error. A region begins with
a line ``# begin KIND: ...`` and ends with ``# end KIND``; KIND is a scope and a form:

scope      settings
registry   those of a registry
class      the options of a class

form       contents
parameters parameters of a function, keyword-only after the positional ones
keywords   parameters, all of them keyword-only, after the ``*``
arguments  keyword arguments of a call, from variables of the same names
items      entries of a dict, from variables of the same names
fields     annotations of attributes
docs       a docstring written by hand, in which the settings end the section ``Args:``
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))

from warmset.setting_table import SETTINGS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warmset.setting_checks import Setting

WIDTH = 100
REGION = re.compile(
    r"^(?P<begin>(?P<indent> *)# begin (?P<scope>registry|class)-(?P<form>\w+)\b[^\n]*\n)"
    r"(?P<body>.*?)"
    r"^(?P<end> *# end (?P=scope)-(?P=form)\n)",
    re.MULTILINE | re.DOTALL,
)


def rows(scope: str) -> Iterator[tuple[Setting, Any, str]]:
    """Give each setting of a scope with its default and its documentation."""
    for row in SETTINGS:
        found = row.registry if scope == "registry" else row.option
        if found is not None:
            yield row, *found


def annotation(row: Setting, default: Any) -> str:
    """Give the type of a setting, with None where that is its default."""
    kind = row.rule.annotation
    return f"{kind} | None" if default is None and not re.search("Any$|None", kind) else kind


def literal(value: Any) -> str:
    """Give a default as it stands in the source."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def parameters(scope: str) -> list[str]:
    """Give the parameters, with a ``*`` after the positional ones."""
    star, *lines = keywords(scope)
    positional = sum(row.positional for row, *_ in rows(scope))
    return [*lines[:positional], star, *lines[positional:]]


def keywords(scope: str) -> list[str]:
    """Give a ``*`` and the parameters."""
    return [
        "*,",
        *(
            f"{row.name}: {annotation(row, default)} = {literal(default)},"
            for row, default, _ in rows(scope)
        ),
    ]


def arguments(scope: str) -> list[str]:
    """Give keyword arguments."""
    return [f"{row.name}={row.name}," for row, *_ in rows(scope)]


def items(scope: str) -> list[str]:
    """Give the entries of a dict."""
    return [f'"{row.name}": {row.name},' for row, *_ in rows(scope)]


def fields(scope: str) -> list[str]:
    """Give the annotations of attributes."""
    return [f"{row.name}: {annotation(row, default)}" for row, default, _ in rows(scope)]


def docs(scope: str, docstring: str) -> str:
    """
    Replace the settings in a docstring.

    Args:
        scope: Which settings.
        docstring: Its lines. The settings are those from the first known name under ``Args:`` to
            the next blank line; if no name is known there, they are added before that line.

    Returns:
        The lines with the entries of the table.
    """
    section = re.search(r"^( *)Args:\n(?:.*\S.*\n)*", docstring, re.MULTILINE)
    if section is None:
        raise ValueError(f"no section Args: in the docstring:\n{docstring}")
    names = "|".join(row.name for row, *_ in rows(scope))
    indent = section[1] + "    "
    known = re.search(rf"^{indent}(?:{names}): ", section[0], re.MULTILINE)
    kept = section[0] if known is None else section[0][: known.start()]
    entries = [
        textwrap.fill(
            f"{row.name}: {text}",
            WIDTH,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for row, _, text in rows(scope)
    ]
    section_text = kept + "\n".join(entries) + "\n"
    return docstring[: section.start()] + section_text + docstring[section.end() :]


FORMS = {
    "parameters": parameters,
    "keywords": keywords,
    "arguments": arguments,
    "items": items,
    "fields": fields,
}


def renewed(text: str) -> str:
    """
    Renew the regions of a file.

    Args:
        text: The file.

    Returns:
        The file with each region as the table has it.
    """

    def region(found: re.Match[str]) -> str:
        if found["form"] == "docs":
            body = docs(found["scope"], found["body"])
        else:
            lines = FORMS[found["form"]](found["scope"])
            body = "".join(f"{found['indent']}{line}\n" for line in lines)
        return found["begin"] + body + found["end"]

    return REGION.sub(region, text)


def stale(package: Path) -> dict[Path, str]:
    """
    Find the files whose regions are not as the table has them.

    Args:
        package: The directory of the package.

    Returns:
        File -> what it should be.
    """
    found = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        new = renewed(text)
        if new != text:
            found[path] = new
    return found


def main() -> None:
    """Write the files, or with --check only name them."""
    found = stale(ROOT / "src" / "warmset")
    for path, text in found.items():
        print(path.relative_to(ROOT))
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
    if found and "--check" in sys.argv[1:]:
        sys.exit("out of date: run python ci/generate_signatures.py")


if __name__ == "__main__":
    main()
