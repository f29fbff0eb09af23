"""Classes of a file: `kwargs` and `rule` in ``[options.NAME]``."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import settings_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
built = []


class Model:
    def __init__(self, size="small", *, tags=(), part=None):
        self.size, self.tags, self.part = size, tags, part
        built.append(self.size)


def simple(cls):
    return cls("ruled")


def composed(cls, registry):
    return cls("composed", part=registry.get_instance("Part"))


def of_documents(cls, documents):
    return cls("documents")


def of_some_documents(cls, documents=("none",)):
    return cls(documents[0])


number = 3
events = []


def alive(instance):
    events.append("alive")
    return instance.size != "dead"


def shut(instance):
    events.append("shut")


async def later(instance):
    return True
"""
CLASSES = '[classes]\nModel = "filed.Model"\nPart = "filed.Model"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that writes a settings file, with its classes importable."""
    with settings_files.writing(tmp_path, monkeypatch, MODULE, before=CLASSES) as write:
        yield write


load = settings_files.load


def test_keyword_arguments_of_the_constructor(file: Any, load: Any) -> None:
    registry = load(file('[options.Model]\nkwargs = { size = "large" }\npin = true\n'))
    assert registry.get_instance("Model").size == "large"
    assert registry.get_instance("Part").size == "small"
    assert registry.pinned() == ["Model"]


def test_each_instance_has_its_own_copy_of_a_list(file: Any, load: Any) -> None:
    """A constructor may keep its arguments and change them."""
    registry = load(file('[options]\nModel.kwargs = { tags = ["a", ["b"]], size = "large" }\n'))
    first = registry.get_instance("Model")
    first.tags[1].append("changed")
    registry.discard("Model")
    second = registry.get_instance("Model")
    assert (second.size, second.tags) == ("large", ["a", ["b"]])
    # What it is built with takes part in the version of a snapshot.
    _, version = registry.classes.rule_versions["Model"]
    assert version == "[('size', 'large'), ('tags', ['a', ['b']])]"


def test_a_rule_builds_the_instance(file: Any, load: Any) -> None:
    """It receives the registry if it has a parameter of this name."""
    registry = load(file('[options]\nModel.rule = "filed:composed"\nPart.rule = "filed.simple"\n'))
    assert "filed" not in sys.modules
    model = registry.get_instance("Model")
    assert (model.size, model.part.size) == ("composed", "ruled")
    assert model.part is registry.get_instance("Part")


def test_a_rule_that_needs_documents(ws: Any, file: Any, load: Any) -> None:
    """Only a pipeline file has documents; a default is used."""
    registry = load(
        file(
            '[options]\nModel.rule = "filed.of_documents"\nPart.rule = "filed.of_some_documents"\n'
        )
    )
    assert registry.get_instance("Part").size == "none"
    with pytest.raises(ws.errors.BuildError, match="which only a pipeline file with a table"):
        registry.get_instance("Model")


@pytest.mark.parametrize("rule", ["filed.nothing", "filde.simple", "filed.number"])
def test_a_rule_that_cannot_be_imported_is_a_failed_build(
    ws: Any, file: Any, load: Any, rule: str
) -> None:
    registry = load(file(f'[options.Model]\nrule = "{rule}"\n'))
    with pytest.raises(ws.errors.BuildError):
        registry.get_instance("Model")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("[options.Model]\nkwargs = 3\n", "kwargs = 3; expected a table of keyword arguments"),
        ('[options.Model]\nrule = "simple"\n', "rule = 'simple'; expected a dotted path"),
        ('[options.Model]\nrule = "a.b"\nkwargs = {}\n', "kwargs = {}; expected kwargs or a rule"),
        ("[options.Model]\nkwarg = {}\n", "unknown kwarg = {} (nearest: 'kwargs'"),
    ],
)
def test_invalid_options(ws: Any, file: Any, options: str, text: str) -> None:
    path = file(options)
    with pytest.raises(ws.settings.SettingsError) as caught:
        ws.MethodRegistry.from_file(path)
    assert str(caught.value).startswith(f"{path}: [options.Model]: {text}")


def test_all_errors_of_a_file_can_be_read(ws: Any, file: Any) -> None:
    """With the parts that are valid."""
    path = file(
        "[options.Model]\npni = true\npin = true\nrule = 3\n[registry]\nmax_cache_size = 0\n"
        "cache_ttl_seconds = 7\n[surplus]\n[options.Nobody]\n"
    )
    loaded, errors = ws.settings_file.read_settings_file(path)
    assert [error.key for error in errors] == ["surplus", "max_cache_size", "pni", "rule", "Nobody"]
    assert loaded.settings.cache_ttl_seconds == 7.0
    assert loaded.class_options == {"Model": {"pin": True}}


