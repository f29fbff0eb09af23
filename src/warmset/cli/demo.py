"""Documents, rules and process set-up of ``warmset demo``; ``demo.toml`` is its pipeline file."""

from __future__ import annotations

import logging
import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_error import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from warmset import MethodRegistry

    from .documents import Document

PIPELINE_FILE = Path(__file__).with_name("demo.toml")

# Module -> the name of its package.
_PACKAGES = {
    "langid": "langid",
    "pysbd": "pysbd",
    "sklearn": "scikit-learn",
    "vaderSentiment": "vaderSentiment",
    "wordllama": "wordllama",
}
# The most dimensions that a text is reduced to, and the most neighbours to search for.
_DIMENSIONS = 50
_NEIGHBOURS = 5


def missing_packages() -> list[str]:
    """
    Find the packages of the ``demo`` extra that are not installed.

    Returns:
        The names of the packages.
    """
    return [name for module, name in _PACKAGES.items() if find_spec(module) is None]


def check_packages() -> None:
    """
    Check that the packages of the demo are installed.

    Raises:
        CommandError: A package is missing; the message names it and the extra to install.
    """
    missing = missing_packages()
    if missing:
        raise CommandError(
            f"the demo needs the 'demo' extra: pip install \"warmset[demo]\""
            f" (not installed: {', '.join(missing)})"
        )


def prepare_process() -> None:
    """
    Set up the process for a stable RSS, before numerical libraries are imported.

    Each library is limited to one thread, because every further thread has memory of its own.
    Network access is disabled. Logging is configured here because wordllama would otherwise enable
    it for the whole process, and warnings about the syntax of a package are hidden: they are not
    about the demo. Environment variables that are already set are not changed.
    """
    for variable in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "RAYON"):
        os.environ.setdefault(f"{variable}_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.basicConfig(level=logging.WARNING)
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # pysbd has some


def help_topics() -> Iterator[tuple[str, str]]:
    """
    Yield the texts of ``help("TOPIC")``.

    Returns:
        Pairs of name and text, sorted by name.
    """
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def build_language(cls: Any) -> Any:
    """
    Build langid's identifier from the model that its module contains as text.

    Args:
        cls: The class.

    Returns:
        The instance.
    """
    return cls.from_modelstring(import_module("langid.langid").model)


def build_tfidf(cls: Any, documents: Sequence[Document]) -> Any:
    """
    Build a vectorizer for words and word pairs, fitted on all documents.

    Args:
        cls: The class.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    return cls(ngram_range=(1, 2)).fit([document.text for document in documents])


def build_lsa(cls: Any, registry: MethodRegistry, documents: Sequence[Document]) -> Any:
    """
    Build latent semantic analysis, fitted on the vectors of all documents.

    Args:
        cls: The class.
        registry: Provides the fitted vectorizer.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    vectors = _vectors(registry, documents)
    # The seed is fixed so that every run does the same work.
    return cls(n_components=min(_DIMENSIONS, vectors.shape[1]), random_state=0).fit(vectors)


def build_topics(cls: Any, registry: MethodRegistry, documents: Sequence[Document]) -> Any:
    """
    Build a classifier that predicts which document a text comes from.

    Args:
        cls: The class.
        registry: Provides the fitted vectorizer.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    names = [document.name for document in documents]
    return cls().fit(_vectors(registry, documents), names)


def build_neighbours(cls: Any, registry: MethodRegistry, documents: Sequence[Document]) -> Any:
    """
    Build a nearest-neighbour index of the reduced documents.

    Args:
        cls: The class.
        registry: Provides the fitted vectorizer and the fitted analysis.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    reduced = registry.get_instance("Lsa").transform(_vectors(registry, documents))
    return cls(n_neighbors=min(_NEIGHBOURS, len(documents))).fit(reduced)


def build_embedder(cls: Any) -> Any:
    """
    Build wordllama's embedder from the files in its package, without a download.

    Args:
        cls: The class, which must be the one that wordllama's loader builds.

    Returns:
        The instance.
    """
    wordllama = import_module("wordllama")
    # The package stores its files in the layout of the download cache: weights/, tokenizers/.
    directory = Path(str(wordllama.__file__)).parent
    embedder = wordllama.WordLlama.load(cache_dir=directory, disable_download=True)
    if not isinstance(embedder, cls):
        raise TypeError(f"wordllama loaded a {type(embedder).__name__}, not a {cls.__name__}")
    return embedder


def _vectors(registry: MethodRegistry, documents: Sequence[Document]) -> Any:
    return registry.get_instance("Tfidf").transform([document.text for document in documents])
