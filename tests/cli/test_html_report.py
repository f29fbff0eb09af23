"""The HTML report: its contents, its escaping, its size, and how the file is written."""

from __future__ import annotations

import random
import re
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from reports import MB, outcome, page, record, recorded

from warmset._text import printable
from warmset.cli import html_report
from warmset.cli.html_report.formatting import megabytes, seconds_text
from warmset.cli.html_report.report_data import MAX_CLASS_ROWS, MAX_RUN_ROWS
from warmset.cli.html_report.svg import COLOURS
from warmset.cli.pipeline_calls import Failure, FailureGroup
from warmset.events import RemovalCause

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["Tagger", "Parser", "Scorer"]
VOID = {"link", "meta"}


class Page(HTMLParser):
    """The elements, texts and tables of a page; fails if a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows: list[list[str]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))
        if self.open and self.open[-1] == "caption":
            self.tables[data] = self.rows
        elif self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def text(self) -> str:
        return "\n".join(text for _, text in self.texts)

    def attributes(self, name: str) -> list[str]:
        return [value for _, given in self.tags for key, value in given.items()
                if key == name and value]  # fmt: skip


def runs(count: int, **changes: Any) -> list[Any]:
    return [record(run, 100.0 + run, 101.0, **changes) for run in range(1, count + 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all plots and all removal causes."""
    directory = tmp_path_factory.mktemp("whole")
    return page(directory, NAMES, outcome(runs(4)), recorded(NAMES, 4, causes=list(RemovalCause)))


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots, which take most of the time, in tests of texts and tables."""
    from warmset.cli.html_report import page as module

    monkeypatch.setattr(module, "draw_plots", lambda data, descriptions: {})


def test_plots_and_tables_have_the_same_numbers(tmp_path: Path) -> None:
    causes = [RemovalCause.IDLE, RemovalCause.SIZE, RemovalCause.CLEARED]
    recorder = recorded(NAMES, 4, causes=causes)
    read = Page(page(tmp_path, NAMES, outcome(runs(4)), recorder))
    table = read.tables["Runs and resident memory"]
    assert [row[0] for row in table] == ["run", "1", "2", "3", "4"]
    assert table[2] == ["2", "1.50", "10", "0", "0", "132.0", "102.0", "+1.0"]
    assert read.tables["Look-ups by run"][4] == ["4", "9", "1", "90.0%", "1"]
    table = read.tables["Removals by run and cause"]
    assert table == [["run", "idle", "size", "cleared"]] + [
        [f"{n}", "1", "1", "1"] for n in (1, 2, 3, 4)
    ]
    tagger = next(row for row in read.tables["Classes"] if row[0] == "Tagger")
    assert tagger[2:] == ["4", "2 ms", "2 ms", "8 ms", "12", "4", "4", "4.00"]
    table = read.tables["Periods during which each class was warm, in seconds since run 1 began"]
    assert table[1][:2] == ["Scorer", "4"]
    assert table[1][2].startswith("0.80 to 2.00; 3.30 to 4.50; ")
    text = read.text()
    for part in (
        "PASS",
        "RSS grew by 2.0 MB from the median of runs 1 to 2",
        "+2.0 MB",
        "120 look-ups",
    ):
        assert part.replace("120", "40") in text
    assert "bound: level + 20.0 MB" in text
    assert "The bound is 122.0 MB: the level of 102.0 MB" in text
    # Each plot appears twice and refers to its own title and description.
    svgs = [given for tag, given in read.tags if tag == "svg"]
    assert [given["class"] for given in svgs] == ["wide", "narrow"] * 5
    identifiers = read.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    for given in svgs:
        assert given["role"] == "img"
        for identifier in (given["aria-labelledby"] or "").split():
            assert identifier in identifiers
    for reference in re.findall(r"#([\w.-]+)", " ".join(read.attributes("href"))):
        assert reference in identifiers


def test_the_page_is_self_contained(whole: str) -> None:
    text = whole
    read = Page(text)
    assert not {tag for tag, _ in read.tags} & {"script", "iframe", "img", "object", "embed"}
    assert not read.attributes("src")
    assert all(value.startswith(("#", "data:,")) for value in read.attributes("href"))
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    policy = next(given["content"] for tag, given in read.tags if "http-equiv" in given)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_every_colour_comes_from_the_style_sheet(whole: str) -> None:
    """In light and dark mode and in print; no placeholder is left."""
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b|rgb", drawn)
    used = set(re.findall(r"var\(--([\w-]+)\)", whole))
    assert {f"cause-{cause.value}" for cause in RemovalCause} <= used
    style = re.search(r"<style>(.*?)</style>", whole, re.DOTALL)
    assert style
    parts = style[1].split("@media")
    dark, printed = (
        next(part for part in parts if part.strip().startswith(start))
        for start in ("(prefers-color-scheme: dark)", "print")
    )
    for part in (parts[0], dark, printed):
        assert used | set(COLOURS) <= set(re.findall(r"--([\w-]+):", part))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_contrast_is_enough(whole: str) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for graphics."""
    themes = [
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", whole, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes:
        pairs = [("ink", "paper", 4.5), ("muted", "paper", 4.5), ("muted", "raised", 4.5)]
        pairs += [("good", "good-soft", 4.5), ("bad", "bad-soft", 4.5), ("bad", "paper", 4.5)]
        pairs += [("ink", soft, 4.5) for soft in ("good-soft", "bad-soft", "none-soft", "raised")]
        pairs += [(role, "paper", 3.0) for role in COLOURS if role not in ("grid", "paper")]
        for front, back, least in pairs:
            low, high = sorted((luminance(theme[front]), luminance(theme[back])))
            ratio = (high + 0.05) / (low + 0.05)
            assert ratio >= least, f"{front} on {back}: {ratio:.2f}"


NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&b;'c",
    "$x^2$ \\frac",
    "]]><!-- {{ 7 * 7 }} {% raw %}",
    "two\nlines\x1b[31m\x07",
    "日本語 \u202e",
    "x" * 400,
]


