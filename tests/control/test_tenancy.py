"""Organisations, teams and keys that are made at run time: held to the file's rules, and every act recorded with it."""

import asyncio
import json
from itertools import count

import pytest
from msgspec import structs

from penstock.config.load import load
from penstock.config.schema import PreviousKey
from penstock.config.stored_keys import KeyOptions, key_of, read_options, with_tenants
from penstock.config.tenancy import Grants
from penstock.control.litellm_keys import import_keys, rows_of
from penstock.control.tenancy import Tenancy
from penstock.control.tenants import Changed, Declared, Exists, Invalid, NotThere, Refused, written
from penstock.control.users import Users
from penstock.core.clock import ManualClock
from penstock.core.keys import Pepper, digest, public_part, well_formed
from penstock.stores.audit import SqlAuditLog, Verified
from penstock.stores.entry import Entry
from penstock.stores.keys import SqlKeys
from penstock.stores.ledger import SqlLedger
from penstock.stores.tenants import SqlTenants
from tests.stores.sums import sums

FILE = f"""\
models: {{ chat: {{ deployments: [a] }}, embed: {{ deployments: [a] }} }}
deployments: {{ a: {{ engine: http://a:1 }} }}
keys_pepper: env:PEPPER
organisations: {{ acme: {{ models: [chat], teams: {{ search: {{ networks: [10.0.0.0/8] }} }} }} }}
keys:
  - {{ id: filed, sha256: {"ab" * 32}, org: acme }}
"""
PEPPER = Pepper(b"a pepper of some length")


@pytest.fixture
def clock():
    return ManualClock()


def service(database, clock, pepper=PEPPER, text=FILE):
    numbers = count(1)
    config = load(text, "penstock.yaml")
    return Tenancy(
        database, lambda: config, clock=clock, entropy=lambda n: next(numbers).to_bytes(n, "little"), pepper=pepper
    )


@pytest.fixture
def tenancy(database, clock):
    return service(database, clock)


def refused(loop, awaitable, kind, match):
    with pytest.raises(kind, match=match):
        loop.run(awaitable)


def acts(loop, database):
    """What the audit log says, after it has been verified."""
    log = SqlAuditLog(database)
    assert isinstance(loop.run(log.verify()), Verified)
    return loop.run(log.events())


def test_a_key_is_made_in_an_organisation_that_was_made(tenancy, database, loop, clock):
    async def main():
        await tenancy.create_tenant("ann", "globex", "", {"endpoints": ["chat.completions"]})
        await tenancy.create_tenant("ann", "globex", "labs", {"models": ["embed"]})
        made = await tenancy.create_key("ann", {"id": "web", "org": "globex", "team": "labs", "expires": "2030-01-31"})
        assert well_formed(made.secret)
        assert (made.key.id, made.key.where, made.key.digest) == ("web", "database", "hmac")
        assert made.key.expires == "2030-01-31T00:00:00Z"
        assert made.key.effective["models"] == ("embed",)
        assert made.key.effective["endpoints"] == ("chat.completions",)
        stored = await SqlKeys(database).get("web")
        assert stored.digest == PEPPER.digest(made.secret.encode()).hex()
        return made.secret

    secret = loop.run(main())
    created = acts(loop, database)
    assert [(one.actor, one.action, one.target) for one in created] == [
        ("ann", "org.create", "globex"),
        ("ann", "team.create", "globex/labs"),
        ("ann", "key.create", "web"),
    ]
    assert created[2].detail["after"] == {
        "id": "web", "org": "globex", "team": "labs", "expires": "2030-01-31T00:00:00Z",
    }  # fmt: skip
    said = json.dumps([one.detail for one in created])
    assert secret not in said and PEPPER.digest(secret.encode()).hex() not in said


