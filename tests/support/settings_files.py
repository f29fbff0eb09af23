"""Settings files with a module of their own, and the ways to a registry with what they declare."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def writing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, module: str, *, before: str = ""
) -> Iterator[Any]:
    """Provide a function that writes a settings file; the module is importable as `filed`."""
    (directory / "filed.py").write_text(module)
    monkeypatch.syspath_prepend(str(directory))

    def write(text: str, before: str = before) -> str:
        path = directory / "warmset.toml"
        path.write_text(before + text)
        return str(path)

    yield write
    sys.modules.pop("filed", None)


@pytest.fixture(params=["from_file", "WARMSET_CONFIG"])
def load(request: pytest.FixtureRequest, ws: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways to a registry with what a file declares."""
    importlib.import_module("importlib.metadata")

    def load(path: str) -> Any:
        if request.param == "from_file":
            return ws.MethodRegistry.from_file(path)
        monkeypatch.setenv("WARMSET_CONFIG", path)
        monkeypatch.setattr(sys.modules["importlib.metadata"], "entry_points", lambda **_: ())
        return ws.MethodRegistry()

    return load
