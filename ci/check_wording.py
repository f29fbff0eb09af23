"""
Finds wordings that stop readers, in pages, docstrings, comments and messages.

    python ci/check_wording.py

For each there is a plain technical term. Code in pages is left out. The exit status is 1 if a
wording was found.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", ".github/**/*.md")
SOURCES = ("src/**/*.py", "src/**/*.pyx", "src/**/*.pxi", "examples/**/*.py")
# The history keeps its words.
LEFT_OUT = ("CHANGELOG.md",)

WORDINGS = {
    r"(?:what|who|which) (?:leaves|left|has left|have left)(?!.open)": "the removed instance",
    r"(?:nobody|no one) (?:holds|has|held) (?:it|them)": "its last lease has ended",
    r"who has it|who have it": "the holder",
    r"(?:is|are|was|were|been) told": "is reported, or gets an event",
    r"said once": "is logged once",
    r"(?:ma[dk]e?s?|making|no|is) room": "capacity",
    r"(?<!single.)flights?|landings?": "build in progress, completion",
    r"(?:two|the|which) doors?": "re-entry points",
    r"take[sn]? it along|takes? along": "contains it, or removes it",
    r"by nature": "always",
    r"obviously|of course": "nothing",
    r"utili[sz]es?|prior to": "use, before",
}
# A wording may go on in the next line.
FOUND = re.compile(
    "|".join(rf"(\b(?:{each})\b)" for each in WORDINGS).replace(" ", r"\s+"), re.IGNORECASE
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, wording and what to write in its place."""
    for match in FOUND.finditer(text):
        assert match.lastindex is not None
        line = text.count("\n", 0, match.start()) + 1
        yield line, " ".join(match[0].split()), list(WORDINGS.values())[match.lastindex - 1]


def blank(match: re.Match[str]) -> str:
    """As many lines, and nothing else."""
    return "\n" * match[0].count("\n")


def main() -> int:
    """Print what was found."""
    failed = 0
    for pattern in (*PAGES, *SOURCES):
        for path in sorted(ROOT.glob(pattern)):
            if path.name in LEFT_OUT:
                continue
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".md":
                text = CODE.sub(blank, text)
            for line, wording, better in findings(text):
                failed = 1
                print(f"{path.relative_to(ROOT)}:{line}: {wording!r}: write {better}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
