"""The endpoints that answer at once and in one dialect: embeddings, moderations, rerank, audio, images, tokenize.

Passed on with the upstream's own name for the model. Only what the gateway needs is looked at, and what it does not
know reaches the upstream as it came.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from penstock.core.errors import BadRequest
from penstock.core.request import Caller, Endpoint, Request
from penstock.wire.prompts import BYTES_PER_TOKEN, decode_fields, decode_flag, decode_text, is_null, read_field

MULTIPART: Final = frozenset(
    {Endpoint.TRANSCRIPTION, Endpoint.TRANSLATION, Endpoint.IMAGE_EDIT, Endpoint.IMAGE_VARIATION}
)
DEFAULT_MODELS: Final = {
    # OpenAI's own defaults, for endpoints whose `model` is optional there
    Endpoint.MODERATION: "omni-moderation-latest",
    Endpoint.IMAGE: "dall-e-2",
    Endpoint.IMAGE_EDIT: "dall-e-2",
    Endpoint.IMAGE_VARIATION: "dall-e-2",
}
_NEEDED: Final = {
    Endpoint.EMBEDDING: ("input",),
    Endpoint.MODERATION: ("input",),
    Endpoint.RERANK: ("query", "documents"),
    Endpoint.SPEECH: ("input",),
    Endpoint.IMAGE: ("prompt",),
    Endpoint.DETOKENIZE: ("tokens",),
}
MAX_FORM_PARTS: Final = 128
MAX_FIELD_BYTES: Final = 1024 * 1024  # of a form field that is not a file

_NAMES_MODEL: Final = re.compile(rb'[;\s]name="?model"?\s*(?:;|\r|$)', re.IGNORECASE).search
_encode = msgspec.json.Encoder().encode


def parse(body: bytes, *, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str = "") -> Request:
    """Read a JSON body; `model` where the path has named it. Raises `BadRequest` naming the field that is wrong."""
    fields = decode_fields(body)
    model = model or read_field(fields, "model", decode_text) or DEFAULT_MODELS.get(endpoint, "")
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    fields["model"] = msgspec.Raw(_encode(model))  # what was asked for and allowed is what is sent
    needed = _NEEDED.get(endpoint, ())
    for name in needed:
        if name not in fields or is_null(fields[name]):
            raise BadRequest(f"`{name}` is missing", param=name)
    if endpoint is Endpoint.TOKENIZE and "prompt" not in fields and "messages" not in fields:
        raise BadRequest("`prompt` or `messages` is missing", param="prompt")
    size = sum(len(memoryview(fields[name])) for name in needed)
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        # speech is bytes that are passed on as they come, whether or not it is asked for as events
        stream=endpoint is Endpoint.SPEECH or bool(read_field(fields, "stream", decode_flag)),
        include_usage=True,
        prompt_tokens=size // BYTES_PER_TOKEN + 1,
        max_tokens=0,
        prefix_hashes=(),
        fields=fields,
        received_at=now,
    )


def parse_form(
    body: bytes, content_type: bytes, *, id: str, endpoint: Endpoint, caller: Caller, now: float, model: str = ""
) -> Request:
    """Read a multipart body (RFC 7578); files stay where they are. Raises `BadRequest`."""
    parts = form_parts(body, content_type)
    if sum(name == "model" for name, _, _ in parts) > 1:
        raise BadRequest("the form names `model` more than once", param="model")
    values = {name: data for name, data, is_file in parts if not is_file}
    model = model or values.get("model", b"").decode("utf-8", "replace") or DEFAULT_MODELS.get(endpoint, "")
    if not model:
        raise BadRequest("`model` is missing: name the model that should answer", param="model")
    return Request(
        id=id,
        endpoint=endpoint,
        caller=caller,
        model=model,
        stream=values.get("stream", b"").strip().lower() in (b"true", b"1"),
        include_usage=True,
        prompt_tokens=len(values.get("prompt", b"")) // BYTES_PER_TOKEN + 1,
        max_tokens=0,
        prefix_hashes=(),
        fields={},
        received_at=now,
        form=body,
        content_type=content_type,
    )


def upstream_body(request: Request, served: msgspec.Raw | None) -> bytes:
    """The same request under the upstream's name for the model."""
    if request.form:
        return _renamed(request, request.model if served is None else msgspec.json.decode(served, type=str))
    return _encode(request.fields if served is None else {**request.fields, "model": served})


def form_parts(body: bytes, content_type: bytes) -> list[tuple[str, bytes, bool]]:
    """(name, data, is a file) of each part, in order. Raises `BadRequest` for what is not a whole multipart body."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("the body must be multipart/form-data with a boundary", param=None)
    parts: list[tuple[str, bytes, bool]] = []
    state = _Form(parts)
    try:
        parser = MultipartParser(boundary, state.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"the multipart body is malformed: {error}") from None
    if not state.ended:
        raise BadRequest("the multipart body ends before its closing boundary")
    return parts


class _Form:
    """The parser's callbacks, gathered into parts."""

    def __init__(self, parts: list[tuple[str, bytes, bool]]) -> None:
        self._parts = parts
        self._field = self._value = b""
        self._disposition = b""
        self._data = bytearray()
        self.ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._more,
            "on_part_end": self._end,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._over,
        }

    def _begin(self) -> None:
        if len(self._parts) >= MAX_FORM_PARTS:
            raise BadRequest(f"more than {MAX_FORM_PARTS} parts in the form")
        self._disposition, self._data = b"", bytearray()

    def _more(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name, is_file = options.get(b"name", b"").decode("utf-8", "replace"), b"filename" in options
        if not is_file and len(self._data) > MAX_FIELD_BYTES:
            raise BadRequest(f"the form field is larger than {MAX_FIELD_BYTES} bytes", param=name[:64])
        self._parts.append((name, b"" if is_file else bytes(self._data), is_file))

    def _over(self) -> None:
        self.ended = True


def _renamed(request: Request, model: str) -> bytes:
    """The form with `model` in front, and no other field of that name."""
    boundary = parse_options_header(request.content_type)[1][b"boundary"]
    field = b'--%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (boundary, model.encode())
    delimiter = b"\r\n--" + boundary
    parts = (b"\r\n" + request.form).split(delimiter)[1:]
    kept = [part for part in parts if not _NAMES_MODEL(part.partition(b"\r\n\r\n")[0])]
    return field + (delimiter + delimiter.join(kept)).removeprefix(b"\r\n")
