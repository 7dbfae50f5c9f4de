"""Gemini's generateContent, the answer: whole, or in server-sent events, or as a JSON array, or a failure.

Every piece of a stream has the same form as a whole answer. Sources: the Gemini API reference (GenerateContentResponse,
Candidate, UsageMetadata) and google-genai, Google's own client.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from penstock.core.errors import FailureKind, Said, UpstreamError, kind_of_status
from penstock.core.request import Usage
from penstock.wire.canonical import (
    AnswerReader,
    Ask,
    Begin,
    Citation,
    Counted,
    Delta,
    Finish,
    FinishReason,
    Origin,
    TextDelta,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallBegin,
    ToolCallDelta,
    compact,
)
from penstock.wire.gemini import tool_names
from penstock.wire.prompts import UNREADABLE
from penstock.wire.sse import MAX_EVENT_BYTES


class _FunctionCall(msgspec.Struct, gc=False):
    name: str
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw()  # a union with None would decode nothing but null


class _Part(msgspec.Struct, gc=False):
    text: str | None = None
    thought: bool = False
    thoughtSignature: str | None = None
    functionCall: _FunctionCall | None = None
    inlineData: Any = None
    fileData: Any = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Token(msgspec.Struct, gc=False):
    token: str = ""
    logProbability: float = 0.0


class _Top(msgspec.Struct, gc=False):
    candidates: list[_Token] = []


class _Logprobs(msgspec.Struct, gc=False):
    chosenCandidates: list[_Token] = []
    topCandidates: list[_Top] = []


class _Sources(msgspec.Struct, gc=False):
    citationSources: list[msgspec.Raw] = []  # the Gemini API
    citations: list[msgspec.Raw] = []  # Vertex AI


class _Candidate(msgspec.Struct, gc=False):
    content: _Content | None = None
    finishReason: str | None = None
    finishMessage: str | None = None
    citationMetadata: _Sources | None = None
    logprobsResult: _Logprobs | None = None


class _Feedback(msgspec.Struct, gc=False):
    blockReason: str | None = None
    blockReasonMessage: str | None = None


class _Usage(msgspec.Struct, gc=False):
    promptTokenCount: int | None = None
    cachedContentTokenCount: int | None = None
    candidatesTokenCount: int | None = None
    thoughtsTokenCount: int | None = None
    toolUsePromptTokenCount: int | None = None


class _Detail(msgspec.Struct, gc=False):
    type: str = msgspec.field(default="", name="@type")
    reason: str = ""
    retryDelay: str = ""
    violations: list[dict[str, Any]] = []


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Answer(msgspec.Struct, gc=False):
    candidates: list[_Candidate] | None = None
    promptFeedback: _Feedback | None = None
    usageMetadata: _Usage | None = None
    modelVersion: str = ""
    responseId: str = ""
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_answers = msgspec.json.Decoder(list[_Answer]).decode
_encode = msgspec.json.Encoder().encode

_REASONS: Final = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "LANGUAGE": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "ESCALATION": FinishReason.CONTENT_FILTER,
}
_BROKEN: Final = {
    "OTHER": FailureKind.SERVER_ERROR,
    "MALFORMED_FUNCTION_CALL": FailureKind.SERVER_ERROR,
    "MALFORMED_RESPONSE": FailureKind.SERVER_ERROR,
    "UNEXPECTED_TOOL_CALL": FailureKind.SERVER_ERROR,
    "TOO_MANY_TOOL_CALLS": FailureKind.SERVER_ERROR,
    "NO_IMAGE": FailureKind.SERVER_ERROR,
    "IMAGE_OTHER": FailureKind.SERVER_ERROR,
    "MISSING_THOUGHT_SIGNATURE": FailureKind.REJECTED,
    "PUP_LIMITED_DISABLED": FailureKind.AUTH,  # our account there
}
"""Endings that are none: the model or the service broke off. Saying `stop` would call a piece the whole."""


class GeminiReader:
    """Reads one answer to `ask`. `id` is the request's: a call without an id of its own gets one made from it."""

    __slots__ = ("_begun", "_calls", "_id", "_names", "complete")

    def __init__(self, ask: Ask, *, id: str) -> None:
        self._names, self._id = tool_names(ask), id
        self._begun = False
        self._calls = 0
        self.complete = False

    def event(self, data: bytes) -> list[Delta]:
        """One event, or one element of the array that a stream is without `alt=sse`."""
        try:
            return self._read(_answer(data))
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None

    def whole(self, body: bytes) -> list[Delta]:
        try:
            answers = _answers(body) if body.lstrip()[:1] == b"[" else [_answer(body)]
        except UNREADABLE as error:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, str(error)) from None
        deltas = [delta for answer in answers for delta in self._read(answer)]
        if not self.complete:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without a finishReason")
        return deltas

    def _read(self, answer: _Answer) -> list[Delta]:
        if answer.error is not None:
            raise _failure(answer.error.code or 500, answer.error)
        deltas: list[Delta] = []
        if not self._begun:
            self._begun = True
            deltas.append(Begin(answer.responseId, answer.modelVersion))
        feedback = answer.promptFeedback
        if feedback is not None and feedback.blockReason:
            raise _blocked(feedback)
        if answer.candidates:
            deltas += self._candidate(answer.candidates[0])
        if answer.usageMetadata is not None:
            deltas.append(Counted(_usage(answer.usageMetadata)))
        return deltas

    def _candidate(self, candidate: _Candidate) -> list[Delta]:
        deltas: list[Delta] = []
        for part in (candidate.content.parts if candidate.content is not None else None) or ():
            deltas += self._part(part)
        if candidate.logprobsResult is not None:
            _add_logprobs(deltas, candidate.logprobsResult)
        sources = candidate.citationMetadata
        if sources is not None:
            deltas += [Citation(raw) for raw in (*sources.citationSources, *sources.citations)]
        if candidate.finishReason is not None and not self.complete:
            deltas.append(self._finish(candidate.finishReason, candidate.finishMessage))
        return deltas

    def _part(self, part: _Part) -> list[Delta]:
        call = part.functionCall
        if call is not None:
            index, self._calls = self._calls, self._calls + 1
            begin = ToolCallBegin(
                index, call.id or f"call_{self._id}_{index}", self._names.home(call.name), part.thoughtSignature
            )
            return [begin, ToolCallDelta(index, compact(call.args))]
        if part.inlineData is not None or part.fileData is not None:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, "the answer holds a file, which cannot be told")
        deltas: list[Delta] = []
        if part.text:
            deltas.append(ThinkingDelta(part.text) if part.thought else TextDelta(part.text))
        if part.thoughtSignature:
            deltas.append(ThinkingEnd(part.thoughtSignature, Origin.GEMINI))
        return deltas

    def _finish(self, reason: str, message: str | None) -> Finish:
        kind = _BROKEN.get(reason)
        if kind is not None:
            said = Said(message or reason) if kind is FailureKind.REJECTED else None
            raise UpstreamError(kind, f"finishReason {reason}", said=said)
        self.complete = True
        finish = _REASONS.get(reason, FinishReason.STOP)
        return Finish(FinishReason.TOOL_CALLS if self._calls and finish is FinishReason.STOP else finish)


