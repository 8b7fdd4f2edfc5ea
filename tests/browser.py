"""The system's Chromium for tests of pages, and the reason when there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed; the README says how (apt-get install chromium)"
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@dataclass
class Visit:
    """An open page, with everything that it complained about or fetched."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)  # with a fresh profile of its own
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, path: Path, *, width: int, height: int = 900, dark: bool = False) -> Iterator[Visit]:
    """The page, loaded and drawn, without a network."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        offline=True,
    )
    page = context.new_page()
    found = Visit(page)
    page.on("console", lambda said: found.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda asked: found.fetched.append(asked.url))
    try:
        page.goto(path.absolute().as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=60_000)
        yield found
    finally:
        context.close()
