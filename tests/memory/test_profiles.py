"""Tests of profiles: recording, merging, files."""

from __future__ import annotations

import json
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmset.memory.profiles import ClassProfile, Profile, ProfileError

if TYPE_CHECKING:
    from pathlib import Path

counts = st.integers(0, 2**63 - 1)
seconds = st.floats(0, 1e300, allow_nan=False)
class_names = st.text(min_size=1, max_size=9).filter(lambda name: name.isprintable())
entries = st.builds(
    ClassProfile,
    class_path=st.none() | st.text(max_size=20),
    uses=counts,
    gaps=counts,
    gap_seconds=seconds,
    builds=counts,
    build_seconds=seconds,
    own_build_seconds=seconds,
    last_build_seconds=seconds,
    failures=counts,
    bytes=st.none() | counts,
    depends_on=st.lists(class_names, unique=True, max_size=3).map(lambda n: tuple(sorted(n))),
)
profiles = st.builds(Profile, st.dictionaries(class_names, entries, max_size=4), st.integers(1, 9))


# -- recording -----------------------------------------------------------------------------------


def test_nothing_is_recorded_by_default(make: Any) -> None:
    registry = make()
    registry.get_instance("Alpha")
    with pytest.raises(RuntimeError, match="expected a call of record_profile"):
        registry.profile()


def test_a_recording(make: Any, samples: Any, timer: Any) -> None:
    """Uses, gaps, builds and their seconds, sizes, failures, dependencies, paths."""
    registry = make()
    recorder = registry.record_profile()
    assert registry.record_profile() is recorder

    def ask(_: Any) -> None:
        timer.advance(2)
        registry.get_instance("Beta")

    samples.script["Alpha"] = ask
    samples.script["Beta"] = lambda _: timer.advance(3)
    registry.get_instance("Alpha")
    for _ in range(4):
        timer.advance(10)
        registry.get_instance("Alpha")
    registry.set_bytes(registry.slots["Alpha"].entry, 1000)
    registry.discard("Alpha")
    registry.get_instance("Alpha")

    def fail(_: Any) -> None:
        raise OSError("no weights")

    samples.script["Gamma"] = fail
    with pytest.raises(Exception, match="no weights"):
        registry.get_instance("Gamma")
    classes = recorder.profile().classes
    alpha = classes["Alpha"]
    assert (alpha.class_path, alpha.uses, alpha.builds) == ("samples.Alpha", 6, 2)
    assert (alpha.gaps, alpha.gap_seconds, alpha.mean_gap_seconds) == (4, 40.0, 10.0)
    assert (alpha.build_seconds, alpha.own_build_seconds) == (5.0 + 2.0, 4.0)
    assert (alpha.mean_build_seconds, alpha.last_build_seconds) == (3.5, 2.0)
    assert (alpha.bytes, alpha.depends_on) == (1000, ("Beta",))
    assert (classes["Gamma"].failures, classes["Gamma"].builds) == (1, 0)
    assert classes["Beta"].uses == 2


def test_an_instance_that_was_warm_before_counts_with_all_its_uses(make: Any) -> None:
    registry = make()
    for _ in range(3):
        registry.get_instance("Alpha")
    registry.record_profile()
    registry.get_instance("Alpha")
    assert registry.profile().classes["Alpha"].uses == 4


def test_a_stopped_recorder_records_nothing_more(make: Any) -> None:
    registry = make()
    recorder = registry.record_profile()
    registry.get_instance("Alpha")
    stopped = recorder.stop()
    registry.get_instance("Beta")
    assert recorder.profile() is recorder.stop() is stopped
    assert list(stopped.classes) == ["Alpha"]
    again = registry.record_profile()
    assert again is not recorder
    assert sorted(again.profile().classes) == ["Alpha", "Beta"]


def test_a_removed_instance_is_counted_once(make: Any) -> None:
    """Also if it is still held when it is removed, and released later."""
    registry = make()
    recorder = registry.record_profile()
    with registry.use("Alpha"):
        registry.discard("Alpha")
        registry.get_instance("Alpha")
        assert recorder.profile().classes["Alpha"].uses == 2
    assert recorder.profile().classes["Alpha"].uses == 2
    assert recorder.stop().classes["Alpha"].uses == 2


def test_recording_under_threads(make: Any) -> None:
    """There is one recorder, and no build or use is lost."""
    registry = make(max_cache_size=2)
    recorders: list[Any] = []
    names = ("Alpha", "Beta", "Gamma", "Delta")

    def work(offset: int) -> None:
        recorders.append(registry.record_profile())
        for turn in range(300):
            registry.get_instance(names[(turn + offset) % 4])

    registry.record_profile()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, recorders))) == 1
    stats, classes = registry.stats(), registry.profile().classes
    assert sum(known.builds for known in classes.values()) == stats.builds
    # A thread that waited for the build of another one uses its result without a hit.
    assert sum(known.uses for known in classes.values()) >= stats.hits


# -- merging -------------------------------------------------------------------------------------


