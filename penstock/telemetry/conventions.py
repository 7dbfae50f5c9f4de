"""What others call the attributes of our spans: one table of names, and what single backends want besides.

Since 2026 the GenAI conventions of OpenTelemetry live in a repository of their own, still as "Development", and some
names are new: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai. `older` are those of 1.36, for
backends that have not followed. Langfuse: packages/shared/src/server/otel/attributes.ts; LangSmith: "Trace with
OpenTelemetry" in its documentation; OpenInference (Phoenix): openinference-semantic-conventions 0.1.42.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from penstock.telemetry.options import Dialect, Naming
from penstock.telemetry.spans import Role, Span, Value


class Row(msgspec.Struct, frozen=True):
    """One attribute. `older` is "" where it was called the same. A `latest` of "" is for dialects only."""

    ours: str
    latest: str
    older: str = ""


TABLE: Final[tuple[Row, ...]] = (
    # of a call of a model
    Row("operation", "gen_ai.operation.name"),
    Row("provider", "gen_ai.provider.name", "gen_ai.system"),
    Row("request_model", "gen_ai.request.model"),
    Row("stream", "gen_ai.request.stream", "penstock.stream"),
    Row("session", "gen_ai.conversation.id", "session.id"),
    Row("finish_reasons", "gen_ai.response.finish_reasons"),
    Row("time_to_first_chunk", "gen_ai.response.time_to_first_chunk", "penstock.time_to_first_chunk"),
    Row("input_tokens", "gen_ai.usage.input_tokens"),
    Row("output_tokens", "gen_ai.usage.output_tokens"),
    Row("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens", "penstock.cache_read_tokens"),
    Row("cache_write_tokens", "gen_ai.usage.cache_write.input_tokens", "penstock.cache_write_tokens"),
    Row("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens", "penstock.reasoning_tokens"),
    Row("input", "gen_ai.input.messages", "gen_ai.prompt"),
    Row("output", "gen_ai.output.messages", "gen_ai.completion"),
    Row("error", "error.type"),
    # of a request
    Row("status", "http.response.status_code"),
    Row("user", "user.id"),
    # ours, which nobody else has a name for
    Row("request_id", "penstock.request.id"),
    Row("endpoint", "penstock.endpoint"),
    Row("model", "penstock.model"),
    Row("tenant", "penstock.tenant"),
    Row("team", "penstock.team"),
    Row("key_id", "penstock.key.id"),
    Row("feature", "penstock.feature"),
    Row("tags", "penstock.tags"),
    Row("priority", "penstock.priority"),
    Row("plane_version", "penstock.plane.version"),
    Row("n_attempts", "penstock.attempts"),
    Row("attempt", "penstock.attempt.number"),
    Row("ended", "penstock.attempt.ended"),
    Row("deployment", "penstock.deployment"),
    Row("replica", "penstock.replica"),
    Row("why", "penstock.routing.why"),
    Row("arm", "penstock.routing.arm"),
    Row("predicted_ttft", "penstock.routing.predicted_ttft"),
    Row("matched_tokens", "penstock.routing.matched_tokens"),
    Row("degraded", "penstock.degraded"),
    Row("prompt_version", "penstock.prompt.version"),
    Row("context", "penstock.prompt.context"),
    Row("ttft", "penstock.ttft"),
    Row("cost", "penstock.cost.dollars"),
    Row("usage_source", "penstock.usage.source"),
    Row("lasting", "penstock.error.lasting"),
    Row("blame", "penstock.error.blame"),
    Row("prompt_hash", "penstock.prompt.hash"),
    Row("output_hash", "penstock.output.hash"),
    Row("flags", "penstock.flags"),
    Row("kept", "penstock.trace.kept"),
    # parts of the above that some backends add up themselves
    Row("total_tokens", ""),
    Row("uncached_tokens", ""),
    Row("visible_tokens", ""),
)


class Also(msgspec.Struct, frozen=True):
    """What a dialect has beside the names of the table. `names`: by our name; one with `{}` is written once for each of
    several values, with its place. `of_role`: constants. `json`: one attribute that is an object of several, with dots
    where it has objects in it. `first_token`: an attribute that is the time of that event (ISO 8601).
    """

    names: Mapping[str, tuple[str, ...]] = {}
    of_role: Mapping[Role, tuple[tuple[str, str], ...]] = {}
    json: Mapping[str, tuple[tuple[str, str], ...]] = {}
    first_token: str = ""


DIALECTS: Final[Mapping[Dialect, Also]] = {
    "otel": Also(),
    "langfuse": Also(
        names={
            "session": ("session.id",),
            "tags": ("langfuse.trace.tags",),
            "request_model": ("langfuse.observation.model.name",),
            "prompt_version": ("langfuse.version",),
            "input": ("langfuse.observation.input",),
            "output": ("langfuse.observation.output",),
            "error": ("langfuse.observation.status_message",),
        },
        of_role={
            Role.REQUEST: (("langfuse.observation.type", "span"),),
            Role.STAGE: (("langfuse.observation.type", "span"),),
            Role.ATTEMPT: (("langfuse.observation.type", "generation"),),
            Role.PHASE: (("langfuse.observation.type", "span"),),
        },
        json={
            # classes that do not overlap: it adds up those whose names begin alike
            "langfuse.observation.usage_details": (
                ("input", "uncached_tokens"),
                ("input_cached_tokens", "cache_read_tokens"),
                ("input_cache_creation", "cache_write_tokens"),
                ("output", "visible_tokens"),
                ("output_reasoning_tokens", "reasoning_tokens"),
                ("total", "total_tokens"),
            ),
            "langfuse.observation.cost_details": (("total", "cost"),),
        },
        first_token="langfuse.observation.completion_start_time",
    ),
    "langsmith": Also(
        names={
            "session": ("langsmith.metadata.session_id",),
            "user": ("langsmith.metadata.user_id",),
            "prompt_version": ("langsmith.metadata.revision_id",),
            "provider": ("langsmith.metadata.ls_provider",),
            "request_model": ("langsmith.metadata.ls_model_name",),
            "input": ("gen_ai.prompt",),
            "output": ("gen_ai.completion",),
        },
        of_role={
            Role.REQUEST: (("langsmith.span.kind", "chain"),),
            Role.STAGE: (("langsmith.span.kind", "chain"),),
            Role.ATTEMPT: (("langsmith.span.kind", "llm"),),
            Role.PHASE: (("langsmith.span.kind", "chain"),),
        },
        json={
            "langsmith.usage_metadata": (
                ("input_tokens", "input_tokens"),
                ("output_tokens", "output_tokens"),
                ("total_tokens", "total_tokens"),
                ("total_cost", "cost"),
                ("input_token_details.cache_read", "cache_read_tokens"),
                ("input_token_details.cache_creation", "cache_write_tokens"),
                ("output_token_details.reasoning", "reasoning_tokens"),
            ),
        },
    ),
    "openinference": Also(
        names={
            "request_model": ("llm.model_name",),
            "provider": ("llm.provider", "llm.system"),
            "input_tokens": ("llm.token_count.prompt",),
            "output_tokens": ("llm.token_count.completion",),
            "total_tokens": ("llm.token_count.total",),
            "cache_read_tokens": ("llm.token_count.prompt_details.cache_read",),
            "cache_write_tokens": ("llm.token_count.prompt_details.cache_write",),
            "reasoning_tokens": ("llm.token_count.completion_details.reasoning",),
            "cost": ("llm.cost.total",),
            "session": ("session.id",),
            "tags": ("tag.tags",),
            "prompt_version": ("llm.prompt_template.version",),
            "context": ("retrieval.documents.{}.document.id",),
            "input": ("input.value",),
            "output": ("output.value",),
        },
        of_role={
            Role.REQUEST: (("openinference.span.kind", "CHAIN"),),
            Role.STAGE: (("openinference.span.kind", "CHAIN"),),
            Role.ATTEMPT: (("openinference.span.kind", "LLM"),),
            Role.PHASE: (("openinference.span.kind", "CHAIN"),),
        },
    ),
}

PROVIDERS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""`gen_ai.provider.name` of those that have a well-known one; others may be called as they are."""

