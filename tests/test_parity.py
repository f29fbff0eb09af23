"""The two cores are one contract: names, signatures, docstrings, error texts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from twins import load

# What users call; its docstrings are the same to the letter. Others are explained in the pure core,
# the reference, and the compiled one has their first sentence.
PUBLIC = {"get_instance", "get_method", "has_method", "use", "execute"}
CLASSES = ("RegistryCore", "ExecutorCore", "Lease", "Handle", "Slot", "Entry")
# Methods that only the pure core's calls need of its registry: the other one has them in C.
INTERNAL = {"after_release", "enter", "give_back", "leave", "look_up", "adopt", "now"}


@pytest.fixture(scope="module")
def cores(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Both cores; each is checked in every run, whichever the package has chosen."""
    if request.config.getoption("--pure-only"):
        pytest.skip("there is only one core in this run")
    return load("compiled")["warmset._core_c"], load("pure")["warmset._core_py"]


def public(cls: type) -> set[str]:
    """The names of methods."""
    return {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}


def test_both_offer_the_same_names(cores: tuple[Any, Any]) -> None:
    """Public ones in every class."""
    compiled, pure = cores
    assert compiled.__all__ == pure.__all__
    for name in CLASSES:
        one, other = public(getattr(compiled, name)), public(getattr(pure, name))
        assert one - other <= INTERNAL, name
        assert other - one <= INTERNAL, name


def test_both_have_the_same_attributes(cores: tuple[Any, Any]) -> None:
    """Those of a registry, a slot and an entry that extensions read."""
    compiled, pure = cores
    made = []
    for core in (compiled, pure):
        registry = core.RegistryCore()
        slot, _ = registry.add_slot("Name", None)
        made.append((registry, slot, core.Entry(slot)))
    for one, other in zip(*made, strict=True):
        names = {
            name
            for name in dir(one)
            if not name.startswith("_") and not callable(getattr(one, name, None))
        }
        assert names, type(one)
        missing = {name for name in names if not hasattr(other, name)}
        assert missing == set(), type(one)


def test_both_have_the_same_signatures_and_docstrings(cores: tuple[Any, Any]) -> None:
    """To the letter."""
    compiled, pure = cores
    checked = 0
    for cls in CLASSES:
        one, other = getattr(compiled, cls), getattr(pure, cls)
        assert inspect.getdoc(one) == inspect.getdoc(other), cls
        for name in public(one) - INTERNAL:
            mine, reference = getattr(one, name), getattr(other, name)
            if not callable(reference):
                continue
            doc = inspect.getdoc(reference) or ""
            if name not in PUBLIC:
                doc = doc.split("\n\n")[0]
            assert (inspect.getdoc(mine) or "").strip() == doc, f"{cls}.{name}"
            described = [
                [(p.name, p.kind, p.default) for p in signature.parameters.values()][1:]
                for signature in (inspect.signature(mine), inspect.signature(reference))
            ]
            names = [[name for name, _, _ in parameters] for parameters in described]
            assert names[0] == names[1], f"{cls}.{name}"
            assert described[0] == described[1], f"{cls}.{name}"
            checked += 1
    assert checked >= 7


def test_every_public_docstring_begins_with_a_sentence(ws: Any) -> None:
    """In the classes of the public interface."""
    for cls in (ws.MethodRegistry, ws.MethodExecutor):
        for name in public(cls):
            member = inspect.getattr_static(cls, name)
            doc = inspect.getdoc(getattr(cls, name))
            assert doc, f"{cls.__name__}.{name}"
            if not isinstance(member, property):
                assert doc.split("\n")[0].endswith("."), f"{cls.__name__}.{name}"
        assert inspect.getdoc(cls)


def test_errors_survive_pickling(ws: Any) -> None:
    """They cross process borders with all their fields."""
    import pickle

    for error in (
        ws.MethodRegistryError("m", class_name="A", class_path="a.A"),
        ws.UnknownClassError("A", ["B"]),
        ws.ClassImportError("m", class_name="A"),
        ws.errors.ExecuteBuildError("m", class_name="A"),
        ws.MethodNotFoundError("m", method_name="x", class_name="A"),
        ws.CycleError(["A", "B", "A"]),
        ws.CapacityError("m", class_name="A"),
        ws.BuildTimeoutError("A", "a.A", builder="t", seconds=1.0),
        ws.ArgumentValidationError("A", "m", missing=["x"], mistyped={"y": "expected int"}),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
