"""
A headless browser, where there is one; run as a script it takes the pictures that the docs show.

    python tests/support/browser.py PAGE.html DIRECTORY
"""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMES = ("light", "dark")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str | None:
    """Return why no browser can be used; None if one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return None if _executable() else f"no browser on PATH: none of {', '.join(_NAMES)}"


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def started() -> Iterator[Any]:
    """A browser; it is closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, nor in most containers.
        browser = playwright.chromium.launch(
            executable_path=_executable(), args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        try:
            yield browser
        finally:
            browser.close()


def take_pictures(page: Path, directory: Path) -> None:
    """Write ``report-light.png`` and ``report-dark.png``."""
    with started() as browser:
        for scheme in SCHEMES:
            tab = browser.new_page(viewport={"width": 860, "height": 900}, color_scheme=scheme)
            tab.goto(page.resolve().as_uri())
            tab.screenshot(path=directory / f"report-{scheme}.png", full_page=True)
            tab.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or missing():
        sys.exit(missing() or __doc__)
    take_pictures(Path(sys.argv[1]), Path(sys.argv[2]))
