"""`penstock check`, `penstock init` and `penstock config`: files, without running them."""

import json
import re
from pathlib import Path

import pytest

from penstock.cli.init import STARTER
from penstock.config.limits import limits_of
from penstock.config.load import load

GOOD = """\
models:
  chat: { deployments: [pool, openai], hedge_after: 2s }
deployments:
  pool: { engine: [http://10.0.0.4:8000/v1, http://10.0.0.5:8000/v1], served: llama-3-8b }
  openai: { provider: openai, served: gpt-5-mini, key: env:A_KEY_THAT_IS_NOT_SET }
keys:
  - { id: web, tenant: acme, sha256: "%s" }
""" % ("0" * 64)


def test_a_good_file_is_told_in_plain_words(penstock):
    Path("penstock.yaml").write_text(GOOD)
    ran = penstock("check")
    assert ran.code == 0
    assert "penstock.yaml is good." in ran.out
    assert "chat  pool, then openai; at most 3 attempts, a second one beside it after 2s of silence" in ran.out
    assert "2 engines at http://10.0.0.4:8000/v1, http://10.0.0.5:8000/v1; asked for as llama-3-8b" in ran.out
    assert "for callers who show the one key" in ran.out
    assert "web  of acme; all models" in ran.out
    assert "the environment variable A_KEY_THAT_IS_NOT_SET is not set here" in ran.out


def test_each_kind_of_place_is_told_with_its_dialect_and_who_asks(penstock):
    Path("penstock.yaml").write_text("""\
models:
  chat: { deployments: [pool, claude, google], on_disconnect: drain, on_cut: continue }
deployments:
  pool: { engine: http://10.0.0.4:11434, software: ollama, lose: [logit_bias] }
  claude: { provider: bedrock, region: us-east-1, api: invoke, served: us.anthropic.claude-sonnet-4, lose: all }
  google: { provider: vertex, region: global, project: p-1, served: gemini-2.5-pro }
images: { fetch: allow, hosts: [img.example.com] }
responses: { max: 0 }
""")
    ran = penstock("check")
    assert ran.code == 0
    said = " ".join(ran.out.split())
    assert "all within 10m; read to its end when the caller leaves" in said
    assert "ollama engine at http://10.0.0.4:11434; asked for by the caller's own name; probed at /" in said
    assert "may leave out logit_bias where" in said
    assert "provider bedrock at us-east-1, asked in Anthropic's dialect through Bedrock's InvokeModel; asked" in said
    assert "AWS's own credentials; may leave out everything" in said
    assert "provider vertex at global of project p-1, asked in Gemini's dialect" in said
    assert "going on after a broken stream, for chat (continue)" in said
    assert "images by URL fetched from img.example.com, to 20MiB" in said
    assert "responses responses.retention, responses.max" in said.partition("Off")[2]


def test_a_problem_is_told_with_its_line_and_the_nearest_name(penstock):
    Path("penstock.yaml").write_text(GOOD.replace("engine:", "engin:"))
    ran = penstock("check")
    assert ran.code == 1
    assert "penstock.yaml:4: deployments.pool.engin" in ran.err
    assert "Did you mean `engine`?" in ran.err
    assert "it cannot be used as it is" in ran.err


def test_a_file_that_is_not_there_is_a_mistake_in_what_was_asked(penstock):
    ran = penstock("check", "other.yaml")
    assert ran.code == 2
    assert ran.err == "there is no other.yaml. `penstock init` writes one to begin with.\n"


def test_a_file_that_is_not_text_is_a_mistake_in_what_was_asked(penstock):
    Path("penstock.yaml").write_bytes(b"\xff\xfe\x00")
    assert penstock("check").code == 2


def test_scripts_get_the_problems_as_json(penstock):
    Path("penstock.yaml").write_text("models: 3\n")
    ran = penstock("check", "--json")
    assert ran.code == 1
    told = json.loads(ran.out)
    assert told["good"] is False
    assert told["problems"][0]["line"] == 1


def test_listening_for_others_without_keys_is_warned_of(penstock):
    Path("penstock.yaml").write_text(GOOD.partition("keys:")[0] + "server: { host: 0.0.0.0 }\n")
    assert "will refuse to start" in penstock("check").out


