"""Every row of the table, whoever wrote it: nobody without a key, nobody beyond their role or organisation, and no text
that makes it break."""

from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from penstock.console.bodies import Rotation
from penstock.console.roles import ROLES as ACTS_OF
from penstock.console.routes import ROUTES, Of
from tests.console.conftest import KEYS, ROLES

FILLED = {"org": "acme", "team": "search", "id": "filed"}
BODIES = {
    "/orgs": {"org": "initech"},
    "/orgs/{org}/teams": {"team": "ads"},
    "/keys": {"id": "web"},
    "/imports/litellm": {"keys": []},
    "/users/forget": {"user": "ann"},
    "/config/check": {"text": "models: {}"},
}
each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


def path_of(route, **values):
    return route.path.format(**FILLED | values)


def body_of(route):
    return (
        None if route.body is None else BODIES.get(route.path, {"priority": "low"} if route.method == "PATCH" else {})
    )


@each_route
def test_no_route_is_open(console, route):
    for key in (None, "sk-canary-wrong"):
        reply = console.ask(route.method, path_of(route), body_of(route), key=key)
        assert (reply.status, reply.code) == (401, "unauthorized")
    assert console.ask("GET", "/audit").json["items"] == []


@each_route
@pytest.mark.parametrize("role", ROLES)
def test_a_role_opens_what_its_row_says(console, route, role):
    reply = console.ask(route.method, path_of(route), body_of(route), key=KEYS[role])
    if route.act in ACTS_OF[role]:
        assert reply.status in (200, 201, 400, 409), reply.text
    else:
        assert (reply.status, reply.code) == (403, "forbidden")
        assert console.ask("GET", "/audit").json["items"] == []


@each_route
def test_who_looks_after_one_organisation_reaches_no_other(console, route):
    """`filed` is a key of globex, and acme's admin asks."""
    path = path_of(route, org="globex") + ("?org=globex" if route.of is Of.QUERY else "")
    body = body_of(route)
    if route.of is Of.BODY:
        body = {**body, "org": "globex"}
    reply = console.ask(route.method, path, body, key=KEYS["acme"])
    if route.of is Of.ANYBODY:
        assert reply.status == 200
    else:
        assert reply.code in ("not_found", "forbidden"), reply.text
    assert console.ask("GET", "/audit").json["items"] == []


def test_every_row_says_the_truth_about_its_path():
    for route in ROUTES:
        assert ("{org}" in route.path) == (route.of is Of.PATH) or route.of is Of.HOUSE
        assert ("{id}" in route.path) == (route.of is Of.KEY)
        assert (route.of is Of.QUERY) == ("org" in route.query)
        assert (route.method == "GET") == route.act.name.startswith(("SEE", "LOOK")) or route.path == "/config/check"


# What programs have stumbled over, one way or another.
HOSTILE = (
    "'; drop table api_keys; --",
    '" or ""="',
    "nul\0",
    "x" * 5_000,
    "\U0001f600\u202e\ufeff\u2028",
    "%s%n{0}${jndi:ldap://x}{{7*7}}",
    "../../etc/passwd\r\nset-cookie: a=b",
    "\ud800",
    "",
)
ODD = (None, True, -1, 2**70, 1e308, [], [[[]]], {}, {"a\nb": {"$ref": 1}}, ["x" * 300] * 3)


def described(console):
    """Each operation of the document, its schema resolved as deep as its properties go."""
    document = console.ask("GET", "/openapi.json").json
    schemas = document["components"]["schemas"]

    def resolved(schema):
        while "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            yield method.upper(), path.removeprefix("/admin/v1"), operation, resolved(body).get("properties", {})


def check(console, reply, sent=None, field=None):
    assert reply.status < 500 and console.told == [], (reply.status, reply.text, sent)
    if reply.status >= 300:
        assert set(reply.json["error"]) <= {"code", "message", "faults"}
    elif isinstance(sent, str) and sent and field is not None:
        said = reply.json.get("key", reply.json)
        assert said.get(field, sent) == sent, "stored as something else"
    for line in reply.headers.values():
        assert "\r" not in line and "\n" not in line


def test_no_text_in_any_field_of_any_body_breaks_it(console):
    """4xx, or kept word for word."""
    console.ask("POST", "/orgs", {"org": "initech"})
    console.ask("POST", "/orgs/initech/teams", {"team": "tps"})
    console.ask("POST", "/keys", {"id": "stored", "org": "initech"})
    numbers, statuses = count(), Counter()
    for method, path, _, properties in described(console):
        for name in properties:
            for value in (*HOSTILE, *ODD):
                fresh = f"n{next(numbers)}"
                base = dict(BODIES.get(path, {})) if method == "POST" else {}
                base |= {one: fresh for one in ("id", "org", "team") if one in base}
                here = path.format(org="initech", team="tps", id="stored")
                reply = console.ask(method, here, {**base, name: value})
                check(console, reply, value, name)
                statuses[method, path, reply.status // 100] += 1
    # A rotation takes a duration and nothing else.
    with_text = {(route.method, route.path) for route in ROUTES if route.body not in (None, Rotation)}
    assert {(method, path) for method, path, status in statuses if status == 2} == with_text
    assert sum(statuses.values()) > 1_000
    stored = console.loop.run(console.database.read("select count(*) from api_keys"))[0][0]
    assert 0 < stored <= sum(n for (_, path, status), n in statuses.items() if (path, status) == ("/keys", 2)) + 1


def test_no_text_in_any_path_query_or_header_breaks_it(console):
    for method, path, operation, properties in described(console):
        body = BODIES.get(path, {"priority": "low"}) if properties else None
        for parameter in operation["parameters"]:
            for value in HOSTILE:
                quoted = quote(value)
                filled = {**FILLED, **({parameter["name"]: quoted} if parameter["in"] == "path" else {})}
                here = path.format(**filled)
                headers = {}
                if parameter["in"] == "query":
                    here += f"?{parameter['name']}={quoted}"
                elif parameter["in"] == "header":
                    headers[parameter["name"]] = value.encode("utf-8", "replace").decode("latin-1")
                check(console, console.ask(method, here, body, **headers))


def quote(text):
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def test_no_text_in_an_imported_row_breaks_it(console):
    for name in ("token", "key_alias", "team_id", "models", "expires", "blocked", "max_budget"):
        rows = [{"token": "cd" * 32, name: value} for value in (*HOSTILE, *ODD)]
        check(console, console.ask("POST", "/imports/litellm", {"keys": [*rows, *HOSTILE, *ODD]}))


def test_no_key_breaks_it(console):
    for value in HOSTILE:
        key = value.encode("utf-8", "replace").decode("latin-1")
        assert console.ask("GET", "/me", key=key, peer=value[:20]).status == 401


def test_the_page_says_what_each_role_may():
    page = (Path(__file__).resolve().parent.parent.parent / "docs" / "tenants.md").read_text(encoding="utf-8")
    told = {role: set() for role in ROLES}
    for line in page.partition("| may | owner | admin | viewer | billing |")[2].splitlines()[2:]:
        if not line.startswith("| "):
            break
        act, *may = (cell.strip() for cell in line.strip("|").split("|"))
        for role, yes in zip(ROLES, may, strict=True):
            told[role] |= {act} if yes == "yes" else set()
    assert told == {role: set(map(str, acts)) for role, acts in ACTS_OF.items()}
