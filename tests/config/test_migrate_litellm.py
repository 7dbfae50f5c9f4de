"""LiteLLM's configurations, as people write them: what comes out loads, says what it is, and holds no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from penstock.config.compile import compile_plane
from penstock.config.limits import limits_of, said
from penstock.config.litellm import sentences
from penstock.config.litellm.migrate import Migration, migrate
from penstock.config.litellm.source import Finding
from penstock.config.load import load
from penstock.config.problems import ConfigError
from penstock.config.schema import Config
from penstock.pricing.options import PriceOptions

FOLDER = Path(__file__).parent / "litellm"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ENVIRON = {"AZURE_API_BASE_US": "https://us.example.com"}


def done(name: str, environ: dict[str, str] | None = None, names: tuple[str, ...] = ()) -> tuple[Config, Migration]:
    migration = migrate((FOLDER / name).read_text(encoding="utf-8"), name, environ, names)
    assert migration.text is not None
    return load(migration.text, "penstock.yaml"), migration


def told(migration: Migration, path: str) -> list[Finding]:
    return [finding for finding in migration.findings if finding.path == path]


def outcomes(migration: Migration, path: str) -> set[str]:
    return {finding.outcome for finding in told(migration, path)}


def test_there_are_ten_of_them():
    assert len(FILES) == 10


@pytest.mark.parametrize("name", FILES)
def test_what_comes_out_is_a_file_that_loads_and_compiles(name: str):
    config, _ = done(name)
    assert compile_plane(config, 1, {}).models


@pytest.mark.parametrize("name", FILES)
def test_public_names_stay_and_every_entry_is_either_there_or_told(name: str):
    source = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    config, migration = done(name)
    for i, entry in enumerate(source["model_list"]):
        public = entry["model_name"]
        assert (
            public in config.models
            or outcomes(migration, f"model_list[{i}].model_name") == {"unsupported"}
            or ("*" in public)
        ), public


def settings_of(source: dict[str, Any], left_out: set[int]) -> set[str]:
    """The path of everything that a report must speak of."""
    found: set[str] = set()
    for section, value in source.items():
        if section == "model_list":
            for i, entry in enumerate(value):
                found.add(f"model_list[{i}].model_name")
                for part in ("litellm_params", "model_info") if i not in left_out else ():
                    found |= {f"model_list[{i}].{part}.{name}" for name in entry.get(part, {})}
        elif section in ("router_settings", "litellm_settings", "general_settings", "environment_variables"):
            found |= {f"{section}.{name}" for name in value}
        elif section == "credential_list":
            found |= {f"{section}[{i}]" for i in range(len(value))}
        else:
            found.add(section)
    return found


@pytest.mark.parametrize("name", FILES)
def test_no_setting_is_dropped_in_silence_and_each_is_told_at_its_line(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    source = yaml.safe_load(text)
    _, migration = done(name)
    left_out = {
        int(match[1])
        for finding in migration.findings
        if finding.outcome == "unsupported"
        and (match := re.fullmatch(r"model_list\[(\d+)\]\.model_name", finding.path))
    }
    spoken_of = {finding.path for finding in migration.findings}
    merged = {"api_key", "vertex_project", "vertex_location", "vertex_credentials"}
    silent = {path for path in settings_of(source, left_out) - spoken_of if path.rpartition(".")[2] not in merged}
    assert silent == set()
    lines = text.splitlines()
    for finding in migration.findings:
        setting = re.sub(r"(\[\d+\])+$", "", finding.path).rpartition(".")[2]
        line = lines[finding.line - 1]
        assert setting in line or "*" in line or re.search(r"\[\d+\]$", finding.path), (finding, line)


LITERALS = re.compile(r"[^\s\"']*(?:literal)[^\s\"',}]*|-----BEGIN[^'\"]*")


@pytest.mark.parametrize("name", FILES)
def test_no_secret_is_copied_or_shown(name: str):
    _, migration = done(name, ENVIRON)
    assert migration.text is not None
    everything = migration.text + "".join(finding.message for finding in migration.findings)
    assert "literal" not in everything
    assert "BEGIN PRIVATE" not in everything


def test_the_files_do_hold_secrets_in_every_place_where_people_leave_them():
    found = "".join((FOLDER / name).read_text(encoding="utf-8") for name in FILES)
    assert len(LITERALS.findall(found)) >= 12


def test_a_key_that_stands_in_the_file_becomes_a_variable_to_set():
    config, migration = done("anthropic_fallbacks.yaml")
    assert config.deployments["gpt-5-mini"].key == "env:OPENAI_API_KEY"
    assert migration.variables == ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    (finding,) = told(migration, "model_list[2].litellm_params.api_key")
    assert (finding.outcome, finding.line) == ("approximated", 15)
    assert "Put it into the environment as OPENAI_API_KEY" in finding.message


def test_a_key_for_another_host_is_not_named_like_the_companys_own():
    config, _ = done("vllm_pool.yaml")
    assert config.deployments["qwen3-32b-2"].key == "env:KEY_OF_LLM_EXAMPLE_COM"


def test_a_variable_that_the_file_names_is_not_given_to_another_secret():
    text = """