def test_a_deployment_that_nobody_names_is_warned_of(penstock):
    Path("penstock.yaml").write_text(GOOD.replace("[pool, openai]", "[pool]"))
    assert "no model names openai" in penstock("check").out


LIMITED = (
    GOOD
    + """\
limits:
  calls: { requests: 600/m }
  few: { requests: 1/s }
  exact: { tokens: 1M/d, per: all, strict: true }
budgets:
  house: { amount: $500, every: month, per: all, notify: [50%], webhook: env:A_HOOK_THAT_IS_NOT_SET }
  soft: { amount: $5, every: day, mode: soft }
"""
)


def limits_in(told: str) -> dict[str, str]:
    section = told.partition("Limits and budgets\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"(?m)^  (\S+) {2,}(.*)$", section))


def test_of_every_limit_it_is_said_by_how_much_hosts_may_exceed_it(penstock):
    Path("penstock.yaml").write_text(LIMITED + "store: { counters: redis://cache }\n")
    ran = penstock("check")
    assert limits_in(ran.out) == {
        "calls": "600 requests per minute, for each key; exceeded by at most 75",
        "few": "1 requests per second, for each key; never exceeded",
        "exact": "1,000,000 tokens per day, for all together; strict; never exceeded",
        "house": "$500.00 per month, for all together; told at the webhook at 50%; never exceeded",
        "soft": "$5.00 per day, for each key; soft; told at 80%, 100%; may be exceeded",
    }
    assert "together at most one 8th of a limit. By" in ran.out
    assert "budgets.house.webhook: the environment variable A_HOOK_THAT_IS_NOT_SET is not set here" in ran.out


def test_one_host_exceeds_nothing_and_is_not_alone_in_the_world(penstock):
    Path("penstock.yaml").write_text("store: { database: off }\n" + LIMITED)
    ran = penstock("check")
    assert {said.rpartition("; ")[2] for name, said in limits_in(ran.out).items() if name != "soft"} == {
        "never exceeded"
    }
    assert "so that two allow twice" in ran.out
    assert "budgets begin anew whenever Penstock starts" in ran.out
    assert "`strict` has no meaning without `store.counters`; it stands at exact" in ran.out


def test_of_every_deployment_it_is_said_what_it_costs_or_that_nobody_knows(penstock):
    Path("penstock.yaml").write_text("""\
models: { chat: { deployments: [a, b, c, d] }, gpt-5-mini: { deployments: [c] } }
deployments:
  a: { model: tiny, price: { gpu_hour: $2.50, input_tokens_per_second: 20000, output_tokens_per_second: 2000 } }
  b: { provider: openai, served: gpt-5-mini, key: env:K, price: { free: true } }
  c: { provider: openai, key: env:K }
  d: { engine: http://10.0.0.4:8000 }
""")
    prices = penstock("check").out.partition("Prices\n")[2].partition("\n\n")[0]
    nobody = "not priced: nobody knows what it costs, which is not nothing"
    assert prices.splitlines() == [
        "  a  input $0.034723/M, output $0.347223/M, derived from hours of GPUs (this file)",
        "  b  free (this file)",
        f"  c  as chat: {nobody}; as gpt-5-mini: input $0.25/M, output $2.00/M (the table of prices)",
        f"  d  {nobody}",
    ]


def test_very_many_limits_are_told_in_few_lines(penstock):
    limits = "".join(f"  l{n}: {{ requests: 1/s }}\n" for n in range(60))
    Path("penstock.yaml").write_text(GOOD + f"limits:\n{limits}")
    ran = penstock("check")
    assert len(limits_in(ran.out)) == 50
    assert "  ... and 10 more\n" in ran.out


def test_what_a_model_and_a_key_may_ask_for_at_most_is_told(penstock):
    text = GOOD.replace("hedge_after: 2s", "max_tokens: { most: 8192, default: 1024 }")
    Path("penstock.yaml").write_text(text.replace("tenant: acme", "org: acme, max_cost: $0.50"))
    ran = penstock("check")
    assert "at most 8,192 tokens, more is refused; 1,024 where the caller says nothing" in ran.out
    assert "web  of acme; all models; one request at most $0.50" in ran.out


def test_init_writes_a_file_that_is_good_as_it_is(penstock):
    ran = penstock("init")
    assert ran.code == 0
    assert penstock("check").code == 0


def test_init_never_overwrites(penstock):
    Path("penstock.yaml").write_text("mine")
    ran = penstock("init")
    assert ran.code == 2
    assert Path("penstock.yaml").read_text() == "mine"
    assert "is left as it is" in ran.err


def test_init_into_a_folder_that_is_not_there_is_told_plainly(penstock):
    ran = penstock("init", "nowhere/penstock.yaml")
    assert ran.code == 2
    assert "cannot be written" in ran.err


def test_every_option_of_the_starter_is_right_when_its_mark_is_taken_away():
    yaml_in_comments = re.compile(r"(?m)^( *)# ( *(?:- |[a-z_]+:).*)$")
    assert len(yaml_in_comments.findall(STARTER)) == 20
    config = load(yaml_in_comments.sub(r"\1\2", STARTER), "penstock.yaml")
    assert set(config.deployments) == {"local", "pool", "openai"}
    assert config.models["chat"].hedge_after == "2s"
    assert len(config.keys) == 1
    assert [limit.name for limit in limits_of(config)] == ["calls", "tokens", "house"]


def test_files_that_differ_in_comments_and_order_only_mean_the_same(penstock):
    Path("old.yaml").write_text(GOOD)
    Path("new.yaml").write_text("# hello\n" + GOOD)
    ran = penstock("config", "diff", "old.yaml", "new.yaml")
    assert (ran.code, ran.out) == (0, "old.yaml and new.yaml mean the same.\n")


def test_what_differs_is_told_option_by_option(penstock):
    Path("old.yaml").write_text(GOOD)
    Path("new.yaml").write_text(GOOD.replace("2s", "3s").replace("id: web", "id: site"))
    ran = penstock("config", "diff", "old.yaml", "new.yaml")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "~ models.chat.hedge_after: 2s -> 3s",
        f"- keys.web: {{id: web, sha256: {'0' * 64}, tenant: acme}}",
        f"+ keys.site: {{id: site, sha256: {'0' * 64}, tenant: acme}}",
    ]


