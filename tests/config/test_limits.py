"""Limits, budgets, prices and stores as the file says them, and what they become."""

from __future__ import annotations

from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.limit_options import LONGEST, read_budget, read_rate
from penstock.config.limits import lookup, own_limits, said
from penstock.config.load import load
from penstock.config.prices import bundled, price_for
from penstock.config.problems import ConfigError
from penstock.config.schema import Access, OwnLimits
from penstock.config.spec import MaxTokens, Notify, PlaneSpec
from penstock.config.units import zone
from penstock.limits.limit import Account, Amounts, Limit, Meter
from penstock.limits.periods import Period
from penstock.limits.rules import Rules

DIGEST = "ab" * 32
HEAD = """\
models: { chat: { deployments: [local] }, embed: { deployments: [local] } }
deployments: { local: { model: tiny } }
"""
TENANTS = f"""\
organisations: {{ acme: {{ teams: {{ search: {{}} }} }}, emca: {{}} }}
keys: [{{ id: web, org: acme, team: search, sha256: "{DIGEST}" }}]
"""


def plane(text: str, head: str = HEAD) -> PlaneSpec:
    return compile_plane(load(head + text, "f"), 1, {})


def all_limits(spec: PlaneSpec) -> list[Limit]:
    """Those of single keys too."""
    own = lookup(spec) or (lambda id: ())
    return [*spec.limits, *(limit for key in spec.keys for limit in own(key.id))]


