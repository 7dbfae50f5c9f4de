"""What an answer says, read on its way to the caller: its text, how likely each token was, whether it calls tools.

For who must judge an answer before it is shown, in whichever dialect the caller is answered. Only OpenAI's chat
completions and completions carry probabilities; those that the caller did not ask for are taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.request import Endpoint, Request
from penstock.wire.prompts import NULL, UNREADABLE, Value, decode_count, decode_flag, read_field
from penstock.wire.sse import data_of

CARRY_PROBABILITIES: Final = frozenset({Endpoint.CHAT, Endpoint.COMPLETION})
AS_IT_COMES: Final = -1
HIDDEN: Final = -2
_TOP: Final = 2  # the likeliest tokens at each place that are asked for: the one that was taken, and another
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class _Top(msgspec.Struct, gc=False):
    token: str = ""
    logprob: float = 0.0


class _Token(msgspec.Struct, gc=False):
    token: str = ""
    logprob: float | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    """Of chat completions: `content`; of completions, which have the same lists in columns: the rest."""

    content: list[_Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Message(msgspec.Struct, gc=False):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None


class _OfOpenAI(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None


class _OfAnthropic(msgspec.Struct, gc=False):
    """A message, or one of the events of its stream."""

    content: list[_Block] | None = None
    content_block: _Block | None = None
    delta: _Block | None = None


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    content: list[_Block] | None = None


class _OfResponses(msgspec.Struct, gc=False):
    """A response, or one of the events of its stream."""

    type: str = ""
    output: list[_Item] | None = None
    item: _Item | None = None
    delta: Any = None


_openai = msgspec.json.Decoder(_OfOpenAI).decode
_anthropic = msgspec.json.Decoder(_OfAnthropic).decode
_responses = msgspec.json.Decoder(_OfResponses).decode


def asking_for_probabilities(request: Request) -> tuple[Request, int]:
    """The request with them asked for, the second likeliest token's included; and how many of the likeliest its caller
    is to see at each place; `HIDDEN`: no probabilities at all; `AS_IT_COMES`: nothing was added.

    For `CARRY_PROBABILITIES` only. What is written wrongly is the upstream's to refuse.
    """
    fields = request.fields
    if request.endpoint is Endpoint.COMPLETION:
        wanted = _read(fields, "logprobs", decode_count)
        if wanted is not None and wanted >= _TOP:
            return request, AS_IT_COMES
        more = {"logprobs": msgspec.Raw(b"%d" % _TOP)}
        shown = HIDDEN if wanted is None else wanted
    else:
        shows = _read(fields, "logprobs", decode_flag) is True
        wanted = _read(fields, "top_logprobs", decode_count) or 0
        if shows and wanted >= _TOP:
            return request, AS_IT_COMES
        more = {"logprobs": msgspec.Raw(b"true"), "top_logprobs": msgspec.Raw(b"%d" % _TOP)}
        shown = wanted if shows else HIDDEN
    return msgspec.structs.replace(request, fields=fields | more), shown


class Heard:
    """One answer. `likely` has for each token the natural logarithm of its probability and that of the likeliest other
    one, each None where it was not told. What cannot be read says nothing, and is passed on as it came."""

    __slots__ = ("_endpoint", "_shown", "_texts", "called_tools", "likely")

    def __init__(self, endpoint: Endpoint, shown: int = AS_IT_COMES) -> None:
        """`shown`, as `asking_for_probabilities` has it."""
        self._endpoint, self._shown = endpoint, shown
        self._texts: list[str] = []
        self.likely: list[tuple[float | None, float | None]] = []
        self.called_tools = False

    @property
    def text(self) -> str:
        """Of the first choice."""
        return "".join(self._texts)

    def events(self, block: bytes) -> bytes:
        """Whole events, as the caller is to see them."""
        kept = []
        for event in block.removesuffix(b"\n\n").split(b"\n\n"):
            payload = data_of(event)
            if payload.startswith(b"{"):
                told = self.whole(payload)
                kept.append(event if told is payload else b"data: " + told)
            else:
                kept.append(event)
        return b"\n\n".join(kept) + b"\n\n"

    def whole(self, body: bytes) -> bytes:
        """A plain answer, or the payload of one event, as the caller is to see it."""
        try:
            match self._endpoint:
                case Endpoint.MESSAGES:
                    self._hear_messages(_anthropic(body))
                case Endpoint.RESPONSES:
                    self._hear_responses(_responses(body))
                case _:
                    self._hear_openai(_openai(body))
                    return body if self._shown == AS_IT_COMES else self._without(body)
        except UNREADABLE:
            pass  # whoever reads it for good says what is wrong with it
        return body

    def _hear_openai(self, said: _OfOpenAI) -> None:
        for choice in said.choices or ():
            message = choice.delta or choice.message
            if message is not None and (message.tool_calls or message.function_call):
                self.called_tools = True
            text = choice.text if message is None else message.content
            if choice.index == 0 and isinstance(text, str):
                self._texts.append(text)
            if choice.logprobs is not None:
                self.likely += _likely(choice.logprobs)

    def _hear_messages(self, said: _OfAnthropic) -> None:
        for block in (*(said.content or ()), said.content_block, said.delta):
            if block is not None:
                self._hear(block)

    def _hear_responses(self, said: _OfResponses) -> None:
        if said.type == "response.output_text.delta" and isinstance(said.delta, str):
            self._texts.append(said.delta)
        for item in said.output or ():
            for block in item.content or ():
                self._hear(block)
        begun = [said.item] if said.item is not None and said.type == "response.output_item.added" else []
        self.called_tools |= any(item.type.endswith("_call") for item in (*(said.output or ()), *begun))

    def _hear(self, block: _Block) -> None:
        if block.type in ("text", "text_delta", "output_text") and block.text:
            self._texts.append(block.text)
        elif block.type.endswith("tool_use"):
            self.called_tools = True

    def _without(self, body: bytes) -> bytes:
        if b'"logprobs"' not in body:
            return body
        fields = _fields(body)
        if "choices" not in fields:
            return body
        choices = _choices(fields["choices"])
        for choice in choices:
            if "logprobs" in choice:
                choice["logprobs"] = NULL if self._shown == HIDDEN else _fewer(choice["logprobs"], self._shown)
        return _encode(fields | {"choices": choices})


def _likely(said: _Logprobs) -> list[tuple[float | None, float | None]]:
    found: list[tuple[float | None, float | None]] = []
    for token in said.content or ():
        others = [one.logprob for one in token.top_logprobs or () if one.token != token.token]
        found.append((token.logprob, max(others, default=None)))
    taken, tops = said.tokens or [], said.top_logprobs or []
    for i, logprob in enumerate(said.token_logprobs or ()):
        top = tops[i] if i < len(tops) else None
        name = taken[i] if i < len(taken) else None
        found.append((logprob, max((value for one, value in (top or {}).items() if one != name), default=None)))
    return found


def _fewer(raw: msgspec.Raw, most: int) -> msgspec.Raw:
    """Of the likeliest tokens at each place, only so many."""
    said = msgspec.json.decode(raw)
    if not isinstance(said, dict):
        return raw
    for token in said.get("content") or ():
        token["top_logprobs"] = (token.get("top_logprobs") or [])[:most]
    tops = said.get("top_logprobs")
    if tops is not None:
        said["top_logprobs"] = [top and dict(sorted(top.items(), key=lambda one: -one[1])[:most]) for top in tops]
    return msgspec.Raw(_encode(said))


def _read(fields: Mapping[str, msgspec.Raw], name: str, decode: Callable[[msgspec.Raw], Value]) -> Value | None:
    try:
        return read_field(fields, name, decode)
    except BadRequest:
        return None
