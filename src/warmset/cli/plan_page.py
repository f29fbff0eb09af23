"""
A forecast as a self-contained HTML page: no network access, no script, no other file.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from warmset._text import printable

from .line_chart import Line, line_chart
from .plan_text import bound_text, forecast_lines, forecast_rows

if TYPE_CHECKING:
    from warmset.planning.forecast import Forecast

__all__ = ["make_plan_page"]


def make_plan_page(file: str, forecast: Forecast) -> str:
    """
    Render a forecast.

    Args:
        file: The name of the file that was replayed.
        forecast: The forecast.

    Returns:
        A page with the chart, the table and the findings.
    """
    style = (files(__package__) / "html_report" / "page.css").read_text(encoding="utf-8")
    marks = [(float(forecast.recommended.bound), "smallest within 5 %")]
    if forecast.given is not None and forecast.given != forecast.recommended.bound:
        marks.append((float(forecast.given), "given"))

    def x_text(bound: float) -> str:
        return bound_text(forecast.setting, round(bound))

    points = [(float(row.bound), row.build_seconds) for row in forecast.rows]
    chart = "".join(
        line_chart(
            [Line("build seconds", points)],
            title="Predicted build seconds by bound",
            x_label=forecast.setting,
            y_label="build seconds",
            x_text=x_text,
            marks=marks,
            width=width,
            class_name=class_name,
        )
        for class_name, width in (("wide", 780), ("narrow", 400))
    )
    headings, rows = forecast_rows(forecast)
    head = "".join(f'<th scope="col">{_text(heading)}</th>' for heading in headings)
    body = "\n".join(
        f'<tr><th scope="row">{_text(first)}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        + f'<td class="note">{_text(note)}</td></tr>'
        for first, *cells, note in rows
    )
    lines = "\n".join(f"<p>{_text(line)}</p>" for line in forecast_lines(forecast))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Plan: {_text(file)} (warmset)</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{_text(file)}</h1>
{lines}
<h2>Predicted build seconds by {_text(forecast.setting)}</h2>
<figure>
{chart}</figure>
<div class="table" role="region" tabindex="0" aria-label="Forecast">
<table>
<caption>Forecast</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
</main>
</body>
</html>
"""


def _text(text: str) -> str:
    return escape(printable(text))
