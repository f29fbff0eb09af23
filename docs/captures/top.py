"""
Captures the screen of `warmset top` during a run of `warmset demo`: python docs/captures/top.py

`top` runs in a pseudo-terminal of 92 columns, once with a dark theme and once with a light one. As
soon as all classes are warm and one of them is held, the screen is written to this directory, as
top.txt, top-dark.svg and top-light.svg.

Needs the extras 'demo' and 'test'.
"""

# ruff: noqa: E402
from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))

from rich.console import Console
from rich.style import Style
from rich.text import Text
from terminal import Terminal, warmset

# Rich's own template loads its font from a server; this one uses the reader's fonts.
_PICTURE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect fill="BACKGROUND" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


# What a terminal shows where a program sets no colour: text, background.
THEMES = {"dark": ("#e0e0e0", "#121212"), "light": ("#1f1f1f", "#e0e0e0")}


def screen_as_svg(terminal: Terminal, theme: str) -> str:
    """Render the screen as SVG."""
    foreground, background = THEMES[theme]
    screen = terminal.screen
    console = Console(
        file=io.StringIO(), record=True, width=screen.columns, force_terminal=True,
        color_system="truecolor",
    )  # fmt: skip
    for line in range(screen.lines):
        text = Text(no_wrap=True, end="")
        cells = [screen.buffer[line][column] for column in range(screen.columns)]
        for style, run in groupby(cells, lambda cell: style_of(cell, foreground, background)):
            text.append("".join(cell.data for cell in run), style)
        console.print(text, overflow="crop")
    code = _PICTURE.replace("BACKGROUND", background)
    picture = console.export_svg(title="", code_format=code, unique_id="top")
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


def style_of(cell: Any, foreground: str, background: str) -> Style:
    """Convert the attributes of a character from the emulator to a style of rich."""
    return Style(
        color=colour(cell.fg, foreground),
        bgcolor=colour(cell.bg, background),
        bold=cell.bold,
        reverse=cell.reverse,
    )


def colour(name: str, default: str) -> str:
    """Convert the name of a colour from the emulator to rich."""
    if name == "default":
        return default
    if len(name) == 6 and all(digit in "0123456789abcdefABCDEF" for digit in name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))


def ready(screen: str) -> bool:
    """Return whether all classes are warm, one of them is held, and the keys are shown."""
    states = dict(re.findall(r"^(\w+) +(warm|held) ", screen, re.MULTILINE))
    return len(states) == 8 and "held" in states.values() and "q Quit" in screen


def captured(theme: str, variables: dict[str, str]) -> tuple[str, str]:
    """Run `top` with a theme; return its screen, as text and as SVG."""
    variables = {**variables, "TEXTUAL_THEME": f"textual-{theme}"}
    command = warmset("top", "demo", "--interval", "0.1")
    with Terminal(command, columns=92, lines=18, variables=variables) as terminal:
        terminal.until(ready)
        terminal.send(" ")
        text = terminal.until(lambda screen: "paused" in screen and ready(screen))
        picture = screen_as_svg(terminal, theme)
        terminal.send("q")
        assert terminal.end() == 0
    return text, picture


def main() -> None:
    """Run both commands and write the captured screens."""
    with tempfile.TemporaryDirectory(prefix="warmset-") as directory:
        variables = {**os.environ, "XDG_RUNTIME_DIR": directory}
        demo = subprocess.Popen(
            warmset("demo", "--serve", "--allow-changes", "--runs", "1000"),
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert demo.stderr is not None
            while "served as" not in demo.stderr.readline():
                assert demo.poll() is None, "the demo has ended"
            for theme in THEMES:
                text, picture = captured(theme, variables)
                (HERE / f"top-{theme}.svg").write_text(picture, encoding="utf-8")
        finally:
            demo.kill()
            demo.communicate()
    (HERE / "top.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