def test_what_workers_are_told_of_a_stored_key_is_what_the_service_says_it_may_do(tenancy, database, loop):
    async def main():
        await tenancy.create_tenant("ann", "acme", "ads", {"scopes": ["call"], "expires": "2029-01-01"})
        await tenancy.create_key("ann", {"id": "web", "org": "acme", "team": "ads", "priority": "low"})
        tenants = await SqlTenants(database).changes(0)
        (stored,) = await SqlKeys(database).changes(0)
        grants = Grants(with_tenants(load(FILE, ""), tenants))
        spec = grants.key(key_of(stored))
        (grant,) = grants.table()
        assert (spec.id, spec.peppered, spec.digest, spec.grant) == ("web", True, stored.digest, 0)
        assert (grant.models, grant.scopes, grant.priority) == (("chat",), ("call",), "low")
        assert grant.expires == 1861920000.0
        shown = await tenancy.key("web")
        assert (shown.effective["models"], shown.effective["expires"]) == (("chat",), "2029-01-01T00:00:00Z")

    loop.run(main())


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"models": ["cht"]}, r"models.0 names `cht`, which is not a model. Did you mean `chat`\?"),
        ({"org": "acme", "models": ["embed"]}, "models.0 names `embed`, which organisation `acme` may not use"),
        ({"org": "acme", "team": "search", "networks": ["192.0.2.0/24"]}, "is outside of where team `search` may be"),
        ({"org": "acne"}, r"org names `acne`, which is not an organisation. Did you mean `acme`\?"),
        ({"org": "acme", "team": "serach"}, r"team names `serach`, which is not a team of `acme`. Did you mean"),
        ({"team": "search"}, "team needs `org`"),
        ({"exprires": "2030-01-01"}, r"exprires is not an option. Did you mean `expires`\?"),
        ({"expires": "soon"}, "expires must be a day"),
        ({"endpoints": ["embedings"]}, r"Did you mean `embeddings`\?"),
        ({"id": "no spaces"}, "id must be a name"),
        ({"id": 5}, "id must be a name"),
        ({"org": ["acme"]}, "org must be a name"),
        ({"sha256": "ab" * 32}, "sha256 is not taken"),
        ({"revoked": "2020-01-01"}, "revoked is not set by hand"),
        ({"models": ["chat"] * 9_999}, "is larger than 24,576 bytes"),
        ({"a\nb": 1}, "whose name cannot be that of an option"),
        (
            {"id": "web", "budget": {"amount": "$5", "every": "day", "webhook": "file:/etc/hook"}},
            "references are for the file",
        ),
    ],
)
def test_what_would_be_wrong_in_the_file_is_refused_in_its_words(tenancy, database, loop, entry, told):
    refused(loop, tenancy.create_key("ann", entry), Invalid, told)
    assert acts(loop, database) == []
    assert loop.run(SqlKeys(database).changes(0)) == []


def test_nothing_is_there_twice_whether_in_the_file_or_in_the_database(tenancy, database, loop):
    loop.run(tenancy.create_key("ann", {"id": "web"}))
    for id in ("web", "filed"):
        refused(loop, tenancy.create_key("ann", {"id": id}), Exists, f"there is a key `{id}` already")
    for team in ("", "search"):
        refused(loop, tenancy.create_tenant("ann", "acme", team, {}), Exists, "already")
    loop.run(tenancy.create_tenant("ann", "globex", "", {}))
    refused(loop, tenancy.create_tenant("ann", "globex", "", {}), Exists, "there is an organisation `globex` already")
    refused(loop, tenancy.create_tenant("ann", "globe", "x", {}), NotThere, "Did you mean `globex`")
    assert len(acts(loop, database)) == 2


def test_what_is_in_the_file_is_shown_and_changed_there(tenancy, loop):
    for act in (
        tenancy.change_key("ann", "filed", {}),
        tenancy.rotate_key("ann", "filed", 1.0),
        tenancy.revoke_key("ann", "filed"),
        tenancy.change_tenant("ann", "acme", "", {}),
        tenancy.revoke_tenant("ann", "acme", "search"),
    ):
        refused(loop, act, Declared, "is in the configuration file; change it there")
    assert loop.run(tenancy.key("filed")).where == "file"
    assert loop.run(tenancy.tenant("acme", "search")).networks == ("10.0.0.0/8",)


