"""For those who use no mouse, who do not see the screen, or who see it in the dark: axe-core over every view, the
keyboard, and pictures of both sizes to be looked at in `.cache/console`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.console.browser.conftest import Eye, Opener
from tests.console.browser.fake_api import FakeApi
from tests.console.browser.test_views import VIEWS

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
PICTURES = Path(__file__).parents[3] / ".cache" / "console"
FAULTS = """async rules => {
    const found = await axe.run(document, {resultTypes: ['violations'], ...(rules && {runOnly: rules})});
    const where = one => one.nodes.slice(0, 3).map(node => `${node.html} ${node.failureSummary}`).join(' | ');
    return found.violations.map(one => `${one.id}: ${one.help}: ${where(one)}`);
}"""


def faults(eye: Eye, rules: list[str] | None = None) -> list[str]:
    eye.until("!document.querySelector('.loading')")
    eye.page.evaluate(AXE)
    found: list[str] = eye.page.evaluate(FAULTS, rules)
    return found


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("wide", "dark"), ("narrow", "light")])
def test_axe_finds_nothing_wrong_with_any_view_and_a_picture_of_it_is_kept(
    window: Opener, api: FakeApi, size: str, scheme: str
):
    rules = ["color-contrast"] if scheme == "dark" else None  # nothing else depends on it
    eye = window(size, scheme)
    eye.open()
    eye.see("Sign in to Penstock")
    assert faults(eye, rules) == []
    eye.enter()
    eye.page.wait_for_selector(".shell")
    PICTURES.mkdir(parents=True, exist_ok=True)
    a_request = next(one["request_id"] for one in api.world.outcomes if len(one["attempts"]) == 2)
    found = {}
    for view in (*VIEWS, f"requests/{a_request}", "config?tab=try"):
        eye.open(view)
        if wrong := faults(eye, rules):
            found[view] = wrong
        name = view.partition("?")[0].partition("/")
        eye.page.screenshot(path=PICTURES / f"{'request' if name[2] else name[0] or 'overview'}-{size}-{scheme}.png")
    assert found == {}


def test_the_first_tab_stop_leads_past_the_menu(eye: Eye):
    eye.page.reload()
    eye.page.wait_for_selector(".shell")
    eye.page.keyboard.press("Tab")
    assert eye.page.locator(":focus").inner_text() == "Skip to the view"
    eye.page.keyboard.press("Enter")
    assert eye.page.evaluate("document.activeElement.id") == "main"


def test_every_view_is_two_keys_away_and_its_heading_has_the_focus(eye: Eye):
    for key, title in {"c": "Cost", "m": "Models and replicas", "r": "Requests", "o": "Overview"}.items():
        eye.page.keyboard.press("g")
        eye.page.keyboard.press(key)
        eye.page.get_by_role("heading", name=title, level=1).wait_for()
        eye.until("document.activeElement.innerText === it", title)


def test_rows_are_walked_and_opened_by_keys(eye: Eye):
    eye.open("requests")
    first, second = (row[0] for row in eye.rows("Requests")[:2])
    eye.page.keyboard.press("j")
    assert eye.page.evaluate("document.activeElement.innerText") == first
    eye.page.keyboard.press("j")
    assert eye.page.evaluate("document.activeElement.innerText") == second
    eye.page.keyboard.press("Enter")
    eye.see("Where its time went")


def test_keys_do_nothing_where_somebody_types(eye: Eye):
    eye.open("requests")
    eye.page.keyboard.press("/")
    eye.page.keyboard.type("gc?t")
    assert eye.page.locator("input[type=search]").input_value() == "gc?t"
    assert eye.page.locator("dialog").count() == 0


def test_a_question_mark_shows_the_keys_and_escape_hides_them(eye: Eye):
    eye.page.keyboard.press("?")
    eye.page.get_by_role("dialog", name="Keyboard").wait_for()
    eye.page.keyboard.press("Escape")
    eye.until("!document.querySelector('dialog')")


def test_the_theme_is_the_systems_until_one_is_chosen_which_is_kept(window: Opener):
    eye = window(scheme="dark")
    eye.enter()
    eye.page.wait_for_selector(".shell")

    def background() -> str:
        found: str = eye.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return found

    dark = background()
    eye.page.keyboard.press("t")
    assert background() != dark
    eye.page.reload()
    eye.page.wait_for_selector(".shell")
    assert background() != dark
    eye.page.keyboard.press("t")
    assert background() == dark


def test_on_a_narrow_screen_the_menu_opens_over_the_view_and_closes_after_a_choice(window: Opener):
    eye = window("narrow")
    eye.enter()
    eye.page.wait_for_selector(".menu")
    link = eye.page.locator("nav").get_by_text("Cost", exact=True)
    assert not link.is_visible()
    eye.page.get_by_role("button", name="Menu").click()
    link.click()
    eye.page.get_by_role("heading", name="Cost", level=1).wait_for()
    eye.until("!document.querySelector('.open')")


def test_times_are_local_and_say_utc_on_hover(eye: Eye, api: FakeApi):
    eye.open("requests")
    time = eye.page.locator("tbody time").first
    assert "12:59" in time.inner_text()
    assert "2027-01-15 11:59" in (time.get_attribute("title") or "")
    assert "UTC" in (time.get_attribute("title") or "")
