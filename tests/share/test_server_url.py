"""URLs of servers: no error keeps a part of one, which may be a password."""

from __future__ import annotations

import pytest

from warmset.share.errors import StoreError
from warmset.share.server_url import parse_url

SECRET = "s3cr3tPassword"


@pytest.mark.parametrize(
    "url",
    [
        f"valkey://user:{SECRET}@127.0.0.1/0",
        f"valkey://127.0.0.1:6379/0?password={SECRET}",
        f"valkey://127.0.0.1:6379/0#{SECRET}",
        f"valkey://127.0.0.1:6379/{SECRET}",
        f"valkey://127.0.0.1:{SECRET}/0",
        f"valkey://[{SECRET}]:1/0",
        f"valkey://[{SECRET}",
        f"valkey://:{SECRET}/x#y@127.0.0.1",
        f"{SECRET}://127.0.0.1",
        f"unix://{SECRET}",
        f"unix:///tmp/%1b[2J{SECRET}",
    ],
)
def test_neither_an_error_nor_its_context_contains_it(url: str) -> None:
    """Whoever shows an error may also show what it was raised from."""
    with pytest.raises((StoreError, ValueError)) as caught:
        parse_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET.lower() not in f"{error!r} {error}".lower()
        error = error.__cause__ or error.__context__
