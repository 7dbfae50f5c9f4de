"""The file: what is understood, and what a person reads when it is not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.load import ConfigError, load
from penstock.config.schema import json_schema

DIGEST = "ab" * 32
SMALLEST = """\
models:
  chat: { deployments: [local, openai] }
deployments:
  local:  { engine: http://127.0.0.1:8001/v1, served: llama-3-8b }
  openai: { provider: openai, served: gpt-5-mini, key: env:OPENAI_API_KEY }
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, "penstock.yaml")
    return str(caught.value).splitlines()


def test_the_smallest_useful_file_is_understood():
    config = load(SMALLEST, "penstock.yaml")
    assert config.models["chat"].deployments == ("local", "openai")
    assert config.deployments["local"].engine == "http://127.0.0.1:8001/v1"
    assert config.deployments["openai"].key == "env:OPENAI_API_KEY"
    assert config.server.port == 8080


def test_a_misspelt_option_is_told_with_its_line_its_path_and_the_nearest_right_name():
    text = SMALLEST.replace("engine:", "engin:")
    assert "penstock.yaml:4: deployments.local.engin is not an option. Did you mean `engine`?" in problems(text)


def test_every_problem_is_told_at_once_and_in_the_order_of_the_file():
    text = """\
models:
  chat: { deployments: [locla], timeouts: { idle: 30 } }
deployments:
  local: { engine: 127.0.0.1:8001 }
  openai: { provider: opneai, key: sk-oops }
  toy: { model: tiny, replicas: 0, dtype: int9, health: /x }
server: { port: 99999, max_body: 1, acess_log: off }
"""
    told = problems(text)
    assert [line.split(" ")[0:2] for line in told] == [
        ["penstock.yaml:2:", "models.chat.timeouts.idle"],
        ["penstock.yaml:2:", "models.chat.deployments.0"],
        ["penstock.yaml:4:", "deployments.local.engine"],
        ["penstock.yaml:5:", "deployments.openai.key"],
        ["penstock.yaml:5:", "deployments.openai.provider"],
        ["penstock.yaml:6:", "deployments.toy.replicas"],
        ["penstock.yaml:6:", "deployments.toy.dtype"],
        ["penstock.yaml:6:", "deployments.toy.health"],
        ["penstock.yaml:7:", "server.port"],
        ["penstock.yaml:7:", "server.max_body"],
        ["penstock.yaml:7:", "server.acess_log"],
    ]


