"""Keys that were made at run time work, change and stop to work in the plane that is there, as those of the file do."""

import hashlib

import pytest
from msgspec import structs

from penstock.config.schema import Access, PreviousKey
from penstock.config.spec import GrantSpec, KeySpec
from penstock.config.stored_keys import KeyOptions, read_options, write_options
from penstock.core.keys import Pepper
from penstock.core.request import Caller, Priority
from penstock.gateway.issued_keys import IssuedKeys
from penstock.gateway.keyring import Keyring
from penstock.gateway.known_key import Terms
from penstock.limits.limit import Account, Amounts
from penstock.limits.rules import Rules
from penstock.stores.keys import StoredKey
from penstock.stores.tenants import StoredTenant
from tests.worlds import spec

PEPPER = Pepper(b"a pepper of some length")
LATER = "2026-12-24T00:00:00Z"


def sha256(key):
    return hashlib.sha256(key).hexdigest()


def stored(id, key=b"key", options=None, *, org="", team="", peppered=False, **more):
    options = options or KeyOptions()
    digest = PEPPER.digest(key).hex() if peppered else sha256(key)
    return StoredKey(id, digest, org, team, write_options(options), 0.0, **more)


def ring(issued, *, pepper=PEPPER, keys=(), **more):
    return Keyring(spec({}, keys=keys, **more), pepper, issued)


def put(*keys):
    issued = IssuedKeys()
    for key in keys:
        issued.put(key)
    return issued


@pytest.mark.parametrize("peppered", [False, True])
@pytest.mark.parametrize("pepper", [None, PEPPER])
def test_an_issued_key_is_found_when_it_is_there_and_by_nobody_else(peppered, pepper):
    issued = IssuedKeys()
    keys = ring(issued, pepper=pepper)
    assert keys.find(b"key") is None
    issued.put(stored("web", peppered=peppered))
    can_be_read = pepper is not None or not peppered
    assert (keys.find(b"key") is not None) == can_be_read
    assert keys.find(b"other") is None


def test_a_digest_that_begins_alike_is_not_the_key():
    digest = bytearray.fromhex(sha256(b"key"))
    digest[20] ^= 1
    assert ring(put(StoredKey("web", digest.hex(), "", "", "{}", 0.0))).find(b"key") is None


def test_a_key_of_the_file_goes_before_an_issued_one():
    keys = ring(put(stored("issued")), keys=(KeySpec("file", sha256(b"key")),))
    assert keys.find(b"key").caller.key_id == "file"


def test_it_is_held_to_its_own_options_and_to_those_around_it():
    tenants = (
        GrantSpec("acme", models=("chat", "other"), priority=Priority.LOW),
        GrantSpec("acme", "search", models=("chat",), priority=Priority.LOW, max_cost=7, expires=10.0),
    )
    options = KeyOptions(models=("chat", "third"), scopes=("read",))
    issued = put(stored("web", options=options, org="acme", team="search", expires_at=20.0))
    known = ring(issued, tenants=tenants).find(b"key")
    assert known.caller == Caller("web", "acme", frozenset({"chat"}), "search", Priority.LOW, 7)
    assert known.terms == Terms(expires=10.0, scopes=frozenset({"read"}))


def test_keys_without_options_of_their_own_have_no_terms():
    known = ring(put(stored("web"))).find(b"key")
    assert known.caller == Caller("web")
    assert known.terms is None


def test_what_is_put_again_is_changed_at_once_and_the_old_digest_forgotten():
    issued = put(stored("web"))
    keys = ring(issued)
    issued.put(stored("web", revoked_at=5.0))
    assert keys.find(b"key").terms.revoked == 5.0
    issued.put(stored("web", b"another"))
    assert keys.find(b"key") is None
    assert keys.find(b"another").caller.key_id == "web"
    assert (len(issued), "web" in issued) == (1, True)


def test_the_key_that_was_replaced_works_until_it_is_said_to_end():
    options = KeyOptions(models=("chat",), previous=PreviousKey(until=LATER, sha256=sha256(b"old")))
    keys = ring(put(stored("web", b"new", options)))
    old, new = keys.find(b"old"), keys.find(b"new")
    assert old.caller == new.caller == Caller("web", models=frozenset({"chat"}))
    assert (old.terms.replaced, new.terms) == (1798070400.0, None)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "[]",
        '{"surprise": 1}',
        '{"networks": ["10.0.0.1/8"]}',
        '{"endpoints": ["x"]}',
        '{"max_cost": "lots"}',
        '{"limits": {"requests": "x"}}',
        '{"expires": "2026-02-30T00:00:00Z"}',
    ],
)
def test_a_key_whose_options_cannot_be_read_lets_nobody_in(attributes):
    good = stored("web")
    issued = put(good)
    issued.put(StoredKey("web", good.digest, "", "", attributes, 0.0))
    assert ring(issued).find(b"key") is None
    assert issued.unreadable == {"web"}
    issued.put(good)
    assert ring(issued).find(b"key") is not None
    assert issued.unreadable == set()
    with pytest.raises(ValueError, match=r"^options: "):
        read_options(attributes, Access)


