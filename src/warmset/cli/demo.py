"""Documents, rules and process of ``warmset demo``; the pipeline itself is in ``demo.toml``."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .documents import Document
    from .pipeline_rules import RunRegistry

PIPELINE_FILE = Path(__file__).with_name("demo.toml")

# Module -> the name that it is installed by.
_PACKAGES = {
    "langid": "langid",
    "pysbd": "pysbd",
    "sklearn": "scikit-learn",
    "vaderSentiment": "vaderSentiment",
    "wordllama": "wordllama",
}
# How many dimensions the texts are reduced to, and how many neighbours are looked for, at most.
_DIMENSIONS = 50
_NEIGHBOURS = 5


def missing_packages() -> list[str]:
    """
    Find which packages of the extra ``demo`` are not installed.

    Returns:
        The names that they are installed by.
    """
    return [name for module, name in _PACKAGES.items() if find_spec(module) is None]


def check_packages() -> None:
    """
    See to it that the demo can run.

    Raises:
        Refused: A package of the extra ``demo`` is missing; with what to install.
    """
    missing = missing_packages()
    if missing:
        raise Refused(
            f"the demo needs the 'demo' extra: pip install \"warmset[demo]\""
            f" (not installed: {', '.join(missing)})"
        )


def prepare_process() -> None:
    """
    Set up the process before numerical libraries are imported, for a stable RSS.

    One thread each, since each thread of theirs has memory of its own; no attempt at the network;
    and logging as it was, which wordllama would switch on for the whole process. Variables that
    are set already stay as they are.
    """
    for variable in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "RAYON"):
        os.environ.setdefault(f"{variable}_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.basicConfig(level=logging.WARNING)


def help_topics() -> Iterator[tuple[str, str]]:
    """
    Give the texts behind ``help("TOPIC")``.

    Returns:
        (name, text), by name.
    """
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def build_language(cls: Any) -> Any:
    """
    Build langid's identifier from the model that its module holds as text.

    Args:
        cls: The class.

    Returns:
        The instance.
    """
    return cls.from_modelstring(import_module("langid.langid").model)


def build_tfidf(cls: Any, documents: Sequence[Document]) -> Any:
    """
    Build a vectorizer of words and pairs of words, fitted on all documents.

    Args:
        cls: The class.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    return cls(ngram_range=(1, 2)).fit([document.text for document in documents])


def build_lsa(cls: Any, registry: RunRegistry, documents: Sequence[Document]) -> Any:
    """
    Build latent semantic analysis, fitted on the vectors of all documents.

    Args:
        cls: The class.
        registry: Has the fitted vectorizer.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    vectors = _vectors(registry, documents)
    # A fixed seed: each run must do the same work.
    return cls(n_components=min(_DIMENSIONS, vectors.shape[1]), random_state=0).fit(vectors)


def build_topics(cls: Any, registry: RunRegistry, documents: Sequence[Document]) -> Any:
    """
    Build a classifier that tells which document a text is from.

    Args:
        cls: The class.
        registry: Has the fitted vectorizer.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    names = [document.name for document in documents]
    return cls().fit(_vectors(registry, documents), names)


def build_neighbours(cls: Any, registry: RunRegistry, documents: Sequence[Document]) -> Any:
    """
    Build an index of the reduced documents.

    Args:
        cls: The class.
        registry: Has the fitted vectorizer and the fitted analysis.
        documents: The documents of the pipeline.

    Returns:
        The instance.
    """
    reduced = registry.get_instance("Lsa").transform(_vectors(registry, documents))
    return cls(n_neighbors=min(_NEIGHBOURS, len(documents))).fit(reduced)


def build_embedder(cls: Any) -> Any:
    """
    Build wordllama's embedder from the files in its package, without its attempt at a download.

    Args:
        cls: The class, which is what wordllama's loader builds.

    Returns:
        The instance.
    """
    wordllama = import_module("wordllama")
    # The package holds its files where the loader looks for downloads: weights/, tokenizers/.
    directory = Path(str(wordllama.__file__)).parent
    embedder = wordllama.WordLlama.load(cache_dir=directory, disable_download=True)
    if not isinstance(embedder, cls):
        raise TypeError(f"wordllama loaded a {type(embedder).__name__}, not a {cls.__name__}")
    return embedder


def _vectors(registry: RunRegistry, documents: Sequence[Document]) -> Any:
    return registry.get_instance("Tfidf").transform([document.text for document in documents])
