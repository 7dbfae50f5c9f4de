"""Logging in with a browser: what a cookie opens, what ends it, and who cannot make use of it."""

import pytest

from penstock.config.load import load
from penstock.console import sessions
from tests.console.conftest import FILE, KEYS, Console

MARK = {"x_penstock_console": "1"}


def login(console, secret=KEYS["owner"], **headers):
    return console.ask("POST", "/login", {"secret": secret}, key=None, root="/console/api", **(MARK | headers))


def cookie(reply):
    return reply.headers["set-cookie"].split(";")[0]


def me(console, jar, **headers):
    return console.ask("GET", "/me", key=None, cookie=jar, **headers)  # the console's own greets who is nobody


def test_a_key_becomes_a_cookie_that_says_nothing(console):
    reply = login(console)
    line = reply.headers["set-cookie"]
    assert reply.status == 200 and reply.json["name"] == "key:owner" and reply.json["role"] == "owner"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(line.split("; ")) and KEYS["owner"] not in line
    assert me(console, cookie(reply)).json["name"] == "key:owner"


@pytest.mark.parametrize(
    "secret", ["", "sk-canary-wrong", "sk-canary-owner ".upper(), KEYS["late"] + "x", "a.b.c", "\x00"]
)
def test_nobody_gets_in_without_a_key(console, secret):
    reply = login(console, secret)
    assert (reply.status, reply.code) == (401, "unauthorized") and "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"secret": 1}', b'{"secret": "x", "more": 1}', b"[" * 9_999, b"\xff"]
)
def test_a_login_that_is_none_is_refused(console, raw):
    assert console.ask("POST", "/login", key=None, raw=raw, root="/console/api", **MARK).status == 400


def test_a_cookie_opens_the_admin_api_too_within_its_role(console):
    jar = cookie(login(console, KEYS["viewer"]))
    assert console.ask("GET", "/keys", key=None, cookie=jar).status == 200
    reply = console.ask("POST", "/keys", {"id": "new"}, key=None, cookie=jar, **MARK)
    assert (reply.status, reply.code) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_penstock_console": "0"},
        MARK | {"origin": "https://evil.example"},
        MARK | {"origin": "null"},
        MARK | {"origin": "http://[bad", "host": "x"},
        MARK | {"sec_fetch_site": "cross-site"},
        MARK | {"sec_fetch_site": "same-site"},
    ],
)
def test_another_site_cannot_use_a_cookie_to_change_anything(console, headers):
    jar = cookie(login(console))
    for path, body in (("/keys", {"id": "forged"}), ("/orgs", {"org": "forged"})):
        reply = console.ask("POST", path, body, key=None, cookie=jar, **headers)
        assert (reply.status, reply.code) == (403, "forged")
    assert console.ask("GET", "/audit").json["items"] == []
    assert console.ask("POST", "/logout", key=None, cookie=jar, root="/console/api", **headers).status == 403
    assert me(console, jar).status == 200


def test_our_own_pages_may(console):
    jar = cookie(login(console))
    headers = MARK | {"origin": "http://console:8081", "host": "console:8081", "sec_fetch_site": "same-origin"}
    assert console.ask("POST", "/keys", {"id": "made"}, key=None, cookie=jar, **headers).status == 201


def test_a_login_cannot_be_forged_either(console):
    assert login(console, x_penstock_console="").status == 403


def test_a_key_that_is_shown_needs_no_mark(console):
    assert console.ask("POST", "/keys", {"id": "script"}).status == 201


def test_a_logout_ends_it_on_the_server(console):
    jar = cookie(login(console))
    reply = console.ask("POST", "/logout", key=None, cookie=jar, root="/console/api", **MARK)
    assert reply.status == 204 and "Max-Age=0" in reply.headers["set-cookie"]
    assert me(console, jar).status == 401


def test_it_ends_by_itself_after_twelve_hours(console):
    jar = cookie(login(console))
    console.clock.advance(sessions.LASTS - 1)
    assert me(console, jar).status == 200
    console.clock.advance(2)
    assert me(console, jar).status == 401


def test_a_reload_that_takes_the_key_out_ends_it(console):
    jar, other = cookie(login(console)), cookie(login(console, KEYS["viewer"]))
    console.config = load(FILE.replace("id: owner, role: owner", "id: owner, role: billing"), "penstock.yaml")
    assert me(console, jar).json["role"] == "billing"
    lines = [line for line in FILE.splitlines() if "id: owner" not in line]
    console.config = load("\n".join(lines), "penstock.yaml")
    assert me(console, jar).status == 401 and me(console, other).status == 200


def test_a_key_that_expires_ends_it(console):
    jar = cookie(login(console, KEYS["late"]))
    assert me(console, jar).status == 200
    console.clock.advance(2 * 86_400.0)  # beyond 2027-01-16; a fresh login is refused as well
    assert me(console, jar).status == 401 and login(console, KEYS["late"]).status == 401


@pytest.mark.parametrize(
    "jar", ["penstock_console=", "penstock_console=guess", "a=b; penstock_console=x;;", "=", "\xff"]
)
def test_a_cookie_that_was_not_given_opens_nothing(console, jar):
    login(console)
    assert me(console, jar).status == 401


def test_a_wrong_key_beside_a_good_cookie_is_refused(console):
    jar = cookie(login(console))
    assert console.ask("GET", "/me", key="sk-canary-wrong", root="/console/api", cookie=jar).status == 401


def test_there_are_so_many_sessions_and_the_oldest_ends(console, monkeypatch):
    monkeypatch.setattr(sessions, "MOST", 3)
    jars = [cookie(login(console)) for _ in range(4)]
    assert [me(console, jar).status for jar in jars] == [401, 200, 200, 200]


def test_who_guesses_has_to_wait_and_is_counted(loop, database):
    heard = []
    console = Console(loop, database, on_login=heard.append)
    statuses = [login(console, f"guess {n}").status for n in range(25)]
    assert statuses == [401] * 20 + [429] * 5
    assert login(console).status == 200  # who has the key is let in: nobody can lock them out
    assert (heard.count("refused"), heard.count("limited"), heard.count("ok")) == (20, 5, 1)


def test_a_cookie_over_tls_is_never_sent_without():
    assert b"; Secure" in sessions.set_cookie(b"x", 1.0, secure=True)
    assert b"; Secure" not in sessions.set_cookie(b"x", 1.0, secure=False)
