"""An answer that breaks off in the middle and goes on elsewhere: what is remembered, asked for, and said only once.

Two ways. From its tokens (`continue`): exact, between replicas of one engine that take them. From its text (`prefix`):
another model may go on, so only what is text and nothing else. Chat completions, and completions from tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import structs

from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.wire.openai_chat import Meter, upstream_body
from penstock.wire.prompts import NULL, UNREADABLE
from penstock.wire.readings import Passing, truncated
from penstock.wire.so_far import OF_TEXT, OF_TOKENS, SoFar, ToldChoice, ToldEvent
from penstock.wire.sse import data_of

MAX_TOKENS: Final = 131_072  # of one answer that are remembered; a longer one cannot be gone on with
MAX_TEXT: Final = 512 * 1024  # characters, likewise

_HEAD: Final = ("id", "created", "model", "system_fingerprint")  # the same in every event of one answer
_TRUE: Final = msgspec.Raw(b"true")
_FALSE: Final = msgspec.Raw(b"false")
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_count = msgspec.json.Decoder(int).decode
_event = msgspec.json.Decoder(ToldEvent).decode


# --- what is asked ---------------------------------------------------------------------------------------------------


def ask(
    request: Request, so_far: SoFar, served: msgspec.Raw | None, quirks: Collection[str], *, ask_usage: bool
) -> tuple[bytes, Passing]:
    """The request to an upstream with these quirks for what follows `so_far`, and how to read that.

    One that does not know tokens is asked as always: then nobody can go on with its answer.
    """
    fields = dict(request.fields)
    reading: Passing
    if so_far.how == "prefix":
        way = next((quirk for quirk in OF_TEXT if quirk in quirks), None)
        reading = Resumable(TextKeeper(so_far, echoes=way == "prefix"), not request.include_usage)
        if so_far.text:
            _go_on_from_text(fields, so_far, way)
    elif OF_TOKENS in quirks:
        wanted = bytes(fields.get("return_token_ids", NULL)) == b"true"
        reading = Resumable(TokenKeeper(so_far, strip=not wanted), not request.include_usage)
        fields["return_token_ids"] = _TRUE
        if bytes(fields.get("seed", NULL)) == b"null":
            fields["seed"] = msgspec.Raw(b"%d" % so_far.seed)
        if so_far.tokens:
            fields[OF_TOKENS] = msgspec.Raw(_encode(so_far.tokens))
    else:
        reading = Passing(Meter(), not request.include_usage)
    return upstream_body(structs.replace(request, fields=fields), served, ask_usage=ask_usage), reading


def _go_on_from_text(fields: dict[str, msgspec.Raw], so_far: SoFar, way: str | None) -> None:
    last: dict[str, object] = {"role": "assistant", "content": so_far.text}
    if way == "prefix":
        last["prefix"] = True
    elif way == "continue_final_message":
        fields["continue_final_message"], fields["add_generation_prompt"] = _TRUE, _FALSE
    fields["messages"] = msgspec.Raw(_encode([*_values(fields["messages"]), last]))
    for name in ("max_tokens", "max_completion_tokens"):
        if (limit := _limit(fields, name)) is not None:
            fields[name] = msgspec.Raw(b"%d" % (limit - so_far.usage.completion_tokens))


def _limit(fields: Mapping[str, msgspec.Raw], name: str) -> int | None:
    raw = fields.get(name, NULL)
    return None if bytes(raw) == b"null" else _count(raw)


# --- what is told ----------------------------------------------------------------------------------------------------


class Keeper:
    """A meter that remembers what the caller is told, and tells it as one answer with what came before."""

    __slots__ = ("_before", "_counted", "_finished", "_head", "_lost", "_meter", "_spoke")

    def __init__(self, before: SoFar) -> None:
        self._meter = Meter()
        self._before = before
        self._head = before.head
        self._finished, self._counted = before.finished, before.counted
        self._spoke = False  # this attempt has said something
        self._lost = False  # something was told that nobody could go on from

    @property
    def terminator(self) -> bytes:
        return self._meter.terminator

    @property
    def done(self) -> bool:
        return self._meter.done

    @property
    def complete(self) -> bool:
        return self._meter.complete

    @property
    def finish_reason(self) -> str | None:
        return self._meter.finish_reason

    def answer(self, body: bytes) -> None:
        raise AssertionError("only streams are gone on with")

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        return self._meter.billed(request)

    def so_far(self, request: Request) -> SoFar | None:
        """None when nobody could go on from here."""
        raise NotImplementedError

    def _remember(self, choice: ToldChoice) -> str | None:
        """The text to tell in place of the choice's own; None: as it is."""
        raise NotImplementedError

    def _shown(self, event: bytes, instead: str | None) -> bytes:
        """One event as the caller gets it, without its blank line; b"" when nothing of it is new to them."""
        raise NotImplementedError

    def events(self, block: bytes, strip_usage: bool) -> tuple[bytes, bool]:
        """All events are read before any is remembered: of a block with an error in it nothing is told."""
        read: list[tuple[bytes, bool, bool]] = []
        for event in block[:-2].split(b"\n\n"):
            kept, says_something = self._meter.events(event + b"\n\n", True)
            read.append((event, says_something, not kept))
            if self._meter.done:
                break
        told = [self._tell(event, says, is_usage, strip_usage) for event, says, is_usage in read]
        return b"".join([event + b"\n\n" for event in told if event]), any(says for _, says, _ in read)

    def _tell(self, event: bytes, says_something: bool, is_usage: bool, strip_usage: bool) -> bytes:
        data = data_of(event)
        if not data or data == b"[DONE]":
            return event
        if self._before.head is not None and not (says_something or is_usage or self._spoke):
            return b""  # the role, a second time
        if self._head is None and says_something:
            fields = _fields(data)
            self._head = {name: fields[name] for name in _HEAD if name in fields}
        instead: str | None = None
        told_before = False
        if is_usage:
            told_before = self._counted or strip_usage
            self._counted = True
        elif says_something:
            told_before = self._before.finished
            instead = self._remember(self._only_choice(data))
        shown = b"" if told_before else self._shown(event, instead)
        self._spoke |= says_something
        return shown

    def _only_choice(self, data: bytes) -> ToldChoice:
        try:
            choices = _event(data).choices or []
        except UNREADABLE:  # other types than OpenAI's
            choices = []
        if len(choices) != 1 or choices[0].index != 0:
            self._lost = True
            return ToldChoice()
        self._finished |= choices[0].finish_reason is not None
        return choices[0]

    def _under_one_head(self, event: bytes) -> dict[str, msgspec.Raw]:
        """The fields of an event of an attempt that goes on, under the names of the first one; without a role."""
        fields = _fields(data_of(event))
        fields.update({name: value for name, value in (self._head or {}).items() if name in fields})
        if not self._spoke and b'"role"' in bytes(fields.get("choices", b"")):
            fields["choices"] = _changed(fields["choices"], lambda delta: delta.pop("role", None))
        return fields


