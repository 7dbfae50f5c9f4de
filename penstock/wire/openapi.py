"""The OpenAPI 3.1 document of what Penstock serves, built from one row per endpoint and page.

A request's schema is as strict as Penstock is about it: fields that are not named here are passed on to the model's
server, which may be stricter. Errors are rendered by `wire.errors`, and are exactly as described here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.core.request import Endpoint

Schema: TypeAlias = dict[str, Any]
Method: TypeAlias = Literal["get", "post", "delete"]
Words: TypeAlias = Literal["openai", "anthropic"]
EVENTS: Final = "text/event-stream"
JSON: Final = "application/json"
FORM: Final = "multipart/form-data"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path. `path` may have `{parameters}`; each is a string of at least one character.

    `request` and `answers` are schemas by media type. `words`: whose errors it answers with; None: it has none.
    """

    method: Method
    path: str
    summary: str
    tag: str
    request: Mapping[str, Schema] = {}
    answers: Mapping[str, Schema] = {}
    also: Mapping[str, Schema] = {}  # other statuses with a body of JSON
    query: Mapping[str, Schema] = {}
    words: Words | None = "openai"
    reaches_a_model: bool = False


def of_endpoint(path: str, endpoint: Endpoint) -> Operation:
    """The row of an endpoint that is served at `path`. A `{model}` in the path makes the field optional."""
    row = _ENDPOINTS[endpoint]
    if "{model}" not in path:
        return msgspec.structs.replace(row, path=path)
    request = {
        media: {**schema, "required": [name for name in schema.get("required", ()) if name != "model"]}
        for media, schema in row.request.items()
    }
    return msgspec.structs.replace(row, path=path, request=request)


