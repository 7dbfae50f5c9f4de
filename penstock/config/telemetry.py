"""Traces and logs: what no type can say about their options, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from penstock.config import addresses
from penstock.config.secrets import REFERENCE_PATTERN
from penstock.config.telemetry_options import ExporterOptions, Telemetry
from penstock.config.units import n_bytes, seconds
from penstock.telemetry.options import Capture, Exporter, Sampling, TelemetryOptions

Path: TypeAlias = tuple[str, ...]
Found: TypeAlias = tuple[Path, str]

_OF_SECRETS: Final = re.compile(r"auth|key|token|secret|password|cookie", re.IGNORECASE).search
_OURS: Final = frozenset({"host", "content-type", "content-encoding", "content-length", "connection", "user-agent"})


def check(telemetry: Telemetry) -> Iterator[Found]:
    for name, exporter in telemetry.traces.items():
        yield from _exporter(("telemetry", "traces", name), exporter)
    here = ("telemetry", "sampling")
    if _share(telemetry.sampling.ratio) > 1:
        yield (*here, "ratio"), "must be at most 100%"
    for option in ("slow_ttft", "slow_duration"):
        said = getattr(telemetry.sampling, option)
        if said is not None and seconds(said) <= 0:
            yield (*here, option), "must be longer than 0s"
    if not 256 <= n_bytes(telemetry.content.max_bytes) <= 2**20:
        yield ("telemetry", "content", "max_bytes"), "must be from 256B to 1MiB"
    if telemetry.content.hash_key is not None and not telemetry.content.hashes:
        yield ("telemetry", "content", "hash_key"), "has no meaning without hashes: add `hashes: true`, or remove it"


def _exporter(here: Path, exporter: ExporterOptions) -> Iterator[Found]:
    try:
        addresses.parse(exporter.endpoint, "/v1/traces")
    except ValueError as error:
        yield (*here, "endpoint"), str(error).replace("http://10.0.0.4:8000/v1", "http://localhost:4318/v1/traces")
    if not 0 < seconds(exporter.timeout) <= 60:
        yield (*here, "timeout"), "must be longer than 0s and at most 1m"
    for header, value in exporter.headers.items():
        if header.lower() in _OURS:
            yield (*here, "headers", header), "is written by Penstock itself"
        elif _OF_SECRETS(header) and re.search(REFERENCE_PATTERN, value) is None:
            yield (*here, "headers", header), "must not be the secret itself: write env:NAME or file:/path"


def telemetry_of(telemetry: Telemetry) -> TelemetryOptions:
    sampling, content = telemetry.sampling, telemetry.content
    return TelemetryOptions(
        exporters=tuple(
            Exporter(
                name=name,
                endpoint=_whole(exporter.endpoint),
                headers=tuple((header.lower(), value) for header, value in exporter.headers.items()),
                dialect=exporter.dialect,
                naming=exporter.naming,
                timeout=seconds(exporter.timeout),
            )
            for name, exporter in telemetry.traces.items()
        ),
        sampling=Sampling(
            ratio=_share(sampling.ratio),
            slow_ttft=None if sampling.slow_ttft is None else seconds(sampling.slow_ttft),
            slow_duration=None if sampling.slow_duration is None else seconds(sampling.slow_duration),
            honour_caller=sampling.honour_caller,
            most_per_second=float(sampling.most_per_second),
        ),
        capture=Capture(
            content.capture, n_bytes(content.max_bytes), content.hashes, content.hash_key, content.refusals
        ),
        propagate=telemetry.propagate,
        log_keys=telemetry.log_keys,
        service=telemetry.service,
        environment=telemetry.environment,
    )


def _share(percent: str) -> float:
    return float(percent.rstrip("%")) / 100


def _whole(endpoint: str) -> str:
    address = addresses.parse(endpoint, "/v1/traces")
    return address.origin + address.base_path
