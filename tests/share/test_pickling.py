"""Pickles of instances: required modules and out-of-band buffers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from warmset.share.keys import requirements
from warmset.share.pickling import dump, load


def test_the_modules_of_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its classes and functions, except types that come from no file."""
    import decimal
    import json.decoder
    import types

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


def test_mapped_models_of_scikit_learn() -> None:
    """They work although their arrays are read-only."""
    pytest.importorskip("sklearn")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

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


def test_tensors() -> None:
    """Shared storages stay shared, and no storage is copied into the pickle."""
    torch: Any = pytest.importorskip("torch")
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
