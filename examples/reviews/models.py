"""
The five classes: small stand-ins for models that take seconds to load.

All callers share one instance, so no method changes it.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_WORDS = {"en": {"the", "is", "and", "a"}, "fr": {"le", "la", "est", "et", "un"}}
WEIGHTS = {
    "en": {"good": 1, "great": 2, "bad": -1, "broken": -2},
    "fr": {"bon": 1, "super": 2, "mauvais": -1, "casse": -2},
}


class LanguageGuesser:
    """Finds the language of a text by its most frequent words."""

    def guess(self, text: str) -> str:
        words = text.lower().split()
        return max(STOP_WORDS, key=lambda language: sum(w in STOP_WORDS[language] for w in words))


class Tokenizer:
    """Splits texts of one language into words without those that say nothing."""

    def __init__(self, language: str) -> None:
        self.stop_words = STOP_WORDS[language]

    def words(self, text: str) -> list[str]:
        return [word for word in re.findall(r"\w+", text.lower()) if word not in self.stop_words]


class Rater:
    """Rates texts of one language."""

    def __init__(self, language: str, words: Callable[[str], list[str]]) -> None:
        self.weights = WEIGHTS[language]
        self.words = words

    def rate(self, text: str) -> int:
        return sum(self.weights.get(word, 0) for word in self.words(text))


class Reviewer:
    """Describes a rating in words."""

    def __init__(self, good: int = 1) -> None:
        self.good = good

    def describe(self, rating: int) -> str:
        return "good" if rating >= self.good else "bad" if rating <= -self.good else "mixed"


class Archive:
    """Keeps ratings in a database; SQLite serialises what several threads do."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, check_same_thread=False)
        self.connection.execute("create table if not exists ratings (text, rating)")

    def add(self, text: str, rating: int) -> None:
        with self.connection:
            self.connection.execute("insert into ratings values (?, ?)", (text, rating))

    def mean(self) -> float:
        (mean,) = self.connection.execute(
            "select coalesce(avg(rating), 0.0) from ratings"
        ).fetchone()
        return mean

    def is_alive(self) -> bool:
        return self.connection.execute("select 1").fetchone() == (1,)

    def close(self) -> None:
        self.connection.close()
