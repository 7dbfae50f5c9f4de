"""Every view with seeded data: it says what the server said, with units, and can be sent to a colleague."""

from __future__ import annotations

import json

import pytest

from tests.console.browser.conftest import Eye, Opener
from tests.console.browser.fake_api import GATEWAY_KEY, FakeApi
from tests.console.browser.world import NOW

VIEWS = {
    "": "Overview", "live": "Live", "requests": "Requests", "models": "Models and replicas", "explain": "Routing",
    "rollouts": "Rollouts", "evals": "Evals and drift", "guards": "Guardrails", "caches": "Caches", "cost": "Cost",
    "limits": "Budgets and limits", "keys": "Keys and teams", "audit": "Audit", "playground": "Playground",
    "config": "Configuration", "nowhere": "Not found",
}  # fmt: skip


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_every_view_opens_without_a_complaint_and_fits_the_window(window: Opener, size: str):
    eye = window(size)
    eye.enter()
    eye.page.wait_for_selector(".shell")
    for view, title in VIEWS.items():
        eye.open(view)
        eye.page.get_by_role("heading", name=title, level=1).wait_for()
        eye.until("!document.querySelector('.loading')")
        assert eye.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        assert eye.page.title() == f"{title} · Penstock"


def test_the_overview_leads_from_an_alert_to_the_requests_behind_it(eye: Eye):
    eye.see("TTFT p99 is 3.4 s, above 3 s for 2 min")
    eye.page.get_by_role("link", name="See these requests").click()
    eye.page.wait_for_url("**/console/requests?slower=3")
    eye.see("slower than: 3 s")


def test_the_overview_says_its_numbers_with_units_and_what_they_were_before(eye: Eye, api: FakeApi):
    total = api.world.overview(3600, "")["total"]
    stats = eye.page.locator("dl.stats").inner_text()
    assert f"{total['requests'] / 3600:.1f}/s" in stats.replace("\n", "")
    assert "ms" in stats and "vs before" in stats and "/h" in stats
    eye.page.locator(".chart canvas").nth(3).wait_for()


def test_a_time_that_is_drawn_over_a_chart_shows_its_requests(eye: Eye):
    box = eye.page.locator(".chart .u-over").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    eye.page.mouse.move(box["x"] + box["width"] * 0.8, middle)
    eye.page.mouse.down()
    eye.page.mouse.move(box["x"] + box["width"] * 0.95, middle, steps=4)
    eye.page.mouse.up()
    eye.page.wait_for_url("**/console/requests?since=*&until=*")
    since, until = (int(word.partition("=")[2]) for word in eye.page.url.partition("?")[2].split("&"))
    assert 0.1 * 3600 < until - since < 0.2 * 3600
    assert NOW - 900 < since < until < NOW


def test_the_window_of_the_overview_is_in_its_address(eye: Eye):
    eye.page.get_by_role("button", name="6 h").click()
    eye.page.wait_for_url("**/console?window=21600")
    eye.page.reload()
    eye.page.wait_for_selector("button[aria-pressed=true]")
    assert eye.page.locator("button[aria-pressed=true]").inner_text() == "6 h"
    eye.page.go_back()
    eye.page.locator("button[aria-pressed=true]", has_text="1 h").wait_for()


def test_requests_are_narrowed_by_words_and_by_clicks_and_each_can_be_taken_out_again(eye: Eye):
    eye.open("requests")
    assert len(eye.rows("Requests")) == 50
    eye.page.fill("input[type=search]", "status:failed model:chat")
    eye.page.press("input[type=search]", "Enter")
    eye.page.wait_for_url("**status=failed**")
    eye.see("status: failed")
    eye.until("document.querySelectorAll('tbody tr').length < 50")
    rows = eye.rows("Requests")
    assert rows and all(row[3] == "chat" and not row[2].startswith("200") for row in rows)
    eye.page.get_by_role("button", name="Without status").click()
    eye.page.wait_for_url("**/requests?model=chat")
    eye.page.fill("input[type=search]", "nonsense")
    eye.page.press("input[type=search]", "Enter")
    eye.see("Write name:value.")


