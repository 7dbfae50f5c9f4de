"""What engines tell of their KV caches, and whether prompts are computed elsewhere, as it is written."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from penstock.config.options import Options, Text, says
from penstock.config.units import Duration

Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^tcp://[^ /?#]{1,255}:[0-9]{1,5}$",
        examples=["tcp://*:5557"],
        extra={"expected": "an endpoint such as tcp://*:5557, where the star is the engine's own host"},
    ),
]


class KvEventsOptions(Options, frozen=True):
    endpoint: Annotated[
        Endpoint | None,
        says(
            "Engines: where each publishes its events, as it was told: `tcp://*:5557`. The engine's own host takes the "
            "place of the star. The embedded engine finds ports by itself."
        ),
    ] = None
    replay: Annotated[
        Endpoint | None,
        says("Likewise, where each repeats the last ones. Without it, what is missed once is forgotten."),
    ] = None
    ranks: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        says("Engines behind one address (data parallel); each further one publishes on the next port."),
    ] = 1


class PrefillOptions(Options, frozen=True, kw_only=True):
    by: Annotated[Text, says("The deployment that computes the prompts: the same model, with the same KV connector.")]
    threshold: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)],
        says("How much of a prompt must be new to the replica that answers, in tokens, for it to be sent there."),
    ] = 2_048
    transfer_rate: Annotated[
        Annotated[float, Meta(gt=0, le=1_000_000_000)],
        says("Tokens per second whose keys and values get from one to the other."),
    ] = 200_000.0
    give_up_after: Annotated[Duration, says("Then the replica that answers computes the prompt itself.")] = "30s"
