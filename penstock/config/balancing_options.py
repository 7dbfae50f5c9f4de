"""How one of a deployment's replicas is chosen, as it is written."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, structs

from penstock.balancing.options import DEFAULT, Balancing, PolicyName
from penstock.config.options import Options, says

Weighing = Annotated[float, Meta(ge=0, le=1_000)]
Weight = Annotated[float, Meta(gt=0, le=1_000_000)]


class BalancingOptions(Options, frozen=True):
    policy: Annotated[
        PolicyName,
        says("least_cost; or round_robin, least_requests, power_of_two, consistent_hash, weighted, random."),
    ] = DEFAULT.policy
    interference: Annotated[
        Weighing, says("How much the delay that a prompt puts on those who are being answered counts; 0 is selfish.")
    ] = DEFAULT.interference
    batch: Annotated[Weighing, says("How much it counts that a fuller batch makes slower steps.")] = DEFAULT.batch
    memory: Annotated[Weighing, says("Seconds that a half full KV cache counts for.")] = DEFAULT.memory
    exploration: Annotated[
        Annotated[float, Meta(ge=0, le=1)], says("The share of requests with short prompts that go anywhere.")
    ] = DEFAULT.exploration
    hash_load: Annotated[
        Annotated[float, Meta(ge=1, le=100)], says("consistent_hash: no replica has more times the mean in flight.")
    ] = DEFAULT.hash_load
    weights: Annotated[
        Annotated[tuple[Weight, ...], Meta(max_length=1_024)] | None,
        says("weighted: the share of each replica, in the order of the addresses; without it all are alike."),
    ] = None


def balancing_of(said: BalancingOptions | PolicyName | None, pending_tokens: int) -> Balancing:
    if not isinstance(said, BalancingOptions):
        return structs.replace(DEFAULT, policy=said or DEFAULT.policy, pending_tokens=pending_tokens)
    tuned = {name: getattr(said, name) for name in Balancing.__struct_fields__ if name != "pending_tokens"}
    return Balancing(**tuned, pending_tokens=pending_tokens)


def weight_of(said: BalancingOptions | PolicyName | None, place: int) -> float:
    weights = said.weights if isinstance(said, BalancingOptions) else None
    return 1.0 if weights is None or place >= len(weights) else weights[place]
