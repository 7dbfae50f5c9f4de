"""What OpenAI's two dialects, chat completions and responses, have in common: values checked by name, media in data
URLs, function tools, cache marks, and errors that come inside a 200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeVar

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.request import Usage
from penstock.wire.canonical import Cache, Document, Image, Message, Part, Reasoning, Tool, ToolResult
from penstock.wire.openai_shapes import TokenCounts
from penstock.wire.prompts import UNREADABLE, is_null

T = TypeVar("T")

encode: Final = msgspec.json.Encoder().encode
decode_string: Final = msgspec.json.Decoder(str).decode
decode_number: Final = msgspec.json.Decoder(float).decode
decode_count: Final = msgspec.json.Decoder(int).decode
decode_flag: Final = msgspec.json.Decoder(bool).decode
decode_strings: Final = msgspec.json.Decoder(list[str]).decode
decode_any: Final = msgspec.json.Decoder().decode
decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


# --- reading what a caller wrote -------------------------------------------------------------------------------------


def refusal(where: str, what: str) -> BadRequest:
    return BadRequest(f"`{where}` {what}", param=where)


def said(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The fields without those that are null: null is what a client sends for what it does not say."""
    return {name: raw for name, raw in fields.items() if not is_null(raw)}


def read(raw: msgspec.Raw, where: str, decode: Callable[[msgspec.Raw], T]) -> T:
    try:
        return decode(raw)
    except UNREADABLE as error:
        raise BadRequest(f"`{where}`: {error}", param=where) from None


def text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise refusal(where, "must be a string")


def optional_text(value: object, where: str) -> str | None:
    return None if value is None else text(value, where)


def members(value: object, where: str) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise refusal(where, "must be an object")


def elements(value: object, where: str) -> list[object]:
    if isinstance(value, list):
        return value
    raise refusal(where, "must be a list")


def keep_unknown(extra: dict[str, msgspec.Raw], value: Mapping[str, object], known: Iterable[str], prefix: str) -> None:
    """What is said under a name that has no place in the hub goes to `extra`, to be lost by that name or not at all."""
    for name in value.keys() - known:
        if value[name] not in (None, [], {}):
            extra.setdefault(f"{prefix}.{name}", msgspec.Raw(encode(value[name])))


def cache_mark(value: object, where: str) -> Cache | None:
    """Anthropic's `cache_control`, as people write it to Claude behind gateways of OpenAI's dialect."""
    if value is None:
        return None
    mark = members(value, where)
    ttl = mark.get("ttl") or "5m"
    if mark.get("type") != "ephemeral" or ttl not in ("5m", "1h"):
        raise refusal(where, 'must be {"type": "ephemeral"}, with a `ttl` of "5m" or "1h" if any')
    return "1h" if ttl == "1h" else "5m"


def data_url(url: str, where: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL (RFC 2397); None for any other URL."""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise refusal(where, "must be base64: `data:image/png;base64,...`")
    media_type = head[5:].partition(";")[0]
    if not media_type:
        raise refusal(where, "names no media type: `data:image/png;base64,...`")
    return media_type, data


def image_of(url: object, detail: object, cache: Cache | None, where: str) -> Image:
    location = text(url, where)
    detail = optional_text(detail, f"{where}.detail")
    inline = data_url(location, where)
    if inline is not None:
        return Image(media_type=inline[0], data=inline[1], detail=detail, cache=cache)
    if not location.lower().startswith(("http://", "https://")):
        raise refusal(where, "must be a `data:` or an `https:` URL")
    return Image(url=location, detail=detail, cache=cache)


def document_of(file: Mapping[str, object], cache: Cache | None, where: str) -> Document:
    """A file by `file_data` (a data URL, or base64 alone), `file_id` or, in responses, `file_url`."""
    name = optional_text(file.get("filename"), f"{where}.filename")
    data = optional_text(file.get("file_data"), f"{where}.file_data")
    if data is not None:
        inline = data_url(data, f"{where}.file_data")
        media_type, data = inline if inline is not None else ("application/pdf", data)
        return Document(media_type=media_type, data=data, name=name, cache=cache)
    file_id = optional_text(file.get("file_id"), f"{where}.file_id")
    if file_id is not None:
        return Document(file_id=file_id, name=name, cache=cache)
    url = optional_text(file.get("file_url"), f"{where}.file_url")
    if url is None:
        raise refusal(where, "needs `file_data` or `file_id`")
    return Document(url=url, name=name, cache=cache)


_FUNCTION: Final = frozenset({"type", "name", "description", "parameters", "strict", "cache_control"})


def function_tool(function: Mapping[str, msgspec.Raw], extra: dict[str, msgspec.Raw], where: str) -> Tool:
    """The object with `name`, `description`, `parameters`, `strict`; in completions it is inside the tool."""
    function = said(function)
    if "name" not in function:
        raise refusal(f"{where}.name", "is missing")
    for name in function.keys() - _FUNCTION:
        extra.setdefault(f"tools.{name}", function[name])
    description, strict, mark = function.get("description"), function.get("strict"), function.get("cache_control")
    return Tool(
        name=read(function["name"], f"{where}.name", decode_string),
        description=None if description is None else read(description, f"{where}.description", decode_string),
        schema=function.get("parameters"),
        strict=None if strict is None else read(strict, f"{where}.strict", decode_flag),
        cache=None if mark is None else cache_mark(decode_any(mark), f"{where}.cache_control"),
    )


Role = Literal["system", "user", "assistant"]


class Turns:
    """Messages in the making. The results of tools, and what the user says after them, are one turn."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: list[tuple[Role, list[Part], str | None]] = []

    def add(self, role: Role, parts: list[Part], name: str | None = None) -> None:
        self._turns.append((role, parts, name))

    def user(self, parts: list[Part], name: str | None = None) -> None:
        if self._turns and name is None:
            role, before, _ = self._turns[-1]
            if role == "user" and before and all(isinstance(part, ToolResult) for part in before):
                before += parts
                return
        self.add("user", parts, name)

    def assistant(self, parts: list[Part]) -> None:
        """More of the assistant's turn, where it is the assistant's."""
        if self._turns and self._turns[-1][0] == "assistant":
            self._turns[-1][1].extend(parts)
        else:
            self.add("assistant", parts)

    def messages(self) -> tuple[Message, ...]:
        return tuple(Message(role, tuple(parts), name) for role, parts, name in self._turns)


def effort_of(value: str) -> Reasoning:
    return Reasoning(off=True) if value == "none" else Reasoning(effort=value)


# --- reading what an upstream wrote ----------------------------------------------------------------------------------


def usage_of(seen: TokenCounts) -> Usage | None:
    """None: an empty object, which some servers send before they have counted."""
    prompt, completion = seen.prompt_tokens, seen.completion_tokens
    if prompt is None:
        prompt = seen.input_tokens
    if completion is None:
        completion = seen.output_tokens
    if prompt is None and completion is None:
        return None
    cached, written, reasoned = seen.prompt_cache_hit_tokens, seen.cache_creation_input_tokens, None
    read = seen.prompt_tokens_details or seen.input_tokens_details
    if read is not None:
        cached, written = read.cached_tokens or cached, read.cache_write_tokens or written
    said = seen.completion_tokens_details or seen.output_tokens_details
    if said is not None:
        reasoned = said.reasoning_tokens
    return Usage(prompt or 0, completion or 0, cached or 0, written or 0, reasoning_tokens=reasoned or 0)