def test_all_text_is_escaped(tmp_path: Path) -> None:
    failures = [Failure(1, text, text, text, text, f"ValueError: {text}") for text in NASTY]
    recorder = recorded(NASTY, 2)
    # A file name may contain any character except a slash.
    file = NASTY[1][:40] + "{{ 7 * 7 }}.toml"
    text = page(tmp_path, NASTY, outcome(runs(2), failures), recorder, name=file)
    read = Page(text)
    allowed = {"html", "head", "meta", "link", "title", "style", "body", "main", "header", "h1",
               "h2", "p", "div", "strong", "dl", "dt", "dd", "small", "section", "figure",
               "details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg",
               "desc", "g", "path", "text", "use", "defs", "clippath", "rect", "tspan"}  # fmt: skip
    assert {tag for tag, _ in read.tags} <= allowed
    assert not [key for _, given in read.tags for key in given if key.startswith("on")]
    assert "49" not in read.tables["Classes"][1]
    assert "{{ 7 * 7 }}.toml" in read.text()
    names = {row[0] for row in read.tables["Classes"]}
    assert {printable(name) for name in NASTY} <= names
    assert [row[-1] for row in read.tables["Failed calls"][1:]] == [
        f"ValueError: {printable(name)}" for name in NASTY
    ]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert len(text) < 300_000


