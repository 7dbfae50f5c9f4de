"""The OpenAPI document says of requests what Penstock does with them."""

import json

import msgspec
import pytest

from penstock.core.errors import BadRequest, PenstockError, Rejected, Said, Unauthorized
from penstock.core.request import ANYONE, Endpoint
from penstock.wire import anthropic, openai_chat, openai_more, responses
from penstock.wire.errors import anthropic_body, openai_body
from penstock.wire.openapi import FORM, JSON, PAGES, Operation, document, of_endpoint

GOOD = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 1,
    "prompt": "hi",
    "input": "hi",
    "query": "hi",
    "documents": ["hi"],
    "tokens": [1],
}
PARSERS = {
    Endpoint.CHAT: openai_chat,
    Endpoint.COMPLETION: openai_chat,
    Endpoint.RESPONSES: responses,
    Endpoint.INPUT_TOKENS: responses,
    Endpoint.MESSAGES: anthropic,
    Endpoint.COUNT_TOKENS: anthropic,
}
OF_JSON = [endpoint for endpoint in Endpoint if JSON in of_endpoint("/x", endpoint).request]


def parse(endpoint: Endpoint, fields: dict[str, object]) -> None:
    module = PARSERS.get(endpoint, openai_more)
    module.parse(json.dumps(fields).encode(), id="1", endpoint=endpoint, caller=ANYONE, now=0.0)


@pytest.mark.parametrize("endpoint", OF_JSON)
def test_a_field_that_the_document_requires_is_required(endpoint):
    required = of_endpoint("/x", endpoint).request[JSON].get("required", [])
    parse(endpoint, GOOD)
    for name in required:
        with pytest.raises(BadRequest) as refused:
            parse(endpoint, {other: value for other, value in GOOD.items() if other != name})
        assert refused.value.param == name


@pytest.mark.parametrize("endpoint", OF_JSON)
def test_flags_counts_and_the_model_are_of_the_types_that_the_document_says(endpoint):
    properties = of_endpoint("/x", endpoint).request[JSON]["properties"]
    for name, schema in properties.items():
        kinds = schema.get("type")
        if name == "stream":
            wrong, right = ["yes", 1], [True, False, None]
        elif kinds in ("integer", ["integer", "null"]):
            wrong, right = [-1, 1.5, "1"], [0, 7, *([None] if isinstance(kinds, list) else [])]
        elif name == "model":
            wrong, right = [1, "", []], ["other"]
        else:
            continue
        for value in wrong:
            if name == "model" and value == "" and "model" not in of_endpoint("/x", endpoint).request[JSON]["required"]:
                continue
            with pytest.raises(BadRequest) as refused:
                parse(endpoint, {**GOOD, name: value})
            assert refused.value.param in (name, "max_tokens")
        for value in right:
            parse(endpoint, {**GOOD, name: value})


@pytest.mark.parametrize("error", [BadRequest("no", param="x"), Unauthorized("no"), Rejected(400, Said("no", code=7))])
def test_errors_have_the_members_that_the_document_names_and_no_others(error: PenstockError):
    schemas = document([], version="1")["components"]["schemas"]
    for body, schema in (
        (openai_body(error), schemas["Error"]),
        (anthropic_body(error, "req_1"), schemas["AnthropicError"]),
    ):
        said = json.loads(body)
        assert set(said) == set(schema["required"]) == set(schema["properties"])
        inner = schema["properties"]["error"]
        assert set(said["error"]) == set(inner["required"]) == set(inner["properties"])


def test_every_endpoint_has_a_row_and_every_page_an_id_of_its_own():
    rows = [*(of_endpoint(f"/{endpoint}", endpoint) for endpoint in Endpoint), *PAGES]
    made = document(rows, version="1.2.3")
    operations = [operation for methods in made["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(rows)
    assert made["info"]["version"] == "1.2.3"
    assert msgspec.json.decode(msgspec.json.encode(made)) == made


def test_references_lead_somewhere():
    made = document([*(of_endpoint(f"/{endpoint}", endpoint) for endpoint in Endpoint), *PAGES], version="1")

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if "$ref" in value else []
            return here + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    for reference in set(references(made)):
        _, components, kind, name = reference.split("/")
        assert name in made[components][kind], reference


def test_a_model_that_the_path_names_is_not_asked_for_again():
    operation = of_endpoint("/openai/deployments/{model}/chat/completions", Endpoint.CHAT)
    assert operation.request[JSON]["required"] == ["messages"]
    made = document([operation], version="1")["paths"][operation.path]["post"]
    assert made["parameters"][0]["name"] == "model" and made["parameters"][0]["in"] == "path"
    form = of_endpoint("/openai/deployments/{model}/audio/transcriptions", Endpoint.TRANSCRIPTION)
    assert form.request[FORM]["required"] == ["file"]


def test_without_keys_none_is_asked_for():
    page = Operation(method="get", path="/x", summary="x", tag="x")
    assert document([page], version="1", keys=False)["paths"]["/x"]["get"]["security"] == []
    assert {"bearer": []} in document([page], version="1")["paths"]["/x"]["get"]["security"]


def test_two_rows_of_one_place_are_a_mistake():
    page = Operation(method="get", path="/x", summary="x", tag="x")
    with pytest.raises(ValueError, match="get /x is there twice"):
        document([page, page], version="1")
