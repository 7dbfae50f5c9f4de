"""`penstock check`, `penstock init` and `penstock config`: files, without running them."""

import json
import re
from pathlib import Path

import pytest

from penstock.cli.init import STARTER
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
    assert len(yaml_in_comments.findall(STARTER)) == 11
    config = load(yaml_in_comments.sub(r"\1\2", STARTER), "penstock.yaml")
    assert set(config.deployments) == {"local", "pool", "openai"}
    assert config.models["chat"].hedge_after == "2s"
    assert len(config.keys) == 1


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
    ran = penstock("key", "create", "--id", "web", *options)
    secret = ran.out.splitlines()[0]
    line = ran.out.partition("keys:\n")[2]
    config = load(GOOD.partition("keys:")[0] + "keys:\n" + line, "penstock.yaml")
    (key,) = config.keys
    from penstock.core.keys import digest

    assert key.id == "web"
    assert key.sha256 == digest(secret)
    assert secret not in line


def test_two_keys_are_never_the_same(penstock):
    first, second = (json.loads(penstock("key", "create", "--json").out) for _ in range(2))
    assert first["key"] != second["key"]
    assert first["id"] != second["id"]


def test_an_id_that_no_file_could_hold_is_refused(penstock):
    ran = penstock("key", "create", "--id", "a b")
    assert ran.code == 2
    assert "at most 64 letters" in ran.err
    assert ran.out == ""