def _changed(choices: msgspec.Raw, change: Callable[[dict[str, Any]], object]) -> msgspec.Raw:
    values = msgspec.json.decode(choices)
    for choice in values:
        change(choice.setdefault("delta", {}))
    return msgspec.Raw(_encode(values))


class Resumable(Passing):
    """An answer in the caller's own dialect that can be gone on with, or that goes on with another."""

    __slots__ = ("_keeper",)

    def __init__(self, keeper: Keeper, strip_usage: bool) -> None:
        super().__init__(keeper, strip_usage)
        self._keeper = keeper

    def so_far(self, request: Request) -> SoFar | None:
        """What the caller has been told, if somebody could go on from there."""
        return self._keeper.so_far(request)

    def ended(self) -> bytes:
        """What came without its blank line is told by whoever goes on, unless nothing but the end was missing."""
        if not self.meter.complete:
            raise truncated()
        return super().ended()


_IDS: Final = re.compile(rb'"token_ids"\s*:\s*\[[\d\s,]*\]\s*,|,\s*"token_ids"\s*:\s*\[[\d\s,]*\]')
"""Inside a JSON string every quote is escaped, so this is never part of what the model said."""


class TokenKeeper(Keeper):
    """Every event must carry the tokens that its text was made from; `strip`: the caller did not ask for them."""

    __slots__ = ("_strip", "_tokens")

    def __init__(self, before: SoFar, *, strip: bool) -> None:
        super().__init__(before)
        self._strip = strip
        self._tokens: list[int] = []

    def so_far(self, request: Request) -> SoFar | None:
        before, tokens = self._before, self._tokens
        if self._lost or len(before.tokens) + len(tokens) > MAX_TOKENS:
            return None
        return structs.replace(
            before, head=self._head, tokens=(*before.tokens, *tokens), finished=self._finished, counted=self._counted
        )

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """The engine counts the whole answer; until it has, the tokens are what there is."""
        n_tokens = len(self._before.tokens) + len(self._tokens)
        if self._meter.usage is None and n_tokens:
            return Usage(request.prompt_tokens, n_tokens), UsageSource.ESTIMATE
        return super().billed(request)

    def _remember(self, choice: ToldChoice) -> None:
        if choice.token_ids is None:
            self._lost = True
        elif len(self._tokens) <= MAX_TOKENS:
            self._tokens += choice.token_ids

    def _shown(self, event: bytes, instead: str | None) -> bytes:
        if self._before.head is not None:
            event = b"data: " + _encode(self._under_one_head(event))
        return _IDS.sub(b"", event) if self._strip else event


