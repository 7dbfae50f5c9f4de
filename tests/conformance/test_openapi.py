"""Schemathesis makes requests from Penstock's own OpenAPI document, of both dialects, in front of upstreams of both."""

import json
import os
import subprocess
import urllib.request
from typing import Any

import pytest

from tests.clients.environments import Unavailable, python
from tests.clients.gateway import KEY_VARIABLE, gateway

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method",
)  # fmt: skip
EXAMPLES = 15  # of each operation, beside those that go along the edges of each schema
TWICE = "^/(openai|anthropic)/v1/"  # the same operations at a second address
SEED = "20261123"
MODELS = ["openai", "anthropic", "both", "no-such-model"]


def one_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def thing(**properties: object) -> dict[str, Any]:
    """An object with these properties, all of them; what is not a schema is the value itself."""
    schemas = {name: value if isinstance(value, dict) else {"const": value} for name, value in properties.items()}
    return {"type": "object", "properties": schemas, "required": list(schemas)}


TEXT = {"type": "string", "maxLength": 20}
CALL = thing(id="call_1", type="function", function=thing(name="f", arguments=one_of({"const": "{}"}, TEXT)))
CHAT_MESSAGE = one_of(
    thing(role={"enum": ["system", "developer", "user", "assistant", "tool"]}, content=TEXT),
    thing(role="user", content={"type": "array", "items": thing(type="text", text=TEXT)}),
    thing(
        role="user",
        content={"type": "array", "items": thing(type="image_url", image_url=thing(url="data:image/png;base64,AAAA"))},
    ),
    thing(role="assistant", content={"type": "null"}, tool_calls={"type": "array", "items": CALL}),
    thing(role="tool", tool_call_id="call_1", content=TEXT),
)
BLOCK = one_of(
    thing(type="text", text=TEXT),
    thing(type="image", source=thing(type="base64", media_type="image/png", data="AAAA")),
    thing(type="tool_use", id="toolu_1", name="f", input={"type": "object"}),
    thing(type="tool_result", tool_use_id="toolu_1", content=TEXT),
    thing(type="thinking", thinking=TEXT, signature=TEXT),
    thing(type=TEXT),
)
MESSAGE_PARAM = thing(
    role={"enum": ["user", "assistant"]}, content=one_of(TEXT, {"type": "array", "items": BLOCK, "maxItems": 4})
)
"""In the document messages are `{role, content}`, as Penstock passes on what it does not know. These reach further."""


def test_no_request_makes_penstock_fail_or_say_what_its_document_does_not(provider, tmp_path):
    try:
        schemathesis = python("schemathesis").with_name("st")
    except Unavailable as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Schemathesis cannot be installed here: {problem}")
    here = {"engine": provider.address, "health": "off", "key": f"env:{KEY_VARIABLE}"}
    kinds = {"openai": {}, "anthropic": {"speaks": "anthropic"}, "both": {"software": "penstock"}}
    config = {
        "models": {name: {"deployments": [name]} for name in kinds},
        "deployments": {name: {**here, **kind} for name, kind in kinds.items()},
    }
    with gateway(config, tmp_path) as origin:
        with urllib.request.urlopen(f"{origin}/openapi.json") as page:
            document = json.load(page)
        document["components"]["schemas"] |= {
            "ModelName": {"enum": MODELS},
            "ChatMessage": CHAT_MESSAGE,
            "MessageParam": MESSAGE_PARAM,
        }
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        # a shorter time to answer in would be answered 504, and rightly
        (tmp_path / "schemathesis.toml").write_text('[parameters]\n"header.x-request-timeout" = "60"\n')
        done = subprocess.run(
            [
                *(str(schemathesis), "--config-file", "schemathesis.toml", "run", "openapi.json", "--url", origin),
                *("--checks", ",".join(CHECKS), "--seed", SEED, "--max-examples", str(EXAMPLES)),
                *(
                    "--exclude-path-regex",
                    TWICE,
                    "--phases",
                    "coverage,fuzzing",
                    "--no-shrink",
                    "--continue-on-failure",
                    "--warnings",
                    "off",
                ),
            ],
            cwd=tmp_path,
            env={**os.environ, "no_proxy": "127.0.0.1", "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-200_000:]
    assert any(query.path == "/messages" for query in provider.seen)
    assert any(query.path == "/chat/completions" for query in provider.seen)