def test_options_are_changed_one_by_one_and_taken_away(tenancy, database, loop):
    async def main():
        await tenancy.create_key("ann", {"id": "web", "org": "acme", "scopes": ["call"], "expires": "2030-01-01"})
        changed = await tenancy.change_key("bob", "web", {"scopes": None, "priority": "high"})
        assert (changed.scopes, changed.priority, changed.expires) == (None, "high", "2030-01-01T00:00:00Z")
        again = await tenancy.change_key("bob", "web", {"priority": "high"})
        assert again.version == changed.version
        await tenancy.change_key("bob", "web", {"expires": None})
        assert (await SqlKeys(database).get("web")).expires_at is None

    loop.run(main())
    _, first, second = acts(loop, database)
    assert first.detail["before"] == {"scopes": ["call"], "expires": "2030-01-01T00:00:00Z"}
    assert first.detail["after"] == {"priority": "high", "expires": "2030-01-01T00:00:00Z"}
    assert second.detail["after"] == {"priority": "high"}
    refused(loop, tenancy.change_key("bob", "web", {"org": "globex"}), Invalid, "org cannot be changed")
    refused(loop, tenancy.change_key("bob", "web", {"models": ["embed"]}), Invalid, "may not use")


def test_of_two_who_change_the_same_key_one_is_told(tenancy, loop):
    async def main():
        seen = (await tenancy.create_key("ann", {"id": "web"})).key.version
        done = await asyncio.gather(
            *(tenancy.rotate_key("ann", "web", 60.0, seen) for _ in range(4)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in done) == ["Changed"] * 3 + ["NewKey"]

    loop.run(main())
    refused(loop, tenancy.revoke_key("ann", "web", 1), Changed, "is version 2 by now")


def test_rotation_keeps_all_and_lets_the_old_secret_in_for_a_while(tenancy, database, loop, clock):
    async def main():
        first = await tenancy.create_key("ann", {"id": "web", "org": "acme", "scopes": ["call"]})
        clock.advance(100)
        second = await tenancy.rotate_key("ann", "web", 3600.0)
        assert second.secret != first.secret
        assert second.key.previous_until == "2027-01-15T09:01:40Z"
        stored = await SqlKeys(database).get("web")
        assert stored.digest == PEPPER.digest(second.secret.encode()).hex()
        key = key_of(stored)
        assert key.previous == PreviousKey(
            until="2027-01-15T09:01:40Z", hmac=PEPPER.digest(first.secret.encode()).hex()
        )
        assert (key.org, key.scopes) == ("acme", ("call",))
        third = await tenancy.rotate_key("ann", "web", 0.0)
        assert third.key.previous_until is None
        await tenancy.revoke_key("ann", "web")

    loop.run(main())
    refused(loop, tenancy.rotate_key("ann", "web", 1.0), Invalid, "has been revoked")
    for overlap in (-1.0, 1e9, float("nan")):
        refused(loop, tenancy.rotate_key("ann", "web", overlap), Invalid, "overlap must be at most 366d")


def test_a_plain_digest_becomes_a_peppered_one_with_the_next_rotation(database, loop, clock):
    made = loop.run(service(database, clock, pepper=None).create_key("ann", {"id": "web"}))
    assert (made.key.digest, loop.run(SqlKeys(database).get("web")).digest) == ("sha256", digest(made.secret))
    rotated = loop.run(service(database, clock).rotate_key("ann", "web", 60.0))
    assert rotated.key.digest == "hmac"
    options = read_options(loop.run(SqlKeys(database).get("web")).attributes, KeyOptions)
    assert (options.previous.sha256, options.previous.hmac) == (digest(made.secret), None)


def test_revoking_again_changes_nothing(tenancy, database, loop, clock):
    async def main():
        await tenancy.create_tenant("ann", "globex", "", {})
        await tenancy.create_key("ann", {"id": "web", "org": "globex"})
        one = await tenancy.revoke_key("ann", "web")
        clock.advance(60)
        assert await tenancy.revoke_key("ann", "web") == one
        assert one.revoked == "2027-01-15T08:00:00Z"
        await tenancy.revoke_tenant("ann", "globex", "")
        await tenancy.revoke_tenant("ann", "globex", "")
        other = await tenancy.create_key("ann", {"id": "late", "org": "globex"})
        assert other.key.effective["revoked"] == "2027-01-15T08:01:00Z"

    loop.run(main())
    assert [one.action for one in acts(loop, database)].count("key.revoke") == 1
    assert [one.action for one in acts(loop, database)].count("org.revoke") == 1


def test_pages_hold_what_is_in_the_file_and_what_is_not_in_one_order(database, loop, clock):
    text = FILE + "".join(f"  - {{ id: f{n:02}, sha256: {n:064x}, org: acme }}\n" for n in range(0, 30, 2))
    tenancy = service(database, clock, text=text)

    async def main():
        for n in range(1, 30, 2):
            await tenancy.create_key("ann", {"id": f"f{n:02}", **({"org": "acme"} if n < 20 else {})})
        seen, after = [], ""
        while True:
            page = await tenancy.keys(after=after, most=7)
            seen += [one.id for one in page.items]
            if page.next is None:
                break
            after = page.next
        assert seen == [*(f"f{n:02}" for n in range(30)), "filed"]
        acme = await tenancy.keys("acme", most=500)
        assert [one.id for one in acme.items if one.where == "database"] == [f"f{n:02}" for n in range(1, 20, 2)]
        assert acme.next is None
        for name in ("b", "a", "c"):
            await tenancy.create_tenant("ann", name, "", {})
            await tenancy.create_tenant("ann", "acme", name, {})
        assert [one.org for one in (await tenancy.tenants(most=3)).items] == ["a", "acme", "b"]
        assert [one.org for one in (await tenancy.tenants(after="acme")).items] == ["b", "c"]
        assert [one.team for one in (await tenancy.tenants("acme")).items] == ["a", "b", "c", "search"]
        assert (await tenancy.tenants("a")).items == ()

    loop.run(main())
    refused(loop, tenancy.tenants("nobody"), NotThere, "there is no organisation")


def test_keys_out_of_litellm_let_their_callers_in_as_before(tenancy, database, loop, clock):
    theirs = "sk-what-litellm-gave-out"
    rows = [
        {"token": digest(theirs), "key_alias": "web app!", "models": ["chat"], "expires": "2030-01-31T00:00:00+00:00"},
        {"token": digest("sk-2"), "models": [], "max_budget": 5.5, "rpm_limit": 10, "team_id": "t-1"},
        {"token": digest("sk-3"), "key_alias": "gone", "blocked": True},
        {"token": digest("sk-4"), "key_alias": "old", "expires": "2020-01-01T00:00:00"},
        {"token": digest("sk-5"), "key_alias": "odd", "models": ["gpt-9"]},
        {"token": "sk-not-a-digest"},
        "nonsense",
        {"token": digest(theirs), "key_alias": "twice"},
        {"token": digest("sk-6"), "key_alias": "everything", "models": ["all-team-models"], "expires": None},
    ]
    done = loop.run(import_keys(tenancy, "ann", rows, "acme", "", clock.wall()))
    assert len(done.ids) == 3 and done.ids[2] == "everything"
    assert done.lost == {done.ids[1]: ("team_id",)}
    assert [(one.row, one.why.partition(".")[0]) for one in done.skipped] == [
        (3, "was blocked"),
        (4, "has expired"),
        (5, "models"),
        (6, "token is not the SHA-256 of a key, 64 hex digits"),
        (7, "is not a JSON object"),
        (8, "is the same as one before it"),
    ]
    stored = loop.run(SqlKeys(database).find(digest(theirs)))
    assert (key_of(stored).sha256, stored.org, key_of(stored).models) == (digest(theirs), "acme", ("chat",))
    (record,) = acts(loop, database)
    assert record.action == "key.import" and digest(theirs) not in json.dumps(record.detail)
    again = loop.run(import_keys(tenancy, "ann", rows, "acme", "", clock.wall()))
    assert again.ids == () and len(again.skipped) == len(rows)


@pytest.mark.parametrize(
    ("row", "options", "left"),
    [
        ({"tpm_limit": 1000, "rpm_limit": 5}, {"limits": {"requests": "5/m", "tokens": "1000/m"}}, None),
        ({"max_parallel_requests": 3}, {"limits": {"concurrent_requests": 3}}, None),
        ({"max_budget": 0.000001}, {"budget": {"amount": "$0.000001", "every": "total"}}, None),
        ({"max_budget": 50, "budget_duration": "30d"}, {"budget": {"amount": "$50", "every": "month"}}, None),
        ({"max_budget": 50, "budget_duration": "5h"}, {}, ("max_budget",)),
        ({"max_budget": "50"}, {}, ("max_budget",)),
        ({"rpm_limit": 0, "tpm_limit": True}, {}, ("rpm_limit", "tpm_limit")),
        ({"max_parallel_requests": 2**40}, {}, ("max_parallel_requests",)),
        ({"model_max_budget": {"chat": 5}}, {}, ("model_max_budget",)),
    ],
)  # fmt: skip
def test_limits_of_litellm_become_ours_where_there_is_the_same(tenancy, database, loop, clock, row, options, left):
    row = {"token": "cd" * 32, "key_alias": "web", **row}
    done = loop.run(import_keys(tenancy, "ann", [row], "", "", clock.wall()))
    assert (done.ids, done.skipped, done.lost.get("web")) == (("web",), (), left)
    view = loop.run(tenancy.key("web"))
    assert written(view) == options


def test_an_export_is_a_list_or_an_answer_or_a_row_on_each_line():
    rows = [{"token": "a"}, {"token": "b"}]
    assert rows_of(json.dumps(rows)) == rows_of(json.dumps({"keys": rows})) == rows
    assert rows_of("\n".join(map(json.dumps, rows))) == rows
    for text in ("", "[1", "5", '{"keys": 5}', "\ud800"):
        with pytest.raises(Refused):
            rows_of(text)


def test_a_forgotten_user_is_in_no_row_and_every_sum_is_as_before(database, loop, clock):
    users, ledger = Users(database, clock=clock, pepper=PEPPER), SqlLedger(database)
    ann, bob = users.hash("ann@example.com", "acme"), users.hash("bob", "acme")
    rows = [
        Entry("r1", 5, org="acme", user_hash=ann, session="s1", tags='{"case":"7"}', cost_nanos=5),
        Entry("r2", 6, org="acme", user_hash=ann, cost_nanos=7),
        Entry("r3", 7, org="acme", user_hash=bob, session="s2", cost_nanos=9),
    ]
    loop.run(ledger.append(rows))
    before = loop.run(sums(database, (), 0, 3_600_000_000))
    assert loop.run(users.forget("cli:root", ann)) == 2
    assert loop.run(sums(database, (), 0, 3_600_000_000)) == before
    left = loop.run(ledger.entries(0, 100))
    assert [(one.user_hash, one.session, one.tags) for one in left] == [
        ("", "", "{}"),
        ("", "", "{}"),
        (bob, "s2", "{}"),
    ]
    (record,) = acts(loop, database)
    assert (record.action, record.detail) == ("user.forget", {"rows": 2})
    assert ann not in json.dumps(record.target)
    for wrong in ("", "ann", ann.upper(), ann + "\n"):
        refused(loop, users.forget("ann", wrong), Invalid, "32 lower-case hex digits")


def test_a_stored_version_is_from_one_counter_for_keys_and_tenants(tenancy, database, loop):
    async def main():
        await tenancy.create_tenant("ann", "globex", "", {})
        await tenancy.create_key("ann", {"id": "web", "org": "globex"})
        await tenancy.revoke_tenant("ann", "globex", "")
        (tenant,), (key,) = await SqlTenants(database).changes(0), await SqlKeys(database).changes(0)
        assert (key.version, tenant.version) == (2, 3)
        assert await SqlTenants(database).changes(2) == [tenant]
        assert await SqlTenants(database).get("globex") == tenant
        assert structs.replace(tenant, version=0).revoked_at == 1_800_000_000.0

    loop.run(main())


def test_public_parts_name_keys_that_nobody_named(tenancy, loop):
    made = loop.run(tenancy.create_key("ann", {}))
    assert made.key.id == public_part(made.secret)