def told(text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(head + text, "f")
    return [str(problem).partition(": ")[2] for problem in caught.value.problems]


# --- how amounts are written ---


@pytest.mark.parametrize(
    ("text", "amount", "window"),
    [
        ("600/m", 600, 60),
        ("10/s", 10, 1),
        ("2M/d", 2_000_000, 86_400),
        ("5k per hour", 5_000, 3600),
        ("5K / 2h", 5_000, 7200),
        ("7 per second", 7, 1),
        ("7 per 30 seconds", 7, 30),
        ("100M/30d", 100_000_000, 2_592_000),
        ("1M/month", 1_000_000, 2_592_000),
        ("1M per week", 1_000_000, 604_800),
        ("9007M/31d", 9_007_000_000, LONGEST),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, amount: int, window: int):
    limits = plane(f"limits: {{ x: {{ tokens: {text} }} }}").limits
    assert limits == (Limit("x", Meter.TOKENS, amount, window),)


@given(st.integers(1, 9_007), st.sampled_from(["", "k", "M"]), st.sampled_from("smhd"))
def test_every_rate_means_its_number_times_its_unit(number: int, times: str, unit: str):
    found = read_rate(f"{number}{times}/{unit}")
    assert found.amount == number * {"": 1, "k": 10**3, "M": 10**6}[times]
    assert found.window == {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]


@pytest.mark.parametrize(
    "text", ["600", "600/", "0/m", "-1/m", "1.5M/h", "6e2/m", "600/fortnight", "600/m\n", "k/m", "600m"]
)
def test_what_is_no_whole_number_for_a_time_is_told_with_examples(text: str):
    quoted = msgspec.json.encode(text).decode()
    (line,) = told(f"limits: {{ x: {{ requests: {quoted} }} }}")
    assert "limits.x.requests must be a whole number for a time, such as 600/m" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [("1/32d", "is for longer than 31 days"), ("9999999999M/m", "is more than 9,007,199,254")],
)
def test_a_rate_beyond_what_is_counted_is_told(text: str, message: str):
    assert message in told(f"limits: {{ x: {{ requests: {text} }} }}")[0]


@pytest.mark.parametrize(
    ("text", "nanos", "period"),
    [
        ("$50/month", 50 * 10**9, Period.MONTH),
        ("$0.25 per day", 250_000_000, Period.DAY),
        ("50 USD a week", 50 * 10**9, Period.WEEK),
        ("$1,000 in total", 1_000 * 10**9, Period.TOTAL),
        ("$0/month", 0, Period.MONTH),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: str, nanos: int, period: Period):
    (limit,) = plane(f"organisations: {{ acme: {{ budget: '{text}' }} }}").limits
    assert (limit.amount, limit.period, limit.soft) == (nanos, period, False)


# --- what they become ---


def test_what_stands_at_somebody_is_counted_for_that_one_under_a_name_that_says_so():
    text = f"""\
organisations:
  acme:
    limits: {{ tokens: 1M/h }}
    teams: {{ search: {{ limits: {{ requests: 600/m, strict: true }}, budget: $50/month }} }}
keys:
  - id: web
    sha256: "{DIGEST}"
    limits: {{ concurrent_requests: 3 }}
    budget: {{ amount: $5, every: day, mode: soft }}
"""
    org: tuple = (("org", "acme"),)
    team: tuple = (("org", "acme"), ("team", "search"))
    key: tuple = (("key", "web"),)
    assert all_limits(plane(text)) == [
        Limit("org acme: tokens", Meter.TOKENS, 1_000_000, 3600, per=("org",), where=org),
        Limit("team acme/search: requests", Meter.REQUESTS, 600, 60, per=("org", "team"), where=team, strict=True),
        Limit(
            "team acme/search: budget", Meter.MONEY, 50 * 10**9, period=Period.MONTH, per=("org", "team"), where=team
        ),
        Limit("key web: concurrent requests", Meter.CONCURRENT_REQUESTS, 3, per=("key",), where=key),
        Limit("key web: budget", Meter.MONEY, 5 * 10**9, period=Period.DAY, per=("key",), where=key, soft=True),
    ]


def test_a_named_limit_has_a_count_for_each_of_whom_it_says():
    text = """\
limits:
  each: { requests: 1/s }
  teams: { requests: 1/s, per: team }
  users: { requests: 1/s, per: [model, user] }
  all: { requests: 1/s, per: all, where: { org: acme, team: search, model: chat } }
"""
    assert [(limit.per, limit.where) for limit in plane(text + TENANTS).limits] == [
        (("key",), ()),
        (("org", "team"), ()),
        (("org", "user", "model"), ()),
        ((), (("org", "acme"), ("team", "search"), ("model", "chat"))),
    ]


def test_no_two_limits_of_a_file_share_a_name_so_none_shares_a_count():
    text = """\
limits: { web: { requests: 1/s }, key: { requests: 1/s } }
budgets: { month: { amount: $1, every: month }, web-budget: { amount: $1, every: day } }
"""
    tenants = TENANTS.replace(f'"{DIGEST}"', f'"{DIGEST}", limits: {{ requests: 1/s, tokens: 1/s }}, budget: $1/day')
    names = [limit.name for limit in all_limits(plane(text + tenants))]
    assert len(set(names)) == len(names) == 7


def test_somebody_is_told_where_the_budget_says_and_as_usual_where_it_does_not():
    text = """\
budgets:
  usual: { amount: $1, every: day }
  house: { amount: $1, every: day, notify: [100%, 50%, 50%], webhook: "https://alerts.example.com/x" }
  quiet: { amount: $1, every: day, notify: [] }
organisations: { acme: { budget: { amount: $9, every: total, webhook: env:HOOK } } }
"""
    assert plane(text).thresholds == {
        "house": Notify((50, 100), "https://alerts.example.com/x"),
        "quiet": Notify(()),
        "org acme: budget": Notify((80, 100), "env:HOOK"),
    }


@given(st.lists(st.none() | st.integers(0, 10**12), min_size=3, max_size=3))
def test_one_request_may_cost_the_least_that_is_said_around_its_key(nanos: list[int | None]):
    said = [f"max_cost: '${n // 10**9}.{n % 10**9:09d}', " if n is not None else "" for n in nanos]
    text = f"""\
organisations: {{ acme: {{ {said[0]}teams: {{ search: {{ {said[1]} }} }} }} }}
keys: [{{ {said[2]}id: web, org: acme, team: search, sha256: "{DIGEST}" }}]
"""
    spec = plane(text)
    (grant,) = [spec.grants[key.grant] for key in spec.keys if key.grant is not None]
    assert grant.max_cost == min((n for n in nanos if n is not None), default=None)


def test_a_maximum_without_a_default_is_asked_for_where_the_caller_says_nothing():
    head = HEAD.replace("chat: { deployments: [local] }", "chat: { deployments: [local], max_tokens: { most: 8192 } }")
    assert plane("", head).models[0].max_tokens == MaxTokens(8192, 8192)
    head = head.replace("most: 8192", "most: 8192, default: 10")
    assert plane("", head).models[0].max_tokens == MaxTokens(8192, 10)
    head = head.replace("most: 8192, ", "")
    assert plane("", head).models[0].max_tokens == MaxTokens(None, 10)


def test_the_rest_reaches_the_plane_too_and_survives_being_sent_to_a_worker():
    spec = plane(
        TENANTS
        + """\
timezone: Europe/Berlin
cost: { tags: 7, ledger_retention: 30d }
limits: { x: { requests: 1/s } }
budgets: { y: { amount: $1, every: day, notify: [5%] } }
"""
    )
    assert (spec.timezone, spec.cost_tags, spec.ledger_retention) == ("Europe/Berlin", 7, 30 * 86_400)
    assert zone("UTC") is UTC
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=PlaneSpec) == spec


def test_limits_of_a_key_that_was_made_at_run_time_are_those_that_it_would_have_in_the_file():
    access = Access(limits=OwnLimits(requests="600/m"), budget="$1/day")
    rules = Rules([], own=lambda id: own_limits((("key", id),), access))
    applied = rules.apply(Account(key="web"), Amounts(1, 1, 1), 0.0)
    assert [charge.counter for charge in applied.charges] == [
        "key web: requests|web|60s",
        "key web: budget|web|1970-01-01",
    ]


def test_a_thousand_keys_with_the_same_limits_keep_them_once():
    keys = "".join(
        f"  - {{ id: k{n}, sha256: '{n:064x}', limits: {{ requests: {n % 2 + 1}/s }}, budget: $1/day }}\n"
        for n in range(1_000)
    )
    spec = plane(f"keys:\n{keys}")
    assert spec.limits == ()
    assert len(spec.grants) == 2
    own = lookup(spec)
    assert own is not None
    assert [limit.name for limit in own("k7")] == ["key k7: requests", "key k7: budget"]
    assert [limit.amount for limit in own("k7")] == [2, 10**9]
    assert list(own("k1000")) == []


def test_keys_of_the_file_and_keys_made_at_run_time_each_have_their_own():
    spec = plane(f"keys: [{{ id: web, sha256: '{DIGEST}', limits: {{ requests: 1/s }} }}]")
    others = {"new": [Limit("key new: requests", Meter.REQUESTS, 5, 1)]}
    own = lookup(spec, others.__getitem__)
    assert own is not None
    assert [limit.amount for id in ("web", "new") for limit in own(id)] == [1, 5]
    assert lookup(plane(""), others.__getitem__) == others.__getitem__
    assert lookup(plane("")) is None


def test_a_changed_limit_of_a_key_is_told_at_the_key():
    def with_limit(text: str) -> PlaneSpec:
        return plane(f"keys: [{{ id: web, sha256: '{DIGEST}', {text} }}]")

    assert diff(with_limit("budget: $1/day"), with_limit("limits: { requests: 1k/m, strict: true }")) == [
        "~ key web: limits: $1.00 per day -> 1,000 requests per minute; strict"
    ]


# --- what cannot be meant ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: { x: { requests: 1/s, tokens: 1/s } }", "limits.x needs exactly one of requests, input_tokens"),
        ("limits: { x: {} }", "this has none of them"),
        ("limits: { x: { reqests: 1/s } }", "limits.x.reqests is not an option. Did you mean `requests`?"),
        ("limits: { x: { requests: 1/s, per: teem } }", "Did you mean `team`?"),
        ("limits: { x: { requests: 1/s, per: [key, key] } }", "limits.x.per names somebody a second time"),
        ("limits: { x: { requests: 1/s, strict: yes } }", "limits.x.strict must be `true` or `false`, not `yes`"),
        ("limits: { x: { concurrent_requests: 0 } }", "must be a whole number from 1 to 1,000,000"),
        ("limits: { x y: { requests: 1/s } }", "must be a name of at most 64"),
        ("limits: { x: { requests: 1/s, where: { model: chta } } }", "not a model. Did you mean `chat`?"),
        ("limits: { x: { requests: 1/s, where: { org: acne } } }", "under `organisations`. Did you mean `acme`?"),
        ("limits: { x: { requests: 1/s, where: { org: acme, team: serch } } }", "of `acme`. Did you mean `search`?"),
        ("limits: { x: { requests: 1/s, where: { team: search } } }", "where.team needs `org` beside it"),
        ("limits: { x: { requests: 1/s, where: { key: wbe } } }", "the id of a key. Did you mean `web`?"),
        ("limits: { x: { requests: 1/s, where: { user: me } } }", "where.user is not an option"),
        ("budgets: { x: { amount: $1 } }", "budgets.x.every is missing"),
        ("budgets: { x: { amount: 1 EUR, every: day } }", "amount must be an amount of dollars"),
        ("budgets: { x: { amount: $0.0000000001, every: day } }", "amount is finer than a nano-dollar"),
        ("budgets: { x: { amount: $9999999, every: day } }", "amount is more than $9007199.254740991"),
        ("budgets: { x: { amount: $1, every: day, notify: [0%] } }", "notify.0 must be a whole number of percent"),
        ("budgets: { x: { amount: $1, every: day, webhook: s3cret } }", "must be an https:// or http:// address"),
        ("budgets: { x: { amount: $1, every: day } }\nlimits: { x: { requests: 1/s } }", "the name of a limit too"),
        ("timezone: Europe/Berln", "timezone is not a time zone such as Europe/Berlin. Did you mean `Europe/Berlin`?"),
        ("timezone: ../etc/passwd", "timezone is not a time zone"),
        ("cost: { ledger_retention: 1h }", "cost.ledger_retention must be at least 1d"),
        ("store: { database: 'postgres://u:s3cret@h/x' }", "store.database must not have a password in it"),
        ("store: { database: 'mysql://h/s3cret' }", "store.database must be postgres://user@host/name, or the path"),
        ("store: { counters: 'redis://:s3cret@h' }", "store.counters must not have a password in it"),
        ("store: { counters: s3cret }", "store.counters must be redis://host:6379"),
        ("store: { counters: 'redis://[s3cret' }", "store.counters must be redis://host:6379"),
    ],
)
def test_what_cannot_be_meant_is_told_where_it_stands_and_without_secrets(text: str, message: str):
    found = told(text + "\n" + TENANTS)
    assert any(message in line for line in found), found
    assert "s3cret" not in "".join(found)


