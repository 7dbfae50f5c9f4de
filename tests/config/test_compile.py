"""From what was written to what a worker must know; and what changed, for people."""

from __future__ import annotations

import msgspec
import pytest

from penstock.config.compile import compile_plane, config_hash
from penstock.config.diff import diff
from penstock.config.load import load
from penstock.config.providers import PROVIDERS
from penstock.config.spec import GrantSpec, PlaneSpec, ReplicaSpec
from penstock.config.zero import TargetError, config_for

TEXT = """\
models:
  chat:
    deployments: [local, openai, toy]
    timeouts: { first_token: 500ms, idle: 5s, total: 2m }
    max_attempts: 4
    hedge_after: 1500ms
deployments:
  local: { engine: [http://a:1/v1, http://b:2/v1], served: llama, health: off, breaker: { failures: 2, open_for: 1s } }
  openai: { provider: openai, served: gpt-5-mini, key: env:OPENAI_API_KEY, connect_timeout: 2s }
  toy: { model: ./weights/toy, replicas: 2 }
keys: [{ id: web, sha256: "%s", tenant: acme, models: [chat] }]
server: { max_in_flight: 7 }
""" % ("ab" * 32)


def plane(text: str = TEXT, version: int = 1) -> PlaneSpec:
    return compile_plane(load(text, "f"), version, {"toy": ("http://127.0.0.1:41", "http://127.0.0.1:42")})


def test_every_option_reaches_the_plane_in_the_gateways_own_units():
    spec = plane()
    plan = spec.models[0].plan
    assert plan.deployments == ("local", "openai", "toy")
    assert (plan.first_token_timeout, plan.idle_timeout, plan.total_timeout) == (0.5, 5.0, 120.0)
    assert (plan.max_attempts, plan.hedge_after) == (4, 1.5)
    local, openai, toy = spec.deployments
    assert local.replicas == (
        ReplicaSpec("local/0", "http://a:1", "/v1", None, "/metrics"),
        ReplicaSpec("local/1", "http://b:2", "/v1", None, "/metrics"),
    )
    assert (local.breaker_failures, local.breaker_open_for) == (2, 1.0)
    assert openai.replicas == (ReplicaSpec("openai/0", "https://api.openai.com", "/v1", None),)
    assert (openai.credential, openai.connect_timeout) == ("env:OPENAI_API_KEY", 2.0)
    assert [replica.origin for replica in toy.replicas] == ["http://127.0.0.1:41", "http://127.0.0.1:42"]
    assert (toy.served, toy.replicas[0].health_path) == ("toy", "/health")
    assert (spec.keys[0].digest, spec.keys[0].peppered) == ("ab" * 32, False)
    assert spec.grants[spec.keys[0].grant] == GrantSpec("acme", models=("chat",))
    assert (spec.max_in_flight, spec.insecure_dev) == (7, False)


def test_a_plane_survives_being_sent_to_a_worker():
    spec = plane()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=PlaneSpec) == spec


def test_the_hash_follows_the_meaning_and_not_the_writing():
    config = load(TEXT, "f")
    assert config_hash(load("# a comment\n" + TEXT, "g")) == config_hash(config)
    assert config_hash(load(TEXT.replace("acme", "emca"), "f")) != config_hash(config)


def test_an_unchanged_file_has_no_difference():
    assert diff(plane(), plane(version=2)) == []


def test_the_difference_is_told_in_lines_and_without_digests():
    new = (
        TEXT.replace("served: llama", "served: lama")
        .replace("toy: { model: ./weights/toy, replicas: 2 }", "more: { engine: http://c:3 }")
        .replace("openai, toy]", "openai]")
        .replace("ab" * 32, "cd" * 32)
        .replace("max_in_flight: 7", "max_in_flight: 8")
        .replace("health: off, ", "")
    )
    lines = diff(plane(), plane(new))
    assert lines == [
        "~ model chat: deployments: local, openai, toy -> local, openai",
        "~ deployment local: served: llama -> lama",
        "~ deployment local: health: off, off -> /health, /health",
        "- deployment toy",
        "+ deployment more -> http://c:3/v1",
        "~ key web: the key itself changed",
        "~ max_in_flight: 7 -> 8",
    ]


def test_a_start_without_a_file_means_a_file_that_loads():
    text = config_for(["tiny", "./my weights", "openai/gpt-5-mini", "http://10.0.0.4:8000", "code=unix:/run/x.sock"])
    config = load(text, "zero")
    assert list(config.models) == ["tiny", "my-weights", "gpt-5-mini", "default", "code"]
    assert config.deployments["openai"].key == "env:OPENAI_API_KEY"
    assert config.deployments["10.0.0.4-8000"].engine == "http://10.0.0.4:8000/v1"


def test_targets_of_one_model_are_tried_in_the_order_given():
    config = load(config_for(["chat=http://a:1", "chat=http://b:1", "chat=groq/llama-3"]), "zero")
    assert config.models["chat"].deployments == ("a-1", "b-1", "groq")


def test_an_address_serves_every_model_that_it_said_it_has():
    config = load(config_for(["http://a:1"], {"http://a:1": ["meta/llama-3-8b", "qwen"]}), "zero")
    assert {name: config.deployments[model.deployments[0]].served for name, model in config.models.items()} == {
        "meta/llama-3-8b": "meta/llama-3-8b",
        "qwen": "qwen",
    }


WAYS = {"azure": "my-resource/", "bedrock": "eu-west-1/", "vertex": "my-project/global/"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_known_provider_can_be_a_target(name: str):
    config = load(config_for([f"{name}/{WAYS.get(name, '')}some/model"]), "zero")
    (deployment,) = compile_plane(config, 1, {}).deployments
    assert list(config.models) == ["some/model"]
    assert deployment.served == "some/model"
    assert deployment.replicas[0].origin.startswith("https://")
    assert deployment.replicas[0].health_path is None
    assert (deployment.credential is None) == (not PROVIDERS[name].key_needed)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("opnai/gpt-5", "Did you mean `openai`?"),
        ("openai/", "neither a provider's model nor an address"),
        ("bedrock/anthropic.claude-sonnet-4", "needs its whole way: bedrock/REGION/MODEL"),
        ("vertex/p//gemini-2.5-pro", "needs its whole way: vertex/PROJECT/REGION/MODEL"),
        ("http://", "must be an address"),
        ("", "is not a target"),
        ("a b", "is not a target"),
    ],
)
def test_a_target_that_means_nothing_says_what_could_be_written(target: str, told: str):
    with pytest.raises(TargetError, match=told.replace("?", r"\?")):
        config_for([target])
    with pytest.raises(TargetError, match="nothing to serve"):
        config_for([])


def test_a_policy_is_a_name_or_a_block_and_replicas_have_their_weights():
    spec = plane(
        """
models: { chat: { deployments: [one, two, three] } }
deployments:
  one: { engine: [http://a:1, http://b:1], served: m }
  two: { engine: [http://a:1], served: m, balancing: round_robin }
  three:
    engine: [http://a:1, http://b:1]
    served: m
    balancing: { policy: weighted, interference: 0.5, weights: [3, 1] }
queue: { threshold: 4096 }
"""
    )
    one, two, three = (deployment.balancing for deployment in spec.deployments)
    assert (one.policy, two.policy, three.policy) == ("least_cost", "round_robin", "weighted")
    assert three.interference == 0.5
    assert {one.pending_tokens, two.pending_tokens, three.pending_tokens} == {4096}
    assert [replica.weight for replica in spec.deployments[2].replicas] == [3.0, 1.0]
