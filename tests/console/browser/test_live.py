"""What happens now, as it happens."""

from __future__ import annotations

from tests.console.browser.conftest import Eye
from tests.console.browser.fake_api import FakeApi

NEWEST = "document.querySelector('[aria-label=\"Requests that ended\"] tbody th')?.innerText"


def test_requests_appear_as_they_end_and_a_pause_holds_them_back_without_losing_any(eye: Eye, api: FakeApi):
    eye.open("live")
    eye.until(f"{NEWEST} !== it", eye.page.evaluate(NEWEST))
    eye.page.keyboard.press("p")
    eye.see("paused")
    held, known = eye.page.evaluate(NEWEST), len(api.world.by_id)
    for _ in range(200):
        if len(api.world.by_id) >= known + 3:
            break
        eye.page.wait_for_timeout(50)
    assert eye.page.evaluate(NEWEST) == held
    eye.page.keyboard.press("p")
    eye.until(f"{NEWEST} !== it", held)
    ids = [row[0] for row in eye.rows("Requests that ended")]
    assert held in ids[3:]
    assert len(ids) == len(set(ids))


def test_only_requests_like_the_filter_appear(eye: Eye):
    eye.open("live?model=chat-large")
    eye.see("model: chat-large")
    eye.page.wait_for_selector("[aria-label='Requests that ended'] tbody tr")
    assert {row[3] for row in eye.rows("Requests that ended")} == {"chat-large"}


def test_an_open_request_can_be_stopped(eye: Eye, api: FakeApi):
    eye.open("live")
    eye.page.get_by_role("button", name="Stop", exact=True).first.click()
    eye.page.get_by_role("button", name="Stopping").wait_for()
    assert api.acts[-1][0] == f"/console/api/requests/req_{0:024x}/cancel"


def test_numbers_of_the_moment_follow_the_feed(eye: Eye):
    eye.open("live")
    stats = eye.page.locator("dl.stats")
    stats.get_by_text("2,300").wait_for()
    stats.get_by_text("2,340").wait_for()
