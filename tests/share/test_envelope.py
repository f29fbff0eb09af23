"""Envelopes of snapshots: any change of the bytes is detected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmset.share.envelope import Facts, pack, unpack
from warmset.share.errors import DamagedError
from warmset.share.secret import Secret

SECRETS: tuple[tuple[Secret, ...], ...] = ((), (Secret(b"one key of sixteen bytes"),))
FACTS = Facts("A", 1.5, 0.5, {"m": "1"}, [])


def envelope(secrets: tuple[Secret, ...] = (), *sizes: int) -> bytearray:
    buffers = [memoryview(bytes([at % 251]) * size) for at, size in enumerate(sizes)]
    return bytearray(b"".join(pack("a-1", FACTS, b"the pickle", buffers, (*secrets, None)[0])))


@given(st.lists(st.integers(0, 200_000), max_size=5), st.sampled_from(SECRETS))
def test_round_trip(sizes: list[int], secret: tuple[Secret, ...]) -> None:
    """Contents, facts and buffers survive."""
    view = memoryview(envelope(secret, *sizes))
    opened = unpack("a-1", view, secret)
    assert (bytes(opened.pickled), opened.facts) == (b"the pickle", FACTS)
    assert [buffer.nbytes for buffer in opened.buffers] == sizes
    for at, buffer in enumerate(opened.buffers):
        assert bytes(buffer[:1]) in (b"", bytes([at % 251]))
    header = int.from_bytes(view[16:24], "little")
    assert b"positions" in bytes(view[32 : 32 + header])


@pytest.mark.parametrize("secret", SECRETS)
def test_a_change_of_any_byte_is_detected(secret: tuple[Secret, ...]) -> None:
    good = envelope(secret, 100)
    for at in range(len(good)):
        bad = good.copy()
        bad[at] ^= 0x40
        with pytest.raises(DamagedError):
            unpack("a-1", memoryview(bad), secret)


@pytest.mark.parametrize("secret", SECRETS)
def test_truncation_and_extension_are_detected(secret: tuple[Secret, ...]) -> None:
    good = envelope(secret, 100)
    for length in range(len(good)):
        with pytest.raises(DamagedError):
            unpack("a-1", memoryview(good)[:length], secret)
    with pytest.raises(DamagedError, match="but its header says"):
        unpack("a-1", memoryview(good + b"x"), secret)


def test_another_signing_key_or_snapshot_key() -> None:
    good = memoryview(envelope(SECRETS[1], 100))
    with pytest.raises(DamagedError, match="signature is wrong: it was altered or signed with"):
        unpack("a-1", good, (Secret(b"another key of sixteen"),))
    with pytest.raises(DamagedError, match="checksum is wrong"):
        unpack("a-1", good, ())
    with pytest.raises(DamagedError, match="it has format 2 and key 'a-1', expected 2 and 'a-2'"):
        unpack("a-2", good, SECRETS[1])
