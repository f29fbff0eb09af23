"""The bytes of a snapshot: whatever is done to them is noticed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmset.share.errors import DamagedError
from warmset.share.sealing import seal, unseal
from warmset.share.secret import Secret
from warmset.share.stamps import stamp

SECRETS = (None, Secret(b"one key of sixteen bytes"))


def sealed(secret: Secret | None = None, *sizes: int) -> bytearray:
    buffers = [memoryview(bytes([at % 251]) * size) for at, size in enumerate(sizes)]
    return bytearray(b"".join(seal("a-1", {"x": [1]}, b"the pickle", buffers, secret)))


@given(st.lists(st.integers(0, 200_000), max_size=5), st.sampled_from(SECRETS))
def test_what_is_sealed_is_unsealed(sizes: list[int], secret: Secret | None) -> None:
    """And each buffer lies where an array may begin."""
    view = memoryview(sealed(secret, *sizes))
    opened = unseal("a-1", view, secret)
    assert (bytes(opened.pickled), opened.facts) == (b"the pickle", {"x": [1]})
    assert [buffer.nbytes for buffer in opened.buffers] == sizes
    for at, buffer in enumerate(opened.buffers):
        assert bytes(buffer[:1]) in (b"", bytes([at % 251]))
    header = int.from_bytes(view[16:24], "little")
    assert b"places" in bytes(view[32 : 32 + header])


@pytest.mark.parametrize("secret", SECRETS)
def test_every_byte_counts(secret: Secret | None) -> None:
    good = sealed(secret, 100)
    for at in range(len(good)):
        bad = good.copy()
        bad[at] ^= 0x40
        with pytest.raises(DamagedError):
            unseal("a-1", memoryview(bad), secret)


@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_may_be_missing_or_added(secret: Secret | None) -> None:
    good = sealed(secret, 100)
    for length in range(len(good)):
        with pytest.raises(DamagedError):
            unseal("a-1", memoryview(good)[:length], secret)
    with pytest.raises(DamagedError, match="and says that it had"):
        unseal("a-1", memoryview(good + b"x"), secret)


def test_another_key_or_name() -> None:
    good = memoryview(sealed(SECRETS[1], 100))
    with pytest.raises(DamagedError, match="signature is wrong: it was altered, or made with"):
        unseal("a-1", good, Secret(b"another key of sixteen"))
    with pytest.raises(DamagedError, match="checksum is wrong"):
        unseal("a-1", good, None)
    with pytest.raises(DamagedError, match="it is format 1 of 'a-1', expected 1 of 'a-2'"):
        unseal("a-2", good, SECRETS[1])


def test_stamps() -> None:
    """Installed: by version. A file: by what is in it. Typed in: not at all."""
    import json.decoder

    import shared_samples

    assert json.decoder
    assert stamp("json.decoder") == "python"
    assert stamp("builtins") == "python"
    assert stamp("numpy") == stamp("numpy.linalg") == f"numpy=={np.__version__}"
    assert stamp("_pytest.config") == f"pytest=={pytest.__version__}"  # of another name
    found = stamp(shared_samples.__name__)
    assert found is not None
    assert found.startswith("sha256:")
    assert stamp("no_such_module") is None


def test_keys_are_names_of_files() -> None:
    """Whatever the class is called; and they differ in what a build differs in."""
    import shared_samples

    from warmset.lifecycle.options import ClassOptions
    from warmset.share.keys import snapshot_key

    def key(path: str = "a.B", version: str | None = None, **options: Any) -> str:
        given = ClassOptions("B", **options)
        rule = None if version is None else shared_samples.from_state
        return snapshot_key(path, shared_samples.Table, given, rule, version, None)

    hooks = {"snapshot": shared_samples.to_state, "restore": shared_samples.from_state}
    keys = [key(), key("a.C"), key(version="1"), key(version="2"), key(**hooks)]
    assert len(set(keys)) == 5
    assert key() == keys[0]
    long = key("módulo." + "x" * 300 + ".Größe")
    assert long.isascii()
    assert len(long) < 160
    assert key("módulo.B") != key("mòdulo.B")


def test_a_secret_is_never_shown() -> None:
    secret = Secret(b"swordfish swordfish")
    assert "swordfish" not in repr(secret)
    assert secret == Secret(b"swordfish swordfish")
    assert secret != Secret(b"swordfish swordfisk")
    assert secret.fingerprint not in ("", Secret(b"swordfish swordfisk").fingerprint)
    with pytest.raises(ValueError, match="at least 16 bytes, got 8") as caught:
        Secret(b"swordfis")
    assert "swordfis" not in str(caught.value)


def test_what_an_instance_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of its classes and functions; not that of a type that comes from no file."""
    import decimal
    import json.decoder
    import types

    from warmset.share.pickling import dump

    class Function:
        __module__ = "_no_file_1_0"

        def __reduce__(self) -> str:
            return "loads"

    bare = types.ModuleType("_no_file_1_0")
    monkeypatch.setitem(sys.modules, "_no_file_1_0", bare)
    function = Function()
    function.__module__ = "json"
    made = [decimal.Decimal(1), json.decoder.JSONDecodeError, function, {"a": (1, b"x")}]
    monkeypatch.setattr(json, "loads", function)
    assert dump(made, {}).modules == {"decimal", "json", "json.decoder"}


def test_models_of_scikit_learn_work_where_they_are_mapped() -> None:
    """Their arrays are read-only then."""
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    from warmset.share.keys import requirements
    from warmset.share.pickling import dump, load

    points = np.random.default_rng(0).random((200, 8))
    kinds = (points[:, 0] > 0.5).astype(int)
    for model in (
        HistGradientBoostingClassifier(max_iter=5),
        RandomForestClassifier(5),
        LogisticRegression(),
        KNeighborsClassifier(),
        KNeighborsClassifier(algorithm="kd_tree"),
        SVC(),
        KMeans(3, n_init=1),
        PCA(3),
    ):
        model.fit(points, kinds)
        pickled = dump(model, {})
        assert requirements(pickled.modules)
        mapped = [memoryview(bytes(buffer)) for buffer in pickled.buffers]
        back = load(pickled.pickled, mapped, lambda name: None)
        ask = "predict" if hasattr(model, "predict") else "transform"
        assert np.array_equal(getattr(back, ask)(points), getattr(model, ask)(points))


def test_tensors_by_their_storages() -> None:
    """Shared storages stay shared, and nothing is copied into the pickle."""
    torch: Any = pytest.importorskip("torch")
    from warmset.share.pickling import dump, load

    base = torch.arange(1000.0)
    layer = torch.nn.Linear(30, 30)
    made = {"view": base[10:20], "base": base, "layer": layer, "tied": layer.weight}
    pickled = dump(made, {})
    assert len(pickled.buffers) == 3
    assert len(pickled.written) == 3
    assert len(pickled.pickled) < 3000
    back = load(pickled.pickled, [bytearray(b) for b in pickled.buffers], lambda name: None)
    assert torch.equal(back["base"], base)
    back["base"][10] = 99.0
    assert back["view"][0] == 99.0
    assert back["layer"].weight is back["tied"]
    assert isinstance(back["tied"], torch.nn.Parameter)
    assert back["tied"].requires_grad
    assert torch.equal(back["layer"](torch.ones(30)), layer(torch.ones(30)))
