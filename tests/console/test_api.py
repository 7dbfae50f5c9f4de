"""The admin API does what the command line does, for those who may, and says why not to others."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from penstock.console.acts import Use
from penstock.stores.entry import Entry
from penstock.stores.keys import SqlKeys
from penstock.stores.ledger import SqlLedger
from tests.console.conftest import KEYS, Console


def test_an_organisation_a_team_and_a_key_are_made_looked_at_and_revoked(console):
    assert console.ask("POST", "/orgs", {"org": "initech", "endpoints": ["embeddings"]}).status == 201
    made = console.ask("POST", "/orgs/initech/teams", {"team": "tps", "models": ["embed"]})
    assert (made.status, made.json) == (
        201,
        {"org": "initech", "team": "tps", "where": "database", "models": ["embed"], "version": 2,
         "created": "2027-01-15T08:00:00Z"},
    )  # fmt: skip
    made = console.ask("POST", "/keys", {"id": "web", "org": "initech", "team": "tps"})
    assert made.json["secret"].startswith("sk-pen-")
    assert made.headers["etag"] == '"3"' and made.headers["cache-control"] == "no-store"
    shown = console.ask("GET", "/keys/web")
    assert shown.json == made.json["key"]
    assert (shown.json["effective"]["models"], shown.json["effective"]["endpoints"]) == (["embed"], ["embeddings"])
    assert console.ask("PATCH", "/keys/web", {"priority": "low"}).json["priority"] == "low"
    rotated = console.ask("POST", "/keys/web/rotate", {"overlap": "1h"})
    assert rotated.json["secret"] != made.json["secret"]
    assert rotated.json["key"]["previous_until"] == "2027-01-15T09:00:00Z"
    assert console.ask("POST", "/keys/web/rotate").json["key"]["previous_until"] == "2027-01-22T08:00:00Z"
    assert console.ask("POST", "/keys/web/revoke").json["revoked"] == "2027-01-15T08:00:00Z"
    assert console.ask("POST", "/orgs/initech/teams/tps/revoke").json["revoked"] == "2027-01-15T08:00:00Z"
    assert console.ask("POST", "/orgs/initech/revoke").status == 200
    acts = [event["action"] for event in console.ask("GET", "/audit").json["items"]]
    assert acts == [
        "org.create", "team.create", "key.create", "key.change", "key.rotate", "key.rotate", "key.revoke",
        "team.revoke", "org.revoke",
    ]  # fmt: skip
    assert {event["actor"] for event in console.ask("GET", "/audit").json["items"]} == {"key:owner"}
    verified = console.ask("GET", "/audit/verify").json
    assert (verified["whole"], verified["seq"]) == (True, 9)
    seen = console.ask("GET", f"/audit/verify?seq=9&head={'0' * 64}").json
    assert (seen["whole"], seen["why"]) == (False, "the log up to here is another one than was seen before")
    for secret in (made.json["secret"], rotated.json["secret"]):
        assert secret not in console.ask("GET", "/keys").text.decode()
        assert secret not in console.ask("GET", "/audit").text.decode()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "told"),
    [
        ("POST", "/keys", {"models": ["cht"]}, 400, "invalid", "Did you mean `chat`?"),
        ("POST", "/keys", {"id": "filed"}, 409, "exists", "there is a key `filed` already"),
        ("PATCH", "/keys/filed", {"priority": "low"}, 409, "declared_in_file", "change it there"),
        ("GET", "/keys/fileds", None, 404, "not_found", "Did you mean `filed`?"),
        ("POST", "/orgs/acme/teams", {}, 400, "invalid", "team is missing"),
        ("POST", "/orgs/acmee/teams", {"team": "x"}, 404, "not_found", "there is no org `acmee`"),
        ("POST", "/keys", None, 400, "malformed", "a JSON object is missing"),
        ("GET", "/keys", {}, 400, "malformed", "nothing to send"),
        ("GET", "/nowhere", None, 404, "not_found", "/admin/v1/openapi.json"),
        ("DELETE", "/keys", None, 405, "method_not_allowed", "takes GET and POST"),
        ("GET", "/keys?most=0", None, 400, "invalid", "most must be from 1 to 500"),
        ("GET", "/keys?page=2", None, 400, "invalid", "`page` is not a parameter here"),
        ("GET", "/keys?org=a&org=b", None, 400, "invalid", "there twice"),
        ("GET", "/keys?%ff=1", None, 400, "malformed", "the query"),
        ("GET", "/keys/%ff", None, 400, "malformed", "not UTF-8"),
        ("GET", "/costs?by=mood", None, 400, "invalid", "there are hour, day, org"),
        ("GET", "/costs?since=soon", None, 400, "invalid", "since must be a day"),
        ("GET", "/costs?since=2027-02-01", None, 400, "invalid", "does not end before it begins"),
        ("POST", "/keys/web/rotate", {"overlap": "7"}, 400, "invalid", "must be a duration"),
        ("POST", "/users/forget", {}, 400, "invalid", "exactly one of"),
        ("POST", "/users/forget", {"user_hash": "ann"}, 400, "invalid", "32 lower-case hex digits"),
        ("POST", "/imports/litellm", {"keys": 5}, 400, "invalid", "keys Expected `array`"),
    ],
)
def test_what_is_wrong_is_told_in_one_shape(console, method, path, body, status, code, told):
    reply = console.ask(method, path, body)
    assert (reply.status, reply.code) == (status, code)
    assert told in reply.json["error"]["message"]


def test_faults_say_where(console):
    reply = console.ask("POST", "/keys", {"id": "web", "modles": ["chat"], "expires": "soon"})
    assert {fault["at"] for fault in reply.json["error"]["faults"]} == {"modles", "expires"}


def test_a_body_that_is_no_json_object_is_refused(console):
    for raw in (b"[]", b"5", b"{", b"\xff", b"[" * 100_000, b'{"id":"\\ud800"}', b'{"id":1e999}'):
        assert console.ask("POST", "/keys", raw=raw).status == 400
    assert console.ask("POST", "/keys", {"id": "x"}, content_type="text/plain").status == 415


def test_nobody_is_let_in_without_a_key_of_its_own(console):
    for key in (None, "", "sk-nobody", KEYS["owner"] + "x", "filed"):
        reply = console.ask("GET", "/me", key=key)
        assert (reply.status, reply.code, reply.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    made = console.ask("POST", "/keys", {"id": "web"}).json["secret"]
    assert console.ask("GET", "/me", key=made).status == 401, "keys that call models do not open the admin API"
    assert console.ask("GET", "/me", key=KEYS["late"]).status == 200
    console.clock.advance(86_400)
    assert console.ask("GET", "/me", key=KEYS["late"]).status == 401


def test_an_address_that_guesses_is_told_to_wait_and_a_right_key_is_let_in_all_the_same(console):
    for _ in range(20):
        assert console.ask("GET", "/me", key="sk-canary-wrong").status == 401
    reply = console.ask("GET", "/me", key="sk-canary-wrong")
    assert (reply.status, reply.headers["retry-after"]) == (429, "61")
    assert console.ask("GET", "/me").status == 200
    assert console.ask("GET", "/me", key="sk-canary-wrong", peer="192.0.2.1").status == 401
    console.clock.advance(61)
    assert console.ask("GET", "/me", key="sk-canary-wrong").status == 401


def test_who_looks_after_one_organisation_sees_nothing_of_another(console):
    def ask(*arguments):
        return console.ask(*arguments, key=KEYS["acme"])

    console.ask("POST", "/keys", {"id": "theirs", "org": "globex"})
    made = ask("POST", "/keys", {"id": "ours"})
    assert made.json["key"]["org"] == "acme"
    assert [one["id"] for one in ask("GET", "/keys").json["items"]] == ["ours"]
    assert ask("GET", "/keys?org=globex").status == 404
    for method, path in (
        ("GET", "/keys/theirs"),
        ("PATCH", "/keys/theirs"),
        ("POST", "/keys/theirs/rotate"),
        ("POST", "/keys/theirs/revoke"),
        ("GET", "/orgs/globex"),
        ("GET", "/orgs/globex/teams"),
        ("GET", "/keys/nobody"),
    ):
        reply = ask(method, path, {} if method == "PATCH" else None)
        assert (reply.status, reply.code) == (404, "not_found"), path
    assert ask("POST", "/keys", {"id": "x", "org": "globex"}).status == 404
    assert ask("POST", "/orgs/globex/teams", {"team": "x"}).status == 404
    assert ask("POST", "/imports/litellm", {"keys": [], "org": "globex"}).status == 404
    assert ask("GET", "/costs?org=globex").status == 404
    for path in ("/orgs", "/audit", "/audit/verify", "/limits"):
        assert ask("GET", path).status == 403
    assert ask("POST", "/orgs/acme/teams", {"team": "ads"}).status == 201
    assert ask("GET", "/me").json["org"] == "acme"


def test_billing_changes_budgets_and_nothing_else(console):
    console.ask("POST", "/keys", {"id": "web"})
    changed = console.ask("PATCH", "/keys/web", {"max_cost": "0.50 USD"}, key=KEYS["billing"])
    assert changed.status == 200 and changed.json["max_cost"] == "0.50 USD"
    for body in ({"models": ["chat"]}, {"max_cost": "1 USD", "models": None}, {}):
        assert console.ask("PATCH", "/keys/web", body, key=KEYS["billing"]).status == 403
    assert console.ask("PATCH", "/keys/web", {"max_cost": "1 USD"}, key=KEYS["viewer"]).status == 403


def test_a_change_of_what_somebody_else_changed_is_refused(console):
    etag = console.ask("POST", "/keys", {"id": "web"}).headers["etag"]
    assert console.ask("PATCH", "/keys/web", {"priority": "low"}, if_match=etag).status == 200
    reply = console.ask("PATCH", "/keys/web", {"priority": "high"}, if_match=etag)
    assert (reply.status, reply.code) == (412, "changed_meanwhile")
    assert console.ask("PATCH", "/keys/web", {"priority": "high"}, if_match="*").status == 200
    assert console.ask("PATCH", "/keys/web", {}, if_match="yes").status == 400


def test_the_same_request_again_gets_the_same_answer_and_does_nothing(console):
    def make(**body):
        return console.ask("POST", "/keys", body, idempotency_key="one")

    first = make(id="web")
    again = make(id="web")
    assert (again.status, again.text, again.headers["etag"]) == (201, first.text, first.headers["etag"])
    assert make(id="other").code == "key_used"
    assert console.ask("POST", "/keys", {"id": "web"}, idempotency_key="one", key=KEYS["admin"]).code == "exists"
    assert console.ask("POST", "/keys", {"id": "web"}).code == "exists"
    assert len(console.ask("GET", "/audit").json["items"]) == 1
    console.clock.advance(601)
    assert make(id="web").code == "exists"
    assert console.ask("POST", "/keys", {"id": "x"}, idempotency_key="y" * 129).status == 400


def test_two_who_ask_the_same_at_once_make_one_key(console):
    async def main():
        return await asyncio.gather(
            *(console.asking("POST", "/keys", {"id": "web"}, idempotency_key="k") for _ in range(5))
        )

    replies = console.loop.run(main())
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409, 409]
    assert {reply.code for reply in replies if reply.status == 409} == {"in_progress"}


def test_pages_follow_each_other(console):
    for n in range(5):
        console.ask("POST", "/keys", {"id": f"k{n}"})
    seen, path = [], "/keys?most=2"
    while path:
        page = console.ask("GET", path).json
        seen += [one["id"] for one in page["items"]]
        path = f"/keys?most=2&after={page['next']}" if "next" in page else ""
    assert seen == ["filed", "k0", "k1", "k2", "k3", "k4"]
    first = console.ask("GET", "/audit?most=3").json
    assert [one["seq"] for one in first["items"]] == [1, 2, 3]
    assert [one["seq"] for one in console.ask("GET", f"/audit?after={first['next']}").json["items"]] == [4, 5]
    assert [one["org"] for one in console.ask("GET", "/orgs").json["items"]] == ["acme", "globex"]
    assert [one["team"] for one in console.ask("GET", "/orgs/acme/teams").json["items"]] == ["search"]


def test_costs_are_told_by_what_was_asked_for(console):
    at = 1_799_990_000_000_000
    rows = [
        Entry("r1", at, org="acme", team="search", model="chat", input_tokens=10, cost_nanos=5),
        Entry("r2", at, org="acme", team="ads", model="chat", input_tokens=20, cost_nanos=7),
        Entry("r3", at, org="globex", model="embed", cost_nanos=None, error="x"),
    ]
    console.loop.run(SqlLedger(console.database).append(rows))
    whole = console.ask("GET", "/costs").json
    assert (whole["total"]["cost_nanos"], whole["total"]["requests"], whole["total"]["unpriced"]) == (12, 3, 1)
    assert (whole["items"], whole["n_others"], whole["missing"]) == ([], 0, [])
    by = console.ask("GET", "/costs?by=org,team").json["items"]
    assert [(one["group"], one["cost_nanos"]) for one in by] == [
        ({"org": "acme", "team": "ads"}, 7),
        ({"org": "acme", "team": "search"}, 5),
        ({"org": "globex", "team": ""}, 0),
    ]
    dearest = console.ask("GET", "/costs?by=team&most=1").json
    assert [one["group"] for one in dearest["items"]] == [{"team": "ads"}]
    assert (dearest["n_others"], dearest["others"]["cost_nanos"], dearest["total"]["cost_nanos"]) == (2, 5, 12)
    assert console.ask("GET", "/costs?team=ads").json["total"]["cost_nanos"] == 7
    assert console.ask("GET", "/costs?until=2027-01-01").json["total"]["requests"] == 0
    assert [one["group"] for one in console.ask("GET", "/costs?by=day").json["items"]] == [{"day": "2027-01-15"}]
    console.loop.run(SqlLedger(console.database).let_go(at))
    gone = console.ask("GET", "/costs?by=user_hash&since=2027-01-15").json["missing"]
    assert gone == [["2027-01-15T00:00:00Z", "2027-01-15T05:00:00Z"]]
    theirs = console.ask("GET", "/costs?by=org", key=KEYS["acme"]).json["items"]
    assert [one["group"] for one in theirs] == [{"org": "acme"}]


def test_a_user_is_forgotten_by_id_or_by_hash(console):
    hashed = console.ask("POST", "/users/forget", {"user": "ann", "org": "acme"}).json["user_hash"]
    row = Entry("r1", 5, org="acme", user_hash=hashed, session="s", cost_nanos=3)
    console.loop.run(SqlLedger(console.database).append([row]))
    assert console.ask("POST", "/users/forget", {"user_hash": hashed}).json == {"user_hash": hashed, "rows": 1}
    assert console.ask("POST", "/users/forget", {"user_hash": hashed}, key=KEYS["admin"]).status == 403
    assert hashed not in console.ask("GET", "/audit").text.decode()


def test_keys_are_taken_over_from_litellm(console):
    rows = [{"token": "cd" * 32, "key_alias": "web", "models": ["chat"]}, {"token": "no"}]
    done = console.ask("POST", "/imports/litellm", {"keys": rows, "org": "acme"}).json
    assert done["ids"] == ["web"]
    assert done["skipped"] == [{"row": 2, "name": "", "why": "token is not the SHA-256 of a key, 64 hex digits"}]
    assert console.loop.run(SqlKeys(console.database).find("cd" * 32)).org == "acme"


def test_a_configuration_is_checked_without_being_used(console):
    assert console.ask("POST", "/config/check", {"text": "models: {}"}).json["good"] is False
    good = "models: { m: { deployments: [d] } }\ndeployments: { d: { model: tiny } }\n"
    assert console.ask("POST", "/config/check", {"text": good}).json == {"good": True, "problems": []}
    elsewhere = good + "keys: { file: /etc/passwd }\n"
    (problem,) = console.ask("POST", "/config/check", {"text": elsewhere}).json["problems"]
    assert problem["message"] == "cannot be read: this place reads one file only"


def test_limits_are_told_with_what_is_used_of_them(console):
    (calm,) = console.ask("GET", "/limits").json["items"]
    assert (calm["name"], calm["is_budget"], calm["options"]["requests"]) == ("calm", False, "60/m")
    assert "used" not in calm

    async def usage():
        return {"calm": (Use("key web", 3, 60),)}

    console.server._api._house = replace(console.server._api._house, usage=usage)
    (calm,) = console.ask("GET", "/limits").json["items"]
    assert calm["used"] == [{"who": "key web", "used": 3, "amount": 60}]


def test_a_database_that_is_away_is_told_as_that(console):
    console.loop.run(console.database.close())
    for method, path, body in (("GET", "/keys", None), ("POST", "/keys", {"id": "web"})):
        reply = console.ask(method, path, body, idempotency_key="a")
        assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "store_away", "1")


def test_admin_keys_are_those_of_the_configuration_of_the_moment(console):
    (keys, admin) = (console.config.admin.keys, console.config.admin)
    console.config = replace(console.config, admin=replace(admin, keys=keys[1:]))
    assert console.ask("GET", "/me").status == 401
    assert console.ask("GET", "/me", key=KEYS["admin"]).status == 200
    console.config = replace(console.config, admin=None)
    assert console.ask("GET", "/me", key=KEYS["admin"]).status == 401


def test_the_document_describes_every_route(console):
    from penstock.console.routes import ROUTES

    described = console.ask("GET", "/openapi.json").json
    there = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert there == {(route.method, "/admin/v1" + route.path) for route in ROUTES}
    ids = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)
    assert set(json.dumps(described).split('"$ref": "#/components/schemas/')[1:]) != set()


def test_pages_of_the_wire_hold_nothing_that_is_hidden(loop, database):
    console = Console(loop, database)
    console.ask("POST", "/keys", {"id": "web"})
    assert b"digest" in console.ask("GET", "/keys").text
    assert console.loop.run(SqlKeys(database).get("web")).digest.encode() not in console.ask("GET", "/keys/web").text
