"""Every example in README and docs runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import policy_pipeline
import pytest

from warmset.engines.errors import EngineError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of each block of a language."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start()) + 1, match[2])
        for match in BLOCK.finditer(text)
        if match[1] == language
    ]


# Pages that `ci/docs_pages.py` makes.
MADE = ("commands.md", "metrics.md")
# Extras that the examples of a page need.
NEEDED = {
    "README.md": ("fastapi",),
    "docs/serving.md": ("fastapi", "flask"),
    "docs/workers.md": ("celery",),
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_run(
    ws: Any, page: Path, tmp_path: Path, place: str, monkeypatch: Any
) -> None:
    """In the order of the page, in one namespace."""
    for package in NEEDED.get(name_of(page), ()):
        pytest.importorskip(package)
    policy_pipeline.forget()
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for line, text in blocks(page, "python"):
        exec(compile("\n" * line + text, str(page), "exec"), namespace)


def test_there_are_examples() -> None:
    """A page that lost its blocks would pass without running anything."""
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_examples_are_valid(ws: Any, page: Path, tmp_path: Path) -> None:
    """Settings files load; pipeline files are read by the command's own reader."""
    for _, text in blocks(page, "toml"):
        name = text.partition("\n")[0].removeprefix("# ").strip()
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        if "[[steps]]" in text:
            from warmset.cli.pipeline_file import load_pipeline

            assert load_pipeline(path).steps
        else:
            registry = ws.MethodRegistry.from_file(path)
            assert len(registry) + len(registry.families) > 0


def test_links_between_pages_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if target.removeprefix("../") in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
                continue  # not among the files that the suite gets
            if name_of(page) != "README.md" and target.rpartition("/")[2] in MADE:
                continue  # made when the site is built, which checks these links
            assert (page.parent / target).exists(), f"{name_of(page)}: {target}"


def resolve(path: str) -> Any:
    """The object at a dotted path; what an import of it raises is not hidden."""
    module, *names = path.split(".")
    found: Any = importlib.import_module(module)
    for name in names:
        module = f"{module}.{name}"
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(module)
    return found


def test_the_reference_names_what_exists() -> None:
    """A member that is misspelt or gone would be left out of the page."""
    found = 0
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^::: (\S+)\n((?:    .*\n)*)", text, re.MULTILINE):
            path, options = match[1], match[2]
            try:
                target = resolve(path)
            except (ModuleNotFoundError, EngineError) as error:
                if (getattr(error, "name", None) or "").startswith("warmset"):
                    raise
                continue  # an extra that is not installed here
            found += 1
            listed = re.search(r"members:(.*(?:\n +- .*)*)", options)
            for name in re.findall(r"\w+", listed[1]) if listed else ():
                assert name == "false" or hasattr(target, name), f"{path}: {name}"
    assert found > 20


def test_the_reference_has_all_public_names(ws: Any) -> None:
    """What `warmset` exports, and the methods of the registry and the executors."""
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")]
    listed = "\n".join(texts)
    for name in ws.__all__:
        assert re.search(rf"\b{name}\b", listed) or name == "__version__", name


def test_the_description_of_the_package_has_no_relative_links() -> None:
    """On the page of a package index they would lead nowhere."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^readme = "(.+)"$', project, re.MULTILINE)
    assert match is not None
    text = (ROOT / match[1]).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://"), target


def test_the_page_on_settings_has_all_of_them(ws: Any) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name in ws.setting_table.REGISTRY_DEFAULTS:
        assert f"`{name}`" in page or f"`{name} " in page, name


def test_the_page_on_evictions_has_all_causes(ws: Any) -> None:
    page = (ROOT / "docs" / "CACHE_EVICTION_POLICY.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z]+)` \|.*\| (yes|no) \|$", page, re.MULTILINE))
    assert rows == {
        cause.name: "yes" if cause.evicted else "no" for cause in ws.events.RemovalCause
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It says who leaves,\nand what left.", ["who leaves", "what left"]),
        ("Nobody holds it. The listener is told.", ["Nobody holds it", "is told"]),
        ("It made\nroom before the landing.", ["made room", "landing"]),
        ("single flight; what left open; classroom", []),
    ],
)
def test_the_check_of_wordings(text: str, found: list[str], monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    wordings = importlib.import_module("check_wording")
    assert [wording for _, wording, _ in wordings.findings(text)] == found
