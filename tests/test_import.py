"""Importing the package: loaded modules, the selected core, errors; in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "asyncio",
    "click",
    "dataclasses",
    "difflib",
    "enum",
    "importlib.metadata",
    "inspect",
    "logging",
    "numbers",
    "psutil",
    "re",
    "rich",
    "threading",
    "tomllib",
    "traceback",
    "typing",
)
LATER = (
    "events",
    "stats",
    "sources",
    "cli",
    "engines",
    "memory",
    "observe",
    "lifecycle",
    "share",
    "testing",
)


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that has this environment and no site packages of its own."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("WARMSET", "COV"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(params=["", "1"], ids=["default", "pure"])
def pure(request: pytest.FixtureRequest) -> str:
    """The value of WARMSET_PURE."""
    return str(request.param)


def test_the_import_is_light(pure: str) -> None:
    """No third-party package, no heavy module of the standard library, no capability."""
    code = f"""
        import sys
        before = set(sys.modules)
        import warmset
        loaded = set(sys.modules) - before
        assert not loaded & set({HEAVY!r}), sorted(loaded & set({HEAVY!r}))
        ours = {{name.split(".")[1] for name in loaded if name.startswith("warmset.")}}
        assert not ours & set({LATER!r}), ours
        foreign = {{name.partition(".")[0] for name in loaded}} - set(sys.stdlib_module_names)
        assert foreign <= {{"warmset", "org", "cython_runtime"}}, foreign
    """
    result = child(code, WARMSET_PURE=pure)
    assert result.returncode == 0, result.stderr


def test_the_compiled_core_is_the_default(request: pytest.FixtureRequest) -> None:
    """Where it is installed; the pure one is not loaded then."""
    if request.config.getoption("--pure-only"):
        pytest.skip("there is only one core in this run")
    result = child(
        """
        import sys, warmset
        assert warmset.implementation == "compiled"
        assert "warmset._core_c" in [base.__module__ for base in warmset.MethodRegistry.__mro__]
        assert "warmset._core_py" not in sys.modules
        """,
        WARMSET_REQUIRE_COMPILED="1",
    )
    assert result.returncode == 0, result.stderr


def test_the_pure_core_is_taken_on_request() -> None:
    """The compiled one is not loaded then."""
    result = child(
        """
        import sys, warmset
        assert warmset.implementation == "pure"
        assert "warmset._core_c" not in sys.modules
        """,
        WARMSET_PURE="1",
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WARMSET_PURE": "1", "WARMSET_REQUIRE_COMPILED": "1"}, "contradict each other"),
        ({"WARMSET_PURE": "yes"}, "WARMSET_PURE: expected 0 or 1, got 'yes'"),
        ({"WARMSET_REQUIRE_COMPILED": "2"}, "expected 0 or 1, got '2'"),
    ],
)
def test_bad_switches_are_errors(environment: dict[str, str], expected: str) -> None:
    """They are raised at import, and name the expected values."""
    result = child("import warmset", **environment)
    assert result.returncode != 0
    assert expected in result.stderr


MISSING = """
    import sys
    class NoCore:
        def find_spec(self, name, path=None, target=None):
            if name == "warmset._core_c":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, NoCore())
    import warmset
    print(warmset.implementation)
"""


def test_a_missing_extension_falls_back() -> None:
    """No warning is printed: the pure wheel has no extension."""
    assert child(MISSING).stdout.strip() == "pure"


def test_a_missing_extension_is_an_error_where_it_is_required() -> None:
    """The error names the other switch."""
    result = child(MISSING, WARMSET_REQUIRE_COMPILED="1")
    assert result.returncode != 0
    assert "no compiled core" in result.stderr


def test_a_broken_extension_raises() -> None:
    """It does not count as a missing one."""
    broken = MISSING.replace(
        'raise ModuleNotFoundError(f"No module named {name!r}", name=name)',
        'raise ImportError("undefined symbol")',
    )
    result = child(broken)
    assert result.returncode != 0
    assert "undefined symbol" in result.stderr


def test_a_module_missing_inside_the_extension_raises() -> None:
    """It does not count as a missing extension."""
    broken = MISSING.replace("name=name)", 'name="warmset.errors")')
    assert child(broken).returncode != 0


def test_modules_can_be_imported_alone(pure: str) -> None:
    """Without a cycle that the order of imports in the package hides."""
    for name in (
        "errors",
        "resolver",
        "settings",
        "stats",
        "builder",
        "registry",
        "executor",
        "testing",
    ):
        result = child(f"import warmset.{name}", WARMSET_PURE=pure)
        assert result.returncode == 0, result.stderr


def test_a_default_registry_without_a_table(tmp_path: Path, pure: str) -> None:
    """It is empty, and reads no file of the working directory."""
    (tmp_path / "warmset.toml").write_text('[classes]\nA = "a.A"\n')
    result = child(
        f"""
        import os, warmset
        os.chdir({str(tmp_path)!r})
        assert len(warmset.MethodRegistry()) == 0
        """,
        WARMSET_PURE=pure,
    )
    assert result.returncode == 0, result.stderr


def test_a_subinterpreter_works_or_is_refused(pure: str) -> None:
    """The pure core works there; the compiled one belongs to the interpreter that loaded it."""
    result = child(
        """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        import warmset
        code = '''if True:
            try:
                import warmset
                registry = warmset.MethodRegistry({"D": "collections.OrderedDict"})
                registry.get_instance("D")
                print("works", flush=True)
            except ImportError as error:
                print("refused:", error, flush=True)
        '''
        other = interpreters.create()
        interpreters.run_string(other, code)
        interpreters.destroy(other)
        warmset.MethodRegistry({"D": "collections.OrderedDict"}).get_instance("D")
        """,
        WARMSET_PURE=pure,
    )
    assert result.returncode == 0, result.stderr
    if pure:
        assert result.stdout == "works\n"
    else:
        assert result.stdout == "works\n" or "interpreter" in result.stdout