model_list:
  - { model_name: a, litellm_params: { model: openai/a, api_key: sk-one } }
  - { model_name: b, litellm_params: { model: openai/b, api_key: os.environ/OPENAI_API_KEY } }
  - { model_name: c, litellm_params: { model: openai/c, api_key: sk-one } }
  - { model_name: d, litellm_params: { model: openai/d, api_key: sk-two } }
"""
    migration = migrate(text, "config.yaml")
    keys = {name: one.key for name, one in load(migration.text or "", "f").deployments.items()}
    assert keys == {
        "a": "env:OPENAI_API_KEY_2",
        "b": "env:OPENAI_API_KEY",
        "c": "env:OPENAI_API_KEY_2",
        "d": "env:OPENAI_API_KEY_3",
    }


def test_engines_that_differ_in_their_address_only_become_replicas_of_one_deployment():
    config, migration = done("vllm_pool.yaml")
    pool = config.deployments["qwen3-32b-1"]
    assert pool.engine == ("http://10.0.0.4:8000/v1", "http://10.0.0.5:8000/v1", "http://10.0.0.6:8000/v1")
    assert (pool.software, pool.served, pool.key) == ("vllm", "Qwen/Qwen3-32B", "env:VLLM_API_KEY")
    assert config.models["qwen3-32b"].deployments == ("qwen3-32b-1", "qwen3-32b-2")
    assert config.deployments["qwen3-32b-2"].provider == "https://llm.example.com/v1"
    assert pool.price == PriceOptions(input="$0.2/M")  # said at one of them
    for limit in ("weight", "rpm", "tpm", "max_parallel_requests"):
        assert outcomes(migration, f"model_list[0].litellm_params.{limit}") == {"unsupported"}
    (broken,) = told(migration, "model_list[5].model_name")
    assert "left out here: engine must not hold a user name or password" in broken.message


def test_regions_of_azure_are_deployments_in_the_order_that_was_given():
    config, migration = done("azure_regions.yaml", ENVIRON)
    deployments = [config.deployments[name] for name in config.models["gpt-4o"].deployments]
    assert [one.endpoint for one in deployments] == [
        "https://my-endpoint-canada-berri992.openai.azure.com",
        "https://my-endpoint-europe-berri-992.openai.azure.com",
        "https://us.example.com",
    ]
    assert [one.api_version for one in deployments] == ["2024-10-21", "2024-10-21", None]
    assert [one.served for one in deployments] == ["gpt-4o-ca", "gpt-4o-eu", "gpt-4o-us"]
    assert config.models["gpt-4o"].max_attempts == 4
    assert config.models["gpt-4o"].timeouts.total == "30s"
    assert any("the load is not shared" in finding.message for finding in migration.findings)


def test_an_address_that_only_the_environment_knows_becomes_one_that_cannot_exist():
    config, migration = done("azure_regions.yaml")
    assert config.deployments["embeddings"].endpoint == "https://azure-api-base-us.invalid"
    (finding,) = told(migration, "model_list[3].litellm_params.api_base")
    assert finding.outcome == "unsupported"
    assert "AZURE_API_BASE_US" in finding.message


def test_fallbacks_stand_behind_the_models_own_deployments():
    config, migration = done("anthropic_fallbacks.yaml")
    assert config.models["claude-sonnet"].deployments == ("claude-sonnet", "claude-haiku", "gpt-5-mini")
    assert config.models["claude-sonnet"].max_attempts == 5
    assert config.models["claude-haiku"].timeouts.first_token == "15s"
    assert {one.lose for one in config.deployments.values()} == {"all"}
    assert outcomes(migration, "litellm_settings.drop_params") == {"approximated"}
    assert outcomes(migration, "litellm_settings.content_policy_fallbacks") == {"unsupported"}


def test_settings_of_the_router_reach_every_model():
    config, migration = done("router.yaml")
    first = config.models["gpt-4o"]
    assert first.deployments == ("gpt-4o", "mistral-small", "together")
    assert (first.max_attempts, first.timeouts.first_token, first.timeouts.total) == (5, "7.5s", "2m")
    assert config.models["gpt-4"].deployments == first.deployments
    assert config.models["gpt-4o-large"].max_attempts == 2
    assert config.models["secret-model"].deployments == ("mistral-small", "together")
    breakers = {name: (one.breaker.failures, one.breaker.open_for) for name, one in config.deployments.items()}
    assert breakers["gpt-4o"] == (4, "90s")
    assert breakers["together"] == (4, "30s")
    assert config.deployments["mistral-small"].lose == ("response_format", "logit_bias")
    assert config.deployments["gpt-4o"].key == "env:OPENAI_API_KEY"
    assert config.deployments["fireworks"].served == "accounts/fireworks/models/deepseek-v3"
    assert "sagemaker" not in config.models
    (unknown,) = told(migration, "router_settings.brand_new_router_setting")
    assert "is not a setting that this command knows" in unknown.message


def test_bedrock_is_found_by_its_region_wherever_that_stands():
    config, migration = done("bedrock.yaml")
    regions = {name: (one.region, one.api, one.served) for name, one in config.deployments.items()}
    assert regions["bedrock-claude-2"] == ("eu-west-3", "invoke", "anthropic.claude-3-5-sonnet-20240620-v1:0")
    assert regions["nova"] == ("us-west-2", None, "amazon.nova-pro-v1:0")
    assert regions["old-region-style"] == ("ap-northeast-1", None, "anthropic.claude-instant-v1")
    assert regions["custom-import"][0] == "us-west-2"
    assert config.deployments["custom-import"].key == "env:AWS_BEARER_TOKEN_BEDROCK"
    assert outcomes(migration, "model_list[0].litellm_params.aws_access_key_id") == {"mapped"}
    assert outcomes(migration, "model_list[1].litellm_params.aws_access_key_id") == {"approximated"}
    assert outcomes(migration, "model_list[2].litellm_params.aws_role_name") == {"unsupported"}


def test_vertex_has_a_project_a_region_and_a_key_by_reference():
    config, migration = done("vertex.yaml")
    claude, llama = config.deployments["claude-on-vertex"], config.deployments["llama-on-vertex"]
    assert (claude.project, claude.region) == ("my-gcp-project", "us-east5")
    assert claude.key == "file:/etc/litellm/service-account.json"
    assert llama.key == "env:VERTEX_SERVICE_ACCOUNT"
    assert "no-project" not in config.models
    (left,) = told(migration, "model_list[4].model_name")
    assert "set VERTEXAI_PROJECT" in left.message
    config, _ = done("vertex.yaml", {"VERTEXAI_PROJECT": "p-1", "VERTEXAI_LOCATION": "europe-west1"})
    assert (config.deployments["no-project"].project, config.deployments["no-project"].region) == (
        "p-1",
        "europe-west1",
    )


def test_servers_of_ones_own_are_engines_and_a_key_that_is_none_is_left_out():
    config, migration = done("ollama_local.yaml")
    llama, studio = config.deployments["llama3"], config.deployments["lmstudio"]
    assert (llama.engine, llama.software, llama.key) == ("http://localhost:11434", "ollama", None)
    assert config.deployments["nomic-embed"].engine == "http://localhost:11434"
    assert (studio.engine, studio.health, studio.key) == ("http://127.0.0.1:1234/v1", "off", None)
    assert migration.variables == ()


def test_wildcards_are_written_for_the_names_that_somebody_mentions():
    config, migration = done("wildcards.yaml", names=("groq/qwen-3", "anything/else"))
    assert set(config.models) == {
        "chat",
        "openai/gpt-4o-mini",
        "anthropic/claude-haiku-4-5",
        "groq/qwen-3",
        "anything/else",
    }
    served = {name: (one.provider, one.served) for name, one in config.deployments.items()}
    assert served["anthropic-claude-haiku-4-5"] == ("anthropic", "claude-haiku-4-5")
    assert served["groq-qwen-3"] == ("groq", "qwen-3")
    assert served["anything-else"] == ("openrouter", "anything/else")
    _, migration = done("wildcards.yaml")
    (groq,) = told(migration, "model_list[3].model_name")
    assert (groq.outcome, "--name" in groq.message) == ("unsupported", True)


def test_what_penstock_has_not_is_said_with_what_to_do_instead():
    _, migration = done("full_proxy.yaml")
    for path, words in {
        "general_settings.master_key": "penstock key create",
        "general_settings.database_url": "a database of its own (`store.database`)",
        "litellm_settings.cache": "no cache of answers yet",
        "model_list[0].litellm_params.max_budget": "budgets are for callers",
        "guardrails": "no guardrails yet",
        "litellm_settings.success_callback": "langfuse: nothing is sent there yet",
        "mcp_servers": "does not speak MCP",
    }.items():
        (finding,) = told(migration, path)
        assert finding.outcome == "unsupported"
        assert words in finding.message
    assert outcomes(migration, "litellm_settings.callbacks") == {"approximated", "unsupported"}
    config, _ = done("full_proxy.yaml")
    assert (config.server.max_in_flight, config.server.max_body) == (500, "16MiB")


def test_a_budget_of_the_whole_proxy_is_one_of_all_callers_in_the_calendar():
    config, migration = done("full_proxy.yaml")
    (budget,) = limits_of(config)
    assert said(budget) == "$1000.00 per month, for all together"
    assert outcomes(migration, "litellm_settings.budget_duration") == {"approximated"}


ONE = "model_list: [{ model_name: a, litellm_params: { model: openai/a%s } }]\n"


def test_what_new_keys_and_teams_were_given_holds_for_every_one_of_them():
    text = """\
