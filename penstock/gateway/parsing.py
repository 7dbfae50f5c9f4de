"""From an exchange to a `Request`, in the dialect of its path. Apart from the table of paths: this is compiled."""

from __future__ import annotations

from penstock.core.request import Caller, Endpoint, Request
from penstock.gateway.exchange import Exchange
from penstock.wire import anthropic, openai_chat, openai_more
from penstock.wire import responses as responses_api


def chat(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return openai_chat.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def more(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return openai_more.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def form(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    kind = exchange.header(b"content-type") or b""
    return openai_more.parse_form(exchange.body, kind, id=id, endpoint=endpoint, caller=caller, now=now, model=model)


def responses(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    return responses_api.parse(exchange.body, id=id, endpoint=endpoint, caller=caller, now=now)


def messages(exchange: Exchange, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str) -> Request:
    version, betas = exchange.header(b"anthropic-version"), exchange.header(b"anthropic-beta")
    return anthropic.parse(
        exchange.body, id=id, endpoint=endpoint, caller=caller, now=now, version=version, betas=betas
    )
