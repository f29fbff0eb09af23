"""Fixtures for the tests of `share`: a log of builds, and registries with a store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = b"0123456789abcdef-for-tests"
NAMES = ("Table", "SlowTable", "Locked", "Pair", "Fails", "Sly", "Closing")
PATHS = {name: f"shared_samples.{name}" for name in NAMES}


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Reads the names of all builds in all processes, in order."""
    file = tmp_path / "notes"
    file.touch()
    monkeypatch.setenv("WARMSET_TEST_NOTES", str(file))
    monkeypatch.delenv("WARMSET_STORE_KEY", raising=False)
    return lambda: [line.rpartition(" ")[0] for line in file.read_text().splitlines()]


@pytest.fixture
def share(ws: Any) -> Any:
    """The package `warmset.share` for the core that the test runs on."""
    return importlib.import_module("warmset.share")


@pytest.fixture
def sharing(ws: Any, share: Any, tmp_path: Path, notes: Any) -> Callable[..., Any]:
    """Makes registries with one store in a directory of the test, as separate processes would."""

    def make(*, store: Any = None, shareable: Any = True, **options: Any) -> Any:
        store = share.DirectoryStore(tmp_path / "store") if store is None else store
        registry = ws.MethodRegistry({}, store=store, **options)
        for name, path in PATHS.items():
            registry.register(name, path, shareable=shareable)
        return registry

    return make
