"""OpenAI's Responses API: requests, answers, stored answers.

Source: https://platform.openai.com/docs/api-reference/responses and the types of the `openai` client.
"""

from penstock.wire.responses.answer_out import ResponsesWriter, in_progress
from penstock.wire.responses.meter import ResponsesMeter
from penstock.wire.responses.parse import parse, upstream_body
from penstock.wire.responses.request_in import read_request
from penstock.wire.responses.stored import (
    MAX_PAGE,
    Stored,
    cancelled,
    deleted_body,
    input_items_list,
    input_tokens_body,
    keep,
    resolved,
    status_of,
    with_history,
)

__all__ = [
    "MAX_PAGE",
    "ResponsesMeter",
    "ResponsesWriter",
    "Stored",
    "cancelled",
    "deleted_body",
    "in_progress",
    "input_items_list",
    "input_tokens_body",
    "keep",
    "parse",
    "read_request",
    "resolved",
    "status_of",
    "upstream_body",
    "with_history",
]