def test_older_requests_follow_until_there_are_no_more(eye: Eye, api: FakeApi):
    eye.open("requests")
    button = eye.page.get_by_role("button", name="Older ones")
    for n in range(100, len(api.world.outcomes) + 1, 50):
        button.click()
        eye.until("document.querySelectorAll('tbody tr').length === it", n)
    assert button.count() == 0


def test_a_request_shows_where_its_time_went_and_why_it_went_there(eye: Eye, api: FakeApi):
    outcome = next(one for one in api.world.outcomes if len(one["attempts"]) == 2 and one["error"] is None)
    eye.open(f"requests/{outcome['request_id']}")
    eye.see("Where its time went")
    fall = eye.page.locator(".fall").inner_text()
    assert "Admission" in fall and "Try 1" in fall and "Try 2" in fall and "Tokens" in fall
    assert [row[1] for row in eye.rows("Tries")] == [one["ended"].replace("_", " ") for one in outcome["attempts"]]
    eye.see("sends chat to chat") if outcome["model"] == "chat" else eye.see("costs 0.21 s of engine time")
    assert f"${outcome['cost_nanos'] / 1e9:.9f}" in eye.page.locator("dl.stats").inner_text()
    eye.page.get_by_role("button", name="Show as JSON").click()
    assert json.loads(eye.page.locator("section.panel pre").last.inner_text()) == outcome


def test_the_bars_of_a_request_lie_where_its_times_say(eye: Eye, api: FakeApi):
    outcome = next(one for one in api.world.outcomes if one["queued_for"] > 0.1 and len(one["attempts"]) == 1)
    eye.open(f"requests/{outcome['request_id']}")
    eye.page.wait_for_selector(".fall .bar")
    bars = eye.page.eval_on_selector_all(
        ".fall .lane .bar",
        "bars => bars.map(bar => {"
        " const [lane, box] = [bar.parentElement, bar].map(one => one.getBoundingClientRect());"
        " return [(box.left - lane.left) / lane.width, (box.right - lane.left) / lane.width]; })",
    )
    whole, (attempt,) = outcome["duration"], outcome["attempts"]
    queue = (outcome["admitted_after"] / whole, (outcome["admitted_after"] + outcome["queued_for"]) / whole)
    first = attempt["first_token_after"] or attempt["ended_after"]
    assert bars[1] == pytest.approx(queue, abs=0.01)
    assert bars[2] == pytest.approx((attempt["started_after"] / whole, first / whole), abs=0.01)


def test_tokens_lie_between_the_first_and_the_last_and_silence_after_them_is_shown(eye: Eye, api: FakeApi):
    outcome = next(
        one for one in api.world.outcomes if one["error"] is None and one["duration"] - one["last_token_after"] > 0.7
    )
    eye.open(f"requests/{outcome['request_id']}")
    eye.see("after the last token nothing came for 800 ms")
    first, last, n = outcome["first_token_after"], outcome["last_token_after"], outcome["usage"]["completion_tokens"]
    pace = (n - 1) / (last - first)
    eye.see(f"{pace:.0f} per second on average" if pace >= 100 else f"{pace:.3g}")
    bar = eye.page.eval_on_selector(
        ".fall .lane.last .bar",
        "bar => { const [lane, box] = [bar.parentElement, bar].map(one => one.getBoundingClientRect());"
        " return [(box.left - lane.left) / lane.width, (box.right - lane.left) / lane.width]; }",
    )
    assert bar == pytest.approx((first / outcome["duration"], last / outcome["duration"]), abs=0.01)


def test_an_id_that_is_not_kept_is_said_not_to_be_there(eye: Eye):
    eye.open("requests/req_none")
    eye.see("there is no such thing")
    eye.allow("404")


def test_replicas_say_why_they_are_given_no_work(eye: Eye):
    eye.open("models")
    states = {row[0]: row[1] for name in ("chat", "code") for row in eye.rows(f"Replicas of {name}")}
    assert "slower than its like; back in 24.0 s" in states["chat/2"]
    assert "4 health checks failed in a row" in states["code/1"]
    assert "is given 55.6 % of a full share" in states["code/2"]
    assert states["chat/0"] == "ready"


