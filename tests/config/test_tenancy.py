"""Organisations, teams and keys in the file: what is inherited, what is narrowed, what is refused and where."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.compile import compile_plane
from penstock.config.diff import MAX_KEYS, diff
from penstock.config.load import ConfigError, load
from penstock.config.schema import Access
from penstock.config.spec import DigestSpec, GrantSpec, PlaneSpec
from penstock.config.tenancy import narrowed
from penstock.config.units import unix_seconds
from penstock.core.request import Endpoint, Priority

HEAD = """\
models: { chat: { deployments: [a] }, embed: { deployments: [a] }, big: { deployments: [a] } }
deployments: { a: { engine: http://a:1 } }
keys_pepper: env:PEPPER
"""
ORGS = """\
organisations:
  acme:
    models: [chat, embed]
    networks: [10.0.0.0/8]
    priority: low
    expires: 2030-01-01
    teams:
      search: { models: [chat], endpoints: [chat.completions, embeddings], networks: [10.1.0.0/16, 10.2.0.0/16] }
      ads: {}
"""
DIGEST = "ab" * 32


def spec(keys: str, head: str = HEAD + ORGS) -> PlaneSpec:
    return compile_plane(load(f"{head}keys:\n{keys}", "f"), 1, {})


def granted(keys: str, head: str = HEAD + ORGS) -> GrantSpec:
    plane = spec(keys, head)
    grant = plane.keys[-1].grant
    return GrantSpec() if grant is None else plane.grants[grant]


def told(keys: str, head: str = HEAD + ORGS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(f"{head}keys:\n{keys}", "f")
    return [f"{problem.path} {problem.message}" for problem in caught.value.problems]


def key(options: str, n: int = 0) -> str:
    return f"  - {{ id: k{n}, hmac: {n:064x}, {options} }}\n"


def test_a_key_has_what_its_team_has_and_a_team_what_its_organisation_has():
    grant = granted(key("org: acme, team: search"))
    assert (grant.org, grant.team) == ("acme", "search")
    assert grant.models == ("chat",)
    assert grant.endpoints == (Endpoint.CHAT, Endpoint.EMBEDDING)
    assert grant.networks == ("10.1.0.0/16", "10.2.0.0/16")
    assert grant.expires == datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    assert grant.priority is Priority.LOW
    assert granted(key("org: acme, team: ads")).models == ("chat", "embed")


def test_a_key_narrows_what_is_around_it_and_says_its_own_priority():
    grant = granted(
        key(
            "org: acme, team: search, endpoints: [embeddings], scopes: [call], networks: [10.2.3.0/24], "
            "expires: 2031-01-01, not_before: 2027-01-01, priority: high"
        )
    )
    assert grant.endpoints == (Endpoint.EMBEDDING,)
    assert grant.scopes == ("call",)
    assert grant.networks == ("10.2.3.0/24",)
    assert grant.expires == unix_seconds("2030-01-01"), "the organisation's own end is earlier"
    assert grant.not_before == unix_seconds("2027-01-01")
    assert grant.priority is Priority.HIGH


def test_an_organisation_that_is_revoked_takes_all_of_its_keys_with_it():
    head = HEAD + "organisations: { acme: { revoked: 2026-11-01, teams: { search: {} } } }\n"
    assert granted(key("org: acme, team: search, revoked: 2027-01-01"), head).revoked == unix_seconds("2026-11-01")


def test_without_declared_organisations_an_org_is_just_a_name_and_tenant_its_old_one():
    assert granted(key("org: anybody, team: them"), HEAD) == GrantSpec("anybody", "them")
    assert granted(key("tenant: anybody"), HEAD) == GrantSpec("anybody")
    assert spec(key("priority: normal"), HEAD).keys[0].grant is None


def test_keys_that_are_alike_share_one_grant():
    plane = spec("".join(key("org: acme, team: search", n) for n in range(20)) + key("org: acme", 20))
    assert len(plane.grants) == 2
    assert {one.grant for one in plane.keys} == {0, 1}


def test_a_replaced_key_works_until_a_moment_and_both_ways_of_digesting_may_stand_side_by_side():
    plane = spec(
        f"  - {{ id: a, hmac: {DIGEST}, previous: {{ sha256: {'cd' * 32}, until: 2027-01-31T12:00:00+01:00 }} }}\n"
    )
    (only,) = plane.keys
    assert (only.digest, only.peppered) == (DIGEST, True)
    assert only.previous == DigestSpec("cd" * 32, False, datetime(2027, 1, 31, 11, tzinfo=UTC).timestamp())
    assert plane.keys_pepper == "env:PEPPER"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (key("org: acmee"), "keys.0.org names `acmee`, which is not under `organisations`. Did you mean `acme`?"),
        (key("tenant: acmee"), "keys.0.tenant names `acmee`, which is not under"),
        (
            key("org: acme, team: serch"),
            "keys.0.team names `serch`, which is not a team of `acme`. Did you mean `search`?",
        ),
        (key("team: search"), "keys.0.team needs `org`"),
        (key("org: acme, tenant: acme"), "keys.0.tenant is the old name of `org`"),
        (key("org: acme, models: [big]"), "keys.0.models.0 names `big`, which organisation `acme` may not use"),
        (
            key("org: acme, team: search, models: [embed]"),
            "keys.0.models.0 names `embed`, which team `search` may not use",
        ),
        (key("models: [chta]"), "keys.0.models.0 names `chta`, which is not a model. Did you mean `chat`?"),
        (key("endpoints: [embedings]"), "is not an endpoint. Did you mean `embeddings`?"),
        (key("org: acme, team: search, endpoints: [rerank]"), "`rerank`, which team `search` may not use"),
        (key("org: acme, networks: [192.168.0.0/16]"), "networks.0 is outside of where organisation `acme` may be"),
        (key("networks: [10.0.0.1/8]"), "keys.0.networks.0 is an address in a network; the network is 10.0.0.0/8"),
        (key("networks: [1.2.3.400]"), "keys.0.networks.0 is not an address or a network"),
        (key("networks: [everywhere]"), "keys.0.networks.0 must be an address or a network such as"),
        (key("expires: 2027-02-30"), "keys.0.expires is not in the calendar: `2027-02-30`"),
        (key("expires: soon"), "keys.0.expires must be a day such as 2027-01-31"),
        (key("expires: '2027-01-31T10:00'"), "keys.0.expires must be a day"),
        (key("scopes: [admin]"), "keys.0.scopes.0 must be `call` or `read`"),
        (key("priority: urgent"), "keys.0.priority must be `critical` or `high` or `low` or `normal`"),
        ("  - { id: a }\n", "keys.0 needs exactly one of `sha256` and `hmac`"),
        (f"  - {{ id: a, hmac: {DIGEST}, sha256: {'cd' * 32} }}\n", "keys.0 needs exactly one of `sha256` and `hmac`"),
        (key("previous: { until: 2027-01-01 }"), "keys.0.previous needs exactly one of"),
        (key(f"previous: {{ hmac: {DIGEST} }}"), "keys.0.previous.until is missing"),
        (key(f"previous: {{ hmac: {0:064x}, until: 2027-01-01 }}"), "keys.0.previous.hmac is the same key as `k0`"),
        (key("revoked: yes"), "keys.0.revoked must be a day"),
    ],
)
def test_what_cannot_be_meant_is_told_where_it_stands(keys: str, message: str):
    assert any(message in line for line in told(keys)), told(keys)


def test_an_hmac_needs_its_pepper():
    head = HEAD.replace("keys_pepper: env:PEPPER\n", "")
    assert told(key("org: a"), head) == [
        "keys.0.hmac cannot be checked without `keys_pepper`, the secret that it was made with"
    ]


def test_what_is_wrong_with_an_organisation_is_told_once_and_not_again_for_each_of_its_keys():
    head = (
        HEAD
        + "organisations: { acme: { endpoints: [chat], networks: [10.0.0.1/8], expires: 2027-13-01, models: [nil] } }\n"
    )
    found = told(
        key("org: acme, endpoints: [embeddings], networks: [10.0.0.0/8]") + key("org: acme, expires: 2027-01-01", 1),
        head,
    )
    assert len(found) == 4
    assert all(line.startswith("organisations.acme.") for line in found)


def test_a_team_cannot_be_wider_than_its_organisation():
    head = (
        HEAD
        + "organisations: { acme: { models: [chat], scopes: [read], teams: { x: { models: [big], scopes: [call] } }}}\n"
    )
    assert told(key("org: acme"), head) == [
        "organisations.acme.teams.x.models.0 names `big`, which organisation `acme` may not use",
        "organisations.acme.teams.x.scopes.0 names `call`, which organisation `acme` does not have",
    ]


def test_a_proxy_that_is_no_network_is_told():
    assert told(key("org: acme"), HEAD + ORGS + "server: { trusted_proxies: [10.0.0.1/8] }\n") == [
        "server.trusted_proxies.0 is an address in a network; the network is 10.0.0.0/8"
    ]


networks = st.builds(
    lambda bits, length: str(ip_network((bits << 24, length), strict=False)), st.integers(0, 3), st.integers(0, 10)
)
lists = st.none() | st.lists(networks, max_size=3).map(tuple)


@given(lists, lists, st.integers(0, 2**34 - 1))
def test_an_address_is_inside_the_narrowed_networks_exactly_when_it_is_inside_both(outer, inner, bits):
    def inside(networks):
        return networks is None or any(address in ip_network(network) for network in networks)

    address = ip_address(bits & (2**32 - 1))
    both = narrowed(narrowed(GrantSpec(), Access(networks=outer)), Access(networks=inner)).networks
    assert inside(both) == (inside(outer) and inside(inner))


# --- many keys ---


def lines(*rows: str) -> PlaneSpec:
    text = HEAD + ORGS + "keys: { file: keys.jsonl }\n"
    return compile_plane(load(text, "penstock.yaml", {"keys.jsonl": "\n".join(rows)}.__getitem__), 1, {})


def row(n: int, **more: object) -> str:
    return json.dumps({"id": f"k{n}", "hmac": f"{n:064x}", "org": "acme", **more})


def test_keys_may_stand_one_on_each_line_of_a_file_and_mean_the_same_as_in_yaml():
    assert (
        lines(row(0, team="search", scopes=["call"]), "", row(1)).keys
        == spec(key("org: acme, team: search, scopes: [call]") + key("org: acme", 1)).keys
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((row(0), "", row(1, modles=[])), "keys.jsonl:3: 1.modles is not an option. Did you mean `models`?"),
        ((row(0), row(1, hmac="sk-pen-secret")), "keys.jsonl:2: 1.hmac must be the digest of the whole key"),
        ((row(0), row(1, id="k\n")), "keys.jsonl:2: 1.id must be a name"),
        ((row(0), "{"), "keys.jsonl:2: 1"),
        (("[]",), "keys.jsonl:1: 0 must be a mapping"),
        ((row(0), row(0)), "keys.jsonl:2: 1.id `k0` is the id of another key too"),
        (("", row(0, team="nobody")), "keys.jsonl:2: 0.team names `nobody`"),
        (("\ud800",), "keys.jsonl:1: 0"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_with_its_number(rows: tuple[str, ...], message: str):
    with pytest.raises(ConfigError) as caught:
        lines(*rows)
    assert message in str(caught.value)
    assert "sk-pen-secret" not in str(caught.value)


@given(st.text(max_size=80) | st.text(alphabet='{}[]:,"\\abn0 \n', max_size=40))
def test_any_text_is_keys_or_a_config_error(text: str):
    try:
        lines(text)
    except ConfigError:
        return
    assert not text.strip()


# --- what changed ---


def test_what_changed_about_a_key_is_told_with_what_it_inherits_and_without_digests():
    before = spec(key("org: acme, team: search") + key("org: acme", 1))
    after = spec(
        key(f"org: acme, team: search, revoked: 2026-11-21, previous: {{ hmac: {DIGEST}, until: 2027-01-01 }}")
        + key("org: acme", 1),
        HEAD + ORGS.replace("priority: low", "priority: high"),
    )
    assert diff(before, after) == [
        "~ key k0: the key before it changed",
        "~ key k0: until: none -> 2027-01-01T00:00:00Z",
        "~ key k0: revoked: none -> 2026-11-21T00:00:00Z",
        "~ key k0: priority: low -> high",
        "~ key k1: priority: low -> high",
    ]
    assert DIGEST not in "".join(diff(before, after))


def test_a_change_of_very_many_keys_is_told_in_few_lines():
    before, after = spec(key("org: acme")), spec("".join(key("org: acme", n) for n in range(300)))
    told = diff(before, after)
    assert len(told) == MAX_KEYS + 1
    assert told[0] == "+ key k1 -> acme"
    assert told[-1] == "... and 199 more changes of keys"


def test_a_plane_with_tenants_survives_being_sent_to_a_worker():
    plane = spec(key(f"org: acme, team: search, previous: {{ hmac: {DIGEST}, until: 2027-01-01 }}"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plane), type=PlaneSpec) == plane
