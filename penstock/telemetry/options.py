"""What may be chosen about traces and logs: plain values, made from the configuration, sent to workers."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Naming: TypeAlias = Literal["latest", "older"]
Dialect: TypeAlias = Literal["otel", "langfuse", "langsmith", "openinference"]
Keys: TypeAlias = Literal["penstock", "ecs"]


class Sampling(msgspec.Struct, frozen=True):
    """Which traces are kept, looking back at the whole request. Spans in seconds."""

    ratio: float = 0.01  # of those that are nothing special, 0..1
    slow_ttft: float | None = None  # beyond it a stream is slow; None: only in comparison with others
    slow_duration: float | None = None  # likewise, for answers that are not streamed
    honour_caller: bool = True  # keep what its caller records, and so sent `sampled` with
    most_per_second: float = 50.0  # that are kept for what they are; when everything fails, a share must do


class Exporter(msgspec.Struct, frozen=True):
    """One place that spans are sent to. `endpoint` is the whole address of OTLP/HTTP; `headers` are references to
    secrets (env:NAME, file:/path), or texts.
    """

    name: str
    endpoint: str
    headers: tuple[tuple[str, str], ...] = ()
    dialect: Dialect = "otel"
    naming: Naming = "latest"
    timeout: float = 10.0  # seconds, for one batch


class Capture(msgspec.Struct, frozen=True):
    """What is kept of the texts themselves: by default nothing. What is looked at: the beginning of a few answers."""

    content: bool = False  # put prompts and answers into the traces that are kept, redacted
    max_bytes: int = 16 * 1024  # of a prompt, and of an answer
    hashes: bool = False  # of prompt and answer, on every line of the log and in traces
    hash_key: str | None = None  # a reference; None: whoever has a text can tell that it was sent
    refusals: bool = True  # look at the first words of some answers, and count what reads like a refusal

    @property
    def wanted(self) -> bool:
        """Whether the texts of a request have to be held while it lives."""
        return self.content or self.hashes


class TelemetryOptions(msgspec.Struct, frozen=True):
    exporters: tuple[Exporter, ...] = ()
    sampling: Sampling = Sampling()
    capture: Capture = Capture()
    propagate: bool = True  # tell upstreams the trace that they are part of
    log_keys: Keys = "penstock"
    service: str = "penstock"  # its name in traces
    environment: str = ""

    @property
    def drawn(self) -> float:
        """The share of traces that are recorded whatever becomes of them, 0..1."""
        return self.sampling.ratio if self.exporters else 0.0


DEFAULT = TelemetryOptions()
