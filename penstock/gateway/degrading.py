"""What is given up for one request, while its model's ladder holds: who answers instead, or which text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from penstock.core.request import Endpoint, Request, Usage
from penstock.resilience.options import NO_REPLICA, Ladder
from penstock.wire.canonical import Begin, Counted, Delta, Finish, FinishReason, TextDelta
from penstock.wire.dialects import CALLERS, asked_of

SPOKEN: Final = frozenset({*CALLERS, Endpoint.COMPLETION})
"""Endpoints whose answers are text, which we can say ourselves."""
EVENTS: Final = b"text/event-stream; charset=utf-8"
Other = TypeVar("Other")
_encode = msgspec.json.Encoder().encode


class Given(msgspec.Struct, Generic[Other], frozen=True):
    """Of `answer` and `instead`, at most one."""

    max_tokens: int | None = None
    instead: Other | None = None
    model_name: str = ""  # as the caller is told
    answer: str | None = None
    answer_name: str = ""


def given_up(steps: Ladder, instead: Callable[[str], Other | None], *, speaks: bool) -> Given[Other]:
    """What the steps that hold come to; of two that say the same thing the higher one counts. `instead`: how another
    model answers, None where it cannot; `speaks`: a text can be the answer.

    A text that is for when nobody can answer gives way to another model that can.
    """
    given: Given[Other] = Given()
    for step in steps:
        if step.max_tokens is not None:
            given = msgspec.structs.replace(given, max_tokens=step.max_tokens)
        elif step.model is not None:
            found = instead(step.model)
            if found is not None:
                given = msgspec.structs.replace(given, instead=found, model_name=step.name, answer=None, answer_name="")
        elif step.answer is not None and speaks and (given.instead is None or step.at < NO_REPLICA):
            given = msgspec.structs.replace(
                given, instead=None, model_name="", answer=step.answer, answer_name=step.name
            )
    return given


class Spoken(msgspec.Struct, frozen=True):
    """A whole answer, as its caller gets it."""

    body: bytes
    content_type: bytes
    response: bytes | None  # to be kept, in the Responses API


def speak(request: Request, text: str, created: float) -> Spoken:
    """The text as the answer to a request of `SPOKEN`, in its caller's dialect. `created` is Unix seconds."""
    content_type = EVENTS if request.stream else b"application/json"
    if request.endpoint is Endpoint.COMPLETION:
        return Spoken(_completion(request, text, int(created)), content_type, None)
    writer = CALLERS[request.endpoint].writer(asked_of(request, created))
    deltas: list[Delta] = [
        Begin(model=request.model, created=int(created), usage=Usage()),
        TextDelta(text),
        Finish(FinishReason.STOP),
        Counted(Usage()),
    ]
    body = writer.events(deltas) + writer.end() if request.stream else writer.whole(deltas)
    return Spoken(body, content_type, writer.final_response())


def _completion(request: Request, text: str, created: int) -> bytes:
    id = f"cmpl-{request.id.removeprefix('req_')}"
    head = {"id": id, "object": "text_completion", "created": created, "model": request.model}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    whole = head | {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}]}
    if not request.stream:
        return _encode(whole | {"usage": usage})
    events = [whole, head | {"choices": [], "usage": usage}] if request.include_usage else [whole]
    return b"".join(b"data: %b\n\n" % _encode(event) for event in events) + b"data: [DONE]\n\n"
