"""Claude on Bedrock and Vertex AI: Anthropic's dialect in other companies' envelopes."""

import json
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.eventstream import Message
from penstock.wire.hosted_claude import bedrock_body, bedrock_path, unwrap_chunk, vertex_body
from tests.wire.bedrock_model import faults, service

FRAMES = Path(__file__).parent / "frames" / "bedrock" / "invoke_claude.json"
FIELDS = msgspec.json.decode(
    b'{"model":"claude","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"odd":{"a": 1.50}}',
    type=dict[str, msgspec.Raw],
)


def chunk(data: bytes, **more) -> Message:
    return Message(
        {":message-type": "event", ":event-type": "chunk"},
        json.dumps({"bytes": b64encode(data).decode(), **more}).encode(),
    )


def test_bedrock_has_the_model_in_the_path_and_says_nothing_of_streams_in_the_body():
    assert bedrock_path("anthropic.claude-3-haiku-20240307-v1:0", stream=True) == (
        "/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke-with-response-stream"
    )
    assert bedrock_path("arn:aws:bedrock:r:1:inference-profile/x", stream=False) == (
        "/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fx/invoke"
    )
    assert json.loads(bedrock_body(FIELDS)) == {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
        "odd": {"a": 1.5},
        "anthropic_version": "bedrock-2023-05-31",
    }
    assert json.loads(bedrock_body(FIELDS, ["a-1", "b-2"]))["anthropic_beta"] == ["a-1", "b-2"]
    assert b'"odd":{"a": 1.50}' in bedrock_body(FIELDS)


def test_vertex_keeps_the_stream_flag_and_names_the_model_only_where_its_path_does_not():
    body = json.loads(vertex_body(FIELDS))
    assert body["anthropic_version"] == "vertex-2023-10-16" and body["stream"] is True and "model" not in body
    assert json.loads(vertex_body(FIELDS, msgspec.Raw(b'"claude-x"')))["model"] == "claude-x"


def test_the_fields_that_came_in_are_not_changed():
    before = dict(FIELDS)
    bedrock_body(FIELDS, ["x"]), vertex_body(FIELDS)
    assert before == FIELDS  # a retry translates them again


def test_chunks_are_anthropics_events():
    shape = service().operation_model("InvokeModelWithResponseStream").output_shape.members["body"]
    seen = []
    for name, payload in json.loads(FRAMES.read_text()):
        assert faults(shape.members[name], {"bytes": payload["bytes"]}) == []
        data = unwrap_chunk(Message({":message-type": "event", ":event-type": name}, json.dumps(payload).encode()))
        seen.append(json.loads(data)["type"])
    assert seen == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_chunk_comes_out_byte_for_byte_and_other_events_are_passed_over():
    assert unwrap_chunk(chunk(b'{"type": "ping"}\n', p="abc")) == b'{"type": "ping"}\n'
    assert unwrap_chunk(Message({":event-type": "initial-response"}, b"{}")) == b""


def test_an_exception_in_place_of_a_chunk_is_the_failure_it_names():
    exception = Message({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow"}')
    with pytest.raises(UpstreamError) as failed:
        unwrap_chunk(exception)
    assert failed.value.kind is FailureKind.RATE_LIMITED


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"bytes": "!!"}', b'{"bytes": "abc"}', b'{"bytes": 1}', b'"\xff'])
def test_a_chunk_that_is_none_is_a_bad_payload(payload):
    with pytest.raises(UpstreamError) as failed:
        unwrap_chunk(Message({":event-type": "chunk"}, payload))
    assert failed.value.kind is FailureKind.BAD_PAYLOAD