_json = msgspec.json.Encoder().encode


class Convention:
    """One choice of names. `attributes` of a span are what is sent of it."""

    def __init__(self, naming: Naming = "latest", dialect: Dialect = "otel") -> None:
        self._also = DIALECTS[dialect]
        self.names: dict[str, tuple[str, ...]] = {}
        """By ours; those with a `{}` are for several values, one each."""
        for row in TABLE:
            name = row.older or row.latest if naming == "older" else row.latest
            names = ((name,) if name else ()) + self._also.names.get(row.ours, ())
            self.names[row.ours] = tuple(dict.fromkeys(names))  # one that is in both is written once

    def attributes(self, span: Span) -> Iterator[tuple[str, Value]]:
        """Raises `KeyError` for an attribute that is not in the table."""
        for ours, value in span.attributes.items():
            yield from self.called(ours, value)
        yield from self.besides(span)

    def called(self, ours: str, value: Value) -> Iterator[tuple[str, Value]]:
        """One attribute, by all the names that it has."""
        for name in self.names[ours]:
            if "{}" in name and isinstance(value, tuple):
                for i, one in enumerate(value):
                    yield name.format(i), one
            else:
                yield name, value

    def besides(self, span: Span) -> Iterator[tuple[str, Value]]:
        """What the dialect has that is no attribute of ours under another name."""
        also = self._also
        yield from also.of_role.get(span.role, ())
        for name, members in also.json.items():
            found = _object(members, span.attributes)
            if found:
                yield name, _json(found).decode()
        if also.first_token and span.events:
            at = datetime.fromtimestamp(span.events[0].at, UTC)
            yield also.first_token, at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _object(members: tuple[tuple[str, str], ...], values: Mapping[str, Value]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, ours in members:
        if ours in values:
            *above, last = path.split(".")
            inner = found
            for name in above:
                inner = inner.setdefault(name, {})
            inner[last] = values[ours]
    return found
