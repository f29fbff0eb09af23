"""A few examples of each target of `fuzzing`; as a script, that module runs for longer."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file locks")
pytest.importorskip("click")
pytest.importorskip("rich")
fuzzing = pytest.importorskip("fuzzing")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(target: str) -> Iterator[str | None]:
    import servers

    if target != "server_entries":
        yield None
        return
    pytest.importorskip("valkey")
    if servers.program() is None:
        pytest.skip("there is no valkey-server and no redis-server")
    with servers.server() as path:
        yield path


@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_altered_input_is_opened_as_signed_or_built_again(
    tmp_path: Path, target: str, server: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WARMSET_STORE_KEY", raising=False)
    fuzzer = fuzzing.Fuzzer(tmp_path, server)
    counts: Counter[str] = Counter()
    try:
        fuzzing.run(getattr(fuzzer, target), 60, counts)
    finally:
        fuzzer.close()
    assert set(counts) <= {"opened", "built"}
