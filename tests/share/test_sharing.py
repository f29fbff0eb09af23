"""Shareable classes: built once, opened by all others; and whatever goes wrong costs a build."""

from __future__ import annotations

import importlib
import logging
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shared_samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_what_one_built_another_opens(sharing: Any, notes: Callable[[], list[str]]) -> None:
    one, other = sharing(), sharing()
    mine, theirs = one.get_instance("Table"), other.get_instance("Table")
    assert notes() == ["Table"]
    assert mine is not theirs
    assert type(theirs) is shared_samples.Table
    assert np.array_equal(mine.weights, theirs.weights)
    assert theirs.fortran.flags.f_contiguous
    assert theirs.names == {"first": 1, "second": [2, 3]}
    assert theirs.objects.tolist() == [{"a": 1}, None]
    assert other.get_instance("Table") is theirs
    told = one.snapshot_stats(), other.snapshot_stats()
    assert [(stats.stored, stats.opened) for stats in told] == [(1, 1), (0, 1)]
    assert told[0].stored_bytes > mine.weights.nbytes
    assert told[1][2:] == (0, 0, 0, 0, 0, 0)


def test_arrays_are_mapped_and_read_only(sharing: Any) -> None:
    """Also those of the one that built it: everybody has the same."""
    for registry in (sharing(), sharing()):
        table = registry.get_instance("Table")
        assert not table.weights.flags.owndata
        assert not table.weights.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            table.change()


def test_arrays_may_be_written_where_that_is_asked_for(sharing: Any) -> None:
    """What is written is one's own."""
    one, other = (sharing(shareable="copy_on_write").get_instance("Table") for _ in range(2))
    one.change()
    assert (one.weights[0, 0], other.weights[0, 0]) == (99.0, 0.0)
    assert sharing().get_instance("Table").weights[0, 0] == 0.0


