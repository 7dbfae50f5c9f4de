"""From a deployment's specification to the ways of asking its replicas, and to what authorizes that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from penstock.config.providers import Auth
from penstock.config.spec import DeploymentSpec, ReplicaSpec
from penstock.core.clock import Clock
from penstock.core.request import Endpoint
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
from penstock.upstreams.way import Terms, Way

_HEADERS: Final[Mapping[Auth, str]] = {
    "x-api-key": "x-api-key",
    "api-key": "api-key",
    "goog-api-key": "x-goog-api-key",
}


def ways_of(spec: DeploymentSpec, place: ReplicaSpec, clock: Clock) -> dict[Endpoint, Way]:
    """What a replica is asked. Its dialect is imported here: most gateways speak one or two. Raises ValueError."""
    match spec.dialect:
        case "openai":
            from penstock.upstreams.openai import ways
        case "anthropic":
            from penstock.upstreams.anthropic import ways
        case "converse":
            from penstock.upstreams.bedrock import converse_ways as ways
        case "invoke":
            from penstock.upstreams.bedrock import invoke_ways as ways
        case "gemini":
            from penstock.upstreams.gemini import gemini_ways as ways
        case "vertex-anthropic":
            from penstock.upstreams.gemini import claude_ways as ways
    return ways(
        Terms(
            clock,
            place.base_path,
            spec.served,
            native=spec.native,
            query="" if spec.api_version is None else "?" + urlencode({"api-version": spec.api_version}),
            quirks=spec.quirks,
            betas=spec.beta,
            lose=spec.lose,
        )
    )


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
