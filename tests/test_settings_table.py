"""The table of settings, and the source that is generated from it."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def generator() -> Any:
    """The module ``ci/generate_signatures.py``."""
    path = ROOT / "ci" / "generate_signatures.py"
    spec = importlib.util.spec_from_file_location("generate_signatures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameters(function: Any) -> dict[str, Any]:
    """The parameters of a method with their defaults, without ``self`` and ``**others``."""
    _, *others = inspect.signature(function).parameters.items()
    return {name: each.default for name, each in others if each.kind is not each.VAR_KEYWORD}


def documented(text: str | None) -> list[str]:
    """The names under ``Args:`` in a docstring."""
    section = inspect.cleandoc(text or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    return re.findall(r"^    (\w+): ", section, re.MULTILINE)


def test_generated_source_is_up_to_date(ws: Any, generator: Any) -> None:
    """If not, run ``python ci/generate_signatures.py``."""
    assert list(generator.stale(Path(ws.__file__).parent)) == []


def test_every_use_of_the_table_has_a_region(ws: Any) -> None:
    """A lost marker would let the source go stale unnoticed."""
    package = Path(ws.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    found = set(re.findall(r"# begin ((?:registry|class)-\w+)", text))
    assert found == {
        *("registry-fields", "registry-keywords", "registry-items"),
        *("registry-parameters", "registry-arguments", "registry-docs"),
        *("class-fields", "class-docs"),
    }
    assert len(re.findall(r"# begin \w+-\w+: ", text)) == len(re.findall(r"# end \w+-\w+\n", text))


def test_constructors_take_the_settings_of_the_table(ws: Any) -> None:
    """With its defaults, in its order; the first three also by position."""
    defaults = ws.setting_table.REGISTRY_DEFAULTS
    own = parameters(ws.RegistrySettings.__init__)
    assert list(own.items()) == list(defaults.items())
    others = {"class_paths": None, "timer": None}
    assert parameters(ws.MethodRegistry.__init__) == {**defaults, **others}
    positional = [
        name
        for name, each in inspect.signature(ws.MethodRegistry.__init__).parameters.items()
        if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    assert positional == [
        "self",
        "class_paths",
        "cache_ttl_seconds",
        "enable_weakref",
        "max_cache_size",
    ]


def test_registration_takes_the_options_of_the_table(ws: Any) -> None:
    """With its defaults, and with arguments for the class or factory."""
    own = list(parameters(ws.MethodRegistry.register))
    assert own == ["class_name", "target", "args", "kwargs"]
    registry = ws.MethodRegistry({})
    for name, default in ws.setting_table.CLASS_DEFAULTS.items():
        registry.register("it", dict, **{name: default})
        assert getattr(registry.slots["it"].options, name) == default


def test_each_parameter_is_documented_once(ws: Any) -> None:
    """In the docstrings of the registry and of the registration."""
    registry = documented(ws.api.Registry.__doc__)
    assert sorted(registry) == sorted(parameters(ws.MethodRegistry.__init__))
    registration = documented(ws.MethodRegistry.register.__doc__)
    own = parameters(ws.MethodRegistry.register)
    assert sorted(registration) == sorted({*own, *ws.setting_table.CLASS_DEFAULTS})


def test_each_row_is_complete(ws: Any) -> None:
    """A name of its own, a scope, a default that is valid, and sentences."""
    table = ws.setting_table.SETTINGS
    assert len({row.name for row in table}) == len(table)
    for row in table:
        scopes = [scope for scope in (row.registry, row.option) if scope is not None]
        assert scopes, row.name
        for default, text in scopes:
            assert text[0].isupper(), row.name
            assert text.endswith("."), row.name
            assert default is None or row.checked(default) == default
        assert not row.expected.endswith("."), row.name


@pytest.mark.parametrize("name", ["cache_ttl_seconds", "sizer", "pin", "after_fork", "closer"])
def test_an_option_is_refused_with_class_and_value(ws: Any, name: str) -> None:
    row = ws.setting_table.BY_NAME[name]
    with pytest.raises(TypeError) as caught:
        ws.MethodRegistry({}).register("Tagger", "pkg.Tagger", **{name: 1j})
    text = f"{name} of 'Tagger' must be {row.expected}, got complex 1j"
    assert str(caught.value) == text
    assert caught.value.__cause__ is None


def test_an_unknown_option_is_refused(ws: Any) -> None:
    from warmset.options import ClassOptions

    with pytest.raises(TypeError, match="'Tagger' has no option 'pinned'"):
        ClassOptions("Tagger", pinned=True)


def test_the_cause_of_a_refusal_is_chained(ws: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number") as caught:
        ws.RegistrySettings(cache_ttl_seconds=10**400)
    assert isinstance(caught.value.__cause__, OverflowError)


def test_code_stands_in_a_file_as_its_path(ws: Any) -> None:
    """Closers, validators, snapshots and restorers are callables."""
    code = {
        name
        for name in ws.setting_table.CLASS_DEFAULTS
        if not ws.setting_table.BY_NAME[name].in_files
    }
    assert code == {"closer", "snapshot", "restore", "validate"}
    assert all(ws.setting_table.BY_NAME[name].as_path for name in code)
    assert code.issubset(ws.settings_file.CLASS_OPTIONS)


# A setting that means nothing without another, with a value; and the other one.
NEEDING = {
    "autosize_min": (2, {"max_cache_size": "auto", "max_cache_bytes": 10}),
    "autosize_max": (20, {"max_cache_size": "auto", "max_cache_bytes": 10}),
    "block_timeout_seconds": (1.0, {"block_when_full": True}),
    "low_rss_bytes": (0.5, {"max_rss_bytes": 0.9}),
    "adaptive_ttl_min_seconds": (5.0, {"adaptive_ttl": True}),
    "adaptive_ttl_max_seconds": (50.0, {"adaptive_ttl": True}),
    "observe_changes": (True, {"observe_socket": True}),
    "validate_interval_seconds": (1.0, {"validate": bool}),
}


def test_each_setting_that_needs_another_is_tested(ws: Any) -> None:
    assert {row.name for row in ws.setting_table.SETTINGS if row.needs} == set(NEEDING)


@pytest.mark.parametrize("name", NEEDING)
def test_a_setting_without_effect_is_refused(ws: Any, name: str) -> None:
    """The error says what to write; the default, as in a copy of all settings, is accepted."""
    value, others = NEEDING[name]
    row = ws.setting_table.BY_NAME[name]
    expected = rf"{name}.* has no effect without {row.needs[0]}.*; give both or neither"
    if row.registry is None:
        registry = ws.MethodRegistry({})
        for register in (registry.register, registry.family):
            with pytest.raises(ValueError, match=expected):
                register("it", lambda *key: [], **{name: value})
        registry.register("it", list, **{name: row.option[0]})
        registry.register("it", list, **{name: value}, **others)
        return
    with pytest.raises(ValueError, match=expected):
        ws.MethodRegistry({}, **{name: value})
    with pytest.raises(ws.SettingsError, match=expected) as caught:
        ws.RegistrySettings.from_table({name: value}, file="f.toml")
    assert caught.value.key == name
    made = ws.RegistrySettings(**{name: value}, **others)
    assert made == ws.RegistrySettings(**made.as_options())


def test_closing_by_force_without_a_closer_is_refused(ws: Any) -> None:
    registry = ws.MethodRegistry({})
    with pytest.raises(ValueError, match="close_when_removed of 'it' has no effect with closer="):
        registry.register("it", list, closer=None, close_when_removed=True)


# -- the generator ---------------------------------------------------------------------------------


EMPTY = '''
class Registry:
    def __init__(
        self,
        # begin registry-parameters:
        # end registry-parameters
    ) -> None:
        # begin registry-docs:
        """
        Keeps instances.

        Args:
            self: The registry.

        Costs nothing.
        """
        # end registry-docs
        self.given = {
            # begin registry-items:
            # end registry-items
        }
'''


def test_empty_regions_are_filled(ws: Any, generator: Any) -> None:
    """In any file, also before the settings were ever written there."""
    text = generator.renewed(EMPTY)
    names: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + text, names)
    made = names["Registry"](5.0, max_cache_size=7)
    assert made.given == {
        **ws.setting_table.REGISTRY_DEFAULTS,
        "cache_ttl_seconds": 5.0,
        "max_cache_size": 7,
    }
    docstring = names["Registry"].__init__.__doc__
    assert documented(docstring) == ["self", *ws.setting_table.REGISTRY_DEFAULTS]
    assert inspect.cleandoc(docstring).endswith("\n\nCosts nothing.")
    assert max(map(len, text.splitlines())) <= 100


def test_a_second_run_changes_nothing(generator: Any) -> None:
    once = generator.renewed(EMPTY)
    assert generator.renewed(once) == once


def test_a_stale_region_is_found(generator: Any, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(generator.renewed(EMPTY), encoding="utf-8")
    assert generator.stale(tmp_path) == {}
    declared = 'max_cache_size: int | Literal["auto"] ='
    old = generator.renewed(EMPTY).replace(f"{declared} 100", f"{declared} 99")
    (tmp_path / "old.py").write_text(old, encoding="utf-8")
    assert list(generator.stale(tmp_path)) == [tmp_path / "old.py"]


def test_a_docstring_without_arguments_is_an_error(generator: Any) -> None:
    text = '# begin class-docs:\n"""Summary."""\n# end class-docs\n'
    with pytest.raises(ValueError, match="no section Args: in the docstring"):
        generator.renewed(text)
