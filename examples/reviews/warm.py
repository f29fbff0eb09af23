"""The registry of the service: each process that imports this module has one of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from warmset import MethodRegistry

from .models import Archive, LanguageGuesser, Rater, Reviewer, Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

registry = MethodRegistry({}, max_cache_size=20, cache_ttl_seconds=600.0)
registry.register(LanguageGuesser, pin=True)
registry.register(Reviewer, kwargs={"good": 1})

# Models by language: at most two of each kind are warm.
tokenizers = registry.family("Tokenizer", Tokenizer, max_cache_size=2)


def load_rater(language: str) -> Rater:
    # A handle, not the tokenizer itself: that may be evicted while the rater stays.
    return Rater(language, tokenizers.bind(language, "words"))


raters = registry.family("Rater", load_rater, max_cache_size=2)


# A connection belongs to the process that opened it.
@registry.provider("archive", validate=Archive.is_alive, after_fork="drop")
def open_archive() -> Iterator[Archive]:
    archive = Archive(os.environ.get("REVIEWS_ARCHIVE", ":memory:"))
    yield archive
    archive.close()


def rate(text: str) -> tuple[str, int]:
    """Return the language and the rating of a text."""
    with registry.use(LanguageGuesser) as guesser:
        language = guesser.guess(text)
    with raters.use(language) as rater:
        return language, rater.rate(text)