_THOUGHTS: Final = "<think>"
_CERTAINTY: Final = list(UsageSource)  # the most certain first


class TextKeeper(Keeper):
    """Text and nothing else. `echoes`: the upstream says again what it goes on from, as Mistral does."""

    __slots__ = ("_echo", "_n_characters", "_swallowed", "_texts")

    def __init__(self, before: SoFar, *, echoes: bool = False) -> None:
        super().__init__(before)
        self._texts: list[str] = []
        self._n_characters = len(before.text)
        self._echo = before.text if echoes else ""  # what is still to come back
        self._swallowed = ""  # what has

    def so_far(self, request: Request) -> SoFar | None:
        if self._lost or self._finished or self._n_characters > MAX_TEXT:
            return None
        usage, source = self.billed(request)
        limits = (_limit(request.fields, name) for name in ("max_tokens", "max_completion_tokens"))
        if any(limit is not None and limit <= usage.completion_tokens for limit in limits):
            return None
        text = self._before.text + "".join(self._texts)
        if _THOUGHTS in text:  # a model that thinks aloud: templates do not put that back
            return None
        return structs.replace(self._before, head=self._head, text=text, usage=usage, source=source)

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """What all attempts cost together, as certain as the least certain of them."""
        before, certain = self._before.usage, self._before.source
        usage, source = super().billed(request)
        if certain is UsageSource.NONE:
            return usage, source
        if source is UsageSource.NONE:
            return before, certain
        if source is UsageSource.ESTIMATE:  # its prompt had the text so far in it
            usage = structs.replace(usage, prompt_tokens=usage.prompt_tokens + before.completion_tokens)
        return _sum(before, usage), max(certain, source, key=_CERTAINTY.index)

    def _remember(self, choice: ToldChoice) -> str | None:
        delta = choice.delta or {}
        content = delta.get("content") or ""
        others = any(value for name, value in delta.items() if name not in ("role", "content"))
        if others or choice.logprobs or not isinstance(content, str):
            self._lost = True
            return None
        new = self._not_echoed(content, choice.finish_reason is not None)
        self._n_characters += len(new)
        if self._n_characters <= MAX_TEXT:
            self._texts.append(new)
        return None if new == content else new

    def _not_echoed(self, content: str, ends: bool) -> str:
        """What is new in it. White space at the end of what was sent may not come back."""
        echo = self._echo
        if not echo:
            return content
        if echo.startswith(content) and not ends:
            self._echo, self._swallowed = echo[len(content) :], self._swallowed + content
            return ""
        swallowed, self._echo, self._swallowed = self._swallowed, "", ""
        if content.startswith(echo):
            return content[len(echo) :]
        return content if echo.isspace() else swallowed + content

    def _shown(self, event: bytes, instead: str | None) -> bytes:
        before = self._before
        if before.head is None:
            return event
        fields = self._under_one_head(event)
        if instead is not None:
            if not instead and not self._finished:
                return b""
            fields["choices"] = _changed(fields["choices"], lambda delta: delta.update(content=instead))
        usage = fields.get("usage", NULL)
        if bytes(usage) != b"null":
            fields["usage"] = msgspec.Raw(_encode(self._of_all(msgspec.json.decode(usage))))
        return b"data: " + _encode(fields)

    def _of_all(self, told: dict[str, Any]) -> dict[str, Any]:
        """Usage with that of the attempts before, marked as what it is by the words of the receipt."""
        before = self._before
        prompt = (told.get("prompt_tokens") or 0) + before.usage.prompt_tokens
        completion = (told.get("completion_tokens") or 0) + before.usage.completion_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return told | counts | {"usage_source": before.source}


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(structs.astuple(one), structs.astuple(other), strict=True)))
