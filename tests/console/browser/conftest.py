"""A real Chromium before the console. Whatever the browser complains about fails the test: an error in its console, an
exception, a thing that the page's policy forbids, a request that goes anywhere else."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.browser.fake_api import KEY, FakeApi
from tests.console.browser.world import NOW

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WHY = (
    "playwright is not here. Install it with: pip install playwright"
    if importlib.util.find_spec("playwright") is None
    else "there is no Chromium. Install it with: apt-get install chromium"
    if CHROMIUM is None
    else ""
)
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))  # a browser takes what the machine has left for it
            if WHY:
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of one module, as no other loop runs in this thread while it is there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as running:
        yield running


class Eye:
    """A window of the browser. `complaints` is what must be empty at the end."""

    def __init__(self, page: Any, root: str) -> None:
        self.page, self.root = page, root
        self.complaints: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"{error} {error.stack or ''}"))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(self.root):
            self.complaints.append(f"asked for {request.url}")

    def allow(self, text: str, *, at_least: int = 1) -> None:
        """The browser reports every refused request as an error: what was meant to be refused is taken out."""
        found = [one for one in self.complaints if text in one]
        assert len(found) >= at_least, f"nobody complained of {text!r}: {self.complaints}"
        self.complaints = [one for one in self.complaints if text not in one]

    def open(self, view: str = "") -> None:
        self.page.goto(f"{self.root}/console{view and '/'}{view}")
        self.page.wait_for_selector("h1")

    def enter(self, key: str = KEY) -> None:
        self.open()
        self.page.fill("input[name=secret]", key)
        self.page.press("input[name=secret]", "Enter")

    def see(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def until(self, claim: str, it: Any = None) -> None:
        """Wait until `claim` is true in the page, where `it` may be spoken of."""
        self.page.wait_for_function(f"it => {claim}", arg=it)  # a function: the policy forbids to evaluate text

    def rows(self, label: str) -> list[list[str]]:
        table = self.page.get_by_role("region", name=label, exact=True)
        table.wait_for()
        cells = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        found: list[list[str]] = table.locator("tbody tr").evaluate_all(cells)
        return found


Opener = Callable[..., Eye]


@pytest.fixture
def window(browser: Any, api: FakeApi) -> Iterator[Opener]:
    """Opens windows; each may have its size, scheme and server. Time stands still unless `ticking`."""
    opened: list[tuple[Any, Eye]] = []

    def make(size: str = "wide", scheme: str = "light", root: str = "", *, ticking: bool = False) -> Eye:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="Europe/Zurich",
        )
        context.set_default_timeout(45_000)
        page = context.new_page()
        if not ticking:
            page.clock.set_fixed_time(NOW)
        eye = Eye(page, root or api.url)
        opened.append((context, eye))
        return eye

    yield make
    for context, _ in opened:
        context.close()
    assert [eye.complaints for _, eye in opened if eye.complaints] == []


@pytest.fixture
def eye(window: Opener) -> Eye:
    """Somebody who has signed in."""
    one = window()
    one.enter()
    one.page.wait_for_selector(".shell")
    return one