def test_routing_is_explained_with_what_was_against_each_replica(eye: Eye, api: FakeApi):
    eye.open("explain")
    eye.page.get_by_role("button", name="Explain").click()
    eye.see("It would go to chat/0")
    assert [(row[0], row[1].split("\n")[0]) for row in eye.rows("Replicas")] == [
        ("chat/0", "chosen"), ("chat/1", "costlier"), ("chat/2", "ejected"), ("hosted/0", "later"),
    ]  # fmt: skip
    assert api.acts[0][1]["body"]["model"] == "chat"
    eye.page.fill("textarea", "{")
    eye.page.get_by_role("button", name="Explain").click()
    eye.see("This is not JSON")


def shown(eye: Eye) -> list[int]:
    found: list[int] = eye.page.eval_on_selector_all("[data-nanos]", "all => all.map(one => Number(one.dataset.nanos))")
    return found


def test_the_pivot_adds_up_to_the_ledger_to_the_nano_dollar(eye: Eye, api: FakeApi):
    whole = sum(row["cost_nanos"] for row in api.ledger)
    for by in ("model", "org", "org,team", "key_id,model", "day"):
        eye.open(f"cost?by={by}")
        eye.page.wait_for_selector("[data-nanos]")
        assert sum(shown(eye)) == whole, by
        assert eye.page.locator("[data-total]").inner_text() == f"${whole // 10**9}.{whole % 10**9:09}"


def test_a_click_in_the_pivot_narrows_it_and_asks_for_the_next_attribute(eye: Eye, api: FakeApi):
    eye.open("cost?by=org")
    eye.page.get_by_role("link", name="acme", exact=True).click()
    eye.page.wait_for_url("**org=acme**")
    eye.see("Organisation: acme")
    acme = sum(row["cost_nanos"] for row in api.ledger if row["org"] == "acme")
    sum_of = "[...document.querySelectorAll('[data-nanos]')].reduce((sum, one) => sum + Number(one.dataset.nanos), 0)"
    eye.until(f"{sum_of} === it", acme)
    assert {row[0] for row in eye.rows("Cost by group")} == {"search", "support"}


def test_the_csv_link_asks_for_what_is_shown(eye: Eye):
    eye.open("cost?by=org,team&model=chat&days=7")
    link = eye.page.get_by_role("link", name="Download CSV").get_attribute("href") or ""
    assert link.startswith("/console/api/costs.csv?") and "by=org%2Cteam" in link and "model=chat" in link
    assert "since=2027-01-09&until=2027-01-16" in link


def test_limits_show_who_used_how_much_of_what(eye: Eye):
    eye.open("limits")
    eye.see("$462.00 of $500.00")
    eye.see("312 of 600")
    eye.see("Nobody has used any of it")


def test_a_new_key_is_shown_once_and_a_revoked_one_is_gone(eye: Eye, api: FakeApi):
    eye.open("keys?org=acme")
    eye.page.get_by_role("button", name="New key").click()
    eye.page.get_by_label("Its name").fill("fresh")
    eye.page.get_by_label("Models it may use").fill("chat, code")
    eye.page.locator("dialog").get_by_role("button", name="New key").click()
    eye.see("sk-told-this-once")
    assert api.acts[-1] == ("/admin/v1/keys", {"id": "fresh", "org": "acme", "models": ["chat", "code"]})
    eye.page.keyboard.press("Escape")
    eye.until("!document.body.innerText.includes('sk-told-this-once')")
    row = eye.page.get_by_role("row").filter(has=eye.page.get_by_role("link", name="fresh"))
    row.get_by_role("button", name="Revoke").click()
    eye.page.locator("dialog").get_by_role("button", name="Revoke this key").click()
    eye.until("!document.querySelector('dialog')")
    eye.until("![...document.querySelectorAll('tbody a')].some(link => link.innerText === 'fresh')")


def test_the_audit_log_can_be_verified_where_it_is_read(eye: Eye):
    eye.open("audit")
    assert len(eye.rows("Acts")) == 42
    eye.page.get_by_role("button", name="Verify the chain").click()
    eye.see("The log is whole")


def test_a_dry_run_says_what_a_file_would_change_or_what_is_wrong_with_it(eye: Eye):
    eye.open("config?tab=try")
    text = eye.page.get_by_label("A configuration file")
    text.fill(text.input_value() + "  spare: { engine: http://b:1 }\n")
    eye.page.get_by_role("button", name="Check it").click()
    eye.see("+ deployment spare")
    text.fill(text.input_value().replace("engine:", "engin:"))
    eye.page.get_by_role("button", name="Check it").click()
    eye.see("is not an option. Did you mean `engine`?")


