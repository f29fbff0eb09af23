"""The page in a headless browser; skipped if none is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import browser
import pytest
from reports import outcome, page, record, recorded

from warmset.cli.pipeline_calls import Failure
from warmset.events import RemovalCause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

missing = browser.missing()
pytestmark = [
    pytest.mark.skipif(missing is not None, reason=f"needs a headless browser: {missing}"),
    pytest.mark.filterwarnings("default"),
]

NAMES = ["Tagger", "<script>document.title = 'taken'</script>", "A name that is rather long, too"]
PHONE, DESK = 360, 1280

# The visible text elements with their text, box, colour and font size.
VISIBLE_TEXTS = """() => {
  const seen = [];
  for (const element of document.querySelectorAll("h1, h2, p, dt, dd, summary, th, td, text")) {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (!element.checkVisibility() || !element.textContent.trim()) continue;
    seen.push({
      text: element.textContent.trim().slice(0, 40), tag: element.tagName.toLowerCase(),
      width: box.width, height: box.height, left: box.left, right: box.right,
      colour: element instanceof SVGElement ? style.fill : style.color,
      size: parseFloat(style.fontSize) * (element instanceof SVGElement
        ? element.ownerSVGElement.getBoundingClientRect().width
          / element.ownerSVGElement.viewBox.baseVal.width : 1),
    });
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.started() as started:
        yield started


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A page with all sections."""
    records = [record(run, 100 + 6.0 * run, 106, failed=1) for run in range(1, 7)]
    failures = [Failure(2, "step", NAMES[1], "m", "<b>d</b>", "ValueError: <img src=x>")]
    text = page(
        tmp_path,
        NAMES,
        outcome(records, failures),
        recorded(NAMES, 6, spans=3, causes=[RemovalCause.IDLE, RemovalCause.CLEARED]),
    )
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


class Tab:
    """An open page, its console messages and its requests."""

    def __init__(self, chromium: Any, path: Path, width: int, scheme: str) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def open_tables(self) -> None:
        self.page.locator("summary").evaluate_all("all => all.forEach(s => s.parentNode.open = 1)")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", browser.SCHEMES)
def test_everything_is_visible(chromium: Any, report: Path, width: int, scheme: str) -> None:
    """At both widths and in both colour schemes, without requests and console messages."""
    tab = Tab(chromium, report, width, scheme)
    try:
        page = tab.page
        assert page.title() == "FAIL: pipeline.toml (warmset)"
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(17, 21, 27)")
        shown = "narrow" if width == PHONE else "wide"
        assert page.locator("svg:visible").count() == 5
        assert page.locator(f"svg.{shown}:visible").count() == 5
        seen = page.evaluate(VISIBLE_TEXTS)
        texts = {one["text"] for one in seen}
        assert {"pipeline.toml", "idle", "cleared", "Tagger", "MB", "100%"} <= texts
        for one in seen:
            assert one["width"] > 0, one
            assert one["height"] > 0, one
            assert one["size"] >= 10.0, one
            assert one["colour"] not in (paper, "rgba(0, 0, 0, 0)"), one
            if one["tag"] not in ("th", "td"):  # tables can be scrolled sideways
                assert one["left"] >= -1, one
                assert one["right"] <= width + 1, one
        # The page is never wider than the screen, even if a table is.
        tab.open_tables()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("table:visible").count() == 6
        # Graphics differ from their background.
        fills = page.locator("svg:visible path").evaluate_all(
            "all => all.map(p => getComputedStyle(p)).filter(s => s.fill != 'none')"
            ".map(s => s.fill)"
        )
        assert len(set(fills)) >= 5
        assert paper not in fills
        assert tab.messages == []
        assert tab.requests == [report.as_uri()]
    finally:
        tab.page.close()


def test_the_plots_have_accessible_names(chromium: Any, report: Path) -> None:
    tab = Tab(chromium, report, DESK, "light")
    try:
        for name in (
            "Resident memory over runs",
            "Hit rate of each run",
            "Removals by cause",
            "Build time of each class",
            "Warm instances over time",
        ):
            image = tab.page.get_by_role("img", name=name)
            assert image.count() == 1, name
        tab.open_tables()
        assert tab.page.get_by_role("table", name="Look-ups by run").count() == 1
    finally:
        tab.page.close()


def test_tables_are_printed_on_white(chromium: Any, report: Path) -> None:
    """Even if they are closed and the colour scheme is dark."""
    tab = Tab(chromium, report, DESK, "dark")
    try:
        assert tab.page.locator("table:visible").count() == 1  # the table of failures
        tab.page.emulate_media(media="print", color_scheme="dark")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert tab.page.locator("table:visible").count() == 6
        assert tab.page.locator("svg.wide:visible").count() == 5
        assert len(tab.page.pdf(format="A4")) > 10_000
    finally:
        tab.page.close()
