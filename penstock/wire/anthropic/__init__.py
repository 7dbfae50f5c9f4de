"""Anthropic's Messages: the dialect of Claude and its clients, on both sides. No I/O."""

from penstock.wire.anthropic.answer_in import MessagesReader
from penstock.wire.anthropic.answer_out import PING, MessagesWriter
from penstock.wire.anthropic.failures import failure_of
from penstock.wire.anthropic.meter import MessagesMeter
from penstock.wire.anthropic.pages import count_tokens_body, model_list, model_row
from penstock.wire.anthropic.passing import parse, upstream_body, upstream_fields
from penstock.wire.anthropic.request_in import read_request
from penstock.wire.anthropic.request_out import NAMES, tool_names, write_request
from penstock.wire.errors import anthropic_body as error_body
from penstock.wire.errors import anthropic_event as error_event
from penstock.wire.errors import anthropic_status as status_of

__all__ = [
    "NAMES",
    "PING",
    "MessagesMeter",
    "MessagesReader",
    "MessagesWriter",
    "count_tokens_body",
    "error_body",
    "error_event",
    "failure_of",
    "model_list",
    "model_row",
    "parse",
    "read_request",
    "status_of",
    "tool_names",
    "upstream_body",
    "upstream_fields",
    "write_request",
]