@pytest.mark.parametrize(
    ("change", "to", "told"),
    [
        ("key: env:OPENAI_API_KEY", "key:", "deployments.openai needs a key for the provider"),
        ("engine: http://127.0.0.1:8001/v1", "engine: ''", "deployments.local.engine must be a text"),
        (
            "engine: http://127.0.0.1:8001/v1",
            "engine: {}",
            "deployments.local.engine must be a text or a list, not a mapping",
        ),
        ("[local, openai]", "[local, local]", "models.chat.deployments.1 names `local` a second time"),
        ("[local, openai]", "[]", "models.chat.deployments must have at least one deployment"),
        ("[local, openai]", "local", "models.chat.deployments must be a list, not `local`"),
        ("[local, openai]", "[lokal]", "names `lokal`, which is not a deployment. Did you mean `local`?"),
        ("engine: http://127.0.0.1:8001/v1, ", "", "deployments.local needs one of `engine`"),
        ("served: llama-3-8b", "provider: openai", "deployments.local has both `engine` and `provider`"),
        ("served: llama-3-8b", "replicas: 2", "deployments.local.replicas belongs to a deployment with `model`"),
        ("http://127.0.0.1:8001/v1", "[http://a:1, http://a:1/v1]", "is the same address a second time"),
        ("http://127.0.0.1:8001/v1", "http://me:pw@a:1", "must not hold a user name or password"),
        (
            "key: env:OPENAI_API_KEY",
            "",
            "deployments.openai needs a key for the provider, by reference: add `key: env:",
        ),
        ("provider: openai", "provider: http://api.example.com", "would get your key in clear over http://"),
        ("provider: openai", "provider: opnai", "Did you mean `openai`?"),
        ("models:\n", "models: {}\nmodels:\n", "models is written twice; it is also on line 1"),
        ("deployments:\n", "deployment:\n", "deployment is not an option. Did you mean `deployments`?"),
        ("served: llama-3-8b", "served: llama-3-8b, served: x", "deployments.local.served is written twice"),
        ("served: llama-3-8b", "connect_timeout: '5'", "connect_timeout must be a duration with its unit"),
        ("[local, openai]", "[local], hedge_after: 0s", "models.chat.hedge_after must be longer than 0s"),
        ("[local, openai]", "[local], timeouts: { idle: 0ms }", "models.chat.timeouts.idle must be longer than 0s"),
        ("[local, openai]", "[local], max_attempts: 11", "max_attempts must be a whole number from 1 to 10, not `11`"),
        ("[local, openai]", "[local], max_attempts: '3'", "max_attempts must be a whole number from 1 to 10, not `3`"),
        (
            "[local, openai]",
            f"[{', '.join(['local'] * 65)}]",
            "models.chat.deployments has 65 entries; the limit is 64",
        ),
        ("  chat:", "  ' chat':", "models. chat must be a name of at most 128"),
        ("chat: {", "chat: tiny #", "models.chat must be a mapping with deployments, timeouts"),
        ("models:\n  chat", "models: { <<: 1 }\nold:\n  chat", "models.<< must name a mapping"),
        ("models:\n", "server: { drain: 2h, max_body: 2GiB }\nmodels:\n", "server.drain must not be longer than 1h"),
        ("models:\n", "server: { drain: 2h, max_body: 2GiB }\nmodels:\n", "server.max_body must be from 1KiB to 1GiB"),
        ("models:\n", "keys: env:KEYS\nmodels:\n", "keys must be a list or a mapping with `file`, not `env:KEYS`"),
        ("models:\n", "keys: { file: keys.yaml }\nmodels:\n", "keys.file cannot be read: this place reads one file"),
        ("engine: http://127.0.0.1:8001/v1", "model: tiny, key: env:X", "has no meaning for the embedded engine"),
        (
            "engine: http://127.0.0.1:8001/v1",
            "model: tiny, max_seqs: 600",
            "must not be more than max_batched_tokens (512)",
        ),
        ("served: llama-3-8b", "breaker: { open_for: 0s }", "breaker.open_for must be longer than 0s"),
        ("served: llama-3-8b", "software: vlm", "Did you mean `vllm`?"),
        ("served: gpt-5-mini", "software: vllm", "software belongs to a deployment with `engine`"),
        ("served: gpt-5-mini", "speaks: anthropic", "speaks belongs to an address"),
        ("served: llama-3-8b", "software: tgi, speaks: anthropic", "`tgi` does not speak anthropic"),
        (
            "served: gpt-5-mini",
            "region: us-east-1",
            "region belongs to `provider: bedrock` or `provider: vertex`, and this is `provider: openai`",
        ),
        (
            "served: llama-3-8b",
            "api: invoke",
            "api belongs to `provider: bedrock`, and this is a deployment with `engine`",
        ),
        ("served: gpt-5-mini", "beta: all", "or `speaks: anthropic`, and this is `provider: openai`"),
        (
            "served: gpt-5-mini",
            "api: convers",
            "must be `converse` or `invoke`, not `convers`. Did you mean `converse`?",
        ),
        ("provider: openai", "provider: azure", "needs `endpoint` for `provider: azure`: the address of your resource"),
        ("provider: openai", "provider: azure, endpoint: https://x/openai", "must end with the host, without /openai"),
        ("provider: openai", "provider: azure, endpoint: http://x.example.com", "must be https://: it gets your key"),
        (
            "provider: openai, served: gpt-5-mini",
            "provider: azure, endpoint: https://x.example.com, api_version: 2024-10-21",
            "needs `served` beside `api_version`",
        ),
        ("provider: openai", "provider: azure, api_version: v1", "must be a date such as 2024-10-21"),
        ("provider: openai", "provider: bedrock", "needs `region` for `provider: bedrock`"),
        ("provider: openai", "provider: bedrock, region: us_east", "must be a region such as us-east-1"),
        ("provider: openai", "provider: bedrock, region: us-east-1, api: invoke", "`invoke` is for Claude only"),
        ("provider: openai", "provider: vertex, region: global", "needs `project` for `provider: vertex`"),
        (
            "provider: openai, served: gpt-5-mini",
            "provider: vertex, region: global, project: p",
            "needs `served` for `provider: vertex`",
        ),
        ("served: gpt-5-mini", "lose: some", "must be `all`, not `some`"),
        ("served: gpt-5-mini", "lose: [a b]", "must be the name of a field of a request"),
        ("[local, openai]", "[openai], on_cut: continue", "`continue` needs a deployment with `engine` or `model`"),
        ("[local, openai]", "[openai], on_disconnect: drian", "Did you mean `drain`?"),
        ("models:\n", "images: { max_bytes: 2GiB }\nmodels:\n", "images.max_bytes must be from 1KiB to 1GiB"),
        ("models:\n", "images: { timeout: 10m }\nmodels:\n", "images.timeout must be longer than 0s and at most 5m"),
        ("models:\n", "images: { hosts: [a.example] }\nmodels:\n", "has no meaning while nothing is fetched"),
        (
            "models:\n",
            "images: { fetch: allow, hosts: ['https://a'] }\nmodels:\n",
            "must be a host such as images.example.com",
        ),
        ("models:\n", "responses: { retention: 30 }\nmodels:\n", "responses.retention must be a duration"),
        ("provider: openai", "provider: https://me@x/v1", "must not hold a user name or password"),
        ("served: llama-3-8b", "connect_timeout: 0s", "connect_timeout must be longer than 0s"),
        (
            "served: llama-3-8b",
            "served: !!python/name:os.system x",
            "tags such as `tag:yaml.org,2002:python/name:os.system`",
        ),
        ("served: llama-3-8b", "served: *nothing", "`*nothing` stands for nothing"),
        ("models:\n", "models: [\n", "this is not YAML"),
        ("models:\n", "--- 1\n---\nmodels:\n", "a second document begins here"),
    ],
)
def test_a_mistake_is_told_in_words_that_say_what_to_do(change: str, to: str, told: str):
    assert change in SMALLEST
    lines = problems(SMALLEST.replace(change, to, 1))
    assert any(told in line for line in lines), lines


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_told_so(text: str):
    (told,) = problems(text)
    assert told.startswith(("penstock.yaml:1: ", "penstock.yaml:2: "))


