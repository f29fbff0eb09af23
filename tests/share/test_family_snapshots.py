"""Snapshots of families: one for each key."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import shared_samples

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = [1, "1", True, "fr", ("fr", 1), ("fr", "1"), "(1,)", (1,), "x" * 100, "x" * 101, 2**20_000]


@pytest.fixture
def family(sharing: Any) -> Callable[..., Any]:
    """Makes the same family in another registry with the same store."""

    def make(target: Any = shared_samples.Keyed, **options: Any) -> Any:
        return sharing().family("Model", target, **{"shareable": True, **options})

    return make


def test_each_key_has_a_snapshot(family: Any, notes: Callable[[], list[str]]) -> None:
    one, other = family(), family()
    for models in (one, other):
        found = [models.get(key).key for key in KEYS]
        assert list(zip(map(type, found), found, strict=True)) == [(type(k), k) for k in KEYS]
    assert notes() == ["Table"] * len(KEYS)
    both = one._registry.snapshot_stats(), other._registry.snapshot_stats()
    assert [(stats.stored, stats.opened) for stats in both] == [
        (len(KEYS), len(KEYS)),
        (0, len(KEYS)),
    ]
    assert not other.get("fr").weights.flags.writeable


def test_an_evicted_key_is_opened_again(family: Any, notes: Callable[[], list[str]]) -> None:
    models = family(max_cache_size=1)
    for _ in range(3):
        assert models.get("fr").key == "fr"
        assert models.get("de").key == "de"
    assert notes() == ["Table"] * 2


@pytest.mark.parametrize("change", [{"kwargs": {"rows": 20}}, {"args": (20,)}])
def test_arguments_belong_to_the_snapshot(family: Any, change: Any) -> None:
    assert len(family().get("fr").weights) == 10
    assert len(family(**change).get("fr").weights) == 20


def test_a_path_and_a_factory(family: Any, notes: Callable[[], list[str]]) -> None:
    for _ in range(2):
        assert family("shared_samples.Keyed").get("fr").key == "fr"
        assert family(shared_samples.locked_or_keyed).get("fr").key == "fr"
    assert notes() == ["Table"] * 2  # of the class and of the factory


def test_what_cannot_be_stored_costs_only_a_build(
    family: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "warmset.share"):
        for _ in range(2):
            models = family(shared_samples.locked_or_keyed)
            assert models.get("locked").value == 7
            models.discard("locked")
            models.get("locked")
            assert models.get("fr").key == "fr"
    assert notes() == ["Locked", "Locked", "Table", "Locked", "Locked"]
    assert len(caplog.records) == 2  # once for each registry
    assert "Model[locked]" in caplog.text


def test_a_factory_without_a_name_is_not_shared(
    family: Any, caplog: pytest.LogCaptureFixture
) -> None:
    models = family(lambda key: shared_samples.Keyed(key))
    with caplog.at_level(logging.WARNING, "warmset.share"):
        for key in range(20):
            models.get(key)
    assert len(caplog.records) == 1
    assert models._registry.snapshot_stats().unused == 20


def test_hooks(family: Any, notes: Callable[[], list[str]]) -> None:
    hooks = {"snapshot": to_state, "restore": from_state}
    for _ in range(2):
        models = family(**hooks)
        assert models.get(("fr", 1)).key == ("fr", 1)
    assert notes() == ["Table"]


def to_state(model: Any) -> Any:
    return model.key


def from_state(cls: Any, state: Any) -> Any:
    made = cls.__new__(cls)
    made.key = state
    return made


def test_a_snapshot_refers_to_the_instance_of_a_key(sharing: Any, ws: Any) -> None:
    for build in (True, False):
        registry = sharing()
        models = registry.family("Model", shared_samples.Keyed, shareable=True)
        wrappers = registry.family("Wrapper", wrap, shareable=True)
        wrap.models = models  # type: ignore[attr-defined]
        one, text = wrappers.get(1), wrappers.get("1")
        assert (one.inner.key, text.inner.key) == (1, "1")
        assert one.inner is models.get(1)
        assert text.inner is models.get("1")
        assert registry.snapshot_stats().opened == 4
        assert (registry.snapshot_stats().stored == 4) is build


def wrap(key: Any) -> Any:
    return shared_samples.Wrapper(wrap.models.get(key))  # type: ignore[attr-defined]


def test_many_keys_leave_memory_unchanged(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from warmset.share import sharing

    monkeypatch.setattr(sharing, "_MOST_KEYS", 10)
    models = family(lambda key: shared_samples.Locked(), max_cache_size=2)
    for key in range(100):
        models.get(key)
    extension = models._registry.extension(sharing.Sharing)
    assert len(extension._unshareable) <= 10
    assert len(extension._logged) == 1