litellm_settings:
  max_end_user_budget: 0.05
  default_key_generate_params: { rpm_limit: 100, tpm_limit: 5e4, max_budget: 1.5, budget_duration: 1d, models: [a] }
  default_team_params: { max_parallel_requests: 7, max_budget: 20, budget_duration: 45d }
"""
    migration = migrate(ONE % "" + text, "config.yaml")
    config = load(migration.text or "", "penstock.yaml")
    assert {limit.name: said(limit) for limit in limits_of(config)} == {
        "keys-requests": "100 requests per minute, for each key",
        "keys-tokens": "50,000 tokens per minute, for each key",
        "teams-slots": "7 concurrent requests, for each team",
        "end-users": "$0.05 in total, for each user",
        "keys": "$1.50 per day, for each key",
    }
    assert outcomes(migration, "litellm_settings.default_team_params.budget_duration") == {"unsupported"}
    assert outcomes(migration, "litellm_settings.default_key_generate_params.models") == {"unsupported"}


@pytest.mark.parametrize(
    ("costs", "price"),
    [
        (", input_cost_per_token: 2e-07, output_cost_per_token: 0.0000006", {"input": "$0.2/M", "output": "$0.6/M"}),
        (", input_cost_per_token: 3e-6,cache_read_input_token_cost: 3e-7", {"input": "$3/M", "cached_input": "$0.3/M"}),
        (", input_cost_per_token: 0, output_cost_per_token: 0.0", {"free": True}),
        (", input_cost_per_token: 1e-15", None),
        (", input_cost_per_token: cheap", None),
        (", input_cost_per_second: 0.00042", None),
    ],
)  # fmt: skip
def test_a_price_per_token_is_written_exactly_or_not_at_all(costs: str, price: dict[str, Any] | None):
    migration = migrate(ONE % costs, "config.yaml")
    (deployment,) = load(migration.text or "", "penstock.yaml").deployments.values()
    assert deployment.price == (None if price is None else PriceOptions(**price))
    assert {one.outcome for one in migration.findings if "cost" in one.path} == {
        "unsupported" if price is None else "mapped"
    }


def test_where_nothing_can_be_written_nothing_is():
    migration = migrate("model_list: [{ model_name: x, litellm_params: { model: sagemaker/x } }]", "config.yaml")
    assert migration.text is None
    assert outcomes(migration, "model_list[0].model_name") == {"unsupported"}


@pytest.mark.parametrize("text", ["", "[]", "just text", "model_list: [", "a: !!python/name:os.system x"])
def test_what_is_no_configuration_at_all_is_refused(text: str):
    with pytest.raises(ConfigError):
        migrate(text, "config.yaml")


TABLES = [
    sentences.TOP_LEVEL,
    sentences.LITELLM_SETTINGS,
    sentences.ROUTER_SETTINGS,
    sentences.GENERAL_SETTINGS,
    sentences.LITELLM_PARAMS,
    sentences.MODEL_INFO,
]
NAMES = st.sampled_from(
    [
        *(part for table in TABLES for part in list(table)[:2]),
        "model_list", "model_name", "litellm_params", "model_info", "model", "api_base", "api_key", "api_version",
        "timeout", "stream_timeout", "order", "id", "router_settings", "litellm_settings", "general_settings",
        "fallbacks", "default_fallbacks", "num_retries", "cooldown_time", "allowed_fails", "model_group_alias",
        "drop_params", "additional_drop_params", "callbacks", "master_key", "environment_variables", "credential_list",
        "credential_name", "credential_values", "litellm_credential_name", "aws_region_name", "vertex_project",
        "vertex_credentials", "custom_llm_provider", "max_request_size_mb", "<<",
    ]
)  # fmt: skip
LEAVES = st.sampled_from(
    [
        "openai/gpt-4o", "azure/x", "bedrock/anthropic.claude", "bedrock/us-east-1/x", "vertex_ai/gemini",
        "ollama/llama", "hosted_vllm/q", "gpt-4o", "a", "b", "*", "openai/*", "os.environ/KEY", "http://a:1",
        "https://a.example/v1", -1, 0, 0.25, 3, 900, True, False, "1e400", "2024-10-21", "prometheus",
    ]
)  # fmt: skip
LEAVES |= st.none() | st.text(max_size=6)
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=20
)
HIDDEN = "sk-hidden-0123456789"
PARAMS = st.dictionaries(NAMES, TREES, max_size=5)
SECRETS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("api_key", "vertex_credentials", "headers"), st.just(HIDDEN))
)
ENTRIES = st.builds(
    lambda name, params, secrets, model: {"model_name": name, "litellm_params": params | secrets | {"model": model}},
    LEAVES,
    PARAMS,
    SECRETS,
    LEAVES,
)
CONFIGS = st.builds(
    lambda tree, entries: tree | {"model_list": entries, "general_settings": {"master_key": HIDDEN}},
    st.dictionaries(NAMES, TREES, max_size=5),
    st.lists(ENTRIES, max_size=4),
)


@given(CONFIGS)
def test_any_tree_of_familiar_words_becomes_a_file_that_loads_or_none_and_keeps_its_secrets(tree: Any):
    try:
        migration = migrate(yaml.safe_dump(tree), "config.yaml", {"KEY": "https://from.example"})
    except ConfigError:
        return  # control characters, and the like: not YAML that is read here
    if migration.text is not None:
        load(migration.text, "penstock.yaml")
        assert HIDDEN not in migration.text
    for finding in migration.findings:
        assert finding.line >= 1
        assert finding.message
        assert HIDDEN not in finding.message


def test_every_sentence_says_something_and_has_an_outcome_that_is_known():
    for table in TABLES:
        for name, (outcome, sentence) in table.items():
            assert outcome in ("mapped", "approximated", "unsupported"), name
            assert len(sentence) >= 8, name