def test_many_runs_and_classes_are_grouped(tmp_path: Path) -> None:
    """The page mentions it, and the sums are complete."""
    names = [f"Class{at:03d}" for at in range(500)]
    dice = random.Random(0)
    records = [
        record(run, 100 + dice.random(), 100, hits=dice.randrange(900), misses=7, failed=1)
        for run in range(1, 1001)
    ]
    recorder = recorded(names, 60, causes=list(RemovalCause), spans_kept=2_000)
    for run in range(61, 1001):
        recorder.on_run(run)
    text = page(tmp_path, names, outcome(records), recorder)
    assert len(text.encode()) < 600_000
    read = Page(text)
    table = read.tables["Runs and resident memory"][1:]
    assert len(table) == MAX_RUN_ROWS
    assert (table[0][0], table[-1][0]) == ("1 to 10", "991 to 1000")
    assert sum(int(row[3]) for row in table) == 1_000
    largest = max(records[:10], key=lambda one: one.rss_bytes)
    assert table[0][6] == megabytes(largest.rss_bytes)
    table = read.tables["Look-ups by run"][1:]
    assert sum(int(row[1].replace(",", "")) for row in table) == sum(one.hits for one in records)
    table = read.tables["Classes"][1:]
    assert len(table) == MAX_CLASS_ROWS + 1
    assert table[-1][0] == "470 other classes"
    assert sum(int(row[2].replace(",", "")) for row in table) == 500 * 60
    page_text = read.text()
    assert "There were 1,000 runs. Plots and tables show 100 groups of up to 10 runs" in page_text
    assert f"The {MAX_CLASS_ROWS} classes with the longest total build time" in page_text
    assert re.search(r"Gaps of up to .+ between bars are not shown", page_text)


@pytest.mark.parametrize("ended_runs", [0, 1, 2])
def test_completed_runs_are_shown_after_an_interrupt(tmp_path: Path, ended_runs: int) -> None:
    recorder = recorded(NAMES, ended_runs + 1, causes=[RemovalCause.SHUTDOWN])
    result = outcome(runs(ended_runs), ended="interrupted")
    read = Page(page(tmp_path, NAMES, result, recorder, runs=10))
    text = read.text()
    assert f"The runs were interrupted in run {ended_runs + 1}" in text
    assert ("NO VERDICT" in text) == (ended_runs < 2)
    assert ("Runs and resident memory" in read.tables) == bool(ended_runs)
    assert len(read.tables["Classes"]) == 4
    if ended_runs:
        assert read.tables["Removals by run and cause"][-1] == [
            f"{ended_runs + 1} (interrupted)",
            "3",
        ]


@pytest.mark.usefixtures("words_only")
def test_a_stopped_run_is_marked(tmp_path: Path) -> None:
    records = [*runs(2), record(3, 900, 101, complete=False, failed=1)]
    failure = Failure(3, "s", "Tagger", "tag", None, "ValueError: no")
    result = outcome(records, [failure], ended="stopped", skipped=2)
    read = Page(page(tmp_path, NAMES, result, recorded(NAMES, 3), strict=True))
    assert "run 3 is not complete and does not count for the verdict" in read.text()
    assert read.tables["Runs and resident memory"][3][0] == "3 (not complete)"
    assert "1 of 30 calls failed, and 2 steps were skipped because of them" in read.text()
    assert read.tables["Failed calls"][1] == ["s", "Tagger.tag", "1", "run 3", "ValueError: no"]


@pytest.mark.usefixtures("words_only")
def test_failures_and_survivors_follow_the_charts(tmp_path: Path) -> None:
    """Failures in groups; survivors with what refers to them."""
    first = Failure(1, "s", "Tagger", "tag", "b.txt", "ValueError: no b")
    result = outcome(
        runs(2),
        [first],
        failed=25,
        failure_groups=(FailureGroup(first, 25),),
        survivors=(
            "Tagger (pkg.Tagger), cleared: referenced by\n    pkg.kept[0]\n    <b>[1]",
            "Scorer (pkg.Scorer), cleared: referenced by",
        ),
    )
    text = page(tmp_path, NAMES, result, recorded(NAMES, 2))
    read = Page(text)
    table = read.tables["Failed calls"]
    assert table[1:] == [["s", "Tagger.tag", "25", "run 1, b.txt", "ValueError: no b"]]
    assert read.tables["Removed instances that are still referenced"][1:] == [
        ["Tagger (pkg.Tagger), cleared", "pkg.kept[0]; <b>[1]"],
        ["Scorer (pkg.Scorer), cleared", "-"],
    ]
    assert "&lt;b&gt;[1]" in text
    places = [text.index(f"<h2>{name}</h2>") for name in ("Failures", "Survivors")]
    assert text.index("Warm instances over time</h2>") < places[0] < places[1]
    assert "FAIL" in read.text()
    assert "2 removed instances are still referenced after the last run" in read.text()


