"""Families of a file: ``[families.NAME]``."""

from __future__ import annotations

import asyncio
import gc
import importlib
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
class Model:
    def __init__(self, key, size="small", *, tags=None):
        self.key, self.size, self.tags = key, size, tags


def load(key, size="small", tags=None):
    return Model(key, size, tags=tags)


async def load_later(key):
    return Model(key, "later")


def stream(key):
    yield Model(key, "streamed")
    closed.append(key)


closed = []
number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that writes a settings file, with its factories importable."""
    with settings_files.writing(tmp_path, monkeypatch, MODULE) as write:
        yield write


load = settings_files.load


def family(factory: str, more: str = "") -> str:
    return f'[families.Model]\nfactory = "filed.{factory}"\n{more}\n'


@pytest.mark.parametrize("factory", ["Model", "load", "stream"])
def test_a_family_of_a_class_a_function_and_a_generator(
    ws: Any, file: Any, load: Any, factory: str
) -> None:
    registry = load(file(family(factory, "max_cache_size = 2\ncache_ttl_seconds = 60")))
    assert "filed" not in sys.modules
    key = ws.FamilyKey("Model", "fr")
    assert registry.get_instance(key).key == "fr"
    models = registry.family("Model")
    assert list(models) == ["fr"]
    for each in ("de", ("it", 1)):
        assert models.get(each).key == each
    assert list(models) == ["de", ("it", 1)]
    registry.close()


def test_the_code_after_the_yield_runs(file: Any, load: Any) -> None:
    registry = load(file(family("stream")))
    with registry.family("Model").use("fr"):
        pass
    registry.close()
    assert sys.modules["filed"].closed == ["fr"]


def test_an_asynchronous_factory(ws: Any, file: Any, load: Any) -> None:
    registry = load(file(family("load_later")))

    async def use() -> Any:
        aio = importlib.import_module("warmset.aio")
        executor = aio.AsyncMethodExecutor(registry)
        async with executor.use(ws.FamilyKey("Model", "fr")) as one:
            async with executor.use(ws.FamilyKey("Model", "fr")) as other:
                assert one is other
            return one.size

    assert asyncio.run(use()) == "later"
    registry.close()


def test_arguments_are_copied_for_each_key(file: Any, load: Any) -> None:
    options = 'args = ["large"]\nkwargs = { tags = ["a"] }'
    models = load(file(family("load", options))).family("Model")
    one, other = models.get("fr"), models.get("de")
    assert (one.size, one.tags) == ("large", ["a"])
    one.tags.append("b")
    assert other.tags == ["a"]
    assert models.get_method("fr", "__init__") is not None


def test_a_file_with_families_can_be_pickled_and_its_registry_too(ws: Any, file: Any) -> None:
    from warmset.settings_file import load_settings_file

    path = file(family("load", 'kwargs = { tags = ["a"] }'))
    loaded = load_settings_file(path)
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    assert loaded.families["Model"]["factory"] == "filed.load"
    registry = ws.MethodRegistry.from_file(path)
    copied = pickle.loads(pickle.dumps(registry))
    assert copied.family("Model").get("fr").tags == ["a"]


def test_the_registry_is_not_kept_alive(file: Any, load: Any) -> None:
    registry = load(file(family("load", 'kwargs = { tags = ["a"] }')))
    gone = weakref.ref(registry)
    del registry
    gc.collect()
    assert gone() is None


def test_a_family_that_no_file_declares_is_unknown(ws: Any, file: Any, load: Any) -> None:
    registry = load(file(family("load")))
    with pytest.raises(ws.UnknownClassError, match=r"no family, .*nearest: 'Model'"):
        registry.family("Modle")
    with pytest.raises(TypeError, match="target of 'Model'"):
        registry.family("Model", max_cache_size=3)


@pytest.mark.parametrize(
    ("text", "table", "expected"),
    [
        ("[families.Model]", "families.Model", "no 'factory'"),
        ("families = 3", "families", "expected a table"),
        ("[families]\nModel = 'filed.load'", "families.Model", "expected a table"),
        (family("load", "max_cache_size = 0"), "families.Model", "max_cache_size = 0"),
        (family("load", "max_cache_size = 'auto'"), "families.Model", "whole number, 1 or more"),
        (family("load", "pin = true"), "families.Model", "unknown pin"),
        (family("load", "max_cache_sise = 3"), "families.Model", "nearest: 'max_cache_size'"),
        (family("load", "args = 3"), "families.Model", "a list of positional arguments"),
        (family("load", "kwargs = 3"), "families.Model", "a table of keyword arguments"),
        (family("load", "priority = 'high'"), "families.Model", "a whole number"),
        ("[families.Model]\nfactory = 'load'", "families.Model", "dotted path"),
        (family("load") + "[options.Model]\npriority = 3", "options", "[families.Model]"),
        (family("load") + "[classes]\nModel = 'filed.Model'", "families", "that no class has"),
    ],
)
def test_errors_name_file_and_table(
    ws: Any, file: Any, text: str, table: str, expected: str
) -> None:
    path = file(text)
    with pytest.raises(ws.SettingsError) as raised:
        ws.MethodRegistry.from_file(path)
    assert expected in str(raised.value)
    assert raised.value.table == table
    assert path in str(raised.value)


def test_what_is_no_factory_is_an_error_of_the_build(ws: Any, file: Any, load: Any) -> None:
    models = load(file(family("number"))).family("Model")
    with pytest.raises(ws.NotAClassError, match="expected a class or a factory, got int 3"):
        models.get("fr")


def test_workers_get_the_families_of_a_file(file: Any) -> None:
    from warmset.engines.settings import WorkerSettings

    path = file(
        family("load", "max_cache_size = 1"),
        '[classes]\nRuled = "filed.Model"\n[options.Ruled]\nrule = "filed.load"\n',
    )
    settings = pickle.loads(pickle.dumps(WorkerSettings.from_file(path)))
    with settings.make_registry() as registry:
        assert registry.family("Model").get("fr").key == "fr"
        assert registry.get_instance("Ruled").key is sys.modules["filed"].Model
