"""What passes by of an answer whose caller and upstream both speak Messages."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Request, Usage
from penstock.wire.anthropic.answer_shapes import PassingAnswer, PassingEvent, Tokens, Told
from penstock.wire.anthropic.failures import failure_inside
from penstock.wire.anthropic.usage import latest, usage_of
from penstock.wire.prompts import BYTES_PER_TOKEN, UNREADABLE
from penstock.wire.sse import data_of

_decode_event = msgspec.json.Decoder(PassingEvent).decode
_decode_message = msgspec.json.Decoder(PassingAnswer).decode
_KNOWN: Final = frozenset({"text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta"})


class MessagesMeter:
    """Reads an answer as it goes by and remembers what the receipt needs. It changes nothing."""

    __slots__ = ("_counted", "_tokens", "done", "finish_reason", "tokens_seen")

    terminator = b""  # a stream without `message_stop` is not whole

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.tokens_seen = 0  # events that carried something; about one token each
        self.done = False  # `message_stop` has come
        self._tokens: Tokens | None = None
        self._counted = False  # they are the final ones

    @property
    def complete(self) -> bool:
        return self.done

    @property
    def usage(self) -> Usage | None:
        return None if self._tokens is None else usage_of(self._tokens)

    def billed(self, request: Request) -> tuple[Usage, UsageSource]:
        """Usage for the receipt. The prompt is counted at the start; a cut answer's tokens are those that came by."""
        usage = self.usage
        if usage is None:
            if self.tokens_seen:
                return Usage(request.prompt_tokens, self.tokens_seen), UsageSource.ESTIMATE
            return Usage(), UsageSource.NONE
        if self._counted:
            return usage, UsageSource.PROVIDER
        seen = max(usage.completion_tokens, self.tokens_seen)
        return msgspec.structs.replace(usage, completion_tokens=seen), UsageSource.PROVIDER_PARTIAL

    def answer(self, body: bytes) -> None:
        """Read a whole answer. Raises `UpstreamError` when it is an error or not the dialect."""
        try:
            seen = _decode_message(body)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        if seen.error is not None:
            raise failure_inside(seen.error, "an error with status 200")
        if not isinstance(seen.content, list):
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without `content`")
        self._tokens, self._counted = seen.usage, seen.usage is not None
        self.finish_reason = seen.stop_reason
        self.tokens_seen, self.done = max(1, len(body) // BYTES_PER_TOKEN), True

    def events(self, block: bytes, strip_usage: bool) -> tuple[bytes, bool]:
        """Read whole events: they go on as they came, and did any of them say something?

        `strip_usage` is for dialects whose usage is an event of its own. Raises `UpstreamError` at an error event and
        at one that is not the dialect.
        """
        if block.count(b"\n\n") == 1:
            return block, self._event(block[:-2])
        meaningful, kept = False, []
        for event in block[:-2].split(b"\n\n"):
            meaningful |= self._event(event)
            kept.append(event + b"\n\n")
            if self.done:  # what a server may say after its last word is nobody's business
                break
        return b"".join(kept), meaningful

    def _event(self, event: bytes) -> bool:
        """Whether it says something: the first token is the first event that does."""
        name, data_line, data = event.partition(b"\ndata: ")
        if not data_line or not name.startswith(b"event:") or b"\n" in name or b"\n" in data:
            data = data_of(event)
        if not data or self.done:
            return False
        try:
            seen = _decode_event(data)
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        delta, kind = seen.delta, seen.type
        if kind == "content_block_delta" and delta is not None:
            if not (delta.text or delta.thinking or delta.partial_json or _is_new(delta.type)):
                return False
            self.tokens_seen += 1
            return True
        if kind == "content_block_start" and seen.content_block is not None:
            begun = seen.content_block
            return begun.type not in ("text", "thinking") or bool(begun.text or begun.thinking)
        if kind == "message_delta":
            if seen.usage is not None:
                self._tokens, self._counted = latest(self._tokens, seen.usage), True
            if delta is None or delta.stop_reason is None:
                return False
            self.finish_reason = delta.stop_reason
            return True
        if kind == "message_start":
            self._tokens = None if seen.message is None else seen.message.usage
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or seen.error is not None:
            raise failure_inside(seen.error or Told(), "an error event")
        elif not kind:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an event without `type`")
        return False


def _is_new(type: str) -> bool:
    """Kinds of deltas that have come after us carry something, we do not know what."""
    return type not in _KNOWN
