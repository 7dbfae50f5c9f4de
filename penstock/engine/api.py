"""What the OpenAI API means to a replica: bodies to generation parameters, and answers to bodies and stream events.

A field that would change the answer and that this engine does not implement is refused by name, unless it has its
default value. Fields that only describe the caller are accepted and ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from penstock.core.errors import BadRequest
from penstock.engine.core import Piece, TokenPart
from penstock.engine.sampling import SamplingParams

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 4096
COMPLETION_DEFAULT_TOKENS = 16  # OpenAI's default for /v1/completions

# Say who asks or what for; they do not change the answer.
IGNORED = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
# Refused unless they have the value that changes nothing.
DEFAULTS: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "repetition_penalty": (1, 1.0),
    "min_tokens": (0,),
    "length_penalty": (1, 1.0),
    "use_beam_search": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
}


class Unsupported(BadRequest):
    """A field of the API that this engine does not implement."""

    code = "unsupported_parameter"


class UnknownField(BadRequest):
    code = "unknown_parameter"


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: bool = False


class _Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that both endpoints have."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    cache_salt: str | None = None
    """As in vLLM: requests with different salts never share cached prefixes."""
    return_token_ids: bool | None = None
    """As in vLLM: each choice carries, as `token_ids`, the tokens it was made from. In a stream, every token up to an
    event is in it or before it, those without text too; the last text comes in one event with why it ended."""
    resume_token_ids: list[int] | None = None
    """The first tokens of this very answer, from a stream with `return_token_ids` that broke: the answer goes on after
    them. Nothing of them is sent again; limits, stop strings, penalties and seeded sampling go on as if nothing had
    happened, and `usage` counts the whole answer. Exact, to the bit of the logits, on any replica of the same model,
    dtype and compiled kernels; a temperature needs a `seed`, or the end is drawn anew."""


class ChatRequest(_Sampling, frozen=True, kw_only=True):
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class CompletionRequest(_Sampling, frozen=True, kw_only=True):
    prompt: str | list[Any]
    logprobs: int | None = None


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None = None
    tokens: list[int]


class Count(msgspec.Struct, frozen=True):
    """Tokens of one answer; `cached` are those of the prompt that were not computed again. `completion` is the whole
    answer, what was resumed included."""

    prompt: int
    completion: int
    cached: int

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


AnyRequest = ChatRequest | CompletionRequest | TokenizeRequest | DetokenizeRequest


Shape = TypeVar("Shape", bound=AnyRequest)
Number = TypeVar("Number", int, float)


def read(body: bytes, shape: type[Shape]) -> Shape:
    """The request in a body. Raises `BadRequest` that names the field at fault."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the body is not valid JSON", param=None) from None
    if not isinstance(fields, dict):
        raise BadRequest("the body should be a JSON object")
    known = {field.encode_name for field in msgspec.structs.fields(shape)}
    for name, value in fields.items():
        if name in known or name in IGNORED:
            continue
        if name not in DEFAULTS:
            raise UnknownField(f"{name!r} is not a field of this endpoint", param=name)
        if value is not None and not any(value == default for default in DEFAULTS[name]):
            raise Unsupported(f"{name!r} is not supported by the embedded engine: leave it out", param=name)
    try:
        return msgspec.convert(fields, shape, strict=True, str_keys=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.strip("`").lstrip(".") or None
        raise BadRequest(f"{param}: {message}" if param else message, param=param) from None


def messages_of(request: ChatRequest | TokenizeRequest) -> list[dict[str, Any]]:
    """The messages with their contents as plain text, for a chat template. Raises `BadRequest`."""
    messages = request.messages or []
    if not messages:
        raise BadRequest("messages must not be empty", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise BadRequest(f"at most {MAX_MESSAGES} messages are accepted", param="messages")
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    role = message.get("role")
    if role == "developer":  # OpenAI's later word for system; templates know only the first
        role = "system"
    if role not in ("system", "user", "assistant"):
        if role in ("tool", "function"):
            raise Unsupported(f"{where}.role: {role!r} messages are not supported by the embedded engine", param=where)
        raise BadRequest(f"{where}.role should be system, user or assistant, is {role!r}", param=f"{where}.role")
    for name, value in message.items():
        if name not in ("role", "content", "name", "refusal") and value:
            raise Unsupported(f"{where}.{name} is not supported by the embedded engine", param=f"{where}.{name}")
    return {"role": role, "content": _content(message.get("content"), f"{where}.content")}


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where} should be a string, or a list of parts", param=where)
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise Unsupported(f"{where}: only parts of type 'text' are supported, not {kind!r}", param=where)
        if not isinstance(part.get("text"), str):
            raise BadRequest(f"{where}: a text part needs a 'text' of type string", param=where)
        texts.append(part["text"])
    return "".join(texts)


def prompt_of(request: CompletionRequest) -> str | list[int]:
    """One prompt, as text or tokens. Raises `BadRequest`; several prompts in one request are refused."""
    prompt = request.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        return prompt
    if all(isinstance(part, (str, list)) for part in prompt):
        raise Unsupported("only one prompt per request is supported: send several requests", param="prompt")
    raise BadRequest("prompt should be a string, or a list of token numbers", param="prompt")


def sampling_of(
    request: ChatRequest | CompletionRequest, *, prompt_tokens: int, max_model_len: int, vocab_size: int, seed: int
) -> SamplingParams:
    """Generation parameters with their defaults. `seed` is used when the caller gives none. Raises `BadRequest`."""
    _between(request.temperature, "temperature", 0, 2)
    _between(request.top_p, "top_p", 0, 1, above=True)
    _between(request.min_p, "min_p", 0, 1)
    _between(request.frequency_penalty, "frequency_penalty", -2, 2)
    _between(request.presence_penalty, "presence_penalty", -2, 2)
    _between(request.top_k, "top_k", -1, vocab_size)
    _refuse_bad_stream_options(request)
    return SamplingParams(
        max_tokens=_max_tokens(request, prompt_tokens, max_model_len),
        temperature=_default(request.temperature, 1.0),
        top_p=_default(request.top_p, 1.0),
        top_k=max(0, _default(request.top_k, 0)),
        min_p=_default(request.min_p, 0.0),
        # NumPy takes seeds from 0; a negative one is as good a seed as any.
        seed=_default(request.seed, seed) & 0xFFFF_FFFF_FFFF_FFFF,
        frequency_penalty=_default(request.frequency_penalty, 0.0),
        presence_penalty=_default(request.presence_penalty, 0.0),
        logit_bias=_logit_bias(request, vocab_size),
        stop=_stops(request),
        stop_token_ids=frozenset(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        logprobs=_logprobs(request),
    )


def _default(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _between(value: float | None, name: str, low: float, high: float, above: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or not low <= value <= high or (above and value == low):
        lowest = f"above {low}" if above else f"at least {low}"
        raise BadRequest(f"{name} should be {lowest} and at most {high}, is {value}", param=name)


def _refuse_bad_stream_options(request: ChatRequest | CompletionRequest) -> None:
    options = request.stream_options
    if options is not None and not request.stream:
        raise BadRequest("stream_options is only allowed when stream is true", param="stream_options")
    if options is not None and options.continuous_usage_stats:
        raise Unsupported("continuous_usage_stats is not supported", param="stream_options.continuous_usage_stats")


def _max_tokens(request: ChatRequest | CompletionRequest, prompt_tokens: int, max_model_len: int) -> int:
    if prompt_tokens < 1:
        raise BadRequest("the prompt is empty", param="prompt")
    room = max_model_len - prompt_tokens
    if room < 1:
        raise ContextTooLong(
            f"the prompt has {prompt_tokens} tokens, and prompt and answer together may have {max_model_len}",
            param="messages" if isinstance(request, ChatRequest) else "prompt",
        )
    if isinstance(request, ChatRequest):
        name = "max_completion_tokens" if request.max_completion_tokens is not None else "max_tokens"
        asked = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    else:
        name = "max_tokens"
        asked = request.max_tokens if request.max_tokens is not None else min(COMPLETION_DEFAULT_TOKENS, room)
    if asked is None:
        return room
    if asked < 1:
        raise BadRequest(f"{name} should be at least 1, is {asked}", param=name)
    if asked > room:
        raise ContextTooLong(
            f"the prompt has {prompt_tokens} tokens and {name} is {asked}, together more than the {max_model_len} "
            f"that this model may have; {room} are left for the answer",
            param=name,
        )
    return asked


def _logit_bias(request: ChatRequest | CompletionRequest, vocab_size: int) -> dict[int, float]:
    bias = request.logit_bias or {}
    for token, value in bias.items():
        if not 0 <= token < vocab_size:
            raise BadRequest(f"logit_bias: {token} is not a token of this model", param="logit_bias")
        _between(value, "logit_bias", -100, 100)
    return bias


def _stops(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    stop = request.stop
    stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"at most {MAX_STOPS} stop strings are accepted", param="stop")
    if any(not 0 < len(text) <= MAX_STOP_CHARACTERS for text in stops):
        raise BadRequest(f"a stop string should have 1 to {MAX_STOP_CHARACTERS} characters", param="stop")
    return stops


def _logprobs(request: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(request, ChatRequest):
        _between(request.top_logprobs, "top_logprobs", 0, MAX_TOP_LOGPROBS)
        if request.top_logprobs is not None and not request.logprobs:
            raise BadRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
        return (request.top_logprobs or 0) if request.logprobs else None
    _between(request.logprobs, "logprobs", 0, MAX_TOP_LOGPROBS)
    return request.logprobs


TokenText = Callable[[int], tuple[str, bytes]]


class Answer:
    """Renders one answer, whole or as events. `kind` says in which of the two shapes OpenAI has."""

    def __init__(
        self,
        kind: Literal["chat", "completion"],
        *,
        id: str,
        model: str,
        created: int,
        include_usage: bool,
        token_text: TokenText,
        return_token_ids: bool = False,
        resumed: Sequence[int] = (),
    ) -> None:
        """`resumed`: tokens of the answer that were told before."""
        self._chat = kind == "chat"
        self._token_text = token_text
        self._id = f"chatcmpl-{id}" if self._chat else f"cmpl-{id}"
        self._model = model
        self._created = created
        self._include_usage = include_usage
        self._text_offset = sum(len(token_text(token)[0]) for token in resumed)
        self._return_token_ids = return_token_ids
        self._untold: list[int] = []  # tokens that no event has carried yet
        kind_of_event = "chat.completion.chunk" if self._chat else "text_completion"
        head = {"id": self._id, "object": kind_of_event, "created": created, "model": model}
        # The same for every event, so it is encoded once: an event costs a few string joins.
        self._head = b"data: " + msgspec.json.encode(head)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"

    def first_event(self) -> bytes:
        """What a chat stream begins with; empty for completions."""
        if not self._chat:
            return b""
        choice = b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return self._head + choice + self._tail

    def event(self, piece: Piece) -> bytes:
        """The events of one piece: its text when there is any, and how it finished."""
        if self._return_token_ids:
            return self._event_with_tokens(piece)
        events = b""
        logprobs = self._logprobs(piece.tokens)
        if piece.text or logprobs is not None:
            text = msgspec.json.encode(piece.text)
            told = msgspec.json.encode(logprobs)
            shape = b'{"index":0,"delta":{"content":%b},"logprobs":%b,"finish_reason":null}'
            if not self._chat:
                shape = b'{"index":0,"text":%b,"logprobs":%b,"finish_reason":null}'
            events = self._head + shape % (text, told) + self._tail
        if piece.finish is not None:
            shape = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":%b}'
            if not self._chat:
                shape = b'{"index":0,"text":"","logprobs":null,"finish_reason":%b}'
            events += self._head + shape % msgspec.json.encode(piece.finish) + self._tail
        return events

    def _event_with_tokens(self, piece: Piece) -> bytes:
        """One event, so that whoever has the tokens has exactly the text that they stand for."""
        self._untold += [part.token for part in piece.tokens]
        logprobs = self._logprobs(piece.tokens)
        if not piece.text and logprobs is None and piece.finish is None:
            return b""
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["delta"] = {"content": piece.text} if piece.text else {}
        else:
            choice["text"] = piece.text
        choice |= {"logprobs": logprobs, "finish_reason": piece.finish, "token_ids": self._untold}
        event = self._head + msgspec.json.encode(choice) + self._tail
        self._untold = []
        return event

    def last_event(self, count: Count) -> bytes:
        """What a stream ends with."""
        if not self._include_usage:
            return b"data: [DONE]\n\n"
        return self._head + b'],"usage":%b}\n\ndata: [DONE]\n\n' % msgspec.json.encode(count.body())

    def body(self, piece: Piece, count: Count) -> bytes:
        """The whole answer, when it was not streamed."""
        choice: dict[str, Any] = {"index": 0}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": piece.text, "refusal": None}
        else:
            choice["text"] = piece.text
        choice |= {"logprobs": self._logprobs(piece.tokens), "finish_reason": piece.finish}
        if self._return_token_ids:
            choice["token_ids"] = [part.token for part in piece.tokens]
        return msgspec.json.encode(
            {
                "id": self._id,
                "object": "chat.completion" if self._chat else "text_completion",
                "created": self._created,
                "model": self._model,
                "choices": [choice],
                "usage": count.body(),
            }
        )

    def _logprobs(self, parts: list[TokenPart]) -> dict[str, Any] | None:
        told = [(part.token, part.logprobs) for part in parts if part.logprobs is not None]
        if not told:
            return None
        if self._chat:
            content = []
            for token, found in told:
                entry = self._entry(token, found.chosen)
                entry["top_logprobs"] = [self._entry(*alternative) for alternative in found.top]
                content.append(entry)
            return {"content": content, "refusal": None}
        texts = [self._token_text(token)[0] for token, _ in told]
        offsets: list[int] = []
        for text in texts:
            offsets.append(self._text_offset)
            self._text_offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [found.chosen for _, found in told],
            "top_logprobs": [{self._token_text(t)[0]: value for t, value in found.top} for _, found in told],
            "text_offset": offsets,
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text, data = self._token_text(token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}


def model_body(name: str, created: int, max_model_len: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "penstock", "max_model_len": max_model_len}
