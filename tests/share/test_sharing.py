"""Shareable classes: built once and opened elsewhere; every failure costs only a build."""

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


def test_one_registry_builds_and_another_opens(
    sharing: Any, notes: Callable[[], list[str]]
) -> None:
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
    both = one.snapshot_stats(), other.snapshot_stats()
    assert [(stats.stored, stats.opened) for stats in both] == [(1, 1), (0, 1)]
    assert both[0].stored_bytes > mine.weights.nbytes
    assert both[1][2:] == (0, 0, 0, 0, 0, 0)


def test_arrays_are_mapped_and_read_only(sharing: Any) -> None:
    """Also in the process that built the instance."""
    for registry in (sharing(), sharing()):
        table = registry.get_instance("Table")
        assert not table.weights.flags.owndata
        assert not table.weights.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            table.change()


def test_copy_on_write(sharing: Any) -> None:
    """Writes are private to the registry."""
    one, other = (sharing(shareable="copy_on_write").get_instance("Table") for _ in range(2))
    one.change()
    assert (one.weights[0, 0], other.weights[0, 0]) == (99.0, 0.0)
    assert sharing().get_instance("Table").weights[0, 0] == 0.0


def test_both_a_store_and_the_option_are_needed(
    ws: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    assert sharing(shareable=False).get_instance("Table").weights.flags.writeable
    with ws.MethodRegistry({}) as bare:
        bare.register("Table", "shared_samples.Table", shareable=True)
        assert bare.get_instance("Table").weights.flags.writeable
        assert bare.snapshot_stats() is None
    assert notes() == ["Table", "Table"]


def test_events_report_opened_snapshots(sharing: Any) -> None:
    events: list[Any] = []
    for _ in range(2):
        registry = sharing()
        registry.add_build_listener(events.append)
        registry.get_instance("Table")
    assert [event.opened for event in events] == [False, True]
    assert all(event.succeeded for event in events)


def test_the_stored_original_is_closed(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """The registry returns the mapped copy, which is closed on its removal."""
    registry = sharing()
    registry.get_instance("Closing")
    assert notes() == ["Closing", "closed"]
    registry.discard("Closing")
    assert notes().count("closed") <= 2


def test_the_original_has_an_entry(ws: Any, sharing: Any, notes: Callable[[], list[str]]) -> None:
    """It is counted as a build and as closed, also if storing it was interrupted."""
    registry = sharing()
    registry.get_instance("Closing")
    stats = registry.stats()
    assert (stats.builds, stats.states["cached"], stats.closed) == (2, 1, 1)

    class Interrupted:
        """A store that has nothing, and its claim."""

        secret = None

        def fetch(self, key: str) -> Any:
            return None

        def claim(self, key: str, *, wait: bool = True) -> Any:
            return self

        def put(self, pieces: Any) -> None:
            raise KeyboardInterrupt

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

    registry = sharing(store=Interrupted())
    before = notes().count("closed")
    with pytest.raises(KeyboardInterrupt):
        registry.get_instance("Closing")
    assert notes().count("closed") == before + 1
    assert (registry.stats().builds, registry.stats().closed) == (1, 1)


# -- keys ------------------------------------------------------------------------------------------


def rule(cls: Any) -> Any:
    return cls(20)


def test_a_rule_needs_a_version(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    for version in (None, None, "1", "1", "2"):
        registry = sharing()
        registry.register_instantiation_rule("Table", rule, version=version)
        assert len(registry.get_instance("Table").weights) == 20
    assert len(notes()) == 4
    assert "register_instantiation_rule(..., version='1')" in caplog.text


def test_the_version_belongs_to_the_rule(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """A rule does not inherit the version of the rule that it replaced."""
    for _ in range(2):
        registry = sharing()
        registry.register_instantiation_rule("Table", rule, version="1")
        registry._special_instantiation["Table"] = lambda cls: cls(30)
        assert len(registry.get_instance("Table").weights) == 30
    assert len(notes()) == 2


def test_arguments_belong_to_the_key(sharing: Any, notes: Callable[[], list[str]]) -> None:
    for rows in (20, 20, 30):
        registry = sharing()
        registry.register("Table", "shared_samples.Table", shareable=True, kwargs={"rows": rows})
        assert len(registry.get_instance("Table").weights) == rows
    assert notes() == ["Table", "Table"]


def test_a_factory_is_shared_only_under_its_own_name(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Two lambdas of a module have the same name, and may build different instances."""
    for _ in range(2):
        registry = sharing()
        registry.register("Table", shared_samples.Table, shareable=True)
        registry.register("Small", lambda: shared_samples.Table(5), shareable=True)
        registry.register("Tiny", lambda: shared_samples.Table(2), shareable=True)
        lengths = [len(registry.get_instance(n).weights) for n in ("Table", "Small", "Tiny")]
        assert lengths == [1000, 5, 2]
    assert len(notes()) == 5
    assert caplog.text.count("is not found by its name in its module") == 4


def test_versions_are_strings(sharing: Any) -> None:
    with pytest.raises(TypeError, match="the version of the rule of 'Table' must be a str, got 1"):
        sharing().register_instantiation_rule("Table", rule, version=1)


def test_a_constructor_and_a_rule_have_different_keys(
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
    """Of any distribution in the snapshot; the rebuilt snapshot is a hit."""
    sharing().get_instance("Table")
    keys = importlib.import_module("warmset.share.keys")
    real = keys.module_version

    def module_version(module: str) -> str | None:
        return "numpy==0.1" if module.startswith("numpy") else real(module)

    monkeypatch.setattr(keys, "module_version", module_version)
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
        monkeypatch.setattr(keys, "module_version", lambda module: "sha256:other")
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


# -- hooks -----------------------------------------------------------------------------------------


def hooked(sharing: Any, name: str = "Locked", **hooks: Any) -> Any:
    registry = sharing()
    given = {"snapshot": shared_samples.to_state, "restore": shared_samples.from_state, **hooks}
    registry.register(name, f"shared_samples.{name}", **given)
    return registry


def test_hooks_choose_the_stored_state(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """They imply `shareable`."""
    assert hooked(sharing).get_instance("Locked").value == 7
    opened = hooked(sharing).get_instance("Locked")
    assert type(opened) is shared_samples.Locked
    assert opened.value == 7
    assert not hasattr(opened, "lock")
    assert notes() == ["Locked"]


def test_hooks_come_as_a_pair(ws: Any, sharing: Any) -> None:
    registry = sharing()
    with pytest.raises(ValueError, match="snapshot and restore of 'A' go together: restore is"):
        registry.register("A", "shared_samples.Table", snapshot=shared_samples.to_state)
    with pytest.raises(TypeError, match="restore of 'A' must be None, or a callable"):
        registry.register("A", "shared_samples.Table", restore=3)
    with pytest.raises(ValueError, match="shareable of 'A' must be a bool"):
        registry.register("A", "shared_samples.Table", shareable="often")
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


# -- unshareable classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Locked", "Sly"])
def test_an_instance_that_cannot_be_pickled(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is logged once, and not tried again."""
    registry = sharing()
    for _ in range(3):
        assert registry.get_instance(name).value
        registry.discard(name)
    assert notes() == [name] * 3
    logged = [r for r in caplog.records if r.name == "warmset.share" and "not shared" in r.message]
    assert len(logged) == 1
    assert registry.snapshot_stats().unused == 3
    assert sharing().get_instance(name).value


def test_a_class_without_a_file_is_not_shared(
    sharing: Any, monkeypatch: pytest.MonkeyPatch, notes: Callable[[], list[str]]
) -> None:
    """It has no version."""
    monkeypatch.setattr(shared_samples.Table, "__module__", "typed_in")
    for _ in range(2):
        assert sharing().get_instance("Table").total() > 0
    assert notes() == ["Table", "Table"]


def test_failed_builds(ws: Any, sharing: Any, notes: Callable[[], list[str]]) -> None:
    """A failed build raises as without a store and releases its claim."""
    for _ in range(2):
        with pytest.raises(ws.BuildError, match="no such model"):
            sharing().get_instance("Fails")
    assert notes() == ["Fails", "Fails"]
    with pytest.raises(ws.UnknownClassError):
        sharing().get_instance("Nobody")
    registry = sharing()
    registry.register("Nowhere", "no_such_module.Table", shareable=True)
    with pytest.raises(ws.ClassImportError, match="no_such_module"):
        registry.get_instance("Nowhere")
    registry.register_instantiation_rule("Table", lambda cls: None, version="1")
    with pytest.raises(ws.BuildError, match="returned None"):
        registry.get_instance("Table")


# -- references to other instances -----------------------------------------------------------------


def pair(sharing: Any) -> Any:
    registry = sharing()

    def build(cls: Any) -> Any:
        return cls(registry.get_instance("Table"))

    registry.register_instantiation_rule("Pair", build, version="1")
    return registry


def test_other_instances_are_not_copied(sharing: Any, notes: Callable[[], list[str]]) -> None:
    """The opened instance references the registry's instance, which is opened, too."""
    one, other = pair(sharing), pair(sharing)
    for registry in (one, other):
        made = registry.get_instance("Pair")
        assert made.table is registry.get_instance("Table")
        assert made.own.sum() == 100
    assert sorted(notes()) == ["Pair", "Table"]
    assert other.snapshot_stats().opened == 2
    assert one.snapshot_stats().stored_bytes < 120_000  # the table's 80,000 bytes are in it once


def test_a_missing_reference_costs_a_build(
    ws: Any, sharing: Any, notes: Callable[[], list[str]]
) -> None:
    pair(sharing).get_instance("Pair")
    registry = sharing()
    registry.unregister("Table")
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


# -- damage ----------------------------------------------------------------------------------------


def snapshots(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store").glob("*/*.snapshot"))


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("harm", ["cut", "empty", "altered", "swapped", "foreign", "longer"])
def test_a_damaged_snapshot_is_rebuilt(
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
    new.replace(file)  # the old file remains mapped
    registry = sharing(store=store())
    assert registry.get_instance("Table").total() == sum(range(10_000))
    assert registry.snapshot_stats().damaged == 1
    assert notes().count("Table") == 2
    assert sharing(store=store()).get_instance("Table").total() > 0
    assert notes().count("Table") == 2
    assert "rebuilding" in caplog.text
    assert "k" * 16 not in caplog.text
    assert len([each for each in snapshots(tmp_path) if "Table" in each.name]) == 1


def test_a_failing_store_costs_a_build(
    sharing: Any, notes: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever operation fails; each is logged once per class."""
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


# -- settings --------------------------------------------------------------------------------------


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
    with pytest.raises(share.StoreError, match="unknown kind of store: ftp://"):
        ws.MethodRegistry({}, store="ftp://host")
    with pytest.raises(TypeError, match="store must be None, the path"):
        ws.MethodRegistry({}, store=3)
    with pytest.raises(ValueError, match="store must be"):
        ws.MethodRegistry({}, store="")


def test_a_registry_with_a_store_can_be_pickled(
    sharing: Any, share: Any, tmp_path: Path, notes: Callable[[], list[str]]
) -> None:
    """But not with a key that was given as bytes."""
    sharing().get_instance("Table")
    copy = pickle.loads(pickle.dumps(share.DirectoryStore(tmp_path / "store", max_bytes=10**9)))
    assert copy == share.DirectoryStore(tmp_path / "store")
    assert sharing(store=copy).get_instance("Table").total() > 0
    assert notes() == ["Table"]
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(share.DirectoryStore(tmp_path / "store", key=b"k" * 16))


def test_recycling_opens_the_snapshot_again(sharing: Any, notes: Callable[[], list[str]]) -> None:
    registry = sharing()
    before = registry.get_instance("Table")
    assert registry.recycle("Table")
    assert registry.get_instance("Table") is not before
    assert notes() == ["Table"]


def test_logs_distinguish_builds_and_opened_snapshots(
    sharing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "warmset.builds"):
        for _ in range(2):
            sharing().get_instance("Table")
    assert [record.message.split(" in ")[0] for record in caplog.records] == [
        "built 'Table'",
        "opened the snapshot of 'Table'",
    ]
