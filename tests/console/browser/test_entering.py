"""Who gets in, and what a browser may keep of it."""

from __future__ import annotations

from tests.console.browser.conftest import Eye, Opener
from tests.console.browser.fake_api import KEY, FakeApi


def test_nobody_sees_anything_before_they_have_signed_in(window: Opener):
    eye = window()
    eye.open("cost")
    eye.see("Sign in to Penstock")
    assert eye.page.locator(".shell").count() == 0


def test_a_wrong_key_is_told_so_and_another_one_may_be_tried(window: Opener):
    eye = window()
    eye.enter("sk-wrong")
    eye.see("This key is not known here")
    eye.allow("401")
    eye.page.fill("input[name=secret]", KEY)
    eye.page.press("input[name=secret]", "Enter")
    eye.page.wait_for_selector(".shell")


def test_the_key_becomes_a_cookie_that_no_script_can_read_and_is_kept_nowhere_else(eye: Eye):
    (cookie,) = eye.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    kept = eye.page.evaluate("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, location.href])")
    assert KEY not in kept
    assert "a-session" not in kept


def test_whoever_signs_in_arrives_at_the_view_that_the_address_says(window: Opener):
    eye = window()
    eye.open("limits")
    eye.page.fill("input[name=secret]", KEY)
    eye.page.press("input[name=secret]", "Enter")
    eye.page.get_by_role("heading", name="Budgets and limits", level=1).wait_for()


def test_signing_out_leads_back_to_the_door_and_so_does_a_session_that_ended(eye: Eye):
    eye.page.get_by_role("button", name="Sign out").click()
    eye.see("Sign in to Penstock")
    eye.enter()
    eye.page.wait_for_selector(".shell")
    eye.page.context.clear_cookies()
    eye.page.evaluate("document.querySelector('nav a[href$=models]')?.click()")  # or a look for news is refused first
    eye.see("Sign in to Penstock")
    eye.allow("401")


def test_whoever_looks_after_one_organisation_has_a_menu_of_what_is_theirs_and_lands_there(
    window: Opener, api: FakeApi
):
    api.role, api.org = "admin", "acme"
    eye = window()
    eye.enter()
    eye.page.get_by_role("heading", name="Live", level=1).wait_for()
    menu = eye.page.locator("nav a.item").all_inner_texts()
    assert {"Requests", "Cost", "Keys and teams", "Playground"} <= set(menu)
    assert not {"Overview", "Audit", "Configuration"} & set(menu)
    eye.open("audit")
    eye.see("It is about all organisations, and you look after acme alone.")
    eye.open("playground")
    eye.page.get_by_role("checkbox", name="code").wait_for()
    assert eye.page.get_by_role("checkbox", name="chat-large").count() == 0


def test_a_role_that_may_not_is_told_so_and_nothing_is_asked_for_it(window: Opener, api: FakeApi):
    api.role = "billing"
    eye = window()
    eye.enter()
    eye.page.wait_for_selector(".shell")
    eye.open("requests")
    eye.see("Your role, billing, may not see requests, models and replicas.")
    eye.open("cost")
    eye.page.wait_for_selector("[data-nanos]")


def test_a_room_that_the_server_does_not_have_says_so(window: Opener, api: FakeApi):
    api.features = ("overview", "requests")
    eye = window()
    eye.enter()
    for view in ("rollouts", "playground", "config", "explain"):
        eye.page.wait_for_selector(".shell")
        eye.open(view)
        eye.see("Not there on this server")