def _add_logprobs(deltas: list[Delta], seen: _Logprobs) -> None:
    """In OpenAI's form, with the first text of the same piece."""
    content = [
        _logprob(token)
        | {
            "top_logprobs": [_logprob(top) for top in seen.topCandidates[at].candidates]
            if at < len(seen.topCandidates)
            else []
        }
        for at, token in enumerate(seen.chosenCandidates)
    ]
    raw = msgspec.Raw(_encode({"content": content, "refusal": None}))
    for at, delta in enumerate(deltas):
        if isinstance(delta, TextDelta):
            deltas[at] = TextDelta(delta.text, raw)
            return
    if content:
        deltas.append(TextDelta("", raw))


def _logprob(token: _Token) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logProbability, "bytes": list(token.token.encode())}


def _usage(seen: _Usage) -> Usage:
    """Thoughts are counted beside the candidates, what tools of Google's own read beside the prompt; the cached tokens
    are part of the prompt."""
    thoughts = seen.thoughtsTokenCount or 0
    return Usage(
        prompt_tokens=(seen.promptTokenCount or 0) + (seen.toolUsePromptTokenCount or 0),
        completion_tokens=(seen.candidatesTokenCount or 0) + thoughts,
        cached_tokens=seen.cachedContentTokenCount or 0,
        reasoning_tokens=thoughts,
    )


# --- a stream without alt=sse ----------------------------------------------------------------------------------------


