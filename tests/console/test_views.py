"""What the console's pages ask for: who may, what they get, and that nothing they or callers write breaks it."""

import json
import re

import msgspec
import pytest

from penstock.console import views
from penstock.console.desk import Desk
from penstock.console.masked import Masked
from penstock.console.reports import Ended, FleetSeen, ModelSeen, Shown
from penstock.console.roles import ROLES as ACTS_OF
from penstock.console.routes import Of
from penstock.console.views import VIEWS
from penstock.core.clock import ManualClock
from penstock.pricing.bill import Cost, Part
from penstock.stores.entry import Entry
from penstock.stores.ledger import SqlLedger
from penstock.stores.outcomes import Outcomes
from penstock.telemetry.metrics import Registry
from tests.console.conftest import FILE, KEYS, ROLES, Console
from tests.console.outcomes import HOSTILE, InFlight, kept, open_request

AT = 1_800_000_000.0
DIGEST = re.compile(r"[0-9a-f]{64}")
BODIES = {
    "/explain": {"body": {"model": "chat"}},
    "/config/check": {"text": "models: {}"},
    "/playground": {"model": "chat"},
}
each_view = pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view.method} {view.path}")


@pytest.fixture
def new_url(tmp_path):
    """SQLite alone: what differs between databases is tested where they are asked."""
    return lambda: str(tmp_path / "books.db")


class Configured:
    """A file that is served."""

    def __init__(self, text):
        self.masked = Masked(text)

    def shown(self):
        return Shown(3, "penstock.yaml", AT, self.masked.text, ((3, AT, ("~ model chat",)),))


@pytest.fixture
def watched(loop, database, tmp_path):
    """A console with a desk, whose store has requests of two organisations."""
    clock = ManualClock()
    store = loop.run(Outcomes.open(tmp_path / "kept.traces.db", clock))
    desk = Desk(clock, store)
    desk.in_flight = InFlight([open_request("req_open", org="globex")])
    desk.counted(Registry().snapshot())
    desk.ended(
        Ended(
            (
                kept(AT + 1, id="req_a", session="s"),
                kept(AT + 2, id="req_b", error="upstream_error", why="error", session="s"),
                kept(AT + 3, id="req_c", tenant="globex", model="embed"),
            )
        )
    )
    loop.run(store.write())
    console = Console(loop, database, desk=desk, shown=Configured("models: {}"))
    console.desk = desk
    yield console
    loop.run(store.close())
    assert console.told == []


def ask(console, path, **more):
    method = more.pop("method", "GET")
    return console.ask(method, path, more.pop("body", None), root="/console/api", **more)


def of(view, console, **more):
    return ask(console, view.path.format(id="req_c"), method=view.method, body=BODIES.get(view.path), **more)


@each_view
def test_no_view_is_open(watched, view):
    for key in (None, "sk-canary-wrong"):
        reply = of(view, watched, key=key)
        if view.greets and key is None:
            assert (reply.status, reply.json) == (200, None)
        else:
            assert (reply.status, reply.code) == (401, "unauthorized")


@each_view
@pytest.mark.parametrize("role", ROLES)
def test_a_role_sees_what_its_row_says(watched, view, role):
    if view.path == "/live":
        pytest.skip("an answer without an end: tests/console/test_feed.py")
    reply = of(view, watched, key=KEYS[role])
    if view.act in ACTS_OF[role]:
        assert reply.status in (200, 404), reply.text  # 404: no gateway here
    else:
        assert (reply.status, reply.code) == (403, "forbidden")


@each_view
def test_who_looks_after_one_organisation_sees_nothing_of_others(watched, view):
    if view.path == "/live":
        pytest.skip("an answer without an end: tests/console/test_feed.py")
    reply = of(view, watched, key=KEYS["acme"])
    if view.of is Of.HOUSE:
        assert (reply.status, reply.code) == (403, "forbidden")
    assert b"globex" not in reply.text and b"req_c" not in reply.text
    if view.of is Of.QUERY:
        assert ask(watched, f"{view.path}?org=globex", key=KEYS["acme"]).status == 404


@each_view
def test_a_view_says_that_it_must_not_be_stored_or_framed(watched, view):
    if view.path == "/live":
        pytest.skip("its headers are looked at in tests/console/test_feed.py")
    headers = of(view, watched).headers
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]


