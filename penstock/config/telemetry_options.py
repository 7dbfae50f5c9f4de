"""The options of traces and of what logs say. What follows is in `config.telemetry`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.config.options import Count, Options, Text, says
from penstock.config.resilience_options import Percent
from penstock.config.secrets import SecretReference
from penstock.config.units import Duration, Size
from penstock.telemetry.options import Dialect, Keys, Naming

ExporterName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        extra={"expected": "a name of at most 64 letters, digits, dots, dashes and underscores"},
    ),
]
HeaderName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9-]{1,64}$", extra={"expected": "the name of a header, letters, digits and dashes"}),
]
HeaderText = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,1022}[\x21-\x7e])?$",
        examples=["env:LANGFUSE_AUTHORIZATION", "my-project"],
        extra={"secret": True, "wrong": "must be env:NAME or file:/path, or a text in ASCII on one line"},
    ),
]


class ExporterOptions(Options, frozen=True):
    """One place that takes traces by OTLP over HTTP."""

    endpoint: Annotated[Text, says("The whole address: http://localhost:4318/v1/traces.")]
    headers: Annotated[
        dict[str, HeaderText],
        Meta(max_length=16, extra={"names": HeaderName}),
        says("Sent along: env:NAME or file:/path; a text where it is no secret."),
    ] = msgspec.field(default_factory=dict)
    dialect: Annotated[
        Dialect, says("`otel`, or with what one backend wants besides: `langfuse`, `langsmith`, `openinference`.")
    ] = "otel"
    naming: Annotated[
        Naming, says("Names of the GenAI conventions: `latest`, or `older` as of 1.36 for who has not followed.")
    ] = "latest"
    timeout: Annotated[Duration, says("For one batch.")] = "10s"


class SamplingOptions(Options, frozen=True):
    """Which traces are kept; it is decided when a request is over."""

    ratio: Annotated[Percent, says("Of the requests that are nothing special.")] = "1%"
    slow_ttft: Annotated[
        Duration | None, says("A stream is slow beyond it. Always: the slowest hundredth of its model.")
    ] = None
    slow_duration: Annotated[Duration | None, says("Likewise, an answer that is not streamed.")] = None
    honour_caller: Annotated[bool, says("Keep what a caller's `traceparent` says is recorded.")] = True
    most_per_second: Annotated[
        Count, says("By one worker, of those kept for what they are. When everything fails, a share must do.")
    ] = 50


class ContentOptions(Options, frozen=True):
    """Whether anything of the texts themselves is kept. By default nothing is."""

    capture: Annotated[bool, says("Put prompts and answers into the traces that are kept, secrets masked.")] = False
    max_bytes: Annotated[Size, says("Of a prompt, and of an answer. From 256B to 1MiB.")] = "16KiB"
    hashes: Annotated[bool, says("Hashes of prompt and answer, in the log and in traces.")] = False
    hash_key: Annotated[
        SecretReference | None,
        says("Of the hashes: env:NAME or file:/path. Without one, who has a text can find where it was sent."),
    ] = None
    refusals: Annotated[
        bool, says("Look at the first words of some answers, and count what reads like a refusal. Nothing is kept.")
    ] = True


class Telemetry(Options, frozen=True):
    """Traces, and what logs say."""

    traces: Annotated[
        dict[str, ExporterOptions],
        Meta(max_length=8, extra={"names": ExporterName}),
        says("Where traces are sent."),
    ] = msgspec.field(default_factory=dict)
    sampling: SamplingOptions = msgspec.field(default_factory=SamplingOptions)
    content: ContentOptions = msgspec.field(default_factory=ContentOptions)
    propagate: Annotated[bool, says("Tell upstreams, in `traceparent`, which trace they are part of.")] = True
    log_keys: Annotated[Keys, says("`penstock`, or `ecs`: with the names of the Elastic Common Schema.")] = "penstock"
    service: Annotated[Text, says("What this gateway is called in traces.")] = "penstock"
    environment: Annotated[str, Meta(max_length=64), says("`production`, `staging`, ...; in traces.")] = ""
