"""
What `mkdocs.yml` needs beyond the pages in `docs`, as hooks of MkDocs and an extension of Griffe.

Pages that follow from code are made from it at each build: the commands and their options, the
metrics. The examples and the files beside `mkdocs.yml` become pages, so that the site is complete
without a repository to link to. In the sources their links stay those of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe
from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PROJECT_FILES = {
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "changes/README.md": "project/changes.md",
    "SECURITY.md": "project/security.md",
}
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", "": "text"}
# Where the links of a page are relative to, if that is not its place within `docs`.
SOURCES = {place: name for name, place in PROJECT_FILES.items()}
SOURCES["examples/index.md"] = "examples/README.md"
RETURNS = re.compile(r"(?<=^Returns:\n)(?: .*\n?)+", re.MULTILINE)
BAR = "\\|"
# In a table, GitHub needs a backslash before a bar within code, and Python-Markdown shows it.
ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    examples = dict(example_pages())
    pages = {
        "reference/commands.md": commands_page(),
        "reference/metrics.md": metrics_page(),
        **examples,
    }
    for name, place in PROJECT_FILES.items():
        pages[place] = (ROOT / name).read_text(encoding="utf-8")
    for place, text in pages.items():
        in_navigation = place not in examples or place == "examples/index.md"
        level = InclusionLevel.INCLUDED if in_navigation else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, place, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages."""
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = place_of(target)
        if place is not None:
            target = posixpath.relpath(place, posixpath.dirname(here) or ".")
            return f"[{text}]({target}{anchor})"
        # What is not in the site is named without a link; MkDocs finds what does not exist.
        return text if (ROOT / target).exists() else match[0]

    return ROW.sub(without_backslashes, LINK.sub(replace, markdown))


def without_backslashes(row: re.Match[str]) -> str:
    """A row of a table, with the bars within its code as Python-Markdown reads them."""
    return CODE.sub(lambda code: code[0].replace(BAR, "|"), row[0])


def place_of(target: str) -> str | None:
    """Return the place in the site of a file of the repository; None if it has none."""
    if target in PROJECT_FILES:
        return PROJECT_FILES[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if target == "examples/README.md":
        return "examples/index.md"
    if not target.startswith("examples"):
        return None
    if (ROOT / target).is_dir():
        return f"{target}/index.md"
    return f"{target}.md" if Path(target).suffix in LANGUAGES else None


# -- examples ------------------------------------------------------------------------------------


def example_pages() -> Iterator[tuple[str, str]]:
    """The programs in `examples`, a page each, and a list of them for each directory."""
    folders = {Path("examples"): "Examples"}
    shown = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "examples").rglob("*"))
        if path.is_file() and path.suffix in LANGUAGES and path.name != "__init__.py"
    ]
    for path in shown:
        folders.setdefault(path.parent, path.parent.as_posix())
        text = (ROOT / path).read_text(encoding="utf-8")
        language = LANGUAGES[path.suffix]
        yield f"{path.as_posix()}.md", f"# {path.name}\n\n````{language}\n{text}````\n"
    for folder, title in folders.items():
        readme = ROOT / folder / "README.md"
        if readme.exists():
            yield f"{folder.as_posix()}/index.md", readme.read_text(encoding="utf-8")
            continue
        lines = [f"# {title}", ""]
        lines += [
            f"- [{path.name}]({path.name}.md): {purpose(ROOT / path)}"
            for path in shown
            if path.parent == folder
        ]
        lines += [
            f"- [{other.name}]({other.name}/index.md): {purpose(ROOT / other / '__init__.py')}"
            for other in folders
            if other.parent == folder
        ]
        yield f"{folder.as_posix()}/index.md", "\n".join([*lines, ""])


def purpose(path: Path) -> str:
    """Return what a file says first about itself."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    match = re.search(r'\A(?:"""|#)\s*(.+?)(?:"""|\n\n|\n(?!#)|\Z)', text, re.DOTALL)
    return " ".join(match[1].replace("#", "").split()) if match else ""


# -- commands ------------------------------------------------------------------------------------


