"""Tests of claims that expire unless they are renewed."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from threads import PATIENCE

from warmset.share.leases import LeasedClaim


@pytest.mark.parametrize("way", ["dropped", "exited"])
def test_a_claim_that_nobody_has_is_not_renewed(way: str) -> None:
    """An interrupt may come between the return of a claim and the first use of it."""
    renewed = threading.Event()
    released: list[str] = []

    def renew() -> bool:
        renewed.set()
        return True

    def interrupted() -> Any:
        claim: Any = LeasedClaim(
            "key",
            lease_seconds=0.003,
            put=lambda pieces: None,
            renew=renew,
            release=lambda: released.append("key"),
        )
        assert renewed.wait(PATIENCE)
        thread = claim._thread
        if way == "exited":
            claim.__exit__(None, None, None)
        return thread

    thread = interrupted()
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert released == (["key"] if way == "exited" else [])  # else the lease expires
