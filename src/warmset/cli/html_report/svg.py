"""
Converts figures of matplotlib to SVG elements that use the colours and the font of the page.

A figure is drawn in placeholder colours, which are replaced by variables of the page's style sheet,
so that one drawing works in light and dark mode and in print.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ...codes import CAUSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "embedded_svg"]

_ROLES = ("ink", "muted", "grid", "paper", "rss", "peak", "bound", "hits", "build", "warm")
_CAUSES = tuple(f"cause-{at}" for at in range(CAUSES))
# Role of a colour -> its placeholder; figures must not use other colours.
COLOURS = {role: f"#0101{at:02x}" for at, role in enumerate(_ROLES + _CAUSES, 1)}
_VARIABLES = {placeholder: f"var(--{role})" for role, placeholder in COLOURS.items()}

_PLACEHOLDER = re.compile("|".join(_VARIABLES))
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_FONT = re.compile(r"font:[^;]*?([\d.]+px)[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_HREF = "{http://www.w3.org/1999/xlink}href"


def embedded_svg(figure: Figure, plot: str, width: str, title: str, description: str) -> str:
    """
    Convert a figure to an ``<svg>`` element.

    Args:
        figure: The figure, drawn in `COLOURS`.
        plot: The name of the plot. Together with `width`, it is the prefix of all ids in the
            element, and must be unique in the page.
        width: "wide" or "narrow"; also the class of the element.
        title: The accessible name.
        description: The accessible description.

    Returns:
        The element, without declarations, style sheets, or references to anything outside it.
    """
    name = f"{plot}-{width}"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    # The input is trusted, because matplotlib wrote it.
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    referenced = {
        match
        for element in root.iter()
        for value in element.attrib.values()
        for match in re.findall(r"^#([\w.-]+)$|url\(#([\w.-]+)\)", value)
        for match in match
    }
    for element in root.iter():
        element.tag = _local(element.tag)
        element.tail = None
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.attrib = {
            key: value
            for key, value in (
                _attribute(key, value, name, referenced) for key, value in element.attrib.items()
            )
            if value
        }
    root.attrib = {
        "class": width,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        heading = ElementTree.Element(tag)
        heading.set("id", f"{name}-{'title' if tag == 'title' else 'description'}")
        heading.text = text
        root.insert(position, heading)
    return ElementTree.tostring(root, encoding="unicode")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _attribute(key: str, value: str, name: str, referenced: set[str]) -> tuple[str, str]:
    if key == "id":
        return key, f"{name}-{value}" if value in referenced else ""
    if key == _HREF:
        return "href", f"#{name}-{value[1:]}"
    if key == "clip-path":
        return key, value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = _FAMILY.sub("", _FONT.sub(r"font-size: \1", value))
        return key, _PLACEHOLDER.sub(lambda match: _VARIABLES[match[0]], value)
    if key == "transform" and value.startswith("rotate(-0 "):
        return key, ""
    # Hundredths of a pixel are not visible.
    value = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.1f}", value)
    return key, " ".join(value.split())
