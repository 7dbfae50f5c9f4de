"""From a deployment's specification to the ways of asking its replicas: one function for each dialect of upstreams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from penstock.config.providers import Auth, Dialect
from penstock.config.spec import DeploymentSpec, ReplicaSpec
from penstock.core.clock import Clock
from penstock.core.request import Endpoint
from penstock.upstreams import anthropic, bedrock, gemini, openai
from penstock.upstreams.credentials import (
    Authorization,
    RenewedBearer,
    SigV4,
    aws_keys,
    bearer,
    google_token,
    key,
    nobody,
)
from penstock.upstreams.way import Way

Make = Callable[[DeploymentSpec, ReplicaSpec, bytes, Authorization, Clock], dict[Endpoint, Way]]
"""Deployment, replica, the value of its Host header, what authorizes. Raises ValueError for what cannot be sent."""

_HEADERS: Final[Mapping[Auth, str]] = {
    "x-api-key": "x-api-key",
    "api-key": "api-key",
    "goog-api-key": "x-goog-api-key",
}


def _openai(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return openai.ways(
        clock,
        host,
        base_path=place.base_path,
        served=spec.served,
        authorization=authorization,
        native=spec.native,
        query="" if spec.api_version is None else "?" + urlencode({"api-version": spec.api_version}),
        quirks=spec.quirks,
        betas=spec.beta,
        lose=spec.lose,
    )


def _anthropic(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return anthropic.ways(
        clock,
        host,
        base_path=place.base_path,
        served=spec.served,
        authorization=authorization,
        betas=spec.beta,
        lose=spec.lose,
    )


def _served(spec: DeploymentSpec) -> str:
    if spec.served is None:
        raise ValueError("the path of this provider names the model: say which, with `served`")
    return spec.served


def _converse(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return bedrock.converse_ways(
        clock, host, base_path=place.base_path, served=_served(spec), authorization=authorization, lose=spec.lose
    )


def _invoke(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return bedrock.invoke_ways(
        clock,
        host,
        base_path=place.base_path,
        served=_served(spec),
        authorization=authorization,
        betas=spec.beta,
        lose=spec.lose,
    )


def _gemini(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return gemini.gemini_ways(
        clock, host, base_path=place.base_path, served=_served(spec), authorization=authorization, lose=spec.lose
    )


def _vertex_claude(
    spec: DeploymentSpec, place: ReplicaSpec, host: bytes, authorization: Authorization, clock: Clock
) -> dict[Endpoint, Way]:
    return gemini.claude_ways(
        clock,
        host,
        base_path=place.base_path,
        served=_served(spec),
        authorization=authorization,
        betas=spec.beta,
        lose=spec.lose,
    )


WAYS: Final[Mapping[Dialect, Make]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "converse": _converse,
    "invoke": _invoke,
    "gemini": _gemini,
    "vertex-anthropic": _vertex_claude,
}


def _service_account(secret: str) -> str:
    """The JSON key itself, or the path to it, as in GOOGLE_APPLICATION_CREDENTIALS. Raises `LookupError`."""
    if not secret.startswith("/"):
        return secret
    try:
        return Path(secret).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise LookupError(f"the service account's key at {secret} cannot be read") from None


def authorization_of(spec: DeploymentSpec, host: bytes, secret: str | None, clock: Clock) -> Authorization:
    """What authorizes requests to a deployment. Raises ValueError for a secret that cannot be sent, and LookupError,
    with a sentence, when a library or a credential is missing."""
    if spec.auth == "sigv4":
        return SigV4(aws_keys(clock), clock, host=host.decode("ascii"), region=spec.region or "")
    if spec.auth == "google":
        if secret is None:
            raise LookupError("a service account is needed: `key: file:/path/to/key.json`")
        return RenewedBearer(google_token(_service_account(secret), clock), clock)
    if secret is None:
        return nobody()
    if spec.auth == "bearer":
        return bearer(secret)
    return key(_HEADERS[spec.auth], secret)