class ArrayCutter:
    """Cuts a JSON array, wherever the network cut it, into its elements, which must be objects."""

    __slots__ = ("_depth", "_held", "_in_string", "_seen", "_start")

    def __init__(self) -> None:
        self._held = bytearray()
        self._seen = 0  # bytes of `_held` that have been looked at
        self._start = 0  # of the element that has begun
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[bytes]:
        """Raises `UpstreamError` (bad payload) for an element over `sse.MAX_EVENT_BYTES`."""
        held = self._held
        held += data
        elements: list[bytes] = []
        while True:
            found = (_IN_STRING if self._in_string else _OUTSIDE).search(held, self._seen)
            if found is None:
                self._seen = len(held)
                break
            at = self._seen = found.end()
            mark = held[at - 1]
            if self._in_string:
                if mark == _BACKSLASH:
                    if at == len(held):  # what it escapes has not come yet
                        self._seen = at - 1
                        break
                    self._seen = at + 1
                else:
                    self._in_string = False
            elif mark == _QUOTE:
                self._in_string = True
            elif mark == _OPEN:
                if not self._depth:
                    self._start = at - 1
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if not self._depth:
                    elements.append(bytes(held[self._start : at]))
        return self._forget(elements)

    @property
    def holds_data(self) -> bool:
        """The stream stopped inside an element."""
        return self._depth > 0

    def _forget(self, elements: list[bytes]) -> list[bytes]:
        done = self._start if self._depth else self._seen
        del self._held[:done]
        self._seen -= done
        self._start = 0
        if len(self._held) > MAX_EVENT_BYTES:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"an element of more than {MAX_EVENT_BYTES} bytes")
        return elements


_OUTSIDE: Final = re.compile(rb'[{}"]')
_IN_STRING: Final = re.compile(rb'["\\]')
_BACKSLASH, _QUOTE, _OPEN = b'\\"{'


# --- failures --------------------------------------------------------------------------------------------------------


class _Wrapped(msgspec.Struct, gc=False):
    error: _Error


_wrapped = msgspec.json.Decoder(_Wrapped | list[_Wrapped]).decode
_SECONDS: Final = re.compile(r"(\d+(?:\.\d+)?)s").fullmatch
_TOO_LONG: Final = ("exceeds the maximum number of tokens", "input token count")


def failure_of(status: int, body: bytes) -> UpstreamError:
    """What an answer with another status than 200 means. To a request for a stream the error comes in a list."""
    try:
        seen = _wrapped(body)
    except UNREADABLE:
        return UpstreamError(_kind(status), f"status {status}", status=status)
    errors = seen if isinstance(seen, list) else [seen]
    return _failure(status, errors[0].error if errors else _Error())


def _kind(status: int) -> FailureKind:
    return FailureKind.SERVER_ERROR if status == 499 else kind_of_status(status)  # cancelled, and not by us


def _failure(status: int, error: _Error) -> UpstreamError:
    kind, text = _kind(status), error.message
    reasons = {detail.reason for detail in error.details}
    if kind is FailureKind.REJECTED:
        if "API_KEY_INVALID" in reasons or "API key" in text:
            kind = FailureKind.AUTH  # Google says 400 to a wrong key
        elif error.status == "FAILED_PRECONDITION":
            kind = FailureKind.MISCONFIGURED  # billing, or the place that we ask from
        elif any(words in text for words in _TOO_LONG):
            kind = FailureKind.CONTEXT_LENGTH
    elif kind is FailureKind.RATE_LIMITED and any(
        "PerDay" in str(violation.get("quotaId")) for detail in error.details for violation in detail.violations
    ):
        kind = FailureKind.QUOTA
    said = None
    if text and kind in (FailureKind.REJECTED, FailureKind.CONTEXT_LENGTH):
        said = Said(text, code="context_length_exceeded" if kind is FailureKind.CONTEXT_LENGTH else None)
    delays = (_SECONDS(detail.retryDelay) for detail in error.details if detail.retryDelay)
    retry_after = next((float(found[1]) for found in delays if found is not None), None)
    detail = f"status {status} {error.status}".rstrip()
    return UpstreamError(kind, detail, status=status, retry_after=retry_after, said=said)


def _blocked(feedback: _Feedback) -> UpstreamError:
    message = feedback.blockReasonMessage or f"The prompt was blocked: {feedback.blockReason}."
    said = Said(message, code="content_policy_violation")
    return UpstreamError(FailureKind.CONTENT_POLICY, f"blockReason {feedback.blockReason}", status=400, said=said)


_: type[AnswerReader] = GeminiReader
