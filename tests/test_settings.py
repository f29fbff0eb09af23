"""The settings of a registry, and the file that they may come from."""

from __future__ import annotations

import copy
import decimal
import enum
import fractions
import math
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DEFAULTS = {
    "cache_ttl_seconds": 300.0,
    "enable_weakref": False,
    "max_cache_size": 100,
    "autosize_min": 4,
    "autosize_max": 1000,
    "retry_after_seconds": 30.0,
    "build_timeout_seconds": 0.0,
    "block_when_full": False,
    "block_timeout_seconds": 30.0,
    "closing": "inline",
    "sweep_interval_seconds": 0.0,
    "max_age_seconds": 0.0,
    "policy": "lru",
    "sizer": None,
    "max_cache_bytes": 0,
    "max_rss_bytes": 0,
    "low_rss_bytes": 0,
    "adaptive_ttl": False,
    "adaptive_ttl_min_seconds": 10.0,
    "adaptive_ttl_max_seconds": 3600.0,
    "plan": False,
    "store": None,
    "host_budget": 0,
    "observe_socket": False,
    "observe_changes": False,
    "arguments": "strict",
}


class Number:
    """What a number of numpy looks like from here."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


class Whole(Number):
    def __index__(self) -> int:
        return int(self.value)


class Broken:
    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __index__(self) -> int:
        raise RuntimeError("no index")


class StrNumber(str):
    __slots__ = ()

    def __float__(self) -> float:
        return 1.0

    def __index__(self) -> int:
        return 1


class Size(enum.IntEnum):
    SMALL = 5


class NumpyBool(Whole):
    """Only its name tells it from a number."""


NumpyBool.__name__ = "bool_"


def raises(ws: Any, setting: str, value: object, kind: type[Exception]) -> str:
    """Refuse one value, by the constructor, `check_setting` and `replace` alike."""
    make: Any = ws.settings.RegistrySettings
    texts = set()
    calls: list[Callable[[], object]] = [
        lambda: make(**{setting: value}),
        lambda: make().replace(**{setting: value}),
        lambda: make.batch(**{setting: value}),
        lambda: ws.setting_table.check_setting(setting, value),
    ]
    for call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        texts.add(str(caught.value))
    (text,) = texts
    assert text.startswith(f"{setting} must be ")
    assert ws.resolver.safe_repr(value) in text
    return text


# -- values ----------------------------------------------------------------------------------------


def test_defaults(ws: Any) -> None:
    made = ws.settings.RegistrySettings()
    assert made.as_options() == DEFAULTS
    fields = ", ".join(f"{name}={value!r}" for name, value in sorted(DEFAULTS.items()))
    assert repr(made) == f"RegistrySettings({fields})"


def test_the_bounds_of_the_adaptive_ttl_must_agree(ws: Any) -> None:
    with pytest.raises(ValueError, match="adaptive_ttl_min_seconds must be at most adaptive_ttl_m"):
        ws.settings.RegistrySettings(
            adaptive_ttl=True, adaptive_ttl_min_seconds=20, adaptive_ttl_max_seconds=10
        )
    table = {"adaptive_ttl": True, "adaptive_ttl_max_seconds": 1}
    with pytest.raises(ws.settings.SettingsError, match=r"f.toml: \[registry\]: adaptive_ttl_min"):
        ws.settings.RegistrySettings.from_table(table, file="f.toml")


@pytest.mark.parametrize("value", [0.5, 1.0, 0, 10**9])
def test_memory_is_given_in_bytes_or_as_a_part(ws: Any, value: float) -> None:
    made = ws.settings.RegistrySettings(max_rss_bytes=value)
    assert (type(made.max_rss_bytes), made.max_rss_bytes) == (type(value), value)


@pytest.mark.parametrize("setting", ["max_rss_bytes", "low_rss_bytes", "host_budget"])
@pytest.mark.parametrize("value", [1, 80, 512, 999_999])
def test_a_few_bytes_of_memory_are_refused(ws: Any, setting: str, value: int) -> None:
    """80 is meant as megabytes or as a percentage, and 1 as 1.0."""
    with pytest.raises(ValueError, match=r"1.0 is all of it, 1 would be one byte") as caught:
        ws.settings.RegistrySettings(**{setting: value})
    assert str(caught.value).startswith(f"{setting} must be a whole number of bytes, 1,000,000")


@pytest.mark.parametrize("value", [-1, -0.5, 1.5, math.nan, math.inf])
def test_memory_out_of_range_is_refused(ws: Any, value: float) -> None:
    with pytest.raises(ValueError, match="max_rss_bytes must be a whole number of bytes"):
        ws.settings.RegistrySettings(max_rss_bytes=value)


def test_a_policy_or_sizer_has_a_name_or_a_method(ws: Any) -> None:
    class Own:
        def worth(self, slot: Any, now: float) -> float:
            return 0.0

        def size(self, instance: object) -> int:
            return 1

    own = Own()
    made = ws.settings.RegistrySettings(policy=own, sizer=own)
    assert (made.policy, made.sizer) == (own, own)
    assert ws.settings.RegistrySettings(sizer=len).sizer is len
    for wrong in ({"policy": "lfu"}, {"sizer": "guess"}):
        with pytest.raises(ValueError, match="must be"):
            ws.settings.RegistrySettings(**wrong)
    for typed in ({"policy": 1}, {"policy": Own}, {"sizer": 1.5}, {"policy": None}):
        with pytest.raises(TypeError, match="must be"):
            ws.settings.RegistrySettings(**typed)


def test_options_are_a_copy_and_keyword_only(ws: Any) -> None:
    made = ws.settings.RegistrySettings()
    made.as_options()["max_cache_size"] = 1
    assert made.max_cache_size == 100
    with pytest.raises(TypeError):
        ws.settings.RegistrySettings(300.0)
    with pytest.raises(TypeError, match="ttl"):
        ws.settings.RegistrySettings(ttl=1)


@pytest.mark.parametrize("setting", ["cache_ttl_seconds", "retry_after_seconds"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        (1e308, 1e308),
        (5e-324, 5e-324),
        (Number(1.5), 1.5),
        (Whole(3), 3.0),
        (Size.SMALL, 5.0),
        (fractions.Fraction(1, 4), 0.25),
        (decimal.Decimal("2.5"), 2.5),
    ],
)
def test_seconds(ws: Any, setting: str, value: Any, seconds: float) -> None:
    got = getattr(ws.settings.RegistrySettings(**{setting: value}), setting)
    assert type(got) is float
    assert got == seconds


def test_negative_zero_is_zero(ws: Any) -> None:
    got = ws.settings.RegistrySettings(cache_ttl_seconds=-0.0).cache_ttl_seconds
    assert math.copysign(1.0, got) == 1.0


@pytest.mark.parametrize("setting", ["cache_ttl_seconds", "retry_after_seconds"])
@pytest.mark.parametrize(
    "value",
    [
        -1, -1e-9, -math.inf, math.nan, 10**400, decimal.Decimal("NaN"), decimal.Decimal("sNaN"),
        Number(math.nan), Number(-1),
    ],
)  # fmt: skip
def test_seconds_out_of_range(ws: Any, setting: str, value: object) -> None:
    assert "number of seconds, 0 or more" in raises(ws, setting, value, ValueError)


@pytest.mark.parametrize("value", [math.inf, Number(math.inf), decimal.Decimal("Infinity")])
def test_endless_seconds(ws: Any, value: Any) -> None:
    assert "use 0 to disable" in raises(ws, "cache_ttl_seconds", value, ValueError)
    assert ws.settings.RegistrySettings(retry_after_seconds=value).retry_after_seconds == math.inf


@pytest.mark.parametrize("setting", ["cache_ttl_seconds", "retry_after_seconds", "max_cache_size"])
@pytest.mark.parametrize(
    "value",
    [
        None, "5", "", "inf", b"5", bytearray(b"5"), True, False, NumpyBool(1), 1j, [5], {}, object,
        Broken(), StrNumber("1"),
    ],
)  # fmt: skip
def test_what_is_no_number(ws: Any, setting: str, value: object) -> None:
    raises(ws, setting, value, TypeError)


@pytest.mark.parametrize(
    ("value", "size"),
    [(1, 1), (10**9, 10**9), (sys.maxsize, sys.maxsize), (Whole(7), 7), (Size.SMALL, 5)],
)
def test_size(ws: Any, value: Any, size: int) -> None:
    got = ws.settings.RegistrySettings(max_cache_size=value).max_cache_size
    assert type(got) is int
    assert got == size


@pytest.mark.parametrize(
    "value",
    # The last but one cannot be printed, by pytest neither.
    [0, -1, sys.maxsize + 1, pytest.param(10**5_000, id="many digits"), Whole(0)],
)
def test_size_out_of_range(ws: Any, value: object) -> None:
    assert "a whole number, 1 or more" in raises(ws, "max_cache_size", value, ValueError)


@pytest.mark.parametrize("value", [1.0, math.inf, math.nan, Number(3), fractions.Fraction(3)])
def test_size_that_is_not_whole(ws: Any, value: object) -> None:
    raises(ws, "max_cache_size", value, TypeError)


@pytest.mark.parametrize("value", [0, 1, None, "true", "", [], NumpyBool(1)])
def test_flag_that_is_no_bool(ws: Any, value: object) -> None:
    raises(ws, "enable_weakref", value, TypeError)


def test_immutable(ws: Any) -> None:
    made = ws.settings.RegistrySettings()
    for name in ("cache_ttl_seconds", "other"):
        with pytest.raises(AttributeError, match=f"RegistrySettings is immutable.*'{name}'"):
            setattr(made, name, 1.0)
        with pytest.raises(AttributeError, match=f"RegistrySettings is immutable.*'{name}'"):
            delattr(made, name)
    assert not hasattr(made, "__dict__")
    assert made.as_options() == DEFAULTS


def test_equality_and_hash(ws: Any) -> None:
    make = ws.settings.RegistrySettings
    assert make() == make(cache_ttl_seconds=300)
    assert hash(make()) == hash(make(cache_ttl_seconds=300))
    assert make() != make(max_cache_size=99)
    assert make() != DEFAULTS
    assert len({make(), make(), make(enable_weakref=True)}) == 2


def test_replace(ws: Any) -> None:
    made = ws.settings.RegistrySettings(max_cache_size=7)
    changed = made.replace(cache_ttl_seconds=1)
    assert changed.as_options() == {**DEFAULTS, "max_cache_size": 7, "cache_ttl_seconds": 1.0}
    assert made.cache_ttl_seconds == 300.0
    with pytest.raises(TypeError, match="ttl"):
        made.replace(ttl=1)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace is new in 3.13")
def test_replace_of_the_copy_module(ws: Any) -> None:
    changed = copy.replace(ws.settings.RegistrySettings(), max_cache_size=2)  # type: ignore[attr-defined, unused-ignore]
    assert changed.max_cache_size == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_and_copy(ws: Any, protocol: int) -> None:
    made = ws.settings.RegistrySettings(retry_after_seconds=math.inf, max_cache_size=3)
    for twin in (
        pickle.loads(pickle.dumps(made, protocol)),
        copy.copy(made),
        copy.deepcopy(made),
    ):
        assert type(twin) is type(made)
        assert twin == made


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("long_lived_service", {"cache_ttl_seconds": 600.0, "max_cache_size": 100}),
        ("batch", {"cache_ttl_seconds": 0.0, "max_cache_size": 200}),
        (
            "memory_constrained",
            {"cache_ttl_seconds": 120.0, "max_cache_size": 20, "enable_weakref": True},
        ),
    ],
)
def test_presets(ws: Any, preset: str, options: dict[str, Any]) -> None:
    make = getattr(ws.settings.RegistrySettings, preset)
    assert make().as_options() == {**DEFAULTS, **options}
    changed = make(cache_ttl_seconds=7, retry_after_seconds=1)
    assert changed.as_options() == {
        **DEFAULTS,
        **options,
        "cache_ttl_seconds": 7.0,
        "retry_after_seconds": 1.0,
    }
    with pytest.raises(TypeError, match="ttl"):
        make(ttl=1)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.lists(st.integers(), max_size=2),
    st.datetimes(),
)


@FUZZ
@given(setting=st.sampled_from(sorted(DEFAULTS)), value=ANYTHING)
def test_any_value_is_taken_exactly_or_refused(ws: Any, setting: str, value: Any) -> None:
    # The two bounds of one range must agree, and some settings have no effect without another.
    auto = {"max_cache_size": "auto", "max_cache_bytes": 1}
    other = {
        "adaptive_ttl_min_seconds": {
            "adaptive_ttl": True,
            "adaptive_ttl_max_seconds": sys.float_info.max,
        },
        "adaptive_ttl_max_seconds": {"adaptive_ttl": True, "adaptive_ttl_min_seconds": 0.0},
        "autosize_min": {**auto, "autosize_max": sys.maxsize},
        "autosize_max": {**auto, "autosize_min": 1},
        "block_timeout_seconds": {"block_when_full": True},
        "low_rss_bytes": {"max_rss_bytes": 1.0},
        "observe_changes": {"observe_socket": True},
    }.get(setting, {})
    try:
        made = ws.settings.RegistrySettings(**{setting: value}, **other)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    else:
        got = getattr(made, setting)
        if setting.endswith("_seconds"):
            assert (type(got), got) == (float, float(value))
        elif setting in ("max_rss_bytes", "low_rss_bytes", "host_budget"):
            assert (type(got), got) in ((int, value), (float, value))
        elif setting not in ("policy", "sizer", "store"):
            assert (type(got), got) == (type(DEFAULTS[setting]), value)
        assert made == ws.settings.RegistrySettings(**made.as_options())
        table = {setting: value, **other}
        assert made == ws.settings.RegistrySettings.from_table(table, file="f.toml")
        return
    assert refusal.startswith(setting)
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings.RegistrySettings.from_table({setting: value}, file="f.toml")
    assert caught.value.key == setting


# -- errors ----------------------------------------------------------------------------------------


def test_error_keeps_its_fields_in_a_pickle(ws: Any) -> None:
    error = ws.settings.SettingsError("why", file="f.toml", table="classes", key="A")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert (str(twin), twin.file, twin.table, twin.key) == ("why", "f.toml", "classes", "A")
    assert copy.copy(error).key == "A"
    bare = ws.settings.SettingsError("why")
    assert (bare.file, bare.table, bare.key) == (None, None, None)


# -- tables ----------------------------------------------------------------------------------------


def test_table_of_settings(ws: Any) -> None:
    make = ws.settings.RegistrySettings
    assert make.from_table({}, file="f.toml") == make()
    table = {"cache_ttl_seconds": 5, "enable_weakref": True}
    assert make.from_table(table, file="f.toml") == make(**table)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cache_ttl_seconds", -1, "0 or more"),
        ("cache_ttl_seconds", math.inf, "use 0 to disable"),
        ("cache_ttl_seconds", "300", "number of seconds"),
        ("max_cache_size", 0, "1 or more"),
        ("max_cache_size", 10.0, "whole number"),
        ("enable_weakref", 1, "true or false"),
        ("retry_after_seconds", math.nan, "inf: a failed class"),
    ],
)
def test_table_with_a_bad_value(ws: Any, key: str, value: object, expected: str) -> None:
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings.RegistrySettings.from_table({key: value}, file="f.toml", table_name="reg")
    error = caught.value
    assert (error.file, error.table, error.key) == ("f.toml", "reg", key)
    assert str(error).startswith(f"f.toml: [reg]: {key} = {value!r}; expected ")
    assert expected in str(error)
    assert isinstance(error.__cause__, (TypeError, ValueError))


def test_table_with_unknown_keys(ws: Any) -> None:
    table = {"cache_ttl_second": 5, "max_cache_size": 5, "ttl": 1, "zzz": "x" * 10_000}
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings.RegistrySettings.from_table(table, file="f.toml")
    error = caught.value
    text = str(error)
    assert (error.file, error.table, error.key) == ("f.toml", "registry", "cache_ttl_second")
    assert "f.toml: [registry]: unknown cache_ttl_second = 5 (nearest: 'cache_ttl_seconds'" in text
    assert "ttl = 1 (nearest: " in text
    assert "expected cache_ttl_seconds, enable_weakref, max_cache_size" in text
    assert len(text) < 1_500


@pytest.mark.parametrize("table", [None, 3, "x", [], [("max_cache_size", 1)]])
@pytest.mark.parametrize("what", ["settings", "classes"])
def test_table_that_is_none(ws: Any, table: object, what: str) -> None:
    read = (
        ws.settings.RegistrySettings.from_table
        if what == "settings"
        else ws.settings_file.check_classes
    )
    with pytest.raises(ws.settings.SettingsError, match="expected a table") as caught:
        read(table, file="f.toml", table_name="t")
    assert (caught.value.file, caught.value.table, caught.value.key) == ("f.toml", "t", None)


def test_unknown_keys(ws: Any) -> None:
    check = ws.toml_tables.unknown_keys
    assert check({"a": 1}, ("a", "b"), file="f", table_name="t") is None
    assert check({}, (), file="f", table_name="t") is None
    with pytest.raises(ws.settings.SettingsError, match="top level: unknown 3 = 4; expected an e"):
        check({3: 4}, (), file="f", table_name="")
    with pytest.raises(ws.settings.SettingsError, match=r"unknown 'a\\nb' = 1; expected a"):
        check({"a\nb": 1}, iter("a"), file="f", table_name="t")


def test_classes(ws: Any) -> None:
    table = {"Tagger": "pkg.mod.Tagger", "any name. at all": "pkg.mod:Outer.Inner"}
    paths = ws.settings_file.check_classes(table, file="f.toml")
    assert paths == {"Tagger": "pkg.mod.Tagger", "any name. at all": "pkg.mod.Outer.Inner"}
    assert paths is not table


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("Tagger", "Tagger", "package.module.Class"),
        ("Tagger", ".mod.Tagger", "package.module.Class"),
        ("Tagger", 3, "package.module.Class"),
        ("pkg", {"Tagger": "pkg.Tagger"}, "must be quoted"),
        ("", "pkg.mod.Tagger", "non-empty class name"),
        (3, "pkg.mod.Tagger", "non-empty class name"),
    ],
)
def test_classes_with_a_bad_row(ws: Any, name: Any, value: object, told: str) -> None:
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings_file.check_classes({"Good": "a.B", name: value}, file="f.toml", table_name="c")
    error = caught.value
    assert (error.file, error.table, error.key) == ("f.toml", "c", str(name))
    assert str(error).startswith(f"f.toml: [c]: {name or repr(name)} = {value!r}; expected ")
    assert told in str(error)
    assert error.__cause__ is not None


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "warmset.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


FULL = """
[registry]
cache_ttl_seconds = 60
retry_after_seconds = inf
[classes]
Tagger = "pkg.mod.Tagger"
"two words" = "pkg.mod:Outer.Inner"
"""


@pytest.mark.parametrize("kind", ["path", "str", "bytes"])
def test_file(ws: Any, write: Any, kind: str) -> None:
    path = write(FULL)
    spelled: Any = {"path": path, "str": str(path), "bytes": str(path).encode()}[kind]
    got = ws.settings_file.load_settings_file(spelled)
    assert got.path == str(path)
    assert got.settings == ws.settings.RegistrySettings(
        cache_ttl_seconds=60.0, retry_after_seconds=math.inf
    )
    assert got.class_paths == {"Tagger": "pkg.mod.Tagger", "two words": "pkg.mod.Outer.Inner"}


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "[classes]\n", "[registry]\n", "\ufeff[classes]\r\n"]
)
def test_file_with_nothing_in_it(ws: Any, write: Any, content: str) -> None:
    got = ws.settings_file.load_settings_file(write(content))
    assert got.settings == ws.settings.RegistrySettings()
    assert got.class_paths == {}


def test_file_value_is_immutable_and_equal_by_content(ws: Any, write: Any) -> None:
    load = ws.settings_file.load_settings_file
    path = write(FULL)
    got = load(path)
    with pytest.raises(AttributeError, match="SettingsFile is immutable"):
        got.path = "other"
    with pytest.raises(TypeError):
        got.class_paths["New"] = "a.B"
    assert got == load(path)
    assert hash(got) == hash(load(path))
    assert pickle.loads(pickle.dumps(got)) == got
    assert copy.deepcopy(got) == got
    assert got != load(write("[classes]\n"))


@pytest.mark.parametrize(
    ("content", "told", "table", "key"),
    [
        ("[registri]\n", "top level: unknown registri = {} (nearest: 'registry')", "", "registri"),
        ("max_cache_size = 5\n", "top level: unknown max_cache_size = 5", "", "max_cache_size"),
        ("registry = 5\n", "[registry]: 5; expected a table", "registry", None),
        ("[[classes]]\n", "expected a table", "classes", None),
        ("[registry]\nmax_cache_size = 0\n", "max_cache_size = 0", "registry", "max_cache_size"),
        ("[registry]\nmax_cache_size = 2024-01-01\n", "date", "registry", "max_cache_size"),
        ("[classes]\nTagger = 5\n", "[classes]: Tagger = 5; expected", "classes", "Tagger"),
        ("[classes]\na.b = 'a.B'\n", "must be quoted", "classes", "a"),
    ],
)
def test_file_with_a_fault(
    ws: Any, write: Any, content: str, told: str, table: str, key: str | None
) -> None:
    path = write(content)
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings_file.load_settings_file(path)
    error = caught.value
    assert (error.file, error.table, error.key) == (str(path), table, key)
    assert str(error).startswith(f"{path}: ")
    assert told in str(error)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[classes]\nTagger = \n", "line 2"),
        ("[classes]\nA = 'a.B'\nA = 'a.C'\n", "line 3"),
        (b"[classes]\n# caf\xe9\n", "line 2"),
        (b"\xef\xbb\xbf\n\n\xff", "line 3"),
        (b"\xff\xfe[\x00", "UTF-8"),
        ("x = " + "9" * 5_000, "not valid TOML" if sys.version_info >= (3, 11) else ""),
        ("x = " + "[" * 100_000, "not valid TOML"),
        ("\x00", "not valid TOML"),
    ],
    ids=["syntax", "twice", "latin-1", "after a mark", "utf-16", "digits", "nested", "null"],
)
def test_file_that_is_no_toml(ws: Any, write: Any, content: str | bytes, told: str) -> None:
    path = write(content)
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.settings_file.load_settings_file(path)
    assert caught.value.file == str(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 2_000


def test_file_that_cannot_be_read(ws: Any, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path, f"{tmp_path}/nu\x00ll", "x" * 10_000):
        with pytest.raises(ws.settings.SettingsError, match="cannot be read: ") as caught:
            ws.settings_file.load_toml(path)
        assert caught.value.file == str(path)
        assert isinstance(caught.value.__cause__, (OSError, ValueError))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_file_that_would_block_or_never_end(ws: Any, tmp_path: Path) -> None:
    """It is refused before it is read."""
    fifo, big = tmp_path / "fifo.toml", tmp_path / "big.toml"
    os.mkfifo(fifo)
    with big.open("wb") as stream:
        stream.truncate(2**34)
    for path, told in (
        (fifo, "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
        (big, "it has more than 16,000,000 bytes"),
    ):
        with pytest.raises(ws.settings.SettingsError, match=told):
            ws.settings_file.load_settings_file(path)
    opened = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        with pytest.raises(ws.settings.SettingsError):
            ws.settings_file.load_settings_file(tmp_path)
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened


@pytest.mark.parametrize("path", [None, 0, 1.5, ["warmset.toml"]])
def test_file_that_is_no_path(ws: Any, path: object) -> None:
    for load in (ws.settings_file.load_toml, ws.settings_file.load_settings_file):
        with pytest.raises(TypeError):
            load(path)


@FUZZ
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.lists(
        st.sampled_from(
            [
                *("[registry]", "[classes]", "max_cache_size", "=", "=", "1", "-1", "inf", "nan"),
                *("A", "'a.B'", "\n", "\n", " ", *"[]{}.,'#", "true", "1979-05-27"),
            ]
        ),
        max_size=15,
    ).map(lambda words: "".join(words).encode())
)
def test_any_content_is_read_or_refused(ws: Any, write: Any, content: bytes) -> None:
    path = write(content)
    try:
        got = ws.settings_file.load_settings_file(path)
    except ws.settings.SettingsError as error:
        refusal = error
    else:
        assert isinstance(got, ws.settings_file.SettingsFile)
        return
    assert refusal.file == str(path)
    assert str(path) in str(refusal)


@FUZZ
@given(
    ttl=st.floats(min_value=0, allow_infinity=False),
    retry=st.floats(min_value=0),
    size=st.integers(min_value=1, max_value=sys.maxsize),
    weak=st.booleans(),
    names=st.lists(st.from_regex(r"[A-Za-z0-9_ .é-]{1,12}", fullmatch=True), unique=True),
)
def test_round_trip_through_a_file(
    ws: Any, write: Any, ttl: float, retry: float, size: int, weak: bool, names: list[str]
) -> None:
    path = write(
        f"[registry]\ncache_ttl_seconds = {ttl!r}\nretry_after_seconds = {retry!r}\n"
        f"max_cache_size = {size}\nenable_weakref = {str(weak).lower()}\n[classes]\n"
        + "".join(f'"{name}" = "pkg.mod.C{i}"\n' for i, name in enumerate(names))
    )
    got = ws.settings_file.load_settings_file(path)
    assert got.settings.as_options() == {
        **DEFAULTS,
        "cache_ttl_seconds": ttl,
        "retry_after_seconds": retry,
        "max_cache_size": size,
        "enable_weakref": weak,
    }
    assert list(got.class_paths.items()) == [(n, f"pkg.mod.C{i}") for i, n in enumerate(names)]


# -- options of classes ----------------------------------------------------------------------------


OPTIONS = """
[classes]
Alpha = "samples.Alpha"
Beta = "samples.Beta"
[options.Alpha]
pin = true
priority = 3
cache_ttl_seconds = 0
recycle_after_uses = 100
"""


def test_a_file_gives_options_to_classes(ws: Any, tmp_path: Path) -> None:
    path = tmp_path / "warmset.toml"
    path.write_text(OPTIONS)
    registry = ws.MethodRegistry.from_file(path)
    assert registry.pinned() == ["Alpha"]
    options = registry.slots["Alpha"].options
    assert (options.priority, options.cache_ttl_seconds, options.recycle_after_uses) == (
        3,
        0.0,
        100,
    )
    assert registry.slots["Beta"].options is None
    from warmset.settings_file import load_settings_file

    loaded = load_settings_file(path)
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert hash(loaded) == hash(load_settings_file(path))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[options]\nAlpha = 1", "[options.Alpha]: 1; expected a table"),
        (
            "[options.Alhpa]\npin = true",
            "[options]: unknown Alhpa = {'pin': True} (nearest: 'Alpha')",
        ),
        ("[options.Alpha]\npinn = true", "[options.Alpha]: unknown pinn = True (nearest: 'pin')"),
        ("[options.Alpha]\npin = 1", "[options.Alpha]: pin = 1; expected a bool, true or false"),
        ("[options.Alpha]\nsizer = 'x'", "[options.Alpha]: sizer = 'x'; expected None, 'measured'"),
        ("[options.Alpha]\nafter_fork = 'x'", "after_fork = 'x'; expected 'keep', 'drop' or 'reb"),
        ("[options.Alpha]\npriority = 1.5", "[options.Alpha]: priority = 1.5; expected a whole"),
    ],
)
def test_a_wrong_option_in_a_file(ws: Any, tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "warmset.toml"
    path.write_text(f"[classes]\nAlpha = 'samples.Alpha'\n{text}\n")
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.MethodRegistry.from_file(path)
    assert fault in str(caught.value)