@each_view
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_in_a_query_or_path_breaks_a_view(watched, view, text):
    from urllib.parse import quote

    if view.path == "/live":
        return
    value = quote(text, safe="")
    for name in view.query:
        reply = ask(watched, f"{view.path.format(id='x')}?{quote(name.replace('*', text or 'x'), safe='')}={value}")
        assert reply.status in (200, 400, 404), reply.text
        assert b"<script>" not in reply.text or reply.headers["x-content-type-options"] == "nosniff"
    if "{id}" in view.path:
        assert ask(watched, view.path.format(id=value), method=view.method).status in (404, 400)
    assert ask(watched, f"{view.path.format(id='x')}?nobody={value}").status in (400, 405)


def test_nobody_is_greeted_but_by_one_view_and_a_cookie_that_is_over_is_nobodys(watched):
    assert [view.path for view in VIEWS if view.greets] == ["/me"]
    over = ask(watched, "/me", key=None, cookie="penstock_console=of-yesterday")
    assert (over.status, over.json) == (200, None)
    assert ask(watched, "/requests", key=None, cookie="penstock_console=of-yesterday").status == 401
    assert ask(watched, "/me", key="sk-wrong").status == 401


def test_me_says_what_is_there(watched):
    assert set(ask(watched, "/me").json["features"]) == {
        "costs",
        "config",
        "overview",
        "live",
        "fleet",
        "requests",
        "open",
    }


def test_requests_are_listed_the_newest_first_and_filtered(watched):
    def ids(query=""):
        return [line["id"] for line in ask(watched, f"/requests{query}").json["items"]]

    assert ids() == ["req_c", "req_b", "req_a"]
    assert ids("?status=failed") == ["req_b"] == ids("?error=upstream_error") == ids("?status=502")
    assert ids("?model=embed&org=globex") == ["req_c"]
    assert ids(f"?since={AT + 2}&until={AT + 3}") == ["req_b"]
    assert ids("?slower=10") == []
    page = ask(watched, "/requests?most=2").json
    assert ids(f"?before={page['next']}") == ["req_a"] and page["kept_since"] == AT + 1


@pytest.mark.parametrize(
    "query",
    [
        "most=0",
        "most=201",
        "most=x",
        "since=-1",
        "since=nan",
        "since=1e400",
        "slower=x",
        "slower=-0x1",
        "before=x",
        "x=1",
    ],
)
def test_what_makes_no_sense_is_refused(watched, query):
    reply = ask(watched, f"/requests?{query}")
    assert (reply.status, reply.code) == (400, "invalid")


def test_one_request_is_told_with_its_spans_and_its_neighbours(watched):
    found = ask(watched, "/requests/req_b").json
    assert found["line"]["id"] == found["outcome"]["request_id"] == "req_b"
    failure = {"code": "upstream_error", "lasting": "transient", "blame": "provider", "message": None}
    assert found["failure"] == failure
    assert found["around"] == {"previous": "req_a", "next": None}
    root, *spans = found["trace"]["spans"]
    assert root["role"] == "request" and any(span["role"] == "attempt" for span in spans)
    assert all(any(span["parent_id"] == other["id"] for other in found["trace"]["spans"]) for span in spans)


def test_every_field_of_a_receipt_is_told(watched):
    from penstock.core.outcome import Outcome

    assert set(ask(watched, "/requests/req_a").json["outcome"]) == set(Outcome.__struct_fields__)


def test_what_each_class_of_tokens_cost_is_told_where_prices_are_those_of_then(watched):
    assert ask(watched, "/requests/req_a").json["cost"] is None
    bill = Cost(1_000, (Part("input", 10, 40_000), Part("output", 20, 30_000)))
    watched.desk.bill = lambda outcome: bill
    found = ask(watched, "/requests/req_a").json["cost"]
    assert found == [
        {"what": "input", "amount": 10, "nanos_per_million": 40_000_000, "nanos": 400},
        {"what": "output", "amount": 20, "nanos_per_million": 30_000_000, "nanos": 600},
    ]
    assert sum(one["nanos"] for one in found) == ask(watched, "/requests/req_a").json["outcome"]["cost_nanos"]
    bill = msgspec.structs.replace(bill, nanos=999)
    assert ask(watched, "/requests/req_a").json["cost"] is None, "it was paid otherwise"


