"""How far an answer had come when it broke off, and for which requests and upstreams another one may go on from there.

Apart from `continuing`, which is compiled: msgspec must see these types as they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint, Request, Usage
from penstock.wire.prompts import NULL, UNREADABLE

How: TypeAlias = Literal["continue", "prefix"]
"""From its tokens, exactly; or from its text."""

OF_TOKENS: Final = "resume_token_ids"  # the quirk of engines that go on from tokens
OF_TEXT: Final = ("continue_final_message", "prefix", "prefill")  # quirks: three ways to say where to go on from


class SoFar(msgspec.Struct, frozen=True):
    """What a caller has been told of one answer, by however many attempts."""

    how: How
    seed: int = 0  # for callers who gave none: whoever goes on must draw from the same numbers
    head: Mapping[str, msgspec.Raw] | None = None  # what every event of the answer says; None: nothing was told
    tokens: tuple[int, ...] = ()
    text: str = ""
    usage: Usage = Usage()  # of the attempts that broke; only from text, since from tokens the last count has it all
    source: UsageSource = UsageSource.NONE  # of that
    finished: bool = False  # why it ended has been told
    counted: bool = False  # its usage has been told


class ToldChoice(msgspec.Struct, gc=False):
    """Of a chunk, what tells whether somebody could go on from it."""

    index: int = 0
    delta: dict[str, Any] | None = None
    logprobs: Any = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class ToldEvent(msgspec.Struct, gc=False):
    choices: list[ToldChoice] | None = None


_PLAIN: Final = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "user", "metadata",
        "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip
"""The fields of a request for text and nothing else; any other one must say nothing."""
_SAYS_NOTHING: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (None, 1),
    "logprobs": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
}


def begin(request: Request, how: How, seed: int) -> SoFar | None:
    """Before anything was told; None for a request whose answer could not be gone on with."""
    fields = request.fields
    if not request.stream:
        return None
    if how == "prefix":
        return SoFar(how) if request.endpoint is Endpoint.CHAT and _plain(fields) else None
    several = bytes(fields.get("n", NULL)) not in (b"1", b"null")
    if request.endpoint not in (Endpoint.CHAT, Endpoint.COMPLETION) or several or OF_TOKENS in fields:
        return None
    return SoFar(how, seed)


def _plain(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether only text goes in and comes out, and the last turn is not the model's own already."""
    try:
        others = {name: msgspec.json.decode(raw) for name, raw in fields.items() if name not in _PLAIN}
        messages = msgspec.json.decode(fields["messages"])
    except UNREADABLE:
        return False
    if any(value not in _SAYS_NOTHING.get(name, (None,)) for name, value in others.items()):
        return False
    return bool(messages) and all(map(_text_only, messages)) and messages[-1]["role"] != "assistant"


def _text_only(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
        return False
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return isinstance(content, str) and not message.get("tool_calls")


def goes_on(endpoint: Endpoint, quirks: Collection[str]) -> frozenset[How]:
    """From what an upstream of OpenAI's dialect with these quirks could go on."""
    ways: set[How] = set()
    if OF_TOKENS in quirks:
        ways.add("continue")
    if endpoint is Endpoint.CHAT and any(quirk in quirks for quirk in OF_TEXT):
        ways.add("prefix")
    return frozenset(ways)
