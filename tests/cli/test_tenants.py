"""The verbs that work on the database: organisations, teams, keys, the audit log, and users who ask to be forgotten."""

import asyncio
import json
from pathlib import Path

import pytest

from penstock.config.stored_keys import key_of
from penstock.core.keys import USERS, Pepper, digest, user_hash, well_formed
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.keys import SqlKeys
from penstock.stores.ledger import SqlLedger
from penstock.stores.sql import Statement

FILE = """\
models: { chat: { deployments: [a] }, embed: { deployments: [a] } }
deployments: { a: { engine: http://a:1 } }
keys:
  - { id: filed, sha256: "abababababababababababababababababababababababababababababababab" }
"""


@pytest.fixture
def house(penstock):
    Path("penstock.yaml").write_text(FILE)
    return penstock


def in_database(work, path="penstock.db"):
    async def main():
        database = await open_database(path)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(main())


def stored(id):
    return in_database(lambda database: SqlKeys(database).get(id))


def test_tenants_are_made_looked_at_changed_and_revoked(house):
    assert house("org", "create", "acme", "--budget", "$50/month").out.startswith("acme  budget $50/month; created ")
    assert house("team", "create", "acme", "search", "--model", "chat", "--limit", "requests=600/m").code == 0
    made = house("key", "create", "--id", "web", "--org", "acme", "--team", "search", "--expires", "2037-01-31")
    secret = made.out.splitlines()[0]
    assert well_formed(secret)
    assert stored("web").digest == digest(secret)
    assert [line.split()[0] for line in house("key", "list").out.splitlines()] == ["filed", "web"]
    shown = house("key", "show", "web").out
    assert "models     chat\n" in shown and "expires    2037-01-31T00:00:00Z\n" in shown and secret not in shown
    assert "priority low" in house("key", "change", "web", "--priority", "low", "--clear", "expires").out
    assert stored("web").expires_at is None
    assert json.loads(house("org", "list", "--json").out)[0]["budget"] == "$50/month"
    (team,) = json.loads(house("team", "list", "acme", "--json").out)
    assert (team["limits"], team["models"]) == ({"requests": "600/m"}, ["chat"])
    assert "limits  requests 600/m" in house("team", "show", "acme", "search").out
    assert "revoked" in house("team", "revoke", "acme", "search").out
    assert house("org", "change", "acme", "--clear", "budget").out.startswith("acme  created")
    assert "revoked" in house("org", "revoke", "acme").out
    assert json.loads(house("org", "show", "acme", "--json").out)["revoked"]


def test_a_key_is_rotated_and_revoked_in_the_database(house):
    first = json.loads(house("key", "create", "--id", "web", "--json").out)["key"]
    rotated = json.loads(house("key", "rotate", "web", "--overlap", "2h", "--json").out)
    assert key_of(stored("web")).previous.sha256 == digest(first)
    assert stored("web").digest == digest(rotated["key"])
    assert "works no more" in house("key", "rotate", "web", "--overlap", "0s").out
    assert key_of(stored("web")).previous is None
    assert house("key", "revoke", "web").out.startswith("`web` is revoked since 20")
    assert house("key", "rotate", "web").code == 2