def test_without_options_or_a_store_nothing_changes(
    ws: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    assert sharing(shareable=False).get_instance("Table").weights.flags.writeable
    with ws.MethodRegistry({}) as bare:
        bare.register_class("Table", "shared_samples.Table", shareable=True)
        assert bare.get_instance("Table").weights.flags.writeable
        assert bare.snapshot_stats() is None
    assert notes() == ["Table", "Table"]


def test_a_listener_is_told_what_was_opened(sharing: Any) -> None:
    events: list[Any] = []
    for _ in range(2):
        registry = sharing()
        registry.add_build_listener(events.append)
        registry.get_instance("Table")
    assert [event.opened for event in events] == [False, True]
    assert all(event.succeeded for event in events)


def test_the_one_that_was_stored_is_closed(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """For what is handed out is another one, which is closed when it leaves."""
    registry = sharing()
    registry.get_instance("Closing")
    assert notes() == ["Closing", "closed"]
    registry.discard("Closing")
    assert notes().count("closed") <= 2


# -- what belongs to a key ------------------------------------------------------------------------


def rule(cls: Any) -> Any:
    return cls(20)


def test_a_rule_has_to_have_a_version(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    for version in (None, None, "1", "1", "2"):
        registry = sharing()
        registry.register_instantiation_rule("Table", rule, version=version)
        assert len(registry.get_instance("Table").weights) == 20
    assert len(notes()) == 4
    assert "register_instantiation_rule(..., version='1')" in caplog.text


def test_the_version_is_that_of_the_rule_that_is_used(
    sharing: Any, notes: Callable[[], list[str]]
) -> None:
    """Not of one that stood there before, however it was replaced."""
    for _ in range(2):
        registry = sharing()
        registry.register_instantiation_rule("Table", rule, version="1")
        registry._special_instantiation["Table"] = lambda cls: cls(30)
        assert len(registry.get_instance("Table").weights) == 30
    assert len(notes()) == 2


def test_versions_are_strings(sharing: Any) -> None:
    with pytest.raises(TypeError, match="the version of the rule of 'Table' must be a str, got 1"):
        sharing().register_instantiation_rule("Table", rule, version=1)


def test_a_constructor_and_a_rule_are_two_things(
    sharing: Any, notes: Callable[[], list[str]]
) -> None:
    sharing().get_instance("Table")
    registry = sharing()
    registry.register_instantiation_rule("Table", rule, version="1")
    registry.get_instance("Table")
    assert notes() == ["Table", "Table"]


def test_other_versions_are_a_miss(
    sharing: Any, notes: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the distribution of anything in the snapshot; it is stored anew, and then it is a hit."""
    sharing().get_instance("Table")
    keys = importlib.import_module("warmset.share.keys")
    told = keys.stamp

    def stamp(module: str) -> str | None:
        return "numpy==0.1" if module.startswith("numpy") else told(module)

    monkeypatch.setattr(keys, "stamp", stamp)
    registry = sharing()
    registry.get_instance("Table")
    assert registry.snapshot_stats().outdated == 1
    sharing().get_instance("Table")
    assert notes() == ["Table", "Table"]


@pytest.mark.parametrize("part", ["cache_tag", "byteorder", "machine", "code", "key"])
def test_another_interpreter_is_a_miss(
    sharing: Any,
    share: Any,
    tmp_path: Path,
    notes: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    sharing().get_instance("Table")
    keys = importlib.import_module("warmset.share.keys")
    store = None
    if part == "machine":
        monkeypatch.setattr(keys.platform, "machine", lambda: "vax")
    elif part == "code":
        monkeypatch.setattr(keys, "stamp", lambda module: "sha256:other")
    elif part == "key":
        store = share.DirectoryStore(tmp_path / "store", key=b"k" * 16)
    else:

        class Sys:
            byteorder = "middle" if part == "byteorder" else "little"
            implementation = type("", (), {"cache_tag": "cpython-99"})

        monkeypatch.setattr(keys, "sys", Sys)
    registry = sharing(store=store)
    assert registry.get_instance("Table").total() > 0
    assert notes() == ["Table", "Table"]
    assert registry.snapshot_stats().damaged == 0


# -- hooks ---------------------------------------------------------------------------------------


def hooked(sharing: Any, name: str = "Locked", **hooks: Any) -> Any:
    registry = sharing()
    given = {"snapshot": shared_samples.to_state, "restore": shared_samples.from_state, **hooks}
    registry.register_class(name, f"shared_samples.{name}", **given)
    return registry


def test_hooks_store_what_they_choose(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """They make a class shareable; `shareable` need not be said."""
    assert hooked(sharing).get_instance("Locked").value == 7
    opened = hooked(sharing).get_instance("Locked")
    assert type(opened) is shared_samples.Locked
    assert opened.value == 7
    assert not hasattr(opened, "lock")
    assert notes() == ["Locked"]


def test_hooks_come_as_a_pair(ws: Any, sharing: Any) -> None:
    registry = sharing()
    with pytest.raises(ValueError, match="snapshot and restore of 'A' go together: restore is"):
        registry.register_class("A", "shared_samples.Table", snapshot=shared_samples.to_state)
    with pytest.raises(TypeError, match="restore of 'A' must be None, or a callable"):
        registry.register_class("A", "shared_samples.Table", restore=3)
    with pytest.raises(ValueError, match="shareable of 'A' must be a bool"):
        registry.register_class("A", "shared_samples.Table", shareable="often")
    assert "A" not in registry


@pytest.mark.parametrize("hooks", ["snapshot", "restore", "none"])
def test_hooks_that_fail_cost_a_build(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture, hooks: str
) -> None:
    def bad_restore(cls: type, state: Any) -> Any:
        if hooks == "none":
            return None
        raise RuntimeError("not like this")

    given = (
        {"snapshot": shared_samples.bad_state} if hooks == "snapshot" else {"restore": bad_restore}
    )
    for _ in range(2):
        registry = hooked(sharing, **given)
        assert registry.get_instance("Locked").value == 7
        registry.discard("Locked")
        assert registry.get_instance("Locked").value == 7
    assert notes() == ["Locked"] * 4
    if hooks == "snapshot":
        assert "RuntimeError: no state to be had" in caplog.text


# -- what cannot be shared -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Locked", "Sly"])
def test_what_cannot_be_stored_is_built(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is said once, and not tried again."""
    registry = sharing()
    for _ in range(3):
        assert registry.get_instance(name).value
        registry.discard(name)
    assert notes() == [name] * 3
    said = [r for r in caplog.records if r.name == "warmset.share" and "not shared" in r.message]
    assert len(said) == 1
    assert registry.snapshot_stats().unused == 3
    assert sharing().get_instance(name).value


def test_a_class_that_was_typed_in_is_not_shared(
    sharing: Any, monkeypatch: pytest.MonkeyPatch, notes: Callable[[], list[str]]
) -> None:
    """There is no telling which version of it this is."""
    monkeypatch.setattr(shared_samples.Table, "__module__", "typed_in")
    for _ in range(2):
        assert sharing().get_instance("Table").total() > 0
    assert notes() == ["Table", "Table"]


def test_a_failed_build_is_as_ever(ws: Any, sharing: Any, notes: Callable[[], list[str]]) -> None:
    """And nobody is kept waiting for it."""
    for _ in range(2):
        with pytest.raises(ws.BuildError, match="no such model"):
            sharing().get_instance("Fails")
    assert notes() == ["Fails", "Fails"]
    with pytest.raises(ws.UnknownClassError):
        sharing().get_instance("Nobody")
    registry = sharing()
    registry.register_class("Nowhere", "no_such_module.Table", shareable=True)
    with pytest.raises(ws.ClassImportError, match="no_such_module"):
        registry.get_instance("Nowhere")
    registry.register_instantiation_rule("Table", lambda cls: None, version="1")
    with pytest.raises(ws.BuildError, match="gave None"):
        registry.get_instance("Table")


# -- what an instance is made of -------------------------------------------------------------------


def pair(sharing: Any) -> Any:
    registry = sharing()

    def build(cls: Any) -> Any:
        return cls(registry.get_instance("Table"))

    registry.register_instantiation_rule("Pair", build, version="1")
    return registry


def test_other_instances_are_not_copied(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """What is opened refers to the registry's own, which is opened for it."""
    one, other = pair(sharing), pair(sharing)
    for registry in (one, other):
        made = registry.get_instance("Pair")
        assert made.table is registry.get_instance("Table")
        assert made.own.sum() == 100
    assert sorted(notes()) == ["Pair", "Table"]
    assert other.snapshot_stats().opened == 2
    assert one.snapshot_stats().stored_bytes < 120_000  # the table's 80,000 bytes are in it once


def test_what_cannot_be_had_any_more_is_no_reason_to_fail(
    ws: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    pair(sharing).get_instance("Pair")
    registry = sharing()
    registry.unregister_class("Table")
    registry.register_instantiation_rule("Pair", lambda cls: cls(None), version="1")
    assert registry.get_instance("Pair").table is None
    assert registry.snapshot_stats().damaged == 0


def test_a_cycle_is_found(ws: Any, sharing: Any) -> None:
    registry = sharing()
    registry.register_instantiation_rule("Table", lambda cls: registry.get_instance("Closing"))
    registry.register_instantiation_rule(
        "Closing", lambda cls: registry.get_instance("Table"), version="1"
    )
    with pytest.raises(ws.CycleError):
        registry.get_instance("Closing")
    assert registry.snapshot_stats().stored == 0


# -- damage --------------------------------------------------------------------------------------


def snapshots(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store").glob("*.snapshot"))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("harm", ["cut", "empty", "altered", "swapped", "foreign", "longer"])
def test_a_damaged_snapshot_is_built_anew(
    share: Any,
    sharing: Any,
    tmp_path: Path,
    notes: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    harm: str,
    keyed: bool,
) -> None:
    def store() -> Any:
        return share.DirectoryStore(tmp_path / "store", key=b"k" * 16 if keyed else None)

    first = sharing(store=store())
    first.get_instance("Table")
    (file,) = snapshots(tmp_path)
    good = file.read_bytes()
    if harm == "swapped":
        first.get_instance("Closing")
        (other,) = [each for each in snapshots(tmp_path) if each != file]
        bad = other.read_bytes()
    else:
        middle = len(good) // 2
        altered = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        bad = {
            "cut": good[:-100],
            "empty": b"",
            "altered": altered,
            "foreign": b"something else" * 10,
            "longer": good + b"x",
        }[harm]
    new = file.with_suffix(".other")
    new.write_bytes(bad)
    new.replace(file)  # what is mapped is the old one
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == sum(range(10_000))
    assert registry.snapshot_stats().damaged == 1
    assert notes().count("Table") == 2
    assert sharing(store=store()).get_instance("Table").total() > 0
    assert notes().count("Table") == 2
    assert "it is built anew" in caplog.text
    assert "k" * 16 not in caplog.text
    assert len([each for each in snapshots(tmp_path) if "Table" in each.name]) == 1


def test_a_store_in_trouble_costs_a_build(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of its steps fails; it is said once for a class."""
    errors = importlib.import_module("warmset.share.errors")

    class Broken:
        secret = None
        fails: Any = ()

        def fetch(self, key: str) -> Any:
            if "fetch" in self.fails:
                raise errors.StoreError("fetching is out of order")

        def claim(self, key: str, *, wait: bool = True) -> Any:
            if "claim" in self.fails:
                raise errors.StoreError("claiming is out of order")
            return self

        def put(self, pieces: Any) -> None:
            raise errors.StoreError("putting is out of order")

        def discard(self, key: str) -> bool:
            raise errors.StoreError("discarding is out of order")

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

    for step in ("fetch", "claim", "put"):
        store = Broken()
        store.fails = (step,)
        registry = sharing(store=store)
        for _ in range(2):
            assert registry.get_instance("Table").total() > 0
            registry.discard("Table")
        assert registry.snapshot_stats().unused == 2
        assert caplog.text.count(f"{step}ing is out of order".replace("eing", "ing")) <= 2
    assert len(notes()) == 6
    assert "ting is out of order" in caplog.text


# -- settings ------------------------------------------------------------------------------------


def test_a_store_by_its_address(
    ws: Any, share: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    file = tmp_path / "warmset.toml"
    file.write_text(
        f'[registry]\nstore = "{tmp_path / "store"}"\n'
        '[classes]\nTable = "shared_samples.Table"\n[options.Table]\nshareable = true\n'
    )
    for _ in range(2):
        with ws.MethodRegistry.from_file(file) as registry:
            assert registry.get_instance("Table").total() > 0
    assert notes() == ["Table"]
    with pytest.raises(share.StoreError, match="no store has addresses that begin with ftp://"):
        ws.MethodRegistry({}, store="ftp://host")
    with pytest.raises(TypeError, match="store must be None, the path"):
        ws.MethodRegistry({}, store=3)
    with pytest.raises(ValueError, match="store must be"):
        ws.MethodRegistry({}, store="")


def test_a_registry_with_a_store_can_be_pickled(
    sharing: Any, share: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    """Not with a key that was given as bytes: a pickle goes anywhere."""
    sharing().get_instance("Table")
    copy = pickle.loads(pickle.dumps(share.DirectoryStore(tmp_path / "store", max_bytes=10**9)))
    assert copy == share.DirectoryStore(tmp_path / "store")
    assert sharing(store=copy).get_instance("Table").total() > 0
    assert notes() == ["Table"]
    with pytest.raises(TypeError, match="not put into a pickle"):
        pickle.dumps(share.DirectoryStore(tmp_path / "store", key=b"k" * 16))


def test_recycling_opens_it_anew(sharing: Any, notes: Callable[[], list[str]]) -> None:
    registry = sharing()
    before = registry.get_instance("Table")
    assert registry.recycle("Table")
    assert registry.get_instance("Table") is not before
    assert notes() == ["Table"]


def test_logs_say_how_it_was_had(sharing: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "warmset.builds"):
        for _ in range(2):
            sharing().get_instance("Table")
    assert [record.message.split(" in ")[0] for record in caplog.records] == [
        "built 'Table'",
        "opened the snapshot of 'Table'",
    ]
