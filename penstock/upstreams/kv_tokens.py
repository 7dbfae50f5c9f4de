"""Asks engines how they read a prompt, so that the exact index can compare text with the tokens of their blocks.

Beside the path of requests: after a first token, when nothing waits, and only for text that is not known yet. The
engine's own `/tokenize` is asked, because its tokenizer and chat template are the ones that count.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from msgspec import structs

from penstock.balancing.exact_index import ExactIndex
from penstock.core.clock import Clock
from penstock.core.errors import PenstockError, UpstreamError
from penstock.core.request import Endpoint, Request
from penstock.upstreams.base import Listener, Stream, Upstream
from penstock.wire.canonical import Losses
from penstock.wire.dialects import CALLERS
from penstock.wire.openai_hub import write_request
from penstock.wire.prompts import UNREADABLE, decode_fields

MOST_AT_ONCE: Final = 4  # questions to all engines together; a request that comes when so many wait teaches nothing
ANSWER_WITHIN: Final = 10.0  # seconds
QUIET_AFTER: Final = 3  # failures in a row, of one deployment
QUIET_FOR: Final = 60.0  # seconds that it is then not asked
_CHAT: Final[tuple[str, ...]] = (
    "model", "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "add_special_tokens",
)  # fmt: skip
_COMPLETION: Final[tuple[str, ...]] = ("model", "prompt", "add_special_tokens")
_NOT_IN_TEXT: Final = ("cache_salt", "mm_processor_kwargs")
"""A prompt with one of these shares no blocks with others of the same text."""


class _Tokens(msgspec.Struct):
    tokens: list[int]


_tokens = msgspec.json.Decoder(_Tokens).decode
_token_ids = msgspec.json.Decoder(list[int]).decode


class TokenAsker:
    """Numbers since the start are for metrics: prompts `learned`, `failed`, and `skipped` because too many waited."""

    def __init__(self, index: ExactIndex, clock: Clock) -> None:
        self._index, self._clock = index, clock
        self._asking: set[_Question] = set()
        self._failures: dict[str, int] = {}  # by deployment, in a row
        self._quiet_until: dict[str, float] = {}  # likewise; Clock.now() seconds
        self.learned = self.failed = self.skipped = 0

    def offer(self, request: Request, deployment: str, upstream: Upstream) -> None:
        """A replica of `deployment` has begun to answer this. Reads its fields at once: `Request.forget` may follow."""
        if not request.prefix_hashes or self._index.knows(deployment, request.prefix_hashes):
            return
        if self._quiet_until.get(deployment, 0.0) > self._clock.now():
            return
        about = deployment, request.prefix_hashes[-1]
        if any(one.about == about for one in self._asking):
            return
        if len(self._asking) >= MOST_AT_ONCE:
            self.skipped += 1
            return
        tokens = tokens_in(request)
        if tokens is not None:
            self.learn(request, deployment, tokens)
            return
        question = question_of(request) if Endpoint.TOKENIZE in upstream.endpoints else None
        if question is None:
            return
        one = _Question(self, request, deployment)
        self._asking.add(one)
        try:
            one.stream = upstream.open(question, one, self._clock.now())
        except (PenstockError, UpstreamError):  # it cannot be said there, or there is no valid credential
            self.ended(one, failed=True)

    def close(self) -> None:
        """Ask no more, and want no answers."""
        for one in list(self._asking):
            self.ended(one, failed=False)

    def learn(self, request: Request, deployment: str, tokens: list[int]) -> bool:
        """Called by the question too. False: these are not what its blocks are made of."""
        learned = self._index.learn(deployment, request.prefix_hashes, request.prompt_tokens, tokens)
        if learned:
            self.learned += 1
            self._failures.pop(deployment, None)
        return learned

    def ended(self, one: _Question, *, failed: bool) -> None:
        """Called by the question."""
        one.close()
        self._asking.discard(one)
        if failed:
            self.failed += 1
            failures = self._failures[one.deployment] = self._failures.get(one.deployment, 0) + 1
            if failures >= QUIET_AFTER:
                self._quiet_until[one.deployment] = self._clock.now() + QUIET_FOR
                del self._failures[one.deployment]


class _Question:
    """Listens to one answer. Keeps of the request what is to be learned, not its text."""

    def __init__(self, asker: TokenAsker, request: Request, deployment: str) -> None:
        self.deployment = deployment
        self.about = deployment, request.prefix_hashes[-1]
        self.stream: Stream | None = None
        self._asker = asker
        self._request = structs.replace(request, fields={}, received=None, form=b"")
        self._timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self.on_timeout)

    def traceparent(self) -> bytes:
        return b""

    def on_first_token(self) -> None:
        body = b"" if self.stream is None else self.stream.plain or b""
        try:
            tokens = _tokens(body).tokens
        except UNREADABLE:
            self._asker.ended(self, failed=True)
            return
        learned = self._asker.learn(self._request, self.deployment, tokens)
        self._asker.ended(self, failed=not learned)

    def on_failed(self, failure: UpstreamError) -> None:
        self._asker.ended(self, failed=True)

    def on_timeout(self) -> None:
        self._asker.ended(self, failed=True)

    def close(self) -> None:
        self._timer.cancel()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()


def tokens_in(request: Request) -> list[int] | None:
    """The prompt, where the caller wrote tokens."""
    if request.endpoint is not Endpoint.COMPLETION or any(name in request.fields for name in _NOT_IN_TEXT):
        return None
    try:
        return _token_ids(request.fields.get("prompt", b""))
    except UNREADABLE:
        return None


def question_of(request: Request) -> Request | None:
    """The request that asks for the tokens of this one's prompt; None where that cannot be said."""
    if any(name in request.fields for name in _NOT_IN_TEXT):
        return None
    given = request.fields
    names = _CHAT
    if request.endpoint is Endpoint.COMPLETION:
        names = _COMPLETION
    elif request.endpoint in CALLERS:
        if request.endpoint is not Endpoint.CHAT:
            try:
                ask = CALLERS[request.endpoint].read_request(request.fields)
                given = decode_fields(write_request(ask, served=request.model, losses=Losses(("*",))))
            except PenstockError:
                return None
    else:
        return None
    fields = {name: given[name] for name in names if name in given}
    return structs.replace(
        request, endpoint=Endpoint.TOKENIZE, stream=False, fields=fields, received=None, prefix_hashes=()
    )


_: type[Listener] = _Question