def test_the_models_of_an_organisation_are_those_that_it_may_use(loop, database):
    desk = Desk(ManualClock())
    models = tuple(ModelSeen(name, ("a",), ("chat.completions",)) for name in ("chat", "embed"))
    text = FILE.replace("organisations: { acme: {", "organisations: { acme: { models: [chat],")
    console = Console(loop, database, text, desk=desk)

    def names(path="/models", **more):
        return [one["name"] for one in ask(console, path, **more).json["items"]]

    assert names() == []
    desk.seen("worker-0", FleetSeen(desk._clock.wall(), 1, 0, models, (), ()))
    assert names() == ["chat", "embed"] == names("/models?org=globex")
    assert names(key=KEYS["acme"]) == ["chat"]
    assert ask(console, "/models?org=globex", key=KEYS["acme"]).status == 404


def test_a_request_that_is_not_kept_is_not_there(watched):
    assert ask(watched, "/requests/req_nobody").status == 404


@pytest.mark.parametrize("text", HOSTILE)
def test_what_callers_wrote_is_told_as_it_is_and_breaks_nothing(watched, text):
    one = kept(
        AT + 9, id="req_hostile", model=text, session=text, feature=text, tenant=text, why="error", error=text or None
    )
    watched.desk.ended(Ended((one,)))
    watched.loop.run(watched.desk.outcomes.write())
    found = ask(watched, "/requests/req_hostile")
    assert found.status == 200 and found.json["outcome"]["model"] == text
    assert ask(watched, "/requests").json["items"][0]["model"] == text


def test_the_overview_is_of_the_windows_there_are(watched):
    found = ask(watched, "/overview?window=900").json
    assert found["window"] == 900 and found["live"]["in_flight"] == 0 and found["slos"] == [] == found["alerts"]
    for window in ("1", "x", "3600 ", "٣٦٠٠", "9" * 40):
        assert ask(watched, f"/overview?window={window}".replace(" ", "%20").replace("٣٦٠٠", "%D9%A3")).status == 400


def test_objectives_are_those_of_whoever_looks_after_them(loop, database):
    class Watch:
        def slos(self):
            return [{"name": "ttft"}]

        def alerts(self):
            return [{"name": "TtftHigh"}]

    console = Console(loop, database, desk=Desk(ManualClock()), watch=Watch())
    found = ask(console, "/overview").json
    assert found["slos"] == [{"name": "ttft"}] and found["alerts"] == [{"name": "TtftHigh"}]
    assert "slo" in ask(console, "/me").json["features"]


def test_without_a_desk_the_pages_are_told_so(console):
    for path in ("/overview", "/requests", "/fleet", "/config"):
        assert (ask(console, path).status, ask(console, path).code) == (404, "not_there")
    assert ask(console, "/explain", method="POST", body=BODIES["/explain"]).code == "not_there"


def test_the_configuration_is_shown_with_what_changed(watched):
    found = ask(watched, "/config").json
    assert found["text"] == "models: {}" and found["changes"] == [{"version": 3, "at": AT, "lines": ["~ model chat"]}]


def test_a_dry_run_says_what_would_be_different_and_changes_nothing(watched):
    text = FILE.replace("requests: 60/m", "requests: 90/m")
    found = ask(watched, "/config/check", method="POST", body={"text": text}).json
    assert found["good"] and found["diff"] == ["~ limits.calm.requests: 60/m -> 90/m"]
    assert ask(watched, "/config/check", method="POST", body={"text": FILE}).json["diff"] == []
    wrong = ask(watched, "/config/check", method="POST", body={"text": "modles: {}"}).json
    assert not wrong["good"] and wrong["problems"] and wrong["diff"] == []


def dry_run(console, text):
    return ask(console, "/config/check", method="POST", body={"text": text})


def test_what_is_shown_can_be_edited_and_tried_although_its_digests_are_hidden(loop, database):
    console = Console(loop, database, shown=Configured(FILE))
    shown = ask(console, "/config").json["text"]
    assert DIGEST.search(shown) is None and "sha256: (digest 1)" in shown
    same = dry_run(console, shown).json
    assert same == {"good": True, "problems": [], "diff": []}
    edited = shown.replace("requests: 60/m", "requests: 90/m")
    edited = edited.replace("  - { id: filed", "  - { id: more, sha256: " + "cd" * 32 + " }\n  - { id: filed")
    told = dry_run(console, edited)
    assert "~ limits.calm.requests: 60/m -> 90/m" in told.json["diff"] and len(told.json["diff"]) == 2
    assert DIGEST.search(told.text.decode()) is None, "nor is a digest told that was just written"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("id: filed, sha256: (digest 1)", "id: filed, sha256: (digest 1)x"),
        ("id: filed, sha256: (digest 1)", "id: (digest 1), sha256: (digest 2)"),
        ("id: filed, sha256: (digest 1)", "sha256: (digest 1)"),
        ("requests: 60/m", "requests: (digest 1)"),
        ("models: { chat:", "models: { (digest 1):"),
        ("  - { id: filed, sha256: (digest 1), org: globex }", "  []"),
    ],
)
def test_no_edit_makes_a_dry_run_tell_what_is_hidden(loop, database, old, new):
    console = Console(loop, database, shown=Configured(FILE))
    shown = ask(console, "/config").json["text"]
    assert old in shown
    told = dry_run(console, shown.replace(old, new)).text.decode()
    assert not any(digest[:8] in told for digest in DIGEST.findall(FILE)), told


