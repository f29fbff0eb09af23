"""Keys of snapshots: module versions, file names and signing keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from warmset.options import ClassOptions
from warmset.share.keys import NotShareableError, snapshot_key
from warmset.share.secret import Secret
from warmset.share.versions import module_version


def test_module_versions() -> None:
    """An installed module has a version, a file has a hash, and interactive code has neither."""
    import json.decoder

    import shared_samples

    assert json.decoder
    assert module_version("json.decoder") == "python"
    assert module_version("builtins") == "python"
    assert module_version("numpy") == module_version("numpy.linalg") == f"numpy=={np.__version__}"
    # The distribution has another name than the module.
    assert module_version("_pytest.config") == f"pytest=={pytest.__version__}"
    found = module_version(shared_samples.__name__)
    assert found is not None
    assert found.startswith("sha256:")
    assert module_version("no_such_module") is None


def test_keys_are_valid_file_names() -> None:
    """Whatever the name of the class; keys of different builds differ."""
    import shared_samples

    def key(path: str = "a.B", version: str | None = None, **options: Any) -> str:
        given = ClassOptions("B", **options)
        rule = None if version is None else shared_samples.from_state
        return snapshot_key(path, shared_samples.Table, given, rule, version, None)

    hooks = {"snapshot": shared_samples.to_state, "restore": shared_samples.from_state}
    small = {"args": (1,), "kwargs": {"model": "small", "layers": (2, 3)}}
    keys = [key(), key("a.C"), key(version="1"), key(version="2"), key(**hooks)]
    keys += [key(**small), key(**{**small, "args": ("1",)}), key(args=(1,))]
    assert len(set(keys)) == 8
    assert key(kwargs={"a": 1, "b": 2}) == key(kwargs={"b": 2, "a": 1})
    assert key(version="1", **small) == key(version="1"), "a rule does not get the arguments"
    assert key() == keys[0]
    long = key("módulo." + "x" * 300 + ".Größe")
    assert long.isascii()
    assert len(long) < 160
    assert key("módulo.B") != key("mòdulo.B")


def test_arguments_that_may_be_anything_have_no_key() -> None:
    """Two objects may be printed alike and still build different instances."""
    import shared_samples

    given = ClassOptions("B", kwargs={"dtypes": [np.dtype("int8")]})
    with pytest.raises(NotShareableError, match="its arguments are more than numbers, strings"):
        snapshot_key("a.B", shared_samples.Table, given, None, None, None)


def test_a_secret_is_never_shown() -> None:
    secret = Secret(b"swordfish swordfish")
    assert "swordfish" not in repr(secret)
    assert secret == Secret(b"swordfish swordfish")
    assert secret != Secret(b"swordfish swordfisk")
    assert secret.fingerprint not in ("", Secret(b"swordfish swordfisk").fingerprint)
    with pytest.raises(ValueError, match="at least 16 bytes, got 8") as caught:
        Secret(b"swordfis")
    assert "swordfis" not in str(caught.value)