def test_a_rule_of_a_file_does_not_keep_the_registry_alive(ws: Any, file: Any) -> None:
    registry = ws.MethodRegistry.from_file(file('[options.Model]\nrule = "filed.composed"\n'))
    registry.get_instance("Model")
    gc.collect()
    reference = weakref.ref(registry)
    gc.disable()
    try:
        del registry
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy])
def test_copies_of_a_registry_have_the_rules_of_its_file(ws: Any, file: Any, copied: Any) -> None:
    """A rule in a copy receives the copy, and not the registry that was copied."""
    registry = ws.MethodRegistry.from_file(
        file(
            '[options]\nModel.rule = "filed.composed"\nPart.kwargs = { tags = ["a"], size = "x" }\n'
        )
    )
    other = copied(registry)
    del registry
    gc.collect()
    model = other.get_instance("Model")
    assert model.size == "composed"
    assert model.part is other.get_instance("Part")
    assert (model.part.size, model.part.tags) == ("x", ["a"])


def test_the_settings_of_the_default_file_are_not_silently_ignored(
    ws: Any, file: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`MethodRegistry()` takes its classes; a warning names what takes the settings as well."""
    path = file("[registry]\nmax_cache_size = 7\n")
    monkeypatch.setenv("WARMSET_CONFIG", path)
    assert ws.MethodRegistry().settings.max_cache_size == 100
    assert caplog.messages == [
        f"{path}: the settings in [registry] are not those of the registry;"
        " MethodRegistry.from_file takes them"
    ]
    caplog.clear()
    assert ws.MethodRegistry(max_cache_size=7).settings.max_cache_size == 7
    assert caplog.messages == []


def test_an_executor_without_arguments_and_an_invalid_file(
    ws: Any, file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is degraded, with the reason; nothing is raised."""
    monkeypatch.setenv("WARMSET_CONFIG", file("[options.Model]\nkwargs = 3\n"))
    executor = ws.MethodExecutor()
    assert executor.degraded_mode
    assert "kwargs = 3; expected a table of keyword arguments" in executor.degraded_reasons[0]
    assert executor.execute("Model", "anything") is None


@pytest.mark.counts
def test_callables_are_given_by_their_paths(file: Any, load: Any) -> None:
    registry = load(
        file(
            "[options.Model]\nargs = ['large']\nvalidate = 'filed.alive'\n"
            "validate_interval_seconds = 0\ncloser = 'filed:shut'\n[options.Part]\ncloser='auto'"
        )
    )
    assert "filed" not in sys.modules
    instance = registry.get_instance("Model")
    assert instance.size == "large"
    instance.size = "dead"
    del instance
    assert registry.slots["Model"].options.validate_interval_seconds == 0.0
    registry.close()
    assert sys.modules["filed"].events[-1] == "shut"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("validate_interval_seconds = 3", "expected also validate"),
        ("snapshot = 'filed.alive'", "expected also restore"),
        ("closer = 'shut'", "closer = 'shut'; expected a dotted path"),
        ("validate = 3", "validate = 3; expected a dotted path"),
        ("args = 3", "args = 3; expected a list"),
        ("args = [1]\nrule = 'filed.simple'", "args or a rule, not both"),
    ],
)
def test_options_that_do_not_fit_name_the_table(
    ws: Any, file: Any, options: str, expected: str
) -> None:
    with pytest.raises(ws.SettingsError) as raised:
        ws.MethodRegistry.from_file(file(f"[options.Model]\n{options}\n"))
    assert expected in str(raised.value)
    assert "[options.Model]" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("closer = 'filed.shutt'", "closer = 'filed.shutt'"),
        ("closer = 'filed.number'", "expected a callable, not int"),
        ("validate = 'filed.later'", "no coroutine function"),
        ("args = [1, 2, 3]", "too many positional arguments"),
    ],
)
def test_check_imports_them(
    ws: Any, file: Any, capsys: pytest.CaptureFixture[str], options: str, expected: str
) -> None:
    pytest.importorskip("rich")  # of the extra `cli`
    from warmset.cli import main

    assert main(["check", file(f"[options.Model]\n{options}\n")]) == 2
    assert expected in capsys.readouterr().out