def test_a_plain_secret_is_refused_and_never_shown():
    secret = "sk-verysecret123"
    told = problems(SMALLEST.replace("env:OPENAI_API_KEY", secret) + f"keys: [{{ id: web, sha256: {secret} }}]\n")
    assert len(told) == 2
    assert "write env:NAME" in told[0]
    assert not any(secret in line for line in told)


def test_a_syntax_error_beside_a_secret_does_not_show_it():
    told = problems(SMALLEST.replace("env:OPENAI_API_KEY", "sk-verysecret123 }}"))
    assert not any("verysecret" in line for line in told)


def test_names_and_digests_that_look_like_other_types_are_text():
    text = (
        SMALLEST.replace("llama-3-8b", "405")
        + f"keys: [{{ id: 'no', sha256: {'1' * 64} }}]\nserver: {{ access_log: off }}\n"
    )
    config = load(text, "penstock.yaml")
    assert config.deployments["local"].served == "405"
    assert isinstance(config.keys, tuple)
    assert (config.keys[0].id, config.keys[0].sha256) == ("no", "1" * 64)
    assert config.server.access_log == "off"


def test_anchors_and_merges_save_typing():
    text = """\
defaults: &slow
models:
  chat: { deployments: [a], timeouts: &patient { first_token: 60s, idle: 90s } }
  code: { deployments: [a], timeouts: { <<: *patient, idle: 5s } }
deployments:
  a: { engine: http://a:1 }
""".removeprefix("defaults: &slow\n")
    timeouts = load(text, "penstock.yaml").models["code"].timeouts
    assert (timeouts.first_token, timeouts.idle) == ("60s", "5s")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "models: &m\n  chat: *m\n",
        "models: &m { <<: *m }\n",
        "models: " + "[" * 5_000,
        "models: " + "{a: " * 5_000,
        "- " * 20_000,
        "x" * 2_000_000,
        "models: {" + ", ".join(f"m{i}: 1" for i in range(60_000)) + "}",
        "\ud800",
        "models: \x00",
        "? [a]\n: b\n",
    ],
)
def test_a_hostile_file_is_refused_and_not_expanded(text: str):
    assert problems(text)


def test_an_alias_bomb_where_a_list_is_expected_is_bounded():
    rows = ["models: {chat: {deployments: [a]}}", "deployments: {a: {engine: http://a:1}}", "keys:"]
    rows += [f"- &k0 {{id: a, sha256: {DIGEST}, models: [{', '.join(['x'] * 2000)}]}}"] + ["- *k0"] * 2000
    assert problems("\n".join(rows))