def test_two_models_answer_side_by_side_word_by_word(eye: Eye, api: FakeApi):
    eye.open("playground?models=chat,code")
    eye.page.get_by_label("Message", exact=True).fill("Where does water go?")
    eye.page.get_by_label("Gateway key").fill(GATEWAY_KEY)
    eye.page.get_by_role("button", name="Ask 2 models").click()
    for model in ("chat", "code"):
        answer = eye.page.get_by_role("region", name=f"Answer of {model}")
        answer.get_by_text("Finished stop").wait_for()
        assert f"{model} says that water flows downhill" in answer.inner_text()
        assert "14 → 15" in answer.inner_text() and "tok/s" in answer.inner_text()
    assert {body["model"] for _, body in api.acts} == {"chat", "code"}
    kept = eye.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
    assert GATEWAY_KEY not in kept


def test_an_answer_can_be_stopped_and_what_came_of_it_stays(eye: Eye, api: FakeApi):
    api.slowly = True
    eye.open("playground")
    eye.page.get_by_label("Message", exact=True).fill("Hello?")
    eye.page.get_by_label("Gateway key").fill(GATEWAY_KEY)
    eye.page.keyboard.press("Control+Enter")
    eye.see("chat says")
    eye.page.get_by_role("button", name="Stop").click()
    eye.see("stopped")
    assert "least." not in eye.page.locator(".answer .text").inner_text()


def test_a_gateway_key_that_is_refused_is_told_in_the_answer_and_does_not_sign_anybody_out(eye: Eye):
    eye.open("playground")
    eye.page.get_by_label("Message", exact=True).fill("Hello?")
    eye.page.get_by_label("Gateway key").fill("sk-no")
    eye.page.get_by_role("button", name="Ask chat").click()
    eye.see("The gateway does not know this key.")
    eye.allow("401")
    assert eye.page.locator(".shell").count() == 1


def test_a_server_that_refuses_is_shown_as_a_sentence_and_asked_again_on_demand(eye: Eye, api: FakeApi):
    api.refuse["/console/api/fleet"] = (503, "the workers cannot be asked at the moment")
    eye.open("models")
    eye.see("the workers cannot be asked at the moment")
    del api.refuse["/console/api/fleet"]
    eye.page.get_by_role("button", name="Ask again").click()
    assert len(eye.rows("Replicas of chat")) == 3
    eye.allow("503")


def test_a_ledger_with_nothing_in_it_says_so_instead_of_zeroes_without_words(eye: Eye, api: FakeApi):
    api.ledger = []
    eye.open("cost")
    eye.see("Nothing was used in this time")
    assert "$0" in eye.page.locator("dl.stats").inner_text()


def test_a_replica_that_is_ejected_for_reasons_unknown_is_said_to_be_back(eye: Eye, api: FakeApi):
    fleet = api.world.fleet()
    ejected = fleet["deployments"][0]["replicas"][2]
    assert ejected["ejected_why"] == "slow"
    api.world.fleet = lambda: fleet  # type: ignore[method-assign]  # one that is kept, to be changed
    for why, told in (("slow", "slower than its like; back in 24.0 s"), (None, "back in 24.0 s")):
        ejected["ejected_why"] = why
        eye.open("models")
        eye.see("ejected")
        assert eye.page.locator(".under").filter(has_text="back in").inner_text() == told


def test_what_a_request_cost_is_told_by_class_or_why_it_is_not(eye: Eye, api: FakeApi):
    one = next(one for one in api.world.outcomes if one["error"] is None and one["usage"]["cached_tokens"])
    eye.open(f"requests/{one['request_id']}")
    eye.see("Per million")
    rows = eye.page.locator("table.used tbody th").all_inner_texts()
    assert [row.strip() for row in rows] == ["input", "cached input", "output"]
    whole = api.world.request(one["request_id"]) or {}
    api.world.request = lambda id: whole | {"cost": None}  # type: ignore[method-assign]
    eye.page.reload()
    eye.see("What each class of tokens cost is not known")
    assert "Per million" not in eye.page.locator("table.used").inner_text()