@pytest.mark.parametrize("at", ["organisations.acme", "organisations.acme.teams.x", "keys.0"])
def test_what_is_wrong_with_somebodys_own_is_told_once_where_it_stands(at: str):
    wrong = "limits: { tokens: 1/40d }, budget: $0.0000000001/day, max_cost: $0.0000000001"
    own = {name: wrong if name == at else "" for name in ("organisations.acme", "organisations.acme.teams.x", "keys.0")}
    org, team, key = own.values()
    text = f"""\
organisations: {{ acme: {{ {org}{", " if org else ""}teams: {{ x: {{ {team} }} }} }} }}
keys: [{{ id: a, org: acme, team: x, sha256: "{DIGEST}", {key} }}]
"""
    assert told(text) == [
        f"{at}.limits.tokens is for longer than 31 days; what is longer is a budget's affair",
        f"{at}.budget is finer than a nano-dollar, $0.000000001",
        f"{at}.max_cost is finer than a nano-dollar, $0.000000001",
    ]


def test_keys_and_organisations_that_a_database_may_have_are_not_unknown():
    text = "store: { database: x.db }\nlimits: { x: { requests: 1/s, where: { org: zeta, key: later } } }\n"
    assert plane(text + TENANTS).limits[0].where == (("org", "zeta"), ("key", "later"))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{}", "max_tokens needs `most`, `default` or both"),
        ("{ most: 5, default: 6 }", "must not be more than `most` (5)"),
    ],
)
def test_a_policy_for_max_tokens_that_says_nothing_or_contradicts_itself_is_told(policy: str, message: str):
    head = HEAD.replace("chat: { deployments: [local]", f"chat: {{ deployments: [local], max_tokens: {policy}")
    assert message in told("", head)[0]