ACME, SEARCH = GrantSpec("acme", models=("chat",)), GrantSpec("acme", "search", models=())


@pytest.mark.parametrize(
    ("declared", "made", "models"),
    [
        ((), (), "any"),  # just names, where none is known
        ((ACME, SEARCH), (), set()),
        ((ACME,), (), None),  # the team is not there any more
        ((GrantSpec("other"),), (), None),  # the organisation is not
        ((), ("acme/", "acme/search"), {"a"}),
        ((), ("acme/",), {"a", "b"}),  # just the name of a team
        ((), ("acme/search",), "any"),  # a team of nobody
        ((GrantSpec("other"),), ("acme/", "acme/search"), {"a"}),
        ((ACME,), ("acme/search",), set()),
        ((ACME, SEARCH), ("acme/", "acme/search"), set()),  # the file goes before
    ],
)
def test_what_is_around_a_key_is_of_the_file_or_was_made_like_it(declared, made, models):
    issued = put(stored("web", org="acme", team="search"))
    for name in made:
        org, team = name.split("/")
        issued.put_tenant(StoredTenant(org, team, '{"models": ["a"]}' if team else '{"models": ["a", "b"]}', 0.0))
    known = ring(issued, tenants=declared).find(b"key")
    assert (known is None) == (models is None)
    if known is not None:
        assert known.caller.models == (None if models == "any" else models)
        assert (known.caller.org, known.caller.team) == ("acme", "search")


def test_a_tenant_that_is_narrowed_or_revoked_is_so_at_once_for_keys_that_were_just_used():
    issued = put(stored("web", org="acme"))
    issued.put_tenant(StoredTenant("acme", "", "{}", 0.0))
    keys = ring(issued)
    assert keys.find(b"key").caller.models is None
    issued.put_tenant(StoredTenant("acme", "", '{"models": ["chat"]}', 0.0))
    assert keys.find(b"key").caller.models == {"chat"}
    issued.put_tenant(StoredTenant("acme", "", "{}", 0.0, revoked_at=5.0))
    assert keys.find(b"key").terms.revoked == 5.0
    issued.put_tenant(StoredTenant("acme", "", '{"surprise": 1}', 0.0))
    assert keys.find(b"key").terms.revoked == 0.0


def test_a_change_of_what_is_around_them_holds_at_once_with_the_same_keys():
    issued = put(stored("web", org="acme"))
    before = ring(issued, keys=(KeySpec("file", sha256(b"file")),), tenants=(GrantSpec("acme"),))
    assert before.find(b"key").caller.models is None
    after = before.within(spec({}, tenants=(GrantSpec("acme", models=("chat",)),)))
    assert after.find(b"key").caller.models == {"chat"}
    assert before.find(b"key").caller.models is None
    assert after.find(b"file").caller.key_id == "file"


def test_limits_of_its_own_come_and_go_with_a_key():
    issued = IssuedKeys()
    limited = read_options('{"limits": {"requests": "5/m"}, "budget": "$2/month"}', KeyOptions)
    assert issued.put(stored("web", options=limited))
    assert not issued.put(stored("web", options=limited, expires_at=5.0))
    assert not issued.put(stored("free", b"free"))
    issued.put(stored("other", b"other", options=limited))
    rules = Rules((), own=issued.limits_of)
    charged = rules.apply(Account(key="web"), Amounts(1, 1, 5), 0.0).charges
    assert [charge.counter for charge in charged] == ["key web: requests|web|60s", "key web: budget|web|1970-01"]
    assert rules.apply(Account(key="other"), Amounts(1, 1, 5), 0.0).charges != charged  # counted apart
    assert rules.apply(Account(key="free"), Amounts(1, 1, 5), 0.0).charges == ()
    assert issued.put(stored("web"))
    rules.forget()
    assert rules.apply(Account(key="web"), Amounts(1, 1, 5), 0.0).charges == ()


def test_a_key_that_is_in_the_file_too_is_counted_once_as_the_file_says():
    limited = read_options('{"limits": {"requests": "5/m"}}', KeyOptions)
    issued = put(stored("web", options=limited))
    (limit,) = issued.limits_of("web")
    (charge,) = (
        Rules([structs.replace(limit, amount=9)], own=issued.limits_of)
        .apply(Account(key="web"), Amounts(1, 1, 5), 0.0)
        .charges
    )
    assert charge.limit == 9


def test_keys_that_are_alike_share_what_they_have_in_common():
    issued = put(*(stored(str(n), b"%d" % n, KeyOptions(models=("chat",)), org="a") for n in range(3)))
    keys = ring(issued)
    assert keys.find(b"0").caller.models is keys.find(b"2").caller.models
    assert issued.find(bytes.fromhex(sha256(b"0"))).alike is issued.find(bytes.fromhex(sha256(b"1"))).alike
