"""Tests of names, class paths, imports and their error messages."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Hostile(str):
    """A str subclass whose methods all raise."""

    __slots__ = ()

    def _boom(self, *args: object) -> Any:
        raise AssertionError("code of the subclass ran")

    __str__ = __repr__ = __format__ = __hash__ = __eq__ = __ne__ = __lt__ = _boom
    __getitem__ = __iter__ = __len__ = __contains__ = __add__ = __mod__ = __mul__ = _boom
    __getattribute__ = __reduce_ex__ = __sizeof__ = __bool__ = __getnewargs__ = _boom
    isidentifier = startswith = casefold = strip = join = _boom


class Liar:
    """An object that claims to be a str through `__class__`."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str

    def __repr__(self) -> str:
        return "<liar>"


class Mute:
    """An object whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Create importable modules, and remove them from `sys.modules` afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            path = tmp_path.joinpath(*name.split("__"))
            if f"{name}__" in " ".join(sources):
                path /= "__init__"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) or name.startswith("t_"):
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(tmp_path)) or name.startswith("t_"):
                del sys.modules[name]


# -- names -----------------------------------------------------------------------------------------


def test_a_valid_name_is_returned(ws: Any) -> None:
    assert ws.resolver.check_name("Tagger") == "Tagger"


def test_a_str_subclass_becomes_an_exact_str_without_running_its_code(ws: Any) -> None:
    name = ws.resolver.check_name(Hostile("Tagger"))
    assert type(name) is str
    assert name == "Tagger"


@pytest.mark.parametrize("text", ["a", "é", "日本", "\U0001f600", "x" * 10_000, "a\x00b"])
def test_a_str_subclass_keeps_its_characters(ws: Any, text: str) -> None:
    name = ws.resolver.check_name(Hostile(text))
    assert type(name) is str
    assert name == text


@pytest.mark.parametrize("value", [None, 3, 2.5, b"Tagger", ["Tagger"], str, object, ("a",)])
def test_a_name_that_is_not_a_str_raises(ws: Any, value: object) -> None:
    with pytest.raises(TypeError, match="must be a str") as caught:
        ws.resolver.check_name(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("make_value", [Liar, functools.partial(mock.Mock, spec=str), Mute])
def test_a_name_that_only_claims_to_be_a_str_raises(ws: Any, make_value: Any) -> None:
    with pytest.raises(TypeError, match="a class name must be a str"):
        ws.resolver.check_name(make_value())


@pytest.mark.parametrize("kind", [str, Hostile])
def test_an_empty_name_raises(ws: Any, kind: Any) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        ws.resolver.check_name(kind(""))


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_path", "path"),
    [
        ("m.C", "m.C"),
        ("pkg.module.Class", "pkg.module.Class"),
        ("pkg.module:Class", "pkg.module.Class"),
        ("pkg.module:Outer.Inner", "pkg.module.Outer.Inner"),
        ("pkg:Class", "pkg.Class"),
        ("_p._m._C", "_p._m._C"),
        ("pkg.match.type", "pkg.match.type"),
        ("pkg.größe.Klasse", "pkg.größe.Klasse"),
        ("__main__.C", "__main__.C"),
    ],
)
def test_a_valid_path_is_normalised(ws: Any, given_path: str, path: str) -> None:
    assert ws.resolver.check_path("X", given_path) == path


def test_a_path_of_a_str_subclass_becomes_an_exact_str(ws: Any) -> None:
    path = ws.resolver.check_path("X", Hostile("pkg.module:Class"))
    assert type(path) is str
    assert path == "pkg.module.Class"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("", "empty"),
        ("Class", "no dot"),
        (".Class", "relative"),
        ("..pkg.Class", "relative"),
        (":Class", "relative"),
        (".", "relative"),
        ("pkg.", "'' is not an identifier"),
        ("pkg:", "'' is not an identifier"),
        ("pkg..Class", "'' is not an identifier"),
        ("pkg.mod:A:B", "'A:B' is not an identifier"),
        ("pkg.mod.2C", "'2C' is not an identifier"),
        ("pkg.my-mod.C", "'my-mod' is not an identifier"),
        (" pkg.C", "' pkg' is not an identifier"),
        ("pkg.C\n", "is not an identifier"),
        ("pkg/mod.C", "'pkg/mod' is not an identifier"),
        ("m.f.<locals>.C", "'<locals>' is not an identifier"),
        ("pkg.class.C", "'class' is a keyword"),
        ("pkg.None", "'None' is a keyword"),
        ("pkg.\udc80", "is not an identifier"),
        ("pkg.C\x00", "is not an identifier"),
    ],
)
def test_a_malformed_path_raises(ws: Any, path: str, fault: str) -> None:
    with pytest.raises(ws.errors.ClassPathError) as caught:
        ws.resolver.check_path("Tagger", path)
    error = caught.value
    assert fault in str(error)
    assert "'Tagger'" in str(error)
    assert "package.module.Class" in str(error)
    assert (error.class_name, error.class_path, error.stage) == ("Tagger", path, "path")


@pytest.mark.parametrize("value", [None, 3, b"pkg.C", ["pkg.C"], dict, Liar, Mute])
def test_a_path_that_is_not_a_str_raises(ws: Any, value: Any) -> None:
    value = value() if value in (Liar, Mute) else value
    with pytest.raises(TypeError, match="'Tagger' must be a str"):
        ws.resolver.check_path("Tagger", value)


def test_the_message_for_a_long_path_is_truncated(ws: Any) -> None:
    with pytest.raises(ws.errors.ClassPathError) as caught:
        ws.resolver.check_path("X", "pkg." + "-" * 100_000)
    assert len(str(caught.value)) < 1_000


@FUZZ
@given(text=st.text(max_size=30) | st.from_regex(r"[a-c.:_ -]{0,12}", fullmatch=True))
def test_any_path_is_normalised_or_raises(ws: Any, text: str) -> None:
    try:
        path = ws.resolver.check_path("X", text)
    except ws.errors.ClassPathError:
        return
    assert path == text.replace(":", ".")
    assert len(path.split(".")) > 1
    assert all(part.isidentifier() for part in path.split("."))
    assert ws.resolver.check_path("X", path) == path


# -- suggestions and messages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Tager", ["Tagger"]),
        ("tagger", ["Tagger"]),
        ("TAGGER", ["Tagger"]),
        ("ttl", ["cache_ttl_seconds"]),
        ("zzz", []),
        ("", []),
        ("q", []),
    ],
)
def test_near_names(ws: Any, name: str, near: list[str]) -> None:
    names = ["Tagger", "Embedder", "cache_ttl_seconds"]
    assert ws.resolver.near_names(name, names) == near


def test_near_names_are_limited(ws: Any) -> None:
    assert len(ws.resolver.near_names("name", (f"name{i}" for i in range(10**6)))) == 3


def test_safe_repr_and_error_text_accept_any_object(ws: Any) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert ws.resolver.safe_repr(Mute()) == "<unprintable Mute>"
    assert ws.resolver.safe_repr("x" * 1_000).endswith("...")
    assert len(ws.resolver.safe_repr("x" * 1_000)) == 200
    assert len(ws.resolver.safe_repr(10**10_000)) <= 200
    assert ws.resolver.error_text(SilentError()) == "SilentError: <unprintable>"
    assert ws.resolver.error_text(ValueError()) == "ValueError"
    assert ws.resolver.error_text(ValueError("why")) == "ValueError: why"
    assert len(ws.resolver.error_text(ValueError("x" * 10_000))) == 500


# -- successful resolution -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "cls"),
    [
        ("collections.OrderedDict", __import__("collections").OrderedDict),
        ("email.message.Message", __import__("email.message").message.Message),
        ("builtins.dict", dict),
        ("types:SimpleNamespace", types.SimpleNamespace),
        ("os.path.os.PathLike", __import__("os").PathLike),
    ],
)
def test_class_of_a_module(ws: Any, path: str, cls: type) -> None:
    assert ws.resolver.resolve("X", path) is cls


def test_inner_class(ws: Any, make: Any) -> None:
    make(
        t_in="class A:\n class B:\n  class C: pass",
        t_pk="class P:\n class Q: pass",
        t_pk__m="class A:\n class B: pass",
    )
    assert ws.resolver.resolve("X", "t_in.A.B.C").__qualname__ == "A.B.C"
    assert ws.resolver.resolve("X", "t_in:A.B").__qualname__ == "A.B"
    assert ws.resolver.resolve("X", "t_pk.P.Q").__qualname__ == "P.Q"
    assert ws.resolver.resolve("X", "t_pk.m.A.B").__qualname__ == "A.B"


def test_a_module_takes_precedence_over_an_attribute(ws: Any, make: Any) -> None:
    make(t_w="class m:\n class C: 'attribute'", t_w__m="class C: 'module'")
    assert ws.resolver.resolve("X", "t_w.m.C").__doc__ == "module"


def test_class_with_a_metaclass(ws: Any, make: Any) -> None:
    make(t_meta="class M(type): pass\nclass C(metaclass=M): pass")
    assert ws.resolver.resolve("X", "t_meta.C").__name__ == "C"


def test_a_module_is_imported_once_and_the_resolver_has_no_cache(ws: Any, make: Any) -> None:
    make(t_once="class C: pass")
    first = ws.resolver.resolve("X", "t_once.C")
    assert ws.resolver.resolve("Y", "t_once.C") is first
    del sys.modules["t_once"]
    assert ws.resolver.resolve("X", "t_once.C") is not first


def test_a_class_from_a_lazy_attribute(ws: Any, make: Any) -> None:
    make(
        t_lazy="""
        def __getattr__(name):
            if name == "C":
                from t_lazy.impl import C
                return C
            raise AttributeError(name)
        """,
        t_lazy__impl="class C: pass",
    )
    assert ws.resolver.resolve("X", "t_lazy.C").__module__ == "t_lazy.impl"


# -- import errors ---------------------------------------------------------------------------------


def fails(ws: Any, error: str, path: str) -> Any:
    """Resolve a path that fails, and check the common parts of the error."""
    with pytest.raises(getattr(ws.errors, error)) as caught:
        ws.resolver.resolve("Tagger", path)
    assert type(caught.value).__name__ == error
    assert "'Tagger'" in str(caught.value)
    assert path in str(caught.value)
    assert caught.value.class_name == "Tagger"
    assert caught.value.class_path == path
    return caught.value


@pytest.mark.parametrize(
    "path", ["t_absent.C", "t_absent.mod.C", "t_absent.mod.Outer.Inner", "t_absent.a.b.c.D"]
)
def test_missing_top_level_module(ws: Any, path: str) -> None:
    error = fails(ws, "ClassImportError", path)
    assert "No module named 't_absent'" in str(error)
    assert type(error.__cause__) is ModuleNotFoundError


def test_missing_module_in_a_package(ws: Any, make: Any) -> None:
    make(t_p="", t_p__tagging="class C: pass", t_p__deep="", t_p__deep__mod="class C: pass")
    error = fails(ws, "ClassImportError", "t_p.taging.C")
    assert "package 't_p' has no module and no attribute 'taging'; nearest: 'tagging'" in str(error)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    error = fails(ws, "ClassImportError", "t_p.deep.mood.C")
    assert "package 't_p.deep'" in str(error)
    assert "'mod'" in str(error)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import t_missing_dependency", "No module named 't_missing_dependency'"),
        ("from t_b import nothing", "ImportError: cannot import name 'nothing'"),
        ("raise ImportError('no GPU')", "ImportError: no GPU"),
        ("raise ModuleNotFoundError('install the extra')", "install the extra"),
        ("raise ModuleNotFoundError('install the extra', name=__name__)", "install the extra"),
        ("raise ModuleNotFoundError('odd', name='t_a')", "odd"),
        ("raise ModuleNotFoundError('odd', name=7)", "odd"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import warnings; warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class E(Exception):\n __str__ = None\nraise E", "E: <unprintable>"),
        ("import t_a.b.c", "No module named 't_a.b.c'"),
    ],
)
@pytest.mark.parametrize("path", ["t_a.b.C", "t_a.b.Outer.Inner"])
def test_a_failing_module(ws: Any, make: Any, source: str, told: str, path: str) -> None:
    make(t_a="", t_a__b=source, t_b="")
    error = fails(ws, "ClassImportError", path)
    assert told in str(error)
    assert "t_a.b" in str(error)
    assert isinstance(error.__cause__, Exception)
    assert error.stage == "import"


@pytest.mark.parametrize(
    "source",
    ["import t_k.mod", "raise ModuleNotFoundError('odd', name='t_k.mod')", "import t_gone"],
)
def test_a_failing_package_is_reported(ws: Any, make: Any, source: str) -> None:
    make(t_k=source, t_k__other="")
    error = fails(ws, "ClassImportError", "t_k.mod.C")
    assert "t_k" in str(error)
    assert isinstance(error.__cause__, ModuleNotFoundError)


def test_a_blocked_module(ws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "t_blocked", None)
    assert "t_blocked" in str(fails(ws, "ClassImportError", "t_blocked.C"))


def test_a_missing_module_is_found_after_it_is_created(ws: Any, make: Any) -> None:
    fails(ws, "ClassImportError", "t_later.C")
    make(t_later="class C: pass")
    assert ws.resolver.resolve("X", "t_later.C").__name__ == "C"


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GeneratorExit"])
def test_an_interrupt_propagates(ws: Any, make: Any, kind: str) -> None:
    make(
        t_stop=f"raise {kind}",
        t_stop_late=f"def __getattr__(name):\n raise {kind}",
    )
    for path in ("t_stop.C", "t_stop.A.B", "t_stop_late.C"):
        with pytest.raises(getattr(__import__("builtins"), kind)):
            ws.resolver.resolve("X", path)


# -- missing attributes and objects that are not classes -------------------------------------------


def test_missing_attribute(ws: Any, make: Any) -> None:
    make(t_attr="class Tagger: pass\nclass _Tagged: pass")
    error = fails(ws, "ClassAttributeError", "t_attr.Tager")
    assert "module 't_attr' has no attribute 'Tager'; nearest: 'Tagger'" in str(error)
    assert "_Tagged" not in str(error)
    assert isinstance(error.__cause__, AttributeError)
    assert error.stage == "attribute"


def test_missing_inner_class(ws: Any, make: Any) -> None:
    make(t_attr="class Outer:\n class Inner: pass")
    error = fails(ws, "ClassAttributeError", "t_attr.Outer.Iner")
    assert "class 't_attr.Outer' has no attribute 'Iner'; nearest: 'Inner'" in str(error)
    error = fails(ws, "ClassAttributeError", "t_attr.Outr.Inner")
    assert "module 't_attr' has no attribute 'Outr'; nearest: 'Outer'" in str(error)


def test_a_missing_attribute_without_suggestions(ws: Any, make: Any) -> None:
    make(t_attr="class Tagger: pass")
    assert str(fails(ws, "ClassAttributeError", "t_attr.Zzz")).endswith("no attribute 'Zzz'")


@pytest.mark.parametrize("source", ["def __dir__(): 1 / 0", "def __dir__(): return [3, 'Tagger']"])
def test_a_missing_attribute_with_an_unusual_dir(ws: Any, make: Any, source: str) -> None:
    make(t_attr=source)
    fails(ws, "ClassAttributeError", "t_attr.Tager")


@pytest.mark.parametrize(
    ("raised", "error", "told"),
    [
        ("ImportError('no GPU')", "ClassImportError", "no GPU"),
        ("ModuleNotFoundError('gone', name='t_g')", "ClassImportError", "gone"),
        ("KeyError(name)", "ClassAttributeError", "KeyError: 'C'"),
        ("RuntimeError('broken')", "ClassAttributeError", "RuntimeError: broken"),
        ("AttributeError(name)", "ClassAttributeError", "has no attribute 'C'"),
    ],
)
def test_module_getattr_that_raises(ws: Any, make: Any, raised: str, error: str, told: str) -> None:
    make(t_g=f"def __getattr__(name): raise {raised}")
    failure = fails(ws, error, "t_g.C")
    assert told in str(failure)
    assert type(failure.__cause__).__name__ == raised.partition("(")[0]


def test_module_getattr_with_an_unrelated_error(ws: Any, make: Any) -> None:
    make(t_g="import sys\ndef __getattr__(name): return sys.no_such_thing")
    error = fails(ws, "ClassAttributeError", "t_g.C")
    assert "no_such_thing" in str(error)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("functools.partial.func", "member_descriptor"),
        ("functools.reduce", "builtin_function_or_method"),
        ("os.path", "module"),
        ("sys.maxsize", "int"),
        ("typing.Any.x", None),
    ],
)
def test_an_object_that_is_not_a_class(ws: Any, path: str, what: str | None) -> None:
    if what is None:
        fails(ws, "ClassAttributeError", path)
    else:
        assert f"expected a class, got {what} " in str(fails(ws, "NotAClassError", path))


def test_an_object_that_only_claims_to_be_a_class(ws: Any, make: Any) -> None:
    make(
        t_odd="""
        from unittest.mock import Mock
        A = list[int]
        B = Mock(spec=type)
        class C:
            def __repr__(self): raise RuntimeError
        c = C()
        """
    )
    for name in "ABc":
        fails(ws, "NotAClassError", f"t_odd.{name}")


def test_a_module_instead_of_a_class(ws: Any, make: Any) -> None:
    make(t_m="", t_m__mod="class C: pass")
    assert "'t_m.mod' is a module" in str(fails(ws, "NotAClassError", "t_m.mod"))
    ws.resolver.resolve("X", "t_m.mod.C")
    assert "got module" in str(fails(ws, "NotAClassError", "t_m.mod"))


def test_suggestions_for_a_package_include_its_modules(ws: Any, make: Any) -> None:
    make(t_m="class Tagger: pass", t_m__scoring="")
    assert "nearest: 'scoring'" in str(fails(ws, "ClassAttributeError", "t_m.Scorin"))
    assert "nearest: 'Tagger'" in str(fails(ws, "ClassAttributeError", "t_m.Tager"))


@pytest.mark.parametrize(("path", "error"), [("Class", "ClassPathError"), (7, "TypeError")])
def test_resolve_checks_the_path(ws: Any, path: object, error: str) -> None:
    with pytest.raises(getattr(ws.errors, error, TypeError)):
        ws.resolver.resolve("X", path)


@FUZZ
@given(parts=st.lists(st.sampled_from(["os", "path", "json", "C", "decoder", "x"]), min_size=2))
def test_any_path_resolves_or_raises_a_registry_error(ws: Any, parts: list[str]) -> None:
    path = ".".join(parts)
    try:
        found = ws.resolver.resolve("X", path)
    except ws.errors.MethodRegistryError as error:
        refusal = error
    else:
        assert isinstance(found, type)
        return
    assert refusal.class_path == path


# -- imports ---------------------------------------------------------------------------------------

FORBIDDEN = (
    "typing", "dataclasses", "inspect", "logging", "re", "tomllib", "tomli", "pathlib",
    "importlib.metadata", "difflib", "collections",
)  # fmt: skip


@pytest.mark.parametrize("name", ["resolver", "settings", "sources"])
def test_import_is_light(ws: Any, name: str) -> None:
    # In an empty package, because the imports of `warmset/__init__.py` have their own test.
    code = f"""
    import sys
    package = type(sys)("warmset")
    package.__path__ = [{str(Path(ws.resolver.__file__).parent)!r}]
    sys.modules["warmset"] = package
    before = set(sys.modules)
    import warmset.{name}
    print(*sorted(set(sys.modules) - before))
    """
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    loaded = run.stdout.split()
    assert f"warmset.{name}" in loaded
    assert not set(loaded) & set(FORBIDDEN)
    assert all(module.startswith("warmset.") for module in set(loaded) - {"__future__"})
