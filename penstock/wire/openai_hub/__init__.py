"""OpenAI chat completions towards the hub: requests in and out, answers in and out."""

from penstock.wire.openai_hub.answer_in import ChatReader
from penstock.wire.openai_hub.answer_out import ChatWriter
from penstock.wire.openai_hub.request_in import read_request
from penstock.wire.openai_hub.request_out import write_request

__all__ = ["ChatReader", "ChatWriter", "read_request", "write_request"]
