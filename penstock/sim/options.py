"""What a scenario says beside a `penstock.yaml`: how engines compute, what happens to them, what is compared."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from penstock.balancing.options import PolicyName
from penstock.config.options import Options, Text, says
from penstock.config.units import Duration
from penstock.sim.cost_model import CostModel

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Number = Annotated[
    str,
    Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$", examples=["0.5", "10"], extra={"expected": "a number such as 0.5"}),
]
Share = Annotated[
    str,
    Meta(
        pattern=r"^(0|1|0?\.[0-9]{1,9}|1\.0+)$",
        examples=["0.5", "1"],
        extra={"expected": "a share from 0 to 1, such as 0.5"},
    ),
]


class EngineOptions(Options, frozen=True):
    """How long a step takes, and how much fits. `hardware` is a row of the table that comes with Penstock."""

    hardware: Annotated[Text | None, says("Measured: llama2-70b/h100-80gb/8. What is given beside it counts.")] = None
    step: Annotated[Duration | None, says("Of a step, whatever is in it.")] = None
    per_sequence: Annotated[Duration | None, says("For each sequence that decodes in it.")] = None
    per_prefill_token: Annotated[Duration | None, says("For each prompt token computed in it.")] = None
    per_context_token: Annotated[Duration | None, says("For each token that decoding attends to.")] = None
    overhead: Annotated[Duration | None, says("From sending a request until the engine knows of it.")] = None
    kv_tokens: Annotated[Positive | None, says("Tokens that the KV cache holds.")] = None
    block_size: Annotated[Positive, says("Tokens of a KV block.")] = 512
    max_seqs: Positive = 256
    max_batched_tokens: Annotated[Positive, says("Tokens computed in one step: the size of a prefill chunk.")] = 2_048
    max_waiting: Annotated[Positive, says("Requests that the engine lets wait; one more is refused with 503.")] = (
        1_000_000_000
    )
    prefix_cache: bool = True
    gpus: Annotated[Positive | None, says("Of one replica.")] = None
    gpu_hour: Annotated[Number, says("Dollars for one of them.")] = "0"
    startup: Annotated[Duration, says("From its start until a replica answers.")] = "60s"


class Event(Options, frozen=True):
    """Something happens to a replica (`pool-0`), or to all of a deployment."""

    at: Duration
    what: Annotated[
        Literal["dies", "hangs", "slows", "fails", "returns", "deploys"],
        says(
            "`dies`: connections break; `hangs`: it accepts and says nothing; `slows`: by `factor`; `fails`: a `share` "
            "of requests get `status`; `returns`: all is well again; `deploys`: its replicas are restarted in turn."
        ),
    ]
    replica: Text | None = None
    deployment: Text | None = None
    lasts: Annotated[Duration | None, says("Then it returns. Without it: for ever, or until it `returns`.")] = None
    factor: Annotated[Number, says("How many times as long each step takes.")] = "10"
    share: Share = "1"
    status: Annotated[int, Meta(ge=400, le=599)] = 429
    retry_after: Duration | None = None


class Retries(Options, frozen=True):
    """Extra attempts, at most `share` per request and `per_second` beside it."""

    share: Number = "0.2"
    per_second: Number = "10"


class Policy(Options, frozen=True):
    """One of those that are compared. What is not said is as in the file."""

    name: Text
    balancing: Annotated[PolicyName | None, says("Of all deployments, instead of their own.")] = None
    late_binding: Annotated[
        Literal["hrrn", "fcfs", "off"] | None,
        says("The order of the central queue; `off`: each request is sent at once."),
    ] = None
    max_attempts: Annotated[Annotated[int, Meta(ge=1, le=10)] | None, says("Instead of the models' own.")] = None
    retries: Annotated[Retries | Literal["unlimited"] | None, says("The retry budget of each model.")] = None
    breaker: bool = True
    outliers: Annotated[bool, says("Whether a replica is left out that does worse than the others.")] = True
    hedge: Annotated[bool, says("Whether a second attempt starts beside a slow first one, where the file says so.")] = (
        True
    )
    shed: Annotated[bool, says("Whether some are refused for the sake of others.")] = True
    degrade: bool = True


class Slo(Options, frozen=True):
    ttft: Duration = "2s"
    itl: Annotated[Duration, says("Mean time between the tokens of an answer.")] = "50ms"


class Simulation(Options, frozen=True):
    """What is to be simulated, and how."""

    replicas: Annotated[
        dict[str, Annotated[int, Meta(ge=1, le=10_000)]], says("By deployment; else as many as it has addresses.")
    ] = msgspec.field(default_factory=dict)
    engines: Annotated[dict[str, EngineOptions], says("By deployment, where it is not `engine_model`.")] = (
        msgspec.field(default_factory=dict)
    )
    policies: Annotated[tuple[Text | Policy, ...], Meta(min_length=1)] = ("least_cost",)
    slo: Slo = Slo()
    seed: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    report_every: Annotated[Duration, says("How often the gateway hears of each engine's queue and KV cache.")] = "2s"


class Extra(Options, frozen=True):
    """A scenario without its `penstock.yaml` and its `traffic:`."""

    engine_model: EngineOptions = EngineOptions()
    events: tuple[Event, ...] = ()
    simulation: Simulation = Simulation()


MODEL_A: Final = {"step": 0.006, "per_sequence": 0.000_35, "per_prefill_token": 1 / 8_000, "kv_tokens": 524_288}


@cache
def hardware() -> dict[str, dict[str, float]]:
    """The table of measured hardware, by model/hardware/GPUs."""
    text = files("penstock.sim").joinpath("hardware.json").read_bytes()
    table: dict[str, dict[str, float]] = msgspec.json.decode(text)["models"]
    return table


def cost_model(options: EngineOptions) -> tuple[CostModel, int]:
    """With how many GPUs a replica has. Without any time, a middling engine: 8,000 prefill tokens/s, 6 ms a step.

    Raises `KeyError` for hardware that is not in the table, `ValueError` for sizes that no engine could have.
    """
    from penstock.config.units import seconds

    base: dict[str, float] = dict(hardware()[options.hardware] if options.hardware is not None else MODEL_A)
    for name in ("step", "per_sequence", "per_prefill_token", "per_context_token", "overhead"):
        text: str | None = getattr(options, name)
        if text is not None:
            base[name] = seconds(text)
    gpus = options.gpus or int(base.get("gpus", 1))
    model = CostModel(
        step=base["step"],
        per_sequence=base["per_sequence"],
        per_prefill_token=base["per_prefill_token"],
        per_context_token=base.get("per_context_token", 0.0),
        overhead=base.get("overhead", 0.0),
        kv_tokens=options.kv_tokens or int(base["kv_tokens"]),
        block_size=options.block_size,
        max_seqs=options.max_seqs,
        max_batched_tokens=options.max_batched_tokens,
        max_waiting=options.max_waiting,
        prefix_cache=options.prefix_cache,
    )
    assert model.batching, "its sizes are checked when they are made"
    return model, gpus
