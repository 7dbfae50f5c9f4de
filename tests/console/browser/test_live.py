"""What happens now, as it happens."""

from __future__ import annotations

from tests.console.browser.conftest import Eye, Opener
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


def test_open_requests_are_shown_with_their_stage_and_how_many_more_there_are(eye: Eye, api: FakeApi):
    api.n_more_open = 2_345
    eye.open("live")
    shown = eye.rows("Open requests")
    assert [row[1:8] for row in shown] == [
        ["streaming", "4.20 s", "chat", "chat/0", "210 ms", "40", "acme-search"],
        ["sent", "3.20 s", "code", "code/0", "–", "0", "acme-search"],
        ["waiting", "2.20 s", "chat", "–", "–", "0", "acme-search"],
    ]
    eye.see("the oldest; 2,345 more")
    eye.open("live?model=code&status=failed")
    eye.page.wait_for_selector("[aria-label='Open requests'] tbody tr")
    assert [row[3] for row in eye.rows("Open requests")] == ["code"]


def test_an_open_request_is_stopped_after_a_question_and_is_gone(eye: Eye, api: FakeApi):
    eye.open("live")
    eye.page.get_by_role("button", name="Stop", exact=True).first.click()
    eye.page.get_by_role("button", name="Let it go on").click()
    assert api.acts == []
    eye.page.get_by_role("button", name="Stop", exact=True).first.click()
    eye.page.get_by_role("button", name="Stop it").click()
    eye.until("document.querySelectorAll('[aria-label=\"Open requests\"] tbody tr').length === 2")
    assert [path for path, _ in api.acts] == [f"/console/api/requests/req_{0:024x}/cancel"]


def test_where_nothing_is_open_that_is_said(eye: Eye, api: FakeApi):
    api.open = []
    eye.open("live")
    eye.see("Nothing is in flight at this moment.")


def test_who_may_not_stop_requests_sees_no_button_for_it(window: Opener, api: FakeApi):
    api.role = "viewer"
    eye = window()
    eye.enter()
    eye.page.wait_for_selector(".shell")
    eye.open("live")
    assert len(eye.rows("Open requests")) == 3
    assert eye.page.get_by_role("button", name="Stop", exact=True).count() == 0


def test_numbers_of_the_moment_follow_the_feed(eye: Eye):
    eye.open("live")
    stats = eye.page.locator("dl.stats")
    stats.get_by_text("2,300").wait_for()
    stats.get_by_text("2,340").wait_for()
