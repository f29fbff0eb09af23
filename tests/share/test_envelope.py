"""Envelopes of snapshots: any change of the bytes is detected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmset.share.envelope import pack, unpack
from warmset.share.errors import DamagedError
from warmset.share.secret import Secret

SECRETS = (None, Secret(b"one key of sixteen bytes"))


def envelope(secret: Secret | None = None, *sizes: int) -> bytearray:
    buffers = [memoryview(bytes([at % 251]) * size) for at, size in enumerate(sizes)]
    return bytearray(b"".join(pack("a-1", {"x": [1]}, b"the pickle", buffers, secret)))


@given(st.lists(st.integers(0, 200_000), max_size=5), st.sampled_from(SECRETS))
def test_round_trip(sizes: list[int], secret: Secret | None) -> None:
    """Contents, facts and buffers survive."""
    view = memoryview(envelope(secret, *sizes))
    opened = unpack("a-1", view, secret)
    assert (bytes(opened.pickled), opened.facts) == (b"the pickle", {"x": [1]})
    assert [buffer.nbytes for buffer in opened.buffers] == sizes
    for at, buffer in enumerate(opened.buffers):
        assert bytes(buffer[:1]) in (b"", bytes([at % 251]))
    header = int.from_bytes(view[16:24], "little")
    assert b"places" in bytes(view[32 : 32 + header])


@pytest.mark.parametrize("secret", SECRETS)
def test_a_change_of_any_byte_is_detected(secret: Secret | None) -> None:
    good = envelope(secret, 100)
    for at in range(len(good)):
        bad = good.copy()
        bad[at] ^= 0x40
        with pytest.raises(DamagedError):
            unpack("a-1", memoryview(bad), secret)


@pytest.mark.parametrize("secret", SECRETS)
def test_truncation_and_extension_are_detected(secret: Secret | None) -> None:
    good = envelope(secret, 100)
    for length in range(len(good)):
        with pytest.raises(DamagedError):
            unpack("a-1", memoryview(good)[:length], secret)
    with pytest.raises(DamagedError, match="but its header says"):
        unpack("a-1", memoryview(good + b"x"), secret)


def test_another_signing_key_or_snapshot_key() -> None:
    good = memoryview(envelope(SECRETS[1], 100))
    with pytest.raises(DamagedError, match="signature is wrong: it was altered or signed with"):
        unpack("a-1", good, Secret(b"another key of sixteen"))
    with pytest.raises(DamagedError, match="checksum is wrong"):
        unpack("a-1", good, None)
    with pytest.raises(DamagedError, match="it has format 1 and key 'a-1', expected 1 and 'a-2'"):
        unpack("a-2", good, SECRETS[1])
