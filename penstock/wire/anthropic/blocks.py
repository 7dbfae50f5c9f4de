"""The content blocks of an answer, made out of deltas: which block each belongs to, and what a block looks like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from penstock.core.errors import FailureKind, UpstreamError
from penstock.wire.anthropic.answer_shapes import CitationType
from penstock.wire.anthropic.turns_in import CALL
from penstock.wire.canonical import (
    Asked,
    Citation,
    Delta,
    Origin,
    Redacted,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ThinkingEnd,
    ToolCallBegin,
    ToolCallDelta,
    seal,
)

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_citation = msgspec.json.Decoder(CitationType).decode
_OURS: Final = frozenset(
    {"char_location", "page_location", "content_block_location", "web_search_result_location", "search_result_location"}
)
"""Sources that this dialect can name; it has no word for those of others."""


class Piece:
    """One block. `text` and `citations` are what it has got and nobody has been told yet."""

    __slots__ = ("citations", "data", "id", "kind", "name", "place", "sealed", "text")

    def __init__(self, kind: str, place: int, *, id: str = "", name: str = "", data: str = "") -> None:
        self.kind, self.place, self.id, self.name, self.data = kind, place, id, name, data
        self.text: list[str] = []  # its text, its thinking, or its arguments
        self.citations: list[msgspec.Raw] = []
        self.sealed: str | None = None  # the signature of thinking, which then is complete

    def start(self) -> dict[str, Any]:
        """As it is before its first delta."""
        match self.kind:
            case "thinking":
                return {"type": "thinking", "thinking": "", "signature": ""}
            case "redacted_thinking":
                return {"type": "redacted_thinking", "data": self.data}
            case "tool_use":
                return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        return {"type": "text", "text": ""}

    def deltas(self) -> Iterator[dict[str, object]]:
        """What is to be told now. The signature is not among it: it comes last."""
        text, citations = "".join(self.text), self.citations
        self.text, self.citations = [], []
        if text:
            match self.kind:
                case "thinking":
                    yield {"type": "thinking_delta", "thinking": text}
                case "tool_use":
                    yield {"type": "input_json_delta", "partial_json": text}
                case _:
                    yield {"type": "text_delta", "text": text}
        for raw in citations:
            yield {"type": "citations_delta", "citation": raw}

    def whole(self) -> dict[str, Any]:
        block, text = self.start(), "".join(self.text)
        match self.kind:
            case "thinking":
                block["thinking"], block["signature"] = text, self.sealed or ""
            case "tool_use":
                block["input"] = _input(text)
            case "text":
                block["text"] = text
                if self.citations:
                    block["citations"] = self.citations
        return block


def _input(arguments: str) -> object:
    """Arguments that are no object are wrapped as Anthropic asks for them to be told back to the model.

    Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming, on invalid JSON.
    """
    if not arguments.strip():
        return {}
    try:
        _object(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return {"INVALID_JSON": arguments}
    return msgspec.Raw(arguments.encode())


class Pieces:
    """All blocks of one answer, in the order in which they began. Their `place` is their index."""

    def __init__(self, asked: Asked) -> None:
        self.list: list[Piece] = []
        self.calls: dict[int, Piece] = {}
        self._asked = asked
        self._ids: set[str] = set()

    def add(self, delta: Delta) -> Piece | None:
        """The block that has grown by `delta`, or begun with it; None: it says nothing here. Raises `UpstreamError`."""
        match delta:
            case TextDelta(text=text) | RefusalDelta(text=text) if text:
                return self._grown("text", text)
            case ThinkingDelta(text) if text:
                return self._grown("thinking", text)
            case ThinkingEnd(signature, origin):
                piece = self._grown("thinking", "")
                piece.sealed = seal(signature, origin, Origin.ANTHROPIC)
                return piece
            case Citation(raw) if _is_ours(raw):
                piece = self._grown("text", "")
                piece.citations.append(raw)
                return piece
            case Redacted(data, origin):
                return self._new("redacted_thinking", data=seal(data, origin, Origin.ANTHROPIC))
            case ToolCallBegin(index, id, name, signature):
                if signature is not None:
                    self._new("redacted_thinking", data=seal(CALL + signature, Origin.GEMINI, Origin.ANTHROPIC))
                piece = self.calls[index] = self._new("tool_use", id=self._unique(id), name=name)
                return piece
            case ToolCallDelta(index, arguments) if arguments:
                call = self.calls.get(index)
                if call is None:
                    raise UpstreamError(FailureKind.BAD_PAYLOAD, "arguments of a tool call that has not begun")
                call.text.append(arguments)
                return call
        return None

    def _grown(self, kind: str, text: str) -> Piece:
        last = self.list[-1] if self.list else None
        piece = self._new(kind) if last is None or last.kind != kind or last.sealed is not None else last
        piece.text.append(text)
        return piece

    def _new(self, kind: str, *, id: str = "", name: str = "", data: str = "") -> Piece:
        piece = Piece(kind, len(self.list), id=id, name=name, data=data)
        self.list.append(piece)
        return piece

    def _unique(self, id: str) -> str:
        """Some upstreams leave ids out, some repeat them; a client needs one for each call."""
        if not id or id in self._ids:
            id = f"toolu_{self._asked.id.removeprefix('req_')}{len(self.calls)}"
        self._ids.add(id)
        return id


def _is_ours(raw: msgspec.Raw) -> bool:
    try:
        return _citation(raw).type in _OURS
    except (msgspec.MsgspecError, RecursionError):
        return False
