"""A replica's HTTP side: the OpenAI endpoints, health and metrics, in front of one `EngineCore`.

A caller who leaves cancels the coroutine that serves it, and `finally` lets go of the answer: there is no other path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import BadRequest, MethodNotAllowed, ModelNotFound, NotFound, Overloaded, PenstockError
from penstock.engine.api import (
    Answer,
    ChatRequest,
    CompletionRequest,
    ContextTooLong,
    Count,
    DetokenizeRequest,
    TokenizeRequest,
    messages_of,
    model_body,
    prompt_of,
    read,
    sampling_of,
)
from penstock.engine.core import EngineBusy, EngineCore, EngineFailed, Generation, Piece
from penstock.engine.load import LoadedModel
from penstock.engine.measures import Exposition
from penstock.engine.tokenizer import TemplateRefused
from penstock.http.server import Exchange
from penstock.wire.errors import openai_body, openai_event

# Longer texts are tokenized beside the event loop: 20,000 characters take about 5 ms.
MAX_INLINE_CHARACTERS = 20_000
RETRY_AFTER_SECONDS = 1
SALT_HEADER = b"x-penstock-cache-salt"
STREAM_HEADERS = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"

Served = Coroutine[Any, Any, None] | None


class Busy(PenstockError):
    """The queue of this replica is full."""

    status, code, type = 429, "queue_full", "rate_limit_error"


class EngineServer:
    """Answers exchanges; `handle` is the handler for `penstock.http.server.Server`."""

    def __init__(self, model: LoadedModel, core: EngineCore, *, clock: Clock, rng: Random) -> None:
        self._model = model
        self._core = core
        self._clock = clock
        self._rng = rng
        self._started_at = int(clock.wall())
        self._routes: dict[bytes, tuple[bytes, Callable[[Exchange], Served]]] = {
            b"/v1/chat/completions": (b"POST", self._chat),
            b"/v1/completions": (b"POST", self._completions),
            b"/v1/models": (b"GET", self._models),
            b"/health": (b"GET", self._health),
            b"/metrics": (b"GET", self._metrics),
            b"/tokenize": (b"POST", self._tokenize),
            b"/detokenize": (b"POST", self._detokenize),
        }

    def handle(self, exchange: Exchange) -> Served:
        try:
            return self._route(exchange)
        except PenstockError as error:
            _refuse(exchange, error)
            return None

    def _route(self, exchange: Exchange) -> Served:
        route = self._routes.get(exchange.path)
        if route is None and exchange.path.startswith(b"/v1/models/"):
            route = (b"GET", self._one_model)
        if route is None:
            raise NotFound(f"there is nothing at {exchange.path.decode('ascii', 'replace')}")
        method, serve = route
        if exchange.method != method and not (method == b"GET" and exchange.method == b"HEAD"):
            raise MethodNotAllowed(f"use {method.decode()} here", allow=method.decode())
        return serve(exchange)

    # Small answers

    def _models(self, exchange: Exchange) -> None:
        rows = [model_body(name, self._started_at, self._model.max_model_len) for name in self._model.names]
        exchange.respond(200, msgspec.json.encode({"object": "list", "data": rows}))

    def _one_model(self, exchange: Exchange) -> None:
        name = exchange.path.removeprefix(b"/v1/models/").decode("utf-8", "replace")
        self._check_model(name)
        exchange.respond(200, msgspec.json.encode(model_body(name, self._started_at, self._model.max_model_len)))

    def _health(self, exchange: Exchange) -> None:
        failure = self._core.failure
        body = {"status": "ok" if failure is None else "failed", "model": self._model.names[0]}
        exchange.respond(200 if failure is None else 503, msgspec.json.encode(body))

    def _metrics(self, exchange: Exchange) -> None:
        stats, measures = self._core.stats(), self._core.measures
        out = Exposition("penstock_engine", self._model.names[0])
        out.gauge("requests_running", "Sequences in the running batch.", stats.running)
        out.gauge("requests_waiting", "Requests that wait for their turn.", self._core.waiting)
        out.gauge("requests_max", "The most sequences that run at the same time.", self._model.batching.max_seqs)
        out.gauge("kv_used_ratio", "Fraction of KV cache blocks in use, 0..1.", stats.kv_used)
        out.gauge("kv_capacity_tokens", "Tokens that fit into the KV cache.", self._model.batching.capacity)
        out.counter("prompt_tokens_total", "Prompt tokens of all requests begun.", stats.prompt_tokens)
        out.counter("prefix_hit_tokens_total", "Prompt tokens found in the prefix cache.", stats.prefix_hit_tokens)
        out.counter("generation_tokens_total", "Tokens generated.", stats.generated_tokens)
        out.counter("computed_tokens_total", "Tokens that went through the model.", stats.computed_tokens)
        out.counter("preemptions_total", "Sequences that lost their KV blocks for a while.", stats.preemptions)
        out.counter("steps_total", "Steps of the engine.", measures.steps)
        out.counter("step_seconds_total", "Time spent in steps.", measures.step_seconds)
        out.counters("requests_finished_total", "Requests, by how they ended.", "reason", measures.finished)
        out.counter("requests_refused_total", "Requests that found the queue full.", measures.refused)
        out.histogram("time_to_first_token_seconds", "From arrival to the first token.", measures.ttft)
        out.histogram("time_per_output_token_seconds", "Mean time of a token after the first.", measures.tpot)
        out.histogram("request_seconds", "From arrival to the last token.", measures.e2e)
        exchange.respond(200, out.text(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    # Tokens

    async def _tokenize(self, exchange: Exchange) -> None:
        try:
            request = read(exchange.body, TokenizeRequest)
            self._check_model(request.model)
            if (request.prompt is None) == (request.messages is None):
                raise BadRequest("give either prompt or messages", param="prompt")
            if request.prompt is not None:
                tokens = await self._encode(request.prompt)
            else:
                tokens = await self._encode_chat(request)
        except PenstockError as error:
            _refuse(exchange, error)
            return
        body = {"tokens": tokens, "count": len(tokens), "max_model_len": self._model.max_model_len}
        exchange.respond(200, msgspec.json.encode(body))

    def _detokenize(self, exchange: Exchange) -> None:
        request = read(exchange.body, DetokenizeRequest)
        self._check_model(request.model)
        self._check_tokens(request.tokens, "tokens")
        exchange.respond(200, msgspec.json.encode({"prompt": self._model.tokenizer.decode(request.tokens)}))

    # Answers

    async def _chat(self, exchange: Exchange) -> None:
        try:
            request = read(exchange.body, ChatRequest)
            self._check_model(request.model)
            await self._answer(exchange, request, await self._encode_chat(request))
        except PenstockError as error:
            _refuse(exchange, error)

    async def _completions(self, exchange: Exchange) -> None:
        try:
            request = read(exchange.body, CompletionRequest)
            self._check_model(request.model)
            prompt = prompt_of(request)
            if isinstance(prompt, str):
                prompt = await self._encode(prompt)
            else:
                self._check_tokens(prompt, "prompt")
            await self._answer(exchange, request, prompt)
        except PenstockError as error:
            _refuse(exchange, error)

    async def _answer(self, exchange: Exchange, request: ChatRequest | CompletionRequest, prompt: list[int]) -> None:
        """One answer, from tokens to the last byte. Raises `PenstockError` as long as nothing was sent."""
        params = sampling_of(
            request,
            prompt_tokens=len(prompt),
            max_model_len=self._model.max_model_len,
            vocab_size=self._model.config.vocab_size,
            seed=self._rng.getrandbits(64),
        )
        resume = request.resume_token_ids or []
        self._check_tokens(resume, "resume_token_ids")
        if len(resume) > params.max_tokens:
            raise BadRequest(
                f"resume_token_ids has {len(resume)} tokens, more than the {params.max_tokens} of the whole answer",
                param="resume_token_ids",
            )
        id = f"{self._rng.getrandbits(96):024x}"
        answer = Answer(
            "chat" if isinstance(request, ChatRequest) else "completion",
            id=id,
            model=request.model or self._model.names[0],
            created=int(self._clock.wall()),
            include_usage=request.stream_options is not None and request.stream_options.include_usage,
            token_text=self._model.tokenizer.token_text,
            return_token_ids=bool(request.return_token_ids),
            resumed=resume,
        )
        salt = (exchange.header(SALT_HEADER) or b"") + b"\n" + (request.cache_salt or "").encode()
        streams = bool(request.stream)
        try:
            generation = self._core.submit(id, prompt, params, resume=resume, salt=salt, streams=streams)
        except EngineBusy as busy:
            raise Busy(str(busy), retry_after=RETRY_AFTER_SECONDS) from None
        except EngineFailed as failure:
            raise Overloaded(str(failure), retry_after=RETRY_AFTER_SECONDS) from None
        try:
            if streams:
                await _stream(exchange, generation, answer)
            else:
                await _whole(exchange, generation, answer)
        finally:
            generation.close()

    async def _encode(self, text: str) -> list[int]:
        self._check_length(len(text), "prompt")
        tokenizer = self._model.tokenizer
        if len(text) <= MAX_INLINE_CHARACTERS:
            return tokenizer.encode(text)
        return await asyncio.to_thread(tokenizer.encode, text)

    async def _encode_chat(self, request: ChatRequest | TokenizeRequest) -> list[int]:
        messages = messages_of(request)
        characters = sum(len(message["content"]) for message in messages)
        self._check_length(characters, "messages")
        tokenizer = self._model.tokenizer
        try:
            if characters <= MAX_INLINE_CHARACTERS:
                return tokenizer.encode_chat(messages)
            return await asyncio.to_thread(tokenizer.encode_chat, messages)
        except TemplateRefused as refusal:
            raise BadRequest(str(refusal), param="messages") from None

    def _check_length(self, characters: int, param: str) -> None:
        """Refuse what is certainly too long before spending time on it."""
        if characters > self._model.max_model_len * self._model.tokenizer.longest_token:
            raise ContextTooLong(
                f"the prompt has {characters} characters, more than {self._model.max_model_len} tokens can hold",
                param=param,
            )

    def _check_model(self, name: str | None) -> None:
        if name is not None and name not in self._model.names:
            raise ModelNotFound(f"this replica serves {', '.join(self._model.names)}, not {name!r}", param="model")

    def _check_tokens(self, tokens: list[int], param: str) -> None:
        if len(tokens) > self._model.max_model_len:
            raise ContextTooLong(
                f"{param} has {len(tokens)} tokens, more than {self._model.max_model_len}", param=param
            )
        size = self._model.config.vocab_size
        if any(not 0 <= token < size for token in tokens):
            raise BadRequest(f"{param}: tokens should be from 0 to {size - 1}", param=param)


async def _stream(exchange: Exchange, generation: Generation, answer: Answer) -> None:
    piece = await _first(generation)
    exchange.start(200, STREAM_HEADERS)
    exchange.write(answer.first_event())
    while piece.finish is None:
        exchange.write(answer.event(piece))
        await exchange.drain()
        try:
            following = await generation.read()
        except EngineFailed as failure:
            exchange.finish(openai_event(Overloaded(str(failure))))
            return
        assert following is not None, "an answer ends with a reason"
        piece = following
    exchange.finish(answer.event(piece) + answer.last_event(_count(generation)))


async def _whole(exchange: Exchange, generation: Generation, answer: Answer) -> None:
    piece = await _first(generation)
    exchange.respond(200, answer.body(piece, _count(generation)))


async def _first(generation: Generation) -> Piece:
    """The first piece. A failure before it is still a status."""
    try:
        piece = await generation.read()
    except EngineFailed as failure:
        raise Overloaded(str(failure), retry_after=RETRY_AFTER_SECONDS) from None
    assert piece is not None, "an answer has at least one piece"
    return piece


def _count(generation: Generation) -> Count:
    return Count(
        prompt=generation.prompt_tokens, completion=generation.completion_tokens, cached=generation.cached_tokens
    )


def _refuse(exchange: Exchange, error: PenstockError) -> None:
    headers = b"" if error.retry_after is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after))
    exchange.respond(error.status, openai_body(error), headers)
