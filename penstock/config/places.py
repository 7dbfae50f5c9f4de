"""Where a deployment is and how it is spoken to, with everything decided that its options leave open."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from penstock.config import addresses
from penstock.config.addresses import Address
from penstock.config.presets import EMBEDDED, SOFTWARE
from penstock.config.providers import COMPATIBLE, OF_ANTHROPIC, PROVIDERS, Auth, Dialect, Provider, Quirk
from penstock.config.schema import Deployment
from penstock.core.request import Endpoint

_ANY_FLAG: Final = ("*",)
_MULTI_REGIONS: Final = ("us", "eu")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """`addresses` is empty for the embedded engine, whose replicas are wherever they were started."""

    addresses: tuple[Address, ...] = ()
    health: str = "off"
    metrics: str = "off"
    dialect: Dialect = "openai"
    auth: Auth = "bearer"
    native: tuple[Endpoint, ...] = COMPATIBLE
    quirks: tuple[Quirk, ...] = ()
    beta: tuple[str, ...] = ()


def place_of(deployment: Deployment) -> Place:
    """Of a deployment that has passed its checks."""
    if deployment.model is not None:
        return Place(health=EMBEDDED.health, metrics=EMBEDDED.metrics, native=EMBEDDED.native, quirks=EMBEDDED.quirks)
    if deployment.provider is None:
        return _engine(deployment)
    if deployment.provider not in PROVIDERS:
        return _by_address(deployment, deployment.provider)
    provider = PROVIDERS[deployment.provider]
    if deployment.provider == "azure":
        return _azure(deployment, provider)
    if deployment.provider == "bedrock":
        return _bedrock(deployment, provider)
    if deployment.provider == "vertex":
        return _vertex(deployment, provider)
    return Place(
        addresses=(Address(provider.origin, provider.base_path),),
        dialect=provider.dialect,
        auth=provider.auth,
        native=provider.native,
        quirks=provider.quirks,
        beta=_ANY_FLAG if provider.dialect == "anthropic" else (),
    )


def engine_addresses(deployment: Deployment) -> tuple[str, ...]:
    if deployment.engine is None:
        return ()
    return deployment.engine if isinstance(deployment.engine, tuple) else (deployment.engine,)


def _engine(deployment: Deployment) -> Place:
    found = tuple(addresses.parse(text) for text in engine_addresses(deployment))
    spoken = deployment.speaks or "openai"
    if deployment.software is None:
        native = COMPATIBLE if spoken == "openai" else OF_ANTHROPIC
        return Place(
            addresses=found, health="/health", metrics="/metrics", dialect=spoken, native=native, beta=_flags(spoken)
        )
    software = SOFTWARE[deployment.software]
    return Place(
        addresses=found,
        health=software.health,
        metrics=software.metrics,
        dialect=spoken,
        native=software.native,
        quirks=software.quirks,
        beta=_ANY_FLAG,
    )


def _by_address(deployment: Deployment, text: str) -> Place:
    spoken = deployment.speaks or "openai"
    return Place(
        addresses=(addresses.parse(text),),
        dialect=spoken,
        auth="bearer" if spoken == "openai" else "x-api-key",
        native=COMPATIBLE if spoken == "openai" else OF_ANTHROPIC,
        beta=_flags(spoken),
    )


def _flags(spoken: Dialect) -> tuple[str, ...]:
    return _ANY_FLAG if spoken == "anthropic" else ()


def _azure(deployment: Deployment, provider: Provider) -> Place:
    """The v1 API names the deployment in the body; a dated one names it in the path."""
    assert deployment.endpoint is not None, "the checks asked for it"
    origin = addresses.parse(deployment.endpoint, "").origin
    native = provider.native
    path = "/openai/v1"
    if dated(deployment):
        assert deployment.served is not None, "the checks asked for it"
        path = f"/openai/deployments/{quote(deployment.served, safe='')}"
        native = tuple(one for one in native if one not in (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS))
    return Place(addresses=(Address(origin, path),), auth=provider.auth, native=native, quirks=provider.quirks)


def dated(deployment: Deployment) -> bool:
    """Whether this is Azure by a version of its API that has the model in the path."""
    return deployment.api_version not in (None, "preview")


def _bedrock(deployment: Deployment, provider: Provider) -> Place:
    assert deployment.region is not None, "the checks asked for it"
    domain = "amazonaws.com.cn" if deployment.region.startswith("cn-") else "amazonaws.com"
    address = Address(f"https://bedrock-runtime.{deployment.region}.{domain}", "")
    if deployment.endpoint is not None:
        address = addresses.parse(deployment.endpoint, "")
    invoke = deployment.api == "invoke"
    return Place(
        addresses=(address,),
        dialect="invoke" if invoke else "converse",
        auth="sigv4" if deployment.key is None else "bearer",
        native=(Endpoint.MESSAGES,) if invoke else provider.native,
    )


def _vertex(deployment: Deployment, provider: Provider) -> Place:
    """The publisher follows from the model's name: Claude is Anthropic's, `meta/llama-...` names its own and is behind
    an OpenAI-compatible endpoint, anything else is Google's."""
    region, served = deployment.region, deployment.served
    assert region is not None, "the checks asked for it"
    assert served is not None, "the checks asked for it"
    if region == "global":
        host = "aiplatform.googleapis.com"
    elif region in _MULTI_REGIONS:
        host = f"aiplatform.{region}.rep.googleapis.com"
    else:
        host = f"{region}-aiplatform.googleapis.com"
    origin = f"https://{host}" if deployment.endpoint is None else addresses.parse(deployment.endpoint, "").origin
    location = f"/v1/projects/{deployment.project}/locations/{region}"
    if served.startswith("claude"):
        return Place(
            addresses=(Address(origin, f"{location}/publishers/anthropic"),),
            dialect="vertex-anthropic",
            auth=provider.auth,
            native=OF_ANTHROPIC,
        )
    if "/" in served:
        return Place(
            addresses=(Address(origin, f"{location}/endpoints/openapi"),),
            auth=provider.auth,
            native=(Endpoint.CHAT,),
        )
    return Place(
        addresses=(Address(origin, f"{location}/publishers/google"),), dialect="gemini", auth=provider.auth, native=()
    )