def test_a_wrong_file_has_no_difference(penstock):
    Path("old.yaml").write_text(GOOD)
    Path("new.yaml").write_text("models: 3")
    assert penstock("config", "diff", "old.yaml", "new.yaml").code == 2


def test_the_schema_is_json_schema(penstock):
    schema = json.loads(penstock("config", "schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "Deployment" in schema["$defs"]


@pytest.mark.parametrize("options", [[], ["--tenant", "acme", "--model", "chat"]])
def test_a_key_and_its_line_belong_together(penstock, options):
    ran = penstock("key", "create", "--in-file", "--id", "web", *options)
    secret = ran.out.splitlines()[0]
    line = ran.out.partition("keys:\n")[2]
    config = load(GOOD.partition("keys:")[0] + "keys:\n" + line, "penstock.yaml")
    (key,) = config.keys
    from penstock.core.keys import digest

    assert key.id == "web"
    assert key.sha256 == digest(secret)
    assert secret not in line


def test_two_keys_are_never_the_same(penstock):
    first, second = (json.loads(penstock("key", "create", "--in-file", "--json").out) for _ in range(2))
    assert first["key"] != second["key"]
    assert first["id"] != second["id"]


def test_an_id_that_no_file_could_hold_is_refused(penstock):
    ran = penstock("key", "create", "--in-file", "--id", "a b")
    assert ran.code == 2
    assert "at most 64 letters" in ran.err
    assert ran.out == ""


def test_where_the_admin_api_is_and_for_whom_is_told(penstock):
    keys = f"keys: [{{ id: ops, role: owner, sha256: {'ab' * 32} }}]"
    oidc = "oidc: { issuer: https://login.example.com, audience: p, roles: { staff: viewer } }"
    Path("penstock.yaml").write_text(
        "models: { chat: { deployments: [a] } }\ndeployments: { a: { engine: http://a:1 } }\n"
        f"admin: {{ host: 0.0.0.0, {keys}, {oidc} }}\n"
    )
    ran = penstock("check")
    assert "at http://0.0.0.0:8081/admin/v1, for 1 key and tokens of https://login.example.com." in ran.out
    assert "admin.host is 0.0.0.0 without `admin.tls`: keys of administrators travel in clear." in ran.out
