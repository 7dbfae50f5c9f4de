"""Each kind of upstream: its address, its dialect, how it is asked who may, and what it answers itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import load
from penstock.config.presets import SOFTWARE
from penstock.config.providers import PROVIDERS
from penstock.config.spec import DeploymentSpec, PlaneSpec
from penstock.core.request import Endpoint

CHATS = {Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES}


def plane(options: str, rest: str = "") -> PlaneSpec:
    text = f"models: {{ chat: {{ deployments: [it] }} }}\ndeployments: {{ it: {{ {options} }} }}\n{rest}"
    return compile_plane(load(text, "f"), 1, {"it": ("http://127.0.0.1:41",)})


def deployment(options: str) -> DeploymentSpec:
    return plane(options).deployments[0]


def url(spec: DeploymentSpec) -> str:
    return spec.replicas[0].origin + spec.replicas[0].base_path


@pytest.mark.parametrize(
    ("options", "address", "dialect", "auth"),
    [
        ("provider: openai, key: env:K", "https://api.openai.com/v1", "openai", "bearer"),
        ("provider: https://llm.example.com, key: env:K", "https://llm.example.com/v1", "openai", "bearer"),
        (
            "provider: https://llm.example.com/x, key: env:K, speaks: anthropic",
            "https://llm.example.com/x",
            "anthropic",
            "x-api-key",
        ),
        ("engine: http://a:1, speaks: anthropic", "http://a:1/v1", "anthropic", "bearer"),
        ("provider: anthropic, key: env:K", "https://api.anthropic.com/v1", "anthropic", "x-api-key"),
        ("provider: perplexity, key: env:K", "https://api.perplexity.ai", "openai", "bearer"),
        (
            "provider: gemini, key: env:K",
            "https://generativelanguage.googleapis.com/v1beta",
            "gemini",
            "goog-api-key",
        ),
        (
            "provider: azure, endpoint: https://Me.openai.azure.com/, key: env:K",
            "https://me.openai.azure.com/openai/v1",
            "openai",
            "api-key",
        ),
        (
            "provider: azure, endpoint: https://me.example, key: env:K, served: gpt 4/o, api_version: 2024-10-21",
            "https://me.example/openai/deployments/gpt%204%2Fo",
            "openai",
            "api-key",
        ),
        (
            "provider: azure, endpoint: https://me.openai.azure.com, key: env:K, api_version: preview",
            "https://me.openai.azure.com/openai/v1",
            "openai",
            "api-key",
        ),
        (
            "provider: bedrock, region: us-east-1",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
            "converse",
            "sigv4",
        ),
        (
            "provider: bedrock, region: cn-north-1, key: env:K",
            "https://bedrock-runtime.cn-north-1.amazonaws.com.cn",
            "converse",
            "bearer",
        ),
        (
            "provider: bedrock, region: us-east-1, endpoint: https://vpce-1.example.com, api: invoke",
            "https://vpce-1.example.com",
            "invoke",
            "sigv4",
        ),
        (
            "provider: vertex, project: p, region: us-central1, served: gemini-2.5-pro",
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1/publishers/google",
            "gemini",
            "google",
        ),
        (
            "provider: vertex, project: p, region: global, served: claude-sonnet-4@20250514",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/anthropic",
            "vertex-anthropic",
            "google",
        ),
        (
            "provider: vertex, project: p, region: eu, served: meta/llama-4, endpoint: 'http://127.0.0.1:9'",
            "http://127.0.0.1:9/v1/projects/p/locations/eu/endpoints/openapi",
            "openai",
            "google",
        ),
        (
            "provider: vertex, project: p, region: eu, served: gemini-2.5-flash",
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google",
            "gemini",
            "google",
        ),
        ("model: tiny", "http://127.0.0.1:41/v1", "openai", "bearer"),
    ],
)
def test_every_kind_of_place_has_its_address_its_dialect_and_its_way_to_say_who_asks(
    options: str, address: str, dialect: str, auth: str
):
    spec = deployment(options)
    assert (url(spec), spec.dialect, spec.auth) == (address, dialect, auth)


@pytest.mark.parametrize(
    ("options", "native"),
    [
        ("engine: http://a:1", {Endpoint.CHAT}),
        ("engine: http://a:1, software: vllm", {Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES}),
        ("engine: http://a:1, software: tgi", {Endpoint.CHAT}),
        ("engine: http://a:1, speaks: anthropic", {Endpoint.MESSAGES}),
        ("provider: openai, key: env:K", {Endpoint.CHAT, Endpoint.RESPONSES}),
        ("provider: groq, key: env:K", {Endpoint.CHAT}),
        ("provider: anthropic, key: env:K", {Endpoint.MESSAGES}),
        ("provider: gemini, key: env:K", set()),
        ("provider: bedrock, region: us-east-1", set()),
        ("provider: bedrock, region: us-east-1, api: invoke", {Endpoint.MESSAGES}),
        ("provider: azure, endpoint: 'https://x.example', key: env:K", {Endpoint.CHAT, Endpoint.RESPONSES}),
        (
            "provider: azure, endpoint: 'https://x.example', key: env:K, served: g, api_version: 2024-10-21",
            {Endpoint.CHAT},
        ),
        ("model: tiny", {Endpoint.CHAT}),
    ],
)
def test_chats_that_are_not_native_are_to_be_translated(options: str, native: set[Endpoint]):
    assert set(deployment(options).native) & CHATS == native


def test_an_engine_of_which_nothing_is_known_is_passed_all_that_could_not_be_translated():
    native = deployment("engine: http://a:1").native
    assert {Endpoint.EMBEDDING, Endpoint.RERANK, Endpoint.TOKENIZE, Endpoint.TRANSCRIPTION} <= set(native)


@pytest.mark.parametrize("name", SOFTWARE)
def test_software_decides_what_an_engine_is_asked_and_where_its_health_is(name: str):
    spec = deployment(f"engine: http://a:1, software: {name}")
    assert spec.native == SOFTWARE[name].native
    assert spec.quirks == SOFTWARE[name].quirks
    assert spec.replicas[0].health_path == SOFTWARE[name].health
    assert deployment(f"engine: http://a:1, software: {name}, health: off").replicas[0].health_path is None


def test_quirks_that_would_break_or_change_a_request_are_known():
    assert "max_completion_tokens" in deployment("provider: openai, key: env:K").quirks
    assert "no_stream_options" in deployment("provider: mistral, key: env:K").quirks
    assert "max_tokens_only" in deployment("engine: http://a:1, software: ollama").quirks
    assert "continue_final_message" in deployment("engine: http://a:1, software: vllm").quirks


@pytest.mark.parametrize(
    ("options", "beta"),
    [
        ("provider: anthropic, key: env:K", ("*",)),
        ("provider: anthropic, key: env:K, beta: [context-1m-2025-08-07]", ("context-1m-2025-08-07",)),
        ("provider: anthropic, key: env:K, beta: []", ()),
        ("provider: bedrock, region: us-east-1", ()),
        ("provider: bedrock, region: us-east-1, beta: all", ("*",)),
        ("provider: vertex, project: p, region: global, served: claude-opus-4", ()),
        ("engine: http://a:1, speaks: anthropic", ("*",)),
        ("provider: openai, key: env:K", ()),
    ],
)
def test_feature_flags_pass_only_where_somebody_said_so(options: str, beta: tuple[str, ...]):
    assert deployment(options).beta == beta


def test_what_may_be_lost_is_named_or_is_everything():
    assert deployment("model: tiny").lose == ()
    assert deployment("model: tiny, lose: [logit_bias, thinking]").lose == ("logit_bias", "thinking")
    assert deployment("model: tiny, lose: all").lose == ("*",)


def test_what_a_cloud_is_asked_with_reaches_the_worker():
    azure = deployment("provider: azure, endpoint: 'https://x.example', key: env:K, served: g, api_version: 2024-10-21")
    vertex = deployment("provider: vertex, project: p-1, region: us-east5, served: gemini-2.5-pro, key: file:/sa.json")
    assert azure.api_version == "2024-10-21"
    assert (vertex.project, vertex.region, vertex.credential) == ("p-1", "us-east5", "file:/sa.json")


def test_answers_that_are_left_and_streams_that_break_are_a_choice_of_the_model():
    text = "models: { chat: { deployments: [it], on_disconnect: drain, on_cut: prefix } }\n"
    spec = compile_plane(load(text + "deployments: { it: { engine: http://a:1 } }", "f"), 1, {})
    assert (spec.models[0].on_disconnect, spec.models[0].on_cut) == ("drain", "prefix")
    assert (plane("model: tiny").models[0].on_disconnect, plane("model: tiny").models[0].on_cut) == ("cancel", "error")


def test_stored_responses_and_images_are_compiled_in_the_gateways_own_units():
    spec = plane(
        "model: tiny",
        "responses: { retention: 2d, max: 5 }\n"
        "images: { fetch: allow, max_bytes: 1MiB, timeout: 1500ms, hosts: ['*.Example.com'] }",
    )
    assert (spec.responses_retention, spec.responses_max) == (172_800.0, 5)
    assert (spec.images_fetch, spec.images_max_bytes, spec.images_timeout) == (True, 2**20, 1.5)
    assert spec.images_hosts == ("*.example.com",)
    assert plane("model: tiny").images_fetch is False
    assert diff(plane("model: tiny"), spec) == [
        "~ responses_retention: 2592000.0 -> 172800.0",
        "~ responses_max: 10000 -> 5",
        "~ images_fetch: False -> True",
        "~ images_max_bytes: 20971520 -> 1048576",
        "~ images_timeout: 10.0 -> 1.5",
        "~ images_hosts: none -> *.example.com",
    ]


def test_the_page_of_the_configuration_has_a_row_for_every_provider():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"(?m)^\| ([a-z]+) \| (.*) \|$", page))
    del told["option"], told["provider"]
    assert list(told) == list(PROVIDERS)
    for name, provider in PROVIDERS.items():
        assert {*provider.options, provider.usual_key} == set(re.findall(r"`([^`]+)`", told[name]))
