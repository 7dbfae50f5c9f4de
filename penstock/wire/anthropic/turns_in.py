"""The messages of a caller's request, read into the canonical form."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.anthropic.request_shapes import Block, CalledBy, Source, Turn
from penstock.wire.anthropic.values import Extra, as_members, need, read
from penstock.wire.canonical import (
    Cache,
    Document,
    Image,
    Message,
    Origin,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    unseal,
)
from penstock.wire.prompts import NULL, decode_text, is_null

CALL: Final = "call."
"""Before Gemini's signature of a tool call: Anthropic's tool calls have no place for one, so it travels as redacted
thinking in front of its call."""


_turns = msgspec.json.Decoder(list[Turn]).decode
_system = msgspec.json.Decoder(str | list[Block]).decode
_content = msgspec.json.Decoder(str | list[Block] | None).decode
_source = msgspec.json.Decoder(Source | str | None).decode
_caller = msgspec.json.Decoder(CalledBy | None).decode


class TurnsIn:
    """Blocks without a canonical form go to `extra`, under the name of their type."""

    def __init__(self, extra: Extra) -> None:
        self._extra = extra

    def system(self, raw: msgspec.Raw | None) -> tuple[Message, ...]:
        content = read(_system, raw, "system")
        parts = self._parts(content, "system", "system") if content else ()
        return (Message("system", parts),) if parts else ()

    def messages(self, raw: msgspec.Raw | None) -> tuple[Message, ...]:
        turns = read(_turns, raw, "messages")
        if not turns:
            raise BadRequest("`messages` must be a list of at least one message", param="messages")
        messages = []
        for n, turn in enumerate(turns):
            if turn.output_config is not NULL or turn.clear_at is not NULL:
                self._extra.keep({"output_config": turn.output_config, "clear_at": turn.clear_at})
            messages.append(Message(turn.role, self._parts(turn.content, f"messages.{n}.content", turn.role)))
        return tuple(messages)

    def _parts(self, content: str | list[Block], at: str, role: str) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Text(content),) if content else ()
        parts: list[Part] = []
        call_signature: str | None = None
        for n, block in enumerate(content):
            part = self._part(block, f"{at}.{n}", role)
            if isinstance(part, Thinking) and part.origin is Origin.GEMINI and (part.redacted or "").startswith(CALL):
                call_signature = (part.redacted or "")[len(CALL) :]
                continue
            if isinstance(part, ToolCall) and call_signature is not None:
                part, call_signature = msgspec.structs.replace(part, signature=call_signature), None
            if part is not None:
                parts.append(part)
        return tuple(parts)

    def _part(self, block: Block, at: str, role: str) -> Part | None:
        """None: the block has no canonical form and is kept under the name of its type."""
        match block.type, role:
            case "text", _:
                return self._text(block, at)
            case "image" | "document", "user":
                return self._media(block, at)
            case "tool_result", "user":
                return self._tool_result(block, at)
            case "tool_use", "assistant":
                self._extra.keep({"toolset_name": block.toolset_name})
                if (caller := read(_caller, block.caller, f"{at}.caller")) is not None and caller.type != "direct":
                    self._extra.keep({"caller": block.caller})
                arguments = "{}" if is_null(block.input) else bytes(block.input).decode()
                id, name = need(block.id, f"{at}.id"), need(block.name, f"{at}.name")
                return ToolCall(id, name, arguments, cache=_cache(block))
            case "thinking", "assistant":
                text = block.thinking or ""
                if not block.signature:
                    return Thinking(text)
                signature, origin = unseal(block.signature, Origin.ANTHROPIC)
                return Thinking(text, signature=signature, origin=origin)
            case "redacted_thinking", "assistant":
                data, origin = unseal(need(read(decode_text, block.data, f"{at}.data"), f"{at}.data"), Origin.ANTHROPIC)
                return Thinking(redacted=data, origin=origin)
            case (("image" | "document" | "tool_result" | "tool_use" | "thinking" | "redacted_thinking"), _):
                raise BadRequest(f"`{at}.type`: a {role} message has no {block.type} in it", param=f"{at}.type")
        self._extra[block.type] = msgspec.Raw(msgspec.json.encode(at))
        return None

    def _text(self, block: Block, at: str) -> Text:
        text = block.text
        if text is None:
            raise BadRequest(f"`{at}.text` is missing", param=f"{at}.text")
        citations = None if bytes(block.citations) in (b"null", b"[]") else block.citations
        return Text(text, cache=_cache(block), citations=citations)

    def _media(self, block: Block, at: str) -> Image | Document:
        source = read(_source, block.source, f"{at}.source")
        if not isinstance(source, Source):
            raise BadRequest(f"`{at}.source` must be an object", param=f"{at}.source")
        title = read(decode_text, block.title, f"{at}.title")
        self._extra.keep({"transformations": block.transformations, "context": block.context})
        if block.type == "document":
            citing = read(as_members, block.citations, f"{at}.citations") or {}
            self._extra.keep({"citations": citing.get("enabled", NULL)})
        data = url = file = text = None
        match source.type:
            case "base64":
                data = need(source.data, f"{at}.source.data")
            case "url":
                url = need(source.url, f"{at}.source.url")
            case "file":
                file = need(source.file_id, f"{at}.source.file_id")
            case "text" if block.type == "document":
                text = need(source.data, f"{at}.source.data")
            case "content" if block.type == "document":
                inner = read(_content, source.content, f"{at}.source.content")
                if isinstance(inner, str):
                    text = inner
                else:  # chunks to be cited one by one: no other dialect knows such a document
                    self._extra["document"] = block.source
                    text = "\n".join(chunk.text or "" for chunk in inner or ())
            case _:
                raise BadRequest(f"`{at}.source.type`: {source.type!r} is not a source", param=f"{at}.source.type")
        kind = None if text is not None else source.media_type
        if block.type == "image":
            return Image(kind, data=data, url=url, file_id=file, cache=_cache(block))
        return Document(kind, data=data, text=text, url=url, file_id=file, name=title, cache=_cache(block))

    def _tool_result(self, block: Block, at: str) -> ToolResult:
        self._extra.keep({"toolset_name": block.toolset_name})
        content = read(_content, block.content, f"{at}.content")
        parts: list[Text | Image | Document] = []
        for part in self._parts(content or "", f"{at}.content", "user"):
            if not isinstance(part, Text | Image | Document):
                raise BadRequest(f"`{at}.content`: a tool result has text, images and documents", param=f"{at}.content")
            parts.append(part)
        id = need(block.tool_use_id, f"{at}.tool_use_id")
        return ToolResult(id, tuple(parts), is_error=bool(block.is_error), cache=_cache(block))


def _cache(block: Block) -> Cache | None:
    return None if block.cache_control is None else block.cache_control.ttl
