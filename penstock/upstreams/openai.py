"""Any server that speaks OpenAI's dialects: vLLM, SGLang, llama.cpp, Ollama, Azure, many companies, our engine.

What the server has itself is passed on as it came; chat in another dialect is translated to chat completions.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.request import Endpoint, Request
from penstock.upstreams.anthropic import messages_way
from penstock.upstreams.way import Asking, Terms, Way
from penstock.wire import continuing, openai_chat, openai_more
from penstock.wire.canonical import Losses
from penstock.wire.dialects import CALLERS, COUNTED_AS, passing, translated
from penstock.wire.openai_chat import failure_of
from penstock.wire.openai_hub import ChatReader, write_request
from penstock.wire.readings import Passing, Reading
from penstock.wire.so_far import SoFar, goes_on
from penstock.wire.special import Counted
from penstock.wire.unary import Raw, Whole

PATHS: Final = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.COMPLETION: "/completions",
    Endpoint.RESPONSES: "/responses",
    Endpoint.INPUT_TOKENS: "/responses/input_tokens",
    Endpoint.MESSAGES: "/messages",
    Endpoint.COUNT_TOKENS: "/messages/count_tokens",
    Endpoint.EMBEDDING: "/embeddings",
    Endpoint.MODERATION: "/moderations",
    Endpoint.RERANK: "/rerank",
    Endpoint.SPEECH: "/audio/speech",
    Endpoint.TRANSCRIPTION: "/audio/transcriptions",
    Endpoint.TRANSLATION: "/audio/translations",
    Endpoint.IMAGE: "/images/generations",
    Endpoint.IMAGE_EDIT: "/images/edits",
    Endpoint.IMAGE_VARIATION: "/images/variations",
}
AT_THE_ROOT: Final = {Endpoint.TOKENIZE: "/tokenize", Endpoint.DETOKENIZE: "/detokenize"}
"""Engines serve these beside `/v1`, not under it."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
EVENTS_OF_ANY_KIND: Final = (Endpoint.SPEECH, Endpoint.IMAGE)


def ways(terms: Terms) -> dict[Endpoint, Way]:
    name, served, quirks = terms.model, terms.served, terms.quirks
    root = terms.base_path.removesuffix("/v1")
    ask_usage = "no_stream_options" not in quirks

    def path(endpoint: Endpoint) -> str:
        own = root + AT_THE_ROOT[endpoint] if endpoint in AT_THE_ROOT else terms.base_path + PATHS[endpoint]
        return own + terms.query

    def chat(request: Request) -> Asking:
        meter = openai_chat.Meter()
        body = openai_chat.upstream_body(request, name, ask_usage=ask_usage)
        return body, Passing(meter, not request.include_usage), ()

    def chat_on(request: Request, so_far: SoFar) -> Asking:
        body, reading = continuing.ask(request, so_far, name, quirks, ask_usage=ask_usage)
        return body, reading, ()

    def more(request: Request) -> Asking:
        reading: Reading = Raw() if request.stream else Whole()
        return openai_more.upstream_body(request, name), reading, ()

    def hub(request: Request) -> Asking:
        return translated(
            request,
            lambda ask, losses: write_request(
                ask,
                served=served or request.model,
                losses=losses,
                reasoning_models="max_completion_tokens" in quirks,
                extensions="continue_final_message" in quirks,
                more_sampling="more_sampling" in quirks,
                prefill_by=next((way for way in ("prefix", "prefill") if way in quirks), None),
                ask_usage=ask_usage,
            ),
            lambda ask: ChatReader(ask, id=request.id),
            terms.lose,
            terms.clock.wall(),
        )

    def count(request: Request) -> Asking:
        """Whatever the caller's dialect, its messages are counted as this model reads them."""
        ask = CALLERS[COUNTED_AS[request.endpoint]].read_request(request.fields)
        losses = Losses(("*",))  # how an answer is made does not change how long the question is
        chat = _fields(write_request(ask, served=served or request.model, losses=losses))
        body = {field: chat[field] for field in ("model", "messages", "tools") if field in chat}
        return _encode(body), Counted(request.endpoint), ()

    table: dict[Endpoint, Way] = {}
    for endpoint in terms.native:
        own = path(endpoint)
        if endpoint in (Endpoint.CHAT, Endpoint.COMPLETION):
            table[endpoint] = Way(own, chat, failure_of, ask_on=chat_on, goes_on=goes_on(endpoint, quirks))
        elif endpoint in (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS):
            table[endpoint] = Way(own, passing(endpoint, name), failure_of)
        elif endpoint in (Endpoint.MESSAGES, Endpoint.COUNT_TOKENS):
            table[endpoint] = messages_way(own, endpoint, terms)
        elif endpoint in openai_more.MULTIPART:
            table[endpoint] = Way(own, more, failure_of, headers=_form_type, content_type="", media=b"")
        else:
            media = b"" if endpoint in EVENTS_OF_ANY_KIND else b"text/event-stream"
            table[endpoint] = Way(own, more, failure_of, media=media)
    if "counts_messages" in quirks:
        for endpoint in COUNTED_AS:
            table.setdefault(endpoint, Way(path(Endpoint.TOKENIZE), count, failure_of))
    if Endpoint.CHAT in terms.native:
        for endpoint in (Endpoint.MESSAGES, Endpoint.RESPONSES):
            table.setdefault(endpoint, Way(path(Endpoint.CHAT), hub, failure_of))
    return table


def _form_type(request: Request) -> bytes:
    return b"content-type: " + request.content_type + b"\r\n"
