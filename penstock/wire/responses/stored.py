"""Responses that are kept: what the next request takes from them, and how they are shown again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from penstock.core.request import Request
from penstock.wire.openai_values import decode_string, encode, members, read, refusal
from penstock.wire.prompts import is_null
from penstock.wire.responses.parse import sizes

MAX_PAGE: Final = 100  # of a list of input items


class Stored(msgspec.Struct, frozen=True):
    """A response and all that the model had read when it wrote it, so that one look is enough to go on from it.

    `input` are items, those of earlier turns included; each has an `id`.
    """

    id: str
    response: msgspec.Raw
    input: tuple[msgspec.Raw, ...]


class _Answer(msgspec.Struct):
    id: str
    output: list[msgspec.Raw] = []


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(dict[str, Any]).decode


def keep(fields: Mapping[str, msgspec.Raw], response: bytes) -> Stored:
    """`fields` as they were answered, with their history; `response` is the whole response object."""
    answer = _decode_answer(response)
    stem = answer.id.removeprefix("resp_")
    items = _items(fields.get("input"))
    return Stored(answer.id, msgspec.Raw(response), tuple(_named(item, f"{stem}i{n}") for n, item in enumerate(items)))


def with_history(fields: dict[str, msgspec.Raw], stored: Stored) -> dict[str, msgspec.Raw]:
    """The request with the turns before it written out: what `stored` had read, what it answered, then the new input.

    Its instructions stay behind: those of a request count for its own answer alone. References to items of the history
    are resolved; others raise `BadRequest`.
    """
    history = [*stored.input, *_decode_answer(stored.response).output]
    known = {item.get("id"): raw for raw in history if (item := _decode_item(raw))}
    new = []
    for number, raw in enumerate(_items(fields.get("input"))):
        item = members(read(raw, f"input[{number}]", msgspec.json.decode), f"input[{number}]")
        if item.get("type") == "item_reference":
            if item.get("id") not in known:
                raise refusal(f"input[{number}]", f"names no item that is kept here: {str(item.get('id'))[:80]!r}")
            continue  # it is in the history already
        new.append(raw)
    resolved = {name: raw for name, raw in fields.items() if name != "previous_response_id"}
    resolved["input"] = msgspec.Raw(encode([*history, *new]))
    return resolved


def resolved(request: Request, stored: Stored) -> Request:
    """`with_history` for the whole request: its size and prefix hashes are those of the longer prompt."""
    fields = with_history(request.fields, stored)
    tokens, hashes = sizes(fields)
    return msgspec.structs.replace(request, fields=fields, prompt_tokens=tokens, prefix_hashes=hashes)


def _items(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None or is_null(raw):
        return []
    if bytes(memoryview(raw)[:1]) == b'"':
        words = {"type": "input_text", "text": read(raw, "input", decode_string)}
        return [msgspec.Raw(encode({"type": "message", "role": "user", "content": [words]}))]
    return read(raw, "input", _decode_list)


_PART_DEFAULTS: Final[dict[str, dict[str, object]]] = {
    "output_text": {"annotations": []},
    "input_image": {"detail": "auto"},
}
_STEMS: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _named(raw: msgspec.Raw, stem: str) -> msgspec.Raw:
    """The item as the API shows it: with its type, an id, a status, and content in parts."""
    item = _decode_item(raw)
    kind = item.setdefault("type", "message")
    if not item.get("id"):
        item["id"] = f"{_STEMS.get(kind, 'item')}_{stem}"
    if kind != "reasoning":
        item.setdefault("status", "completed")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, str):
            said = "output_text" if item.get("role") == "assistant" else "input_text"
            item["content"] = content = [{"type": said, "text": content}]
        for part in content or ():
            for name, default in _PART_DEFAULTS.get(part.get("type"), {}).items():
                part.setdefault(name, default)
    return msgspec.Raw(encode(item))


def input_items_list(
    stored: Stored, *, after: str | None = None, limit: int = 20, order: Literal["asc", "desc"] = "desc"
) -> bytes:
    """A page of `GET /v1/responses/{id}/input_items`; `after` is the id of the last item of the page before."""
    items: Iterable[msgspec.Raw] = stored.input if order == "asc" else reversed(stored.input)
    rows = [(str(_decode_item(raw)["id"]), raw) for raw in items]
    if after is not None:
        places = [place for place, (id, _) in enumerate(rows) if id == after]
        if not places:
            raise refusal("after", f"names no item of this response: {after[:80]!r}")
        rows = rows[places[0] + 1 :]
    page = rows[: max(1, min(limit, MAX_PAGE))]
    return encode(
        {
            "object": "list",
            "data": [raw for _, raw in page],
            "first_id": page[0][0] if page else None,
            "last_id": page[-1][0] if page else None,
            "has_more": len(rows) > len(page),
        }
    )


def deleted_body(id: str) -> bytes:
    return encode({"id": id, "object": "response", "deleted": True})


def status_of(response: bytes) -> str:
    return msgspec.json.decode(response, type=_Status).status


class _Status(msgspec.Struct):
    status: str = "completed"


def cancelled(response: bytes) -> bytes:
    """The response object of one that was stopped before it was whole."""
    fields = msgspec.json.decode(response, type=dict[str, msgspec.Raw])
    return encode(fields | {"status": msgspec.Raw(b'"cancelled"')})


def input_tokens_body(tokens: int) -> bytes:
    return encode({"object": "response.input_tokens", "input_tokens": tokens})