def commands_page() -> str:
    """The commands, with what each says about itself."""
    import click

    from warmset.cli.app import cli
    from warmset.cli.exit_codes import EXIT_CODES

    parts = [
        "# Commands",
        "Made from the commands themselves: `warmset COMMAND --help` prints the same. "
        "[The command line](../cli.md) explains them.",
    ]
    group = click.Context(cli, info_name="warmset")
    for name in cli.list_commands(group):
        command = cli.get_command(group, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=group)
        parts += [f"## warmset {name}", *command_text(command, context)]
    parts += ["## Exit statuses", "| status | meaning |\n| --- | --- |"]
    parts[-1] += "".join(f"\n| {code} | {cell(text)} |" for code, text in EXIT_CODES.items())
    return "\n\n".join(parts) + "\n"


def command_text(command: click.Command, context: click.Context) -> Iterator[str]:
    """Usage, description, options and epilog of one command."""
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield from paragraphs(command.help or "")
    records = [each.get_help_record(context) for each in command.get_params(context)]
    rows = [record for record in records if record is not None]
    yield "| option | meaning |\n| --- | --- |" + "".join(
        f"\n| `{option.replace('|', BAR)}` | {cell(meaning)} |" for option, meaning in rows
    )
    yield from paragraphs(command.epilog or "", skip="Exit status:")


def paragraphs(text: str, skip: str | None = None) -> Iterator[str]:
    """Click's paragraphs; those after its mark `\\b` keep their lines."""
    import inspect

    for part in re.split(r"\n\s*\n", inspect.cleandoc(text).strip()):
        kept = part.startswith("\b\n")
        part = part.removeprefix("\b\n")
        if not part or (skip and part.startswith(skip)):
            continue
        if kept or part.startswith("  "):
            yield f"```text\n{part}\n```"
        else:
            yield prose(" ".join(part.split()))


def cell(text: str) -> str:
    """Text within a table."""
    return prose(text).replace("|", BAR)


def prose(text: str) -> str:
    """Text in which Markdown finds nothing but code."""
    return re.sub(r"(?<!`)([\[\]<>*_])(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", r"\\\1", text)


# -- metrics -------------------------------------------------------------------------------------


def metrics_page() -> str:
    """The metrics for Prometheus, as the collector describes them."""
    from warmset import MethodRegistry
    from warmset.observe.prometheus import WarmsetCollector

    lines = [
        "# Metrics",
        "",
        "What `warmset.observe.prometheus.WarmsetCollector` exports, as it describes itself. Each "
        "has the label `registry`. [Observability](../observability.md#metrics-for-prometheus) "
        "says how to export them, and which OpenTelemetry instruments there are.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    registry = MethodRegistry({})
    for family in WarmsetCollector(registry).describe():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = [f"`{label}`" for label in family._labelnames if label != "registry"]
        lines.append(
            f"| `{name}` | {family.type} | {', '.join(labels)} | {cell(family.documentation)} |"
        )
    registry.close()
    return "\n".join([*lines, ""])


# -- docstrings ----------------------------------------------------------------------------------


class Docstrings(griffe.Extension):
    """
    Prepares docstrings for the reference.

    A class and a method without a docstring get that of the class that it inherits from: the public
    classes add names to classes that have the text, and typed overloads to methods of the core. And
    what a ``Returns`` says before a colon is text here, which Griffe would take for a type.
    """

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called when the package has been loaded."""
        seen: set[str] = set()
        pending: list[Any] = [pkg]
        while pending:
            found = pending.pop()
            for member in list(found.members.values()):
                if member.is_alias or member.path in seen:
                    continue
                seen.add(member.path)
                if member.docstring:
                    member.docstring.value = RETURNS.sub(_as_text, member.docstring.value)
                if member.is_class:
                    _inherit(member)
                if member.is_class or member.is_module:
                    pending.append(member)


def _as_text(match: re.Match[str]) -> str:
    return re.sub(r":(?=\s)(?=[^`]*(?:`[^`]*`[^`]*)*$)", "&#58;", match[0])


def _inherit(found: griffe.Class) -> None:
    try:
        bases = found.mro()
    except (ValueError, griffe.GriffeError):
        return
    if found.path in ("warmset.legacy.MethodRegistry", "warmset.legacy.MethodExecutor"):
        # Without the classes that only add the names of the pipeline.
        bases = [base for base in bases if "Args:" in getattr(base.docstring, "value", "")]
    if not found.docstring:
        found.docstring = next((base.docstring for base in bases if base.docstring), None)
    for name, member in found.members.items():
        if member.is_alias or not member.is_function or member.docstring:
            continue
        for base in bases:
            other = base.members.get(name)
            if other is not None and not other.is_alias and other.docstring:
                member.docstring = other.docstring
                break