@pytest.mark.usefixtures("words_only")
def test_growth_beyond_the_bound_is_highlighted(tmp_path: Path) -> None:
    text = page(tmp_path, NAMES, outcome(runs(4)), recorded(NAMES, 4), bound_mb=1.5)
    read = Page(text)
    assert "FAIL" in read.text()
    assert [given.get("class") for tag, given in read.tags if tag == "tr"].count("over") == 1


def test_a_page_without_look_ups_and_builds(tmp_path: Path) -> None:
    records = [record(run, hits=0, misses=0) for run in (1, 2)]
    read = Page(page(tmp_path, NAMES, outcome(records), recorded(NAMES, 2, spans=0)))
    assert "There were no look-ups." in read.text()
    assert "There were no removals." in read.text()
    assert "There were no builds." in read.text()
    assert "No instance was warm at any time." in read.text()


@pytest.mark.usefixtures("words_only")
def test_notes_for_weak_and_per_run(tmp_path: Path) -> None:
    recorder = recorded(NAMES, 2)
    text = page(tmp_path, NAMES, outcome(runs(2)), recorder, per_run=True, clear=False,
                registry={"enable_weakref": True})  # fmt: skip
    for part in ("kept by weak reference", "share a row", "was not cleared between runs"):
        assert part in text


def test_the_same_run_gives_the_same_page(tmp_path: Path, whole: str) -> None:
    """The user's settings of matplotlib neither affect the page nor are changed."""
    import matplotlib

    pyplot_loaded = "matplotlib.pyplot" in sys.modules
    keys = [key for key in matplotlib.rcParams if key != "backend"]  # reading it selects a backend
    before = [matplotlib.rcParams[key] for key in keys]
    user_settings = {"axes.facecolor": "#ff00ff", "font.size": 40, "text.usetex": True}
    recorder = recorded(NAMES, 4, causes=list(RemovalCause))
    with matplotlib.rc_context(user_settings):
        assert page(tmp_path, NAMES, outcome(runs(4)), recorder) == whole
    assert [matplotlib.rcParams[key] for key in keys] == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_loaded


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 µs"), (0.000123, "123 µs"), (0.0451, "45.1 ms"), (1.8, "1.8 s"), (1234.5, "1,234 s")],
)
def test_durations_have_a_suitable_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_sizes_have_no_negative_zero() -> None:
    assert megabytes(-10, signed=True) == "+0.0"
    assert megabytes(-2 * MB, signed=True) == "-2.0"
    assert megabytes(1234 * MB) == "1,234.0"


# -- the file ------------------------------------------------------------------------------------


@pytest.fixture
def make_pages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list of pages to write, in order; an error in it is raised instead."""
    pages: list[Any] = []

    def make_page(*arguments: Any) -> str:
        if isinstance(pages[0], BaseException):
            raise pages.pop(0)
        return str(pages.pop(0))

    from warmset.cli.html_report import page as module

    monkeypatch.setattr(module, "make_page", make_page)
    return pages


def write(target: Path) -> None:
    html_report.write_report(target, *([None] * 6))  # type: ignore[arg-type]


def test_the_file_is_written_atomically(tmp_path: Path, make_pages: list[Any]) -> None:
    target = tmp_path / "report.html"
    # A lone surrogate causes an error while the file is being written.
    make_pages += ["first", KeyboardInterrupt(), "half \ud800", "second"]
    write(target)
    target.chmod(0o640)
    for error in (KeyboardInterrupt, UnicodeEncodeError):
        with pytest.raises(error):
            write(target)
        assert target.read_text() == "first"
    write(target)
    assert target.read_text() == "second"
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_symbolic_link_is_kept(tmp_path: Path, make_pages: list[Any]) -> None:
    target, link = tmp_path / "report.html", tmp_path / "link.html"
    link.symlink_to(target)
    make_pages.append("page")
    html_report.check_target(link)
    assert not target.exists()
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "page"


def test_a_device_is_not_replaced() -> None:
    from pathlib import Path

    with pytest.raises(OSError, match="not a regular file"):
        html_report.check_target(Path("/dev/null"))
