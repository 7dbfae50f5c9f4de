"""The wall can tell right from wrong: without a gateway in between, every fault reaches its caller."""

import asyncio

from tests.wall.direct import marks_without_a_gateway, the_wall

HARMLESS = {
    "healthy", "paced", "cached-tokens", "zero-usage", "tools", "tool-without-arguments", "stop-length", "stop-refused",
    "slow-head", "interim-heads", "byte-by-byte", "glued", "crlf", "bom", "multi-line", "no-space", "comments-between",
    "done-twice", "usage-late", "huge-event", "slow-caller", "context-length", "error-event-later", "one-dead-of-two",
}  # fmt: skip
FAULTS = {
    "eof-mid-stream openai-stream": "cut without a word",
    "eof-mid-stream anthropic-stream": "cut without a word",
    "eof-mid-event openai-stream": "cut without a word",
    "fin-mid-chunk openai-stream": "cut without a word",
    "reset-mid-stream anthropic-stream": "cut without a word",
    "malformed-event openai-stream": "an event that is not JSON",
    "reset-before-head openai-plain": "the connection was closed without an answer",
    "eof-inside-head anthropic-stream": "the connection was closed without an answer",
    "error-event-first openai-stream": "an error event (internal_error)",
    "error-in-200 anthropic-plain": "HTTP 200 with an error (api_error)",
    "cut-json openai-plain": "a body that is not JSON",
    "short-body openai-plain": "cut without a word",
    "html anthropic-stream": "a plain answer to who asked for a stream",
    "redirect-302 openai-plain": "a body that is not JSON",
    "alone-401 openai-plain": "HTTP 401",
    "alone-401 anthropic-stream": "HTTP 401",
    "alone-402 anthropic-plain": "HTTP 402",
    "alone-quota openai-plain": "accuses the caller of 'insufficient_quota'",
    "candid-500 openai-plain": "leaks the upstream's key",
    "candid-404 anthropic-plain": "leaks the upstream's name for the model",
    "candid-event anthropic-stream": "leaks the upstream's key",
    "no-blank-line openai-stream": "no terminal event",
    "no-done openai-stream": "no terminal event",
    "context-length-vllm openai-plain": "an error that is not OpenAI's {error: {message, type, param, code}}",
    "deadline openai-plain": "an answer",
    "no-key openai-plain": "an answer",
}


def test_an_upstream_that_is_only_odd_is_right_for_a_caller_who_reads_by_the_standard():
    marks = asyncio.run(marks_without_a_gateway(HARMLESS))
    assert len(marks) > 40
    assert {cell: wrong for cell, wrong in marks.items() if wrong is not None} == {}


def test_every_fault_is_seen_as_what_it_is_when_nobody_stands_in_front_of_it():
    marks = asyncio.run(marks_without_a_gateway({cell.split()[0] for cell in FAULTS}))
    assert {cell: marks[cell] for cell in FAULTS} == FAULTS


def test_no_two_rows_have_the_same_name_and_every_model_name_fits_a_configuration():
    names = [scenario.name for scenarios in the_wall().values() for scenario in scenarios]
    assert len(names) == len(set(names))
    assert max(map(len, names)) + len(".anthropic.anthropic-stream") <= 64
