"""The classes of the examples: small stand-ins for models that take seconds to build."""

from __future__ import annotations

import re
from collections import Counter


class Tagger:
    """Finds capitalised words. Its methods are thread-safe: they change nothing."""

    def __init__(self, model: str = "small") -> None:
        self.pattern = re.compile(r"\b[A-Z][a-z]+\b" if model == "small" else r"\b[A-Z]\w+\b")

    def tag(self, text: str) -> list[str]:
        return self.pattern.findall(text)

    def close(self) -> None:
        """Called once, after the last request that uses the instance."""


class Summarizer:
    """Finds the most frequent words."""

    def summarize(self, text: str, words: int = 3) -> list[str]:
        return [word for word, _ in Counter(re.findall(r"\w+", text.lower())).most_common(words)]