def test_keys_may_be_in_a_file_of_their_own_whose_problems_carry_its_name():
    text = SMALLEST + "keys: { file: keys.yaml }\n"
    files = {"keys.yaml": f"- {{ id: web, sha256: {DIGEST} }}\n- {{ id: app, sha256: {'cd' * 32}, models: [chat] }}\n"}
    config = load(text, "penstock.yaml", files.__getitem__)
    assert [key.id for key in config.keys] == ["web", "app"]  # type: ignore[union-attr]  # load puts the keys there
    files["keys.yaml"] += f"- {{ id: web, sha256: {DIGEST}, models: [chta] }}\n- {{ id: x, sha: 1 }}\n"
    with pytest.raises(ConfigError) as caught:
        load(text, "penstock.yaml", files.__getitem__)
    assert "keys.yaml:4: 3.sha is not an option." in str(caught.value)
    files["keys.yaml"] = files["keys.yaml"].rpartition("- {")[0]
    with pytest.raises(ConfigError) as caught:
        load(text, "penstock.yaml", files.__getitem__)
    assert str(caught.value).splitlines() == [
        "keys.yaml:3: 2.id `web` is the id of another key too; ids are how keys are told apart",
        "keys.yaml:3: 2.sha256 is the same key as `web`",
        "keys.yaml:3: 2.models.0 names `chta`, which is not a model. Did you mean `chat`?",
    ]


def test_a_keys_file_that_cannot_be_read_is_a_problem_of_the_line_that_names_it():
    def read(name: str) -> str:
        raise FileNotFoundError(2, "No such file or directory", name)

    with pytest.raises(ConfigError) as caught:
        load(SMALLEST + "keys: { file: keys.yaml }\n", "penstock.yaml", read)
    assert str(caught.value) == "penstock.yaml:6: keys.file cannot be read: No such file or directory"


def load_or_refuse(text: str) -> None:
    try:
        config = load(text, "f", lambda name: text)
    except ConfigError as error:
        told = error.problems
    else:
        assert isinstance(config.keys, tuple)
        return
    assert told
    assert all(problem.line >= 1 and problem.message and str(problem) for problem in told)


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-&*<!'\"|>#%@`? \n\tab1", max_size=60))
def test_any_text_is_a_config_or_a_config_error(text: str):
    load_or_refuse(text)


WORDS = """models deployments keys server chat local engine provider model served key file id sha256 timeouts idle
hedge_after breaker replicas port drain access_log << é"""
NAMES = st.sampled_from(WORDS.split())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NAMES | st.dates()
LEAVES |= st.sampled_from(["30s", "1MiB", "http://a:1", "env:X", "sk-plain", DIGEST, "off"])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)


@given(TREES)
def test_any_tree_of_familiar_words_is_a_config_or_a_config_error(tree: Any):
    load_or_refuse(yaml.safe_dump(tree))


@given(st.data())
def test_one_changed_place_in_a_good_file_never_breaks_the_reader(data: st.DataObject):
    at = data.draw(st.integers(0, len(SMALLEST)))
    cut = data.draw(st.integers(0, 8))
    new = data.draw(st.text(max_size=5) | st.sampled_from(["&a ", "*a", "<<: ", "!!int ", "- ", "\n", "null", "~"]))
    load_or_refuse(SMALLEST[:at] + new + SMALLEST[at + cut :])


def test_editors_can_show_a_meaning_for_every_option():
    schemas = json_schema()["$defs"]
    silent = [
        f"{name}.{option}"
        for name, schema in schemas.items()
        for option, of in schema["properties"].items()
        if "description" not in of and "description" not in schemas.get(of.get("$ref", "").rpartition("/")[2], {})
    ]
    assert silent == []


def test_the_json_schema_knows_every_option_and_its_pattern():
    schema = json_schema()
    deployment = schema["$defs"]["Deployment"]
    assert deployment["additionalProperties"] is False
    assert "engine" in deployment["properties"]
    assert schema["$defs"]["Timeouts"]["properties"]["idle"]["pattern"].endswith("(ms|s|m|h|d)$")


@pytest.mark.parametrize("written", ["-0.1", "1.1", "many", "'0.5'", "1e-1"])
def test_a_number_out_of_its_bounds_is_told_with_them(written):
    text = f"deployments: {{ a: {{ engine: http://a:1, balancing: {{ exploration: {written} }} }} }}"
    with pytest.raises(ConfigError, match=r"exploration must be a number from 0 to 1, not"):
        load(text, "f")
