from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.keys import ENTROPY_BYTES, mint
from penstock.telemetry.redact import redact, suspicious

SECRET = "k3yT0pS3cret9876543210abcdefABCDEFGHIJ"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-{SECRET}.",
        f"sk-proj-{SECRET} and sk-ant-api03-{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: {SECRET}",
        f"{{'authorization': 'Bearer {SECRET}'}}",
        f'{{"api_key": "{SECRET}", "model": "x"}}',
        f"X-API-Key: {SECRET}",
        f"api-key={SECRET}",
        f"client_secret={SECRET}&x=1",
        f"GET https://example.com/v1?key={SECRET}&alt=sse failed",
        f"postgres://penstock:{SECRET}@db:5432/x",
        f"hf_{SECRET} ghp_{SECRET} xoxb-{SECRET}",
        f"AIza{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    masked = redact(text)
    assert SECRET not in masked
    assert "***" in masked


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MY_SECRET", "DB_PASSWORD", "ACCESS_TOKEN"])
def test_an_environment_variable_that_names_a_secret_keeps_its_name_and_loses_its_value(name: str) -> None:
    assert redact(f"{name}={SECRET} other=1") == f"{name}=*** other=1"


@given(st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES), st.text(max_size=20), st.text(max_size=20))
def test_no_key_of_ours_gets_through_whole(entropy: bytes, before: str, after: str) -> None:
    key = mint(entropy)
    masked = redact(f"{before} {key} {after}")
    assert key[7:] not in masked


@given(st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=6, max_size=20), max_size=4), st.text())
def test_given_secrets_are_masked_wherever_they_stand(secrets: list[str], around: str) -> None:
    masked = redact(around.join(["", *secrets, ""]), secrets)
    assert not [secret for secret in secrets if secret in masked.replace("***", "") and secret not in around]


def test_the_longer_of_two_secrets_is_masked_first() -> None:
    assert redact("abcdef-123456 abcdef", ["abcdef", "abcdef-123456"]) == "*** ***"


def test_a_short_word_is_not_taken_for_a_secret() -> None:
    assert redact("the local model", ["", "the", "local"]) == "the local model"


@pytest.mark.parametrize(
    "text",
    [
        'penstock.yaml:14: deployments.local.engin is not an option. Did you mean "engine"?',
        "local/0: connection refused",
        "429 token_rate_limit: 40,000 of 40,000 tokens this minute. Retry after 3.2 s.",
        "max_tokens=5, key_id web, https://api.openai.com/v1/chat/completions",
        json.dumps({"model": "gpt-5-mini", "usage": {"prompt_tokens": 5}}),
        "task-force, risk-averse, disk-usage",
    ],
)
def test_ordinary_messages_are_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text() | st.from_regex(r"[a-zA-Z0-9._:/@+#=-]{1,60}", fullmatch=True))
def test_whatever_would_be_masked_is_suspicious_at_the_first_look(text: str) -> None:
    assert suspicious(text) or redact(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefghijkl", "PASSWORD=hunter22", "access-token:abcdef", "accesstoken=abc", "AKIAABCDEFGHIJKLMNOP",
        "x?sig=abcdefgh", "https://me:hunter22@host", "hf_abcdefghijkl", "xoxb-abcdefghijkl", "github_pat_abcdefghijkl",
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "Basic dXNlcjpwYXNz", "AIza" + "b" * 35, "authorization=abc",
        "gsk_abcdefghijkl",        "r8_abcdefghijkl", "passwd=hunter22", "api_key=abc",
    ],
)  # fmt: skip
def test_each_kind_of_secret_is_suspicious_and_masked(secret: str) -> None:
    assert suspicious(secret)
    assert redact(secret) != secret
