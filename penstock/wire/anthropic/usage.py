"""Tokens as Anthropic counts them: classes that do not overlap, where the canonical prompt is their sum.

Source: the `usage` object of https://platform.claude.com/docs/en/api/messages. Counts in `message_delta` are totals so
far and take the place of those in `message_start`; a class that is left out there keeps its value.
"""

from __future__ import annotations

import msgspec

from penstock.core.request import Usage
from penstock.wire.anthropic.answer_shapes import Tokens


def usage_of(seen: Tokens) -> Usage:
    read, written = seen.cache_read_input_tokens or 0, seen.cache_creation_input_tokens or 0
    writes, details = seen.cache_creation, seen.output_tokens_details
    return Usage(
        prompt_tokens=(seen.input_tokens or 0) + read + written,
        completion_tokens=seen.output_tokens or 0,
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=(writes.ephemeral_1h_input_tokens or 0) if writes is not None else 0,
        reasoning_tokens=(details.thinking_tokens or 0) if details is not None else 0,
    )


def latest(before: Tokens | None, now: Tokens) -> Tokens:
    """What is known after `now` has come."""
    if before is None:
        return now
    said = {name: value for name, value in msgspec.structs.asdict(now).items() if value is not None}
    return msgspec.structs.replace(before, **said)


def fields(usage: Usage) -> dict[str, object]:
    """A `usage` object. The parts that few answers have are left out where there are none."""
    said: dict[str, object] = {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.cache_write_tokens:
        said["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, usage.cache_write_tokens - usage.cache_write_1h_tokens),
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    if usage.reasoning_tokens:
        said["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return said