def test_the_pepper_of_the_file_is_used(house, monkeypatch):
    Path("penstock.yaml").write_text(FILE + "keys_pepper: env:PEPPER\n")
    assert house("key", "create").err.startswith("the pepper: the environment variable PEPPER is not set")
    monkeypatch.setenv("PEPPER", "a pepper of some length")
    secret = house("key", "create", "--id", "web").out.splitlines()[0]
    assert stored("web").digest == Pepper(b"a pepper of some length").digest(secret.encode()).hex()
    assert house("key", "create", "--pepper", "env:PEPPER").code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["key", "create", "--model", "cht"], "models.0 names `cht`, which is not a model. Did you mean `chat`?"),
        (["key", "create", "--id", "filed"], "there is a key `filed` already"),
        (["key", "change", "filed", "--priority", "low"], "key `filed` is in the configuration file; change it there"),
        (["key", "create", "--limit", "requests"], "--limit is WHAT=RATE"),
        (["key", "create", "--limit", "request=5/m"], "limits.request is not an option. Did you mean `requests`?"),
        (["key", "create", "--admin", "owner", "--model", "chat"], "a key of the admin API has no models"),
        (["key", "rotate", "nobody"], "there is no key `nobody`"),
        (["team", "create", "nobody", "x"], "there is no org `nobody`"),
        (["org", "create", "no spaces"], "org must be a name"),
        (["org", "show", "nobody"], "there is no org `nobody`"),
        (["team", "list", "nobody"], "there is no organisation `nobody`"),
        (["user", "forget", "ann", "--hash"], "user_hash must be 32 lower-case hex digits"),
        (["user", "forget", "ann", "--hash", "--org", "acme"], "leave out --org"),
        (["audit", "verify", "--seen", "yes"], "--seen is a number"),
        (["key", "list", "--config", "no.yaml"], "there is no no.yaml"),
        (["key", "list", "--database", "mysql://x"], "a database is postgres://"),
    ],
)
def test_what_is_wrong_is_a_mistake_in_a_sentence(house, arguments, told):
    ran = house(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_the_line_for_a_key_of_the_admin_api_is_printed_and_fits(house):
    ran = house("key", "create", "--admin", "billing", "--id", "cfo", "--org", "acme")
    Path("penstock.yaml").write_text(FILE + ran.out.partition("admin:")[1] + ran.out.partition("admin:")[2])
    assert house("check").code == 0
    from penstock.cli.config_file import load_file

    (key,) = load_file(Path("penstock.yaml")).admin.keys
    assert (key.id, key.role, key.org, key.sha256) == ("cfo", "billing", "acme", digest(ran.out.splitlines()[0]))


def test_keys_come_from_litellm_with_what_was_left_out(house):
    rows = [
        {"token": digest("sk-canary-theirs"), "key_alias": "web", "models": ["chat"], "soft_budget": 5},
        {"token": digest("sk-2"), "key_alias": "old", "blocked": True},
    ]
    Path("export.json").write_text(json.dumps({"keys": rows}))
    ran = house("key", "import", "export.json", "--org", "acme")
    assert (ran.code, ran.out) == (1, "1 of 2 keys were taken.\n")
    assert ran.err == "Left out: old: was blocked\nNot taken of web: soft_budget\n"
    assert stored("web").digest == digest("sk-canary-theirs")
    Path("export.json").write_text("nonsense")
    assert house("key", "import", "export.json").code == 2


def test_acts_are_in_the_audit_log_which_tells_when_it_was_touched(house):
    assert house("audit", "list").err == "There is nothing.\n"
    house("org", "create", "acme", "--model", "chat")
    house("key", "create", "--id", "web", "--org", "acme")
    first, second = house("audit", "list").out.splitlines()
    assert "org.create acme  after models chat" in first and "key.create web" in second
    assert [one["seq"] for one in json.loads(house("audit", "list", "--after", "1", "--json").out)] == [2]
    verified = house("audit", "verify")
    assert verified.code == 0 and verified.out.startswith("2 acts, and each is what was written.\n2:")
    seen = verified.out.splitlines()[1]
    assert house("audit", "verify", "--seen", seen).code == 0
    cut = [
        Statement("drop trigger audit_is_kept"),
        Statement("delete from audit where seq = 2"),
    ]
    in_database(lambda database: database.write(cut))
    assert house("audit", "verify").code == 0
    gone = house("audit", "verify", "--seen", seen, "--json")
    assert (gone.code, json.loads(gone.out)["whole"]) == (1, False)


def test_a_user_is_forgotten_by_id(house):
    house("org", "create", "acme")
    row = Entry("r1", 5, org="acme", user_hash=user_hash(b"ann", "acme", USERS), session="s", cost_nanos=5)
    in_database(lambda database: SqlLedger(database).append([row]))
    assert house("user", "forget", "ann").out == "0 requests are nobody's now.\n"
    assert json.loads(house("user", "forget", "ann", "--org", "acme", "--json").out)["rows"] == 1
    (left,) = in_database(lambda database: SqlLedger(database).entries(0, 10))
    assert (left.user_hash, left.session, left.cost_nanos) == ("", "", 5)


def test_another_database_can_be_named(house, monkeypatch):
    house("key", "create", "--id", "web", "--database", "other.db")
    assert not Path("penstock.db").exists() and Path("other.db").exists()
    monkeypatch.setenv("PENSTOCK_DATABASE", "other.db")
    assert "web" in house("key", "list").out