# --- prices ---


def priced(price: str, place: str = "provider: openai, key: env:K") -> str:
    return f"models: {{ m: {{ deployments: [d] }} }}\ndeployments: {{ d: {{ {place}, price: {price} }} }}\n"


def test_a_price_in_the_file_goes_before_the_table_and_a_table_before_nothing():
    openai = plane("", priced("~, served: gpt-5-mini")).deployments[0]
    assert openai.provider == "openai"
    found = price_for(openai, "m", bundled())
    assert found == bundled().find("openai", "gpt-5-mini")
    own = plane("", priced("{ input: $1/M, output: $2/M }, served: gpt-5-mini")).deployments[0]
    found = price_for(own, "m", bundled())
    assert found is not None
    assert found.rows[0].source == "configuration"
    assert price_for(plane("", HEAD).deployments[0], "chat", bundled()) is None


def test_where_the_caller_s_name_is_sent_on_it_is_what_is_paid_for():
    deployment = plane("", priced("~")).deployments[0]
    assert price_for(deployment, "gpt-5-mini", bundled()) is not None
    assert price_for(deployment, "m", bundled()) is None


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("{ input: $1 }", "deployments.d.price.input must be a price with its unit"),
        ("{ inputt: $1/M }", "deployments.d.price.inputt is not an option. Did you mean `input`?"),
        ("{ free: true, input: $1/M }", "deployments.d.price a price is one of rates, `like`, `gpu_hour` and `free`"),
        ("{ free: 1 }", "deployments.d.price.free must be `true` or `false`, not `1`"),
        ("{ like: openai/gpt-5-minni }", "there is no price of 'openai/gpt-5-minni'"),
        ("{ input: $1/M, valid_from: 2027-02-30 }", "valid_from must be a day such as 2027-01-31"),
        ("{ input: $1/M, valid_from: 2027 }", "valid_from must be a day such as 2027-01-31"),
        ("[{ input: $1/M }, { input: $0/M }]", "deployments.d.price.1 all rates are zero"),
        ("[{ input: $1/M }, { input: $2/M }]", "deployments.d.price `valid_from`: two prices hold from ever on"),
        ("[]", "deployments.d.price must have at least one entry"),
    ],
)
def test_a_price_that_cannot_be_is_told_where_it_stands(price: str, message: str):
    found = told("", priced(price))
    assert any(message in line for line in found), found