def test_profiles_are_merged() -> None:
    earlier = Profile({"A": ClassProfile("m.A", uses=2, bytes=5, depends_on=("B",)),
                       "B": ClassProfile("m.B", uses=1)})  # fmt: skip
    later = Profile({"A": ClassProfile("m.A", uses=3, bytes=4, depends_on=("C",)),
                     "B": ClassProfile("n.B", uses=7)})  # fmt: skip
    both = earlier | later
    assert both.recordings == 2
    assert both.classes["A"] == ClassProfile("m.A", uses=5, bytes=5, depends_on=("B", "C"))
    assert both.classes["B"] == ClassProfile("n.B", uses=7)  # another class by now
    with pytest.raises(TypeError, match="expected a Profile, got int 1"):
        earlier.merge(1)  # type: ignore[arg-type]


@settings(deadline=None)  # a file is written and synced, for any duration
@given(profiles, profiles)
def test_a_merged_profile_can_be_saved(one: Profile, other: Profile) -> None:
    both = one | other
    data = json.loads(json.dumps(both._as_data()))
    assert set(data["classes"]) == {*one.classes, *other.classes}


# -- files ---------------------------------------------------------------------------------------


@settings(deadline=None)  # a file is written and synced, for any duration
@given(made=profiles)
def test_a_saved_profile_is_loaded_unchanged(
    made: Profile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("profile") / "p.json"
    made.save(path)
    read = Profile.load(path)
    assert (read, read.skipped) == (made, ())
    assert hash(read) == hash(made)
    text = path.read_bytes()
    read.save(path)
    assert path.read_bytes() == text


def test_a_profile_can_be_pickled(ws: Any) -> None:
    """In the current copy of the package, because pickles refer to modules by name."""
    from warmset.memory import profiles as module

    made = module.Profile({"A": module.ClassProfile("m.A", uses=2)}, 3, ("a note",))
    read = pickle.loads(pickle.dumps(made))
    assert (read, read.skipped) == (made, ("a note",))
    error = module.ProfileError("p.json: not JSON", file="p.json")
    assert pickle.loads(pickle.dumps(error)).file == "p.json"


def test_a_file_is_replaced_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be written it stays unchanged; links and modes are kept."""
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    Profile({"A": ClassProfile(uses=1)}).save(target)
    target.chmod(0o640)
    link.symlink_to(target)
    Profile({"A": ClassProfile(uses=2)}).save(link)
    assert link.is_symlink()
    assert Profile.load(target).classes["A"].uses == 2
    assert target.stat().st_mode & 0o777 == 0o640

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Profile({}).save(link)
    assert Profile.load(link).classes["A"].uses == 2
    assert sorted(os.listdir(tmp_path)) == ["link.json", "real.json"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "'format' is not 'warmset-profile'"),
    ],
)
def test_a_file_that_is_not_a_profile_raises(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=fault) as caught:
        Profile.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "expected a profile" in str(caught.value)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (str(twin), twin.file) == (str(caught.value), str(path))


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none.json: cannot be read: No such file"):
        Profile.load(tmp_path / "none.json")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """It is not read as a whole; here it is sparse."""
    path = tmp_path / "p.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ProfileError, match=r"cannot be read: .*more than 100000000 bytes"):
        Profile.load(path)


def test_the_valid_parts_of_another_version_are_read(tmp_path: Path) -> None:
    data = {
        "format": "warmset-profile",
        "format_version": 9,
        "warmset": "9.0",
        "recordings": 0,
        "colour": "red",
        "classes": {
            "A": {"uses": 3, "build_seconds": 2, "builds": 1, "mood": "good", "bytes": -1,
                  "depends_on": ["B", 1], "gap_seconds": "long"},
            "": {},
            "B": [],
        },
    }  # fmt: skip
    path = tmp_path / "p.json"
    path.write_text(json.dumps(data))
    read = Profile.load(path)
    assert dict(read.classes) == {"A": ClassProfile(uses=3, builds=1, build_seconds=2.0)}
    text = "\n".join(read.skipped)
    for part in (
        "format_version = 9; expected 1",
        "recordings = 0; expected a whole number, 1 or more",
        "unknown key 'colour'",
        "classes.A: unknown key 'mood'",
        "classes.A.bytes = -1; expected a whole number of bytes, or null",
        "classes.A.depends_on = ['B', 1]; expected a list of class names",
        "classes.A.gap_seconds = 'long'; expected a finite number of seconds",
        "classes.A: 'class_path' is missing; treated as unknown",
        "classes = ''; expected a non-empty class name",
        "classes.B = []; expected an object",
    ):
        assert part in text


@settings(deadline=None)  # a file is written and synced, for any duration
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["classes", "A", "uses", "depends_on", "bytes", "recordings", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_content_can_be_read(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("profile") / "p.json"
    table = {"classes": content} if not isinstance(content, dict) else content
    path.write_text(json.dumps({"format": "warmset-profile", "format_version": 1, **table}))
    read = Profile.load(path)
    read.save(path)
    assert Profile.load(path) == read
