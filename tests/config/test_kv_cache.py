"""`kv_events` and `prefill`: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from penstock.balancing.disaggregate import PrefillRule
from penstock.config.compile import compile_plane
from penstock.config.load import ConfigError, load
from penstock.config.spec import KvEventsRule

HEAD = """
keys: [{ id: web, sha256: "%s" }]
models: { chat: { deployments: [pool] } }
deployments:
""" % ("0" * 64)


def compiled(text: str) -> dict[str, tuple[KvEventsRule | None, PrefillRule | None]]:
    plane = compile_plane(load(HEAD + text, "penstock.yaml"), 1, {})
    return {one.name: (one.kv_events, one.prefill) for one in plane.deployments}


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(HEAD + text, "penstock.yaml")
    return str(caught.value)


def test_without_either_caches_are_guessed_and_prompts_stay():
    assert compiled("  pool: { engine: http://a:1 }") == {"pool": (None, None)}


def test_where_engines_publish_reaches_the_plane():
    text = """
  pool:
    engine: [http://a:1, http://b:1]
    kv_events: { endpoint: "tcp://*:5557", replay: "tcp://*:6557", ranks: 2 }
"""
    assert compiled(text)["pool"][0] == KvEventsRule("tcp://*:5557", "tcp://*:6557", 2)


def test_the_embedded_engine_is_asked_without_saying_where():
    assert compiled("  pool: { model: tiny, kv_events: {} }")["pool"][0] == KvEventsRule()


def test_where_embedded_engines_publish_is_told_by_whoever_started_them():
    config = load(HEAD + "  pool: { model: tiny, replicas: 2, kv_events: {} }", "penstock.yaml")
    origins = {"pool": ("http://127.0.0.1:1", "http://127.0.0.1:2")}
    published = {"pool": (("tcp://127.0.0.1:3", "tcp://127.0.0.1:4"), ("tcp://127.0.0.1:5", ""))}
    (pool,) = compile_plane(config, 1, origins, published=published).deployments
    assert [(one.kv_events, one.kv_replay) for one in pool.replicas] == list(published["pool"])
    (pool,) = compile_plane(config, 1, origins).deployments
    assert [(one.kv_events, one.kv_replay) for one in pool.replicas] == [("", ""), ("", "")]


def test_who_computes_long_prompts_reaches_the_plane():
    text = """
  pool: { engine: http://a:1, software: vllm, prefill: { by: front, threshold: 512, give_up_after: 3s } }
  front: { engine: http://b:1, software: vllm }
"""
    assert compiled(text)["pool"][1] == PrefillRule(by="front", threshold=512, give_up_after=3.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pool: { engine: http://a:1, kv_events: {} }", "needs `endpoint`"),
        ('pool: { engine: http://a:1, kv_events: { endpoint: "ipc:///x" } }', "an endpoint such as"),
        ('pool: { engine: http://a:1, kv_events: { endpoint: "tcp://*:0" } }', "a port from 1"),
        ('pool: { engine: http://a:1, kv_events: { endpoint: "tcp://*:65535", ranks: 2 } }', "further rank"),
        ('pool: { engine: [http://a:1, http://b:1], kv_events: { endpoint: "tcp://a:1" } }', "a star for the host"),
        ('pool: { model: tiny, kv_events: { endpoint: "tcp://*:1" } }', "chosen by Penstock"),
        ("pool: { model: tiny, kv_events: { ranks: 2 } }", "use `replicas`"),
        ("pool: { provider: openai, key: env:K, kv_events: {} }", "no provider tells"),
        ("pool: { engine: http://a:1, software: vllm, prefill: { by: frnt } }", "`frnt`, which is not a deployment"),
        ("pool: { engine: http://a:1, software: vllm, prefill: { by: pool } }", "names itself"),
        (
            "pool: { engine: http://a:1, prefill: { by: front } }\n  front: { engine: http://b:1, software: vllm }",
            "vLLM's",
        ),
        (
            "pool: { engine: http://a:1, software: vllm, prefill: { by: front } }\n  front: { model: tiny }",
            "vLLM's way",
        ),
        (
            "pool: { engine: http://a:1, software: vllm, prefill: { by: front, give_up_after: 0s } }\n"
            "  front: { engine: http://b:1, software: vllm }",
            "longer than 0s",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(text: str, told: str):
    assert told in problems("  " + text)