# --- for people ---


def test_a_limit_is_said_in_plain_words():
    text = """\
limits:
  a: { requests: 600/m }
  b: { tokens: 1M/30d, per: all }
  c: { output_tokens: 5k per 2 hours, per: [team, model], where: { org: acme, model: chat }, strict: true }
  d: { concurrent_requests: 5, per: user, where: { org: acme, team: search } }
budgets: { e: { amount: $5, every: total, mode: soft, per: all, where: { key: web } } }
"""
    assert [said(limit) for limit in plane(text + TENANTS).limits] == [
        "600 requests per minute, for each key",
        "1,000,000 tokens in 30 days, for all together",
        "5,000 output tokens in 2 hours, for each team of organisation acme with model chat; strict",
        "5 concurrent requests, for each user of team acme/search",
        "$5.00 in total, for key web; soft",
    ]


def test_what_changed_about_limits_and_prices_is_told_without_secrets():
    def changed(text: str, head: str = HEAD) -> PlaneSpec:
        return plane(text + TENANTS, head)

    before = changed(
        "limits: { a: { requests: 1/s }, b: { requests: 1/s } }\n"
        "budgets: { m: { amount: $1, every: day, webhook: 'https://x/s3cret' } }\n"
    )
    after = changed(
        "limits: { a: { requests: 2/s }, c: { tokens: 1/s } }\ntimezone: Europe/Berlin\n"
        "budgets: { m: { amount: $1, every: day, notify: [50%], webhook: 'https://x/s3cret2' } }\n",
        HEAD.replace("model: tiny", "model: tiny, price: { free: true }").replace(
            "chat: { deployments: [local]", "chat: { deployments: [local], max_tokens: { most: 5 }"
        ),
    )
    assert diff(before, after) == [
        "~ model chat: max_tokens: none -> most 5, default 5",
        '~ deployment local: price: none -> {"free":true}',
        "~ limit a: 1 requests per second, for each key -> 2 requests per second, for each key",
        "- limit b",
        "+ limit c: 1 tokens per second, for each key",
        "~ limit m: somebody is told at: 80%, 100% -> 50%",
        "~ limit m: webhook changed",
        "~ timezone: UTC -> Europe/Berlin",
    ]


def test_what_is_read_of_a_budget_has_every_default_decided():
    budget = read_budget("$5/week")
    assert (budget.every, budget.mode, budget.notify, budget.webhook) == ("week", "hard", ("80%", "100%"), None)