# --- costs ---


@pytest.fixture
def books(watched):
    rows = [
        Entry(f"r{n}", int((AT - 1 - 3_600 * n) * 1e6), org="acme" if n % 2 else "globex", model="chat",
              feature=feature, session=f"s{n}", tags='{"team": "=cmd"}' if n % 3 else "{}", status=200,
              cost_nanos=10**n, output_tokens=n)
        for n, feature in enumerate(("search", "", "search", "=SUM(A1)"))
    ]  # fmt: skip
    watched.loop.run(SqlLedger(watched.database).append(rows))
    return watched


def test_a_pivot_adds_up_to_what_the_ledger_has(books):
    for by in ("model", "feature,org", "session", "tag:team", "day,model", "status"):
        found = ask(books, f"/costs?by={by}").json
        assert sum(one["cost_nanos"] for one in found["items"]) == found["total"]["cost_nanos"] == 1_111
        assert sum(one["requests"] for one in found["items"]) == found["total"]["requests"] == 4


def test_costs_are_filtered_by_everything_the_ledger_has(books):
    def cost(query):
        return ask(books, f"/costs?{query}").json["total"]["cost_nanos"]

    assert (cost("org=acme"), cost("feature=search"), cost("feature="), cost("session=s3")) == (1_010, 101, 10, 1_000)
    assert (cost("tag:team==cmd"), cost("tag:team=")) == (110, 1_001)
    assert cost(f"since={AT - 4_000}&until={AT + 1}") == 11
    assert cost("since=2027-01-15&zone=Europe/Berlin") == 1_111


def test_a_pivot_that_needs_very_many_rows_says_since_when_it_is_unless_all_of_it_is_wanted(books, monkeypatch):
    monkeypatch.setattr(views, "MOST_ROWS", 2)
    for query, cost, shortened in (
        ("by=session", 11, True),
        ("by=session&whole=1", 1_111, False),
        ("by=model", 1_111, False),
    ):
        found = ask(books, f"/costs?{query}").json
        assert (found["total"]["cost_nanos"], found["since"] is not None) == (cost, shortened)
    assert ask(books, "/costs.csv?by=session").text.rstrip().endswith(b"0.000001111")


def test_costs_of_others_are_not_for_who_looks_after_one(books):
    assert ask(books, "/costs?by=org", key=KEYS["acme"]).json["total"]["cost_nanos"] == 1_010
    assert ask(books, "/costs?org=globex", key=KEYS["acme"]).status == 404


def test_a_table_for_spreadsheets_has_no_formulas_and_exact_money(books):
    reply = ask(books, "/costs.csv?by=feature")
    lines = reply.text.decode().splitlines()
    assert lines[0].startswith("feature,requests,errors,") and lines[0].endswith(",cost_dollars")
    assert lines[1].startswith("'=SUM(A1),1,") and lines[1].endswith(",0.000001000")
    assert lines[-1].startswith("(total),4,") and lines[-1].endswith(",0.000001111")
    assert "attachment" in reply.headers["content-disposition"]


@pytest.mark.parametrize(
    "query",
    ["by=nobody", "by=model,model", "zone=Nowhere", "since=9&until=1", "most=0", "status=x", "tag:=1", "hour=1"],
)
def test_costs_that_cannot_be_asked_for_are_refused(books, query):
    assert ask(books, f"/costs?{query}").status == 400


def test_what_a_view_answers_is_json_with_the_fields_the_pages_know(watched):
    total = json.loads(ask(watched, "/overview").text)["total"]
    assert {"requests", "errors", "limited", "ttft", "e2e", "cost_nanos", "retries", "cache_hits"} <= set(total)


def test_slow_means_the_same_in_all_views(watched):
    assert ask(watched, "/me").json["slow_ttft"] == views.SLOW_TTFT