def document(operations: Iterable[Operation], *, version: str, keys: bool = True) -> dict[str, Any]:
    """The whole document. `keys`: callers need one. Raises ValueError for two rows of one method and path."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        if operation.method in methods:
            raise ValueError(f"{operation.method} {operation.path} is there twice")
        methods[operation.method] = _operation(operation, keys)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": version,
            "summary": "An LLM gateway: the OpenAI and Anthropic APIs in front of any model server.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _SCHEMAS,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _operation(operation: Operation, keys: bool) -> dict[str, Any]:
    answers = {media: {"schema": schema} for media, schema in operation.answers.items()}
    whole: dict[str, Any] = {"description": "The answer.", "content": answers}
    if operation.reaches_a_model:
        whole["headers"] = {"x-request-id": _ref("headers", "RequestId"), "x-penstock-lost": _ref("headers", "Lost")}
    responses = {"200": whole}
    for status, schema in operation.also.items():
        responses[status] = {"description": "Not now.", "content": {JSON: {"schema": schema}}}
    said: dict[str, Any] = {
        "operationId": _id(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": responses,
    }
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    if operation.reaches_a_model:
        parameters.append(_TIMEOUT)
    if parameters:
        said["parameters"] = parameters
    if operation.request:
        content = {media: {"schema": schema} for media, schema in operation.request.items()}
        said["requestBody"] = {"required": True, "content": content}
    if operation.words is not None:
        said["responses"] |= _errors(operation)
        said["security"] = [{"bearer": []}, {"x-api-key": []}, {"api-key": []}] if keys else []
    else:
        said["security"] = []
    return said


def _id(operation: Operation) -> str:
    """Such as `post_v1_chat_completions`."""
    words = operation.path.replace("{", "").replace("}", "").replace("-", "_").replace(".", "_").split("/")
    return "_".join([operation.method, *filter(None, words)])


def _errors(operation: Operation) -> dict[str, Any]:
    schema = _ref("schemas", "AnthropicError" if operation.words == "anthropic" else "Error")
    content = {JSON: {"schema": schema}}
    later = {"Retry-After": _ref("headers", "RetryAfter")}
    found: dict[str, Any] = {
        "401": {"description": "No key, or one that is not known.", "content": content},
        "4XX": {"description": "The request is at fault; the error says in what.", "content": content},
    }
    if operation.reaches_a_model:
        found["404"] = {"description": "There is no such model.", "content": content}
        found["429"] = {"description": "Too many requests for now.", "content": content, "headers": later}
        found["5XX"] = {"description": "No model server could answer.", "content": content, "headers": later}
    return found


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


# --- schemas ---------------------------------------------------------------------------------------------------------


def _object(required: str = "", /, **properties: Schema) -> Schema:
    """`required` are names with spaces between them."""
    schema: Schema = {"type": "object", "properties": properties}
    return schema | {"required": required.split()} if required else schema


def _closed(required: str, /, **properties: Schema) -> Schema:
    """An object without any other properties."""
    return _object(required, **properties) | {"additionalProperties": False}


def _or_null(kind: str, **more: object) -> Schema:
    return {"type": [kind, "null"], **more}


def _list(of: Schema, **more: object) -> Schema:
    return {"type": "array", "items": of, **more}


_TEXT: Final[Schema] = {"type": "string"}
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_MODEL: Final[Schema] = _ref("schemas", "ModelName")
_FLAG: Final = _or_null("boolean")
_COUNT: Final = _or_null("integer", minimum=0)
_SOMETHING: Final[Schema] = {"not": {"type": "null"}}
_STREAM_OPTIONS: Final = _or_null("object", properties={"include_usage": _FLAG})
_ANYTHING: Final[Schema] = {"type": "object"}
_CONTENT: Final[Schema] = {"type": ["string", "array", "null"]}

_TIMEOUT: Final[Schema] = {
    "name": "x-request-timeout",
    "in": "header",
    "description": "Seconds that the caller will wait; after them the work stops and the answer is a 504.",
    "schema": {"type": "number", "minimum": 0, "exclusiveMaximum": 86_400},
}
_HEADERS: Final[dict[str, Schema]] = {
    "RequestId": {"description": "The request's id in Penstock's log.", "schema": _TEXT},
    "RetryAfter": {
        "description": "Seconds until it is worth another try.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Lost": {
        "description": "Fields that the model's server has no word for, and that its configuration lets go.",
        "schema": _TEXT,
    },
}
_ROW_OF_OPENAI: Final = _object(
    "id object created owned_by", id=_TEXT, object={"const": "model"}, created=_WHOLE, owned_by=_TEXT
)
_ROW_OF_ANTHROPIC: Final = _object(
    "type id display_name created_at",
    type={"const": "model"},
    id=_TEXT,
    display_name=_TEXT,
    created_at={"type": "string", "format": "date-time"},
)
_SCHEMAS: Final[dict[str, Schema]] = {
    "ModelName": {"type": "string", "minLength": 1, "description": "A public name; GET /v1/models lists them."},
    "Error": _closed(
        "error",
        error=_closed(
            "message type param code",
            message=_TEXT,
            type=_TEXT,
            param=_or_null("string"),
            code={"type": ["string", "integer", "null"]},
        ),
    ),
    "AnthropicError": _closed(
        "type error request_id",
        type={"const": "error"},
        error=_closed(
            "type message details",
            type={
                "enum": [
                    "api_error",
                    "authentication_error",
                    "billing_error",
                    "invalid_request_error",
                    "not_found_error",
                    "overloaded_error",
                    "permission_error",
                    "rate_limit_error",
                    "request_too_large",
                    "timeout_error",
                ]
            },
            message=_TEXT,
            details=_closed("error_code", error_code=_TEXT),
        ),
        request_id=_or_null("string"),
    ),
    "ChatMessage": _object("role", role=_TEXT, content=_CONTENT),
    "MessageParam": _object("role content", role=_TEXT, content=_CONTENT),
    # without a type: OpenAPI 3.1 has no words for what is inside events
    "Events": {"description": "Server-sent events, when the request says `stream: true`."},
    "ChatCompletion": _object(
        "choices",
        id=_TEXT,
        object=_TEXT,
        created=_WHOLE,
        model=_TEXT,
        choices=_list(_object(index=_WHOLE, message=_ANYTHING, finish_reason=_or_null("string"))),
        usage=_ref("schemas", "Usage"),
    ),
    "Completion": _object(
        "choices",
        id=_TEXT,
        object=_TEXT,
        created=_WHOLE,
        model=_TEXT,
        choices=_list(_object(index=_WHOLE, text=_TEXT, finish_reason=_or_null("string"))),
        usage=_ref("schemas", "Usage"),
    ),
    "Usage": _or_null(
        "object", properties={"prompt_tokens": _WHOLE, "completion_tokens": _WHOLE, "total_tokens": _WHOLE}
    ),
    "Message": _object(
        "content usage",
        id=_TEXT,
        type={"const": "message"},
        role={"const": "assistant"},
        model=_TEXT,
        content=_list(_object("type", type=_TEXT)),
        stop_reason=_or_null("string"),
        usage=_object("input_tokens output_tokens", input_tokens=_WHOLE, output_tokens=_WHOLE),
    ),
    "Response": _object(
        "id object status output",
        id=_TEXT,
        object={"const": "response"},
        status={"enum": ["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]},
        output=_list(_object("type", type=_TEXT)),
        usage=_or_null("object"),
    ),
    "InputItems": _object(
        "object data has_more",
        object={"const": "list"},
        data=_list(_object("id type", id=_TEXT, type=_TEXT)),
        first_id=_or_null("string"),
        last_id=_or_null("string"),
        has_more={"type": "boolean"},
    ),
    "Models": {
        "anyOf": [
            _object("object data", object={"const": "list"}, data=_list(_ROW_OF_OPENAI)),
            _object("data has_more", data=_list(_ROW_OF_ANTHROPIC), has_more={"const": False}),
        ],
        "description": "In Anthropic's words for callers who send `anthropic-version`, else in OpenAI's.",
    },
    "Model": {"anyOf": [_ROW_OF_OPENAI, _ROW_OF_ANTHROPIC]},
    "Readiness": _closed(
        "status models_without_a_replica plane",
        status={"enum": ["ready", "unready"]},
        models_without_a_replica=_list(_TEXT),
        plane=_WHOLE,
    ),
}


# --- the endpoints ---------------------------------------------------------------------------------------------------


def _post(
    summary: str, tag: str, request: Schema, answers: Mapping[str, Schema], media: str = JSON, words: Words = "openai"
) -> Operation:
    return Operation(
        method="post",
        path="",
        summary=summary,
        tag=tag,
        request={media: request},
        answers=answers,
        words=words,
        reaches_a_model=True,
    )


def _either(name: str) -> dict[str, Schema]:
    """A plain answer or events."""
    return {JSON: _ref("schemas", name), EVENTS: _ref("schemas", "Events")}


_FILE: Final[Schema] = {"type": "string", "contentMediaType": "application/octet-stream"}
_PASSED_ON: Final[dict[str, Schema]] = {JSON: _ANYTHING}
_OF_MESSAGES: Final[dict[str, Schema]] = {
    "model": _MODEL,
    "messages": _list(_ref("schemas", "MessageParam"), minItems=1),
    "system": {"type": ["string", "array"]},
    "tools": _list(_ANYTHING),
}
_OF_RESPONSES: Final[dict[str, Schema]] = {
    "model": _MODEL,
    "input": {"type": ["string", "array", "null"]},
    "instructions": _or_null("string"),
    "previous_response_id": _or_null("string"),
}

_ENDPOINTS: Final[Mapping[Endpoint, Operation]] = {
    Endpoint.CHAT: _post(
        "Answer a conversation",
        "chat",
        _object(
            "model messages",
            model=_MODEL,
            messages=_list(_ref("schemas", "ChatMessage"), minItems=1),
            stream=_FLAG,
            stream_options=_STREAM_OPTIONS,
            max_tokens=_COUNT,
            max_completion_tokens=_COUNT,
            tools=_list(_ANYTHING),
        ),
        _either("ChatCompletion"),
    ),
    Endpoint.COMPLETION: _post(
        "Continue a text",
        "completions",
        _object(
            "model prompt",
            model=_MODEL,
            prompt={"type": ["string", "array"]},
            stream=_FLAG,
            stream_options=_STREAM_OPTIONS,
            max_tokens=_COUNT,
        ),
        _either("Completion"),
    ),
    Endpoint.RESPONSES: _post(
        "Answer, and keep the answer",
        "responses",
        _object(
            "model",
            **_OF_RESPONSES,
            stream=_FLAG,
            store=_FLAG,
            background=_FLAG,
            max_output_tokens=_COUNT,
            tools=_list(_ANYTHING),
        ),
        _either("Response"),
    ),
    Endpoint.INPUT_TOKENS: _post(
        "Count the tokens of a request to /v1/responses",
        "responses",
        _object("model", **_OF_RESPONSES),
        {JSON: _object("object input_tokens", object={"const": "response.input_tokens"}, input_tokens=_WHOLE)},
    ),
    Endpoint.MESSAGES: _post(
        "Answer a conversation",
        "messages",
        _object("model messages max_tokens", **_OF_MESSAGES, max_tokens=_WHOLE, stream=_FLAG),
        _either("Message"),
        words="anthropic",
    ),
    Endpoint.COUNT_TOKENS: _post(
        "Count the tokens of a request to /v1/messages",
        "messages",
        _object("model messages", **_OF_MESSAGES),
        {JSON: _object("input_tokens", input_tokens=_WHOLE)},
        words="anthropic",
    ),
    Endpoint.EMBEDDING: _post(
        "Turn texts into vectors",
        "embeddings",
        _object("model input", model=_MODEL, input=_SOMETHING),
        {JSON: _object("data", data=_list(_ANYTHING), model=_TEXT)},
    ),
    Endpoint.MODERATION: _post(
        "Say whether a text is harmful",
        "moderations",
        _object("input", model=_MODEL, input=_SOMETHING),
        {JSON: _object("results", results=_list(_ANYTHING), model=_TEXT)},
    ),
    Endpoint.RERANK: _post(
        "Put documents in the order of a query",
        "rerank",
        _object("model query documents", model=_MODEL, query=_SOMETHING, documents=_SOMETHING),
        _PASSED_ON,
    ),
    Endpoint.SPEECH: _post("Say a text", "audio", _object("model input", model=_MODEL, input=_SOMETHING), {"*/*": {}}),
    Endpoint.TRANSCRIPTION: _post(
        "Write down what is said",
        "audio",
        _object("model file", model=_MODEL, file=_FILE, stream={"type": "boolean"}),
        {"*/*": {}},
        media=FORM,
    ),
    Endpoint.TRANSLATION: _post(
        "Write down in English what is said",
        "audio",
        _object("model file", model=_MODEL, file=_FILE),
        {"*/*": {}},
        media=FORM,
    ),
    Endpoint.IMAGE: _post(
        "Make an image",
        "images",
        _object("prompt", model=_MODEL, prompt=_SOMETHING, stream=_FLAG),
        {JSON: _ANYTHING, EVENTS: _ref("schemas", "Events")},
    ),
    Endpoint.IMAGE_EDIT: _post(
        "Change an image",
        "images",
        _object("image prompt", model=_MODEL, image=_FILE, prompt=_TEXT, stream={"type": "boolean"}),
        {JSON: _ANYTHING, EVENTS: _ref("schemas", "Events")},
        media=FORM,
    ),
    Endpoint.IMAGE_VARIATION: _post(
        "Make an image like another",
        "images",
        _object("image", model=_MODEL, image=_FILE),
        _PASSED_ON,
        media=FORM,
    ),
    Endpoint.TOKENIZE: _post(
        "Turn a text into tokens",
        "tokens",
        {**_object("model", model=_MODEL), "anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}]},
        _PASSED_ON,
    ),
    Endpoint.DETOKENIZE: _post(
        "Turn tokens into a text",
        "tokens",
        _object("model tokens", model=_MODEL, tokens=_SOMETHING),
        _PASSED_ON,
    ),
}


def _pages() -> Iterable[Operation]:
    for prefix in ("", "/openai", "/anthropic"):
        words: Words = "anthropic" if prefix == "/anthropic" else "openai"
        for path, summary, name in (("", "The models there are", "Models"), ("/{name}", "One model", "Model")):
            yield Operation(
                method="get",
                path=f"{prefix}/v1/models{path}",
                summary=summary,
                tag="models",
                answers={JSON: _ref("schemas", name)},
                words=words,
            )
    for prefix in ("", "/openai"):
        one = f"{prefix}/v1/responses/{{id}}"
        rows: tuple[tuple[Method, str, str, Schema], ...] = (
            ("get", one, "An answer that was kept", _ref("schemas", "Response")),
            ("delete", one, "Forget an answer", _object("id object deleted", deleted={"const": True})),
            ("post", f"{one}/cancel", "Stop work in the background", _ref("schemas", "Response")),
            ("get", f"{one}/input_items", "What a kept answer answers", _ref("schemas", "InputItems")),
        )
        for method, path, summary, answer in rows:
            yield Operation(
                method=method,
                path=path,
                summary=summary,
                tag="responses",
                answers={JSON: answer},
                query=_OF_INPUT_ITEMS if path.endswith("input_items") else {},
            )
    yield Operation(
        method="post",
        path="/v1/route/explain",
        summary="Where a request would go, and why not elsewhere; nothing is sent there",
        tag="operations",
        request=_ENDPOINTS[Endpoint.CHAT].request,
        query={"endpoint": {"enum": [str(endpoint) for endpoint in Endpoint], "default": str(Endpoint.CHAT)}},
        answers={
            JSON: _object(
                "decision candidates rules facts replicas queue",
                decision=_object("deployments model why", deployments=_list(_TEXT), model=_TEXT, why=_list(_TEXT)),
                candidates=_list(_object("deployment rank why", deployment=_TEXT, rank=_or_null("integer"), why=_TEXT)),
                rules=_list(_object("rule when held", rule=_TEXT, when=_TEXT, held=_or_null("boolean"))),
                facts=_ANYTHING,
                replicas=_list(_object("replica chosen why", replica=_TEXT, chosen={"type": "boolean"}, why=_TEXT)),
                saturation={"type": "number", "minimum": 0},
                degraded=_list(_TEXT),
                say=_or_null("string"),
                max_tokens=_or_null("integer"),
                queue=_list(_object("priority waiting drain", priority=_TEXT, waiting=_WHOLE)),
            )
        },
    )
    ready = _ref("schemas", "Readiness")
    for path, summary, answers, also in (
        ("/healthz", "Whether the process is alive", {JSON: _object("status", status={"const": "alive"})}, {}),
        ("/readyz", "Whether every model has a replica that is ready", {JSON: ready}, {"503": ready}),
        ("/metrics", "Figures in Prometheus' text format", {"text/plain": _TEXT}, {}),
        ("/openapi.json", "This document", {JSON: _object("openapi paths")}, {}),
    ):
        yield Operation(
            method="get", path=path, summary=summary, tag="operations", answers=answers, also=also, words=None
        )


_OF_INPUT_ITEMS: Final[dict[str, Schema]] = {
    "after": _TEXT,
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"enum": ["asc", "desc"], "default": "desc"},
}
PAGES: Final = tuple(_pages())
"""What is served beside the endpoints of `of_endpoint`."""
