"""Gemini's generateContent, the request: the same for the Gemini API and for Vertex AI.

Where it differs from the others: results of tools are matched by the tool's name, what a model must be told about its
reasoning depends on its generation, and from the third on a tool call must come back with the seal of the reasoning
behind it. Sources: the Gemini API reference (generateContent, thought signatures, thinking, function calling) and
google-genai, Google's own client.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.wire.canonical import (
    Ask,
    Audio,
    Document,
    Format,
    Image,
    Losses,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from penstock.wire.tool_names import ToolNames

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Json = dict[str, Any]

MAX_STOPS: Final = 5
_NO_WORD: Final[dict[str, object]] = {
    "n": 1,
    "min_p": 0,
    "logit_bias": None,
    "metadata": None,
    "user": None,
    "verbosity": "medium",
}
"""Fields without a counterpart, and the value that says no more than leaving them out."""


def tool_names(ask: Ask) -> ToolNames:
    return ToolNames.of(ask, limit=64, pattern=r"[a-zA-Z_][a-zA-Z0-9_-]*")


# Said in place of a seal when somebody else made the call; Gemini 3 refuses calls that have none, and seals of others.
_UNSEALED: Final = "skip_thought_signature_validator"
_GENERATION: Final = re.compile(r"gemini-(\d+)")
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEVELS: Final = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_TIERS: Final = {"default": "standard", "standard_only": "standard", "flex": "flex", "priority": "priority"}
_AUDIO: Final = {"mp3": "audio/mp3", "wav": "audio/wav"}


def write_request(ask: Ask, *, served: str, losses: Losses) -> bytes:
    """The body for generateContent and streamGenerateContent alike: the path says which.

    Raises `Untranslatable`, and `BadRequest` for the result of a call that nobody made.
    """
    return _encode(_Writer(ask, served, losses).body())


class _Writer:
    """One request on its way out."""

    def __init__(self, ask: Ask, served: str, losses: Losses) -> None:
        self._ask, self._losses = ask, losses
        found = _GENERATION.search(served)
        self._generation = int(found[1]) if found is not None else 2  # a name that does not tell: nothing special
        self._names = tool_names(ask)
        self._called: dict[str, str] = {}  # id of a call to the name of its tool
        self._system: list[Json] = []

    def body(self) -> Json:
        self._refuse()
        body: Json = {"contents": self._contents()}
        if self._system:
            body["systemInstruction"] = {"parts": self._system}
        config = self._config()
        if config:
            body["generationConfig"] = config
        if self._ask.tools:
            body["tools"] = [{"functionDeclarations": [self._declaration(tool) for tool in self._ask.tools]}]
            choice = self._choice()
            if choice:
                body["toolConfig"] = {"functionCallingConfig": choice}
        tier = self._ask.service_tier
        if tier not in (None, "auto"):
            if tier in _TIERS:
                body["serviceTier"] = _TIERS[tier]
            else:
                self._losses.lose("service_tier")
        return body

    def _refuse(self) -> None:
        ask, lose = self._ask, self._losses.lose
        for name in ask.extra:
            lose(name)
        for name, silent in _NO_WORD.items():
            if getattr(ask, name) not in (None, silent):
                lose(name)
        if ask.parallel_tool_calls is False and ask.tools:
            lose("parallel_tool_calls", "Gemini may always make several")
        if _marked(ask):
            lose("cache_control", "Gemini caches by itself")
        if any(message.name for message in ask.messages):
            lose("name", "messages have no names")

    # contents

    def _contents(self) -> list[Json]:
        """System text before the conversation is apart; within it, it is said by the user."""
        contents: list[Json] = []
        begun = False
        for message in self._ask.messages:
            begun |= message.role != "system"
            parts = [piece for part in message.parts for piece in self._parts(part)]
            if message.role == "system":
                if not all(isinstance(part, Text) for part in message.parts):
                    self._losses.lose("messages", "a system message can only be text")
                    parts = [part for part in parts if "text" in part]
                if not begun:
                    self._system += parts
                    continue
            elif message.role == "assistant":
                self._mark_unsealed(parts)
            _add(contents, "model" if message.role == "assistant" else "user", parts)
        for content in contents:  # results must follow their calls at once
            content["parts"].sort(key=lambda part: "functionResponse" not in part)
        if contents and contents[-1]["role"] == "model":
            self._losses.lose("prefill", "Gemini does not go on from a trailing message of the assistant's")
            contents.pop()
        if not contents:  # instructions alone: then they are what the user says
            self._system, instructions = [], self._system
            _add(contents, "user", instructions)
        if not contents:
            raise BadRequest("`messages` has nothing for the user to say", param="messages")
        return contents

    def _mark_unsealed(self, parts: list[Json]) -> None:
        """Of calls made at once only the first is sealed, so only the first is looked at."""
        first = next((part for part in parts if "functionCall" in part), None)
        if first is not None and self._generation >= 3:
            first.setdefault("thoughtSignature", _UNSEALED)

    def _parts(self, part: Part) -> Iterable[Json]:
        match part:
            case Text() | Refusal():
                if part.text:
                    yield {"text": part.text}
            case Image() | Document() | Audio():
                media = self._media(part)
                if media is not None:
                    yield media
            case Thinking():
                if part.origin is Origin.GEMINI and part.signature is not None:
                    thought = {"thought": True} if part.text else {}  # the seal of a text stands in an empty part
                    yield {"text": part.text, **thought, "thoughtSignature": part.signature}
            case ToolCall():
                yield self._call(part)
            case ToolResult():
                yield from self._result(part)

    def _media(self, part: Image | Document | Audio) -> Json | None:
        match part:
            case Audio():
                return {"inlineData": {"mimeType": _AUDIO.get(part.format, f"audio/{part.format}"), "data": part.data}}
            case Document(text=str() as text):
                data = b64encode(text.encode()).decode()
                return {"inlineData": {"mimeType": part.media_type or "text/plain", "data": data}}
            case Image() if part.detail not in (None, "auto"):
                self._losses.lose("detail", "images have one resolution")
        if part.data and part.media_type:
            return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
        if part.url is not None and part.url.startswith(("gs://", _FILES)):
            return {"fileData": {"fileUri": part.url} | ({"mimeType": part.media_type} if part.media_type else {})}
        kind = "image" if isinstance(part, Image) else "document"
        if part.url is not None:
            self._losses.lose(f"{kind}.url", "only data, and Google's own storage (gs://)")
        elif part.file_id is not None:
            self._losses.lose(f"{kind}.file_id", "the file is with another provider")
        else:
            self._losses.lose(kind, "without a media type")
        return None

    def _call(self, call: ToolCall) -> Json:
        self._called[call.id] = call.name
        arguments: msgspec.Raw | Json = {}
        if call.arguments.strip():
            try:
                _members(call.arguments)
                arguments = msgspec.Raw(call.arguments.encode())
            except (msgspec.MsgspecError, UnicodeEncodeError):
                raise BadRequest(
                    f"`messages`: the arguments of tool call {call.id[:80]!r} are not a JSON object", param="messages"
                ) from None
        part: Json = {"functionCall": {"id": call.id, "name": self._names.outward(call.name), "args": arguments}}
        if call.signature is not None:
            part["thoughtSignature"] = call.signature
        return part

    def _result(self, result: ToolResult) -> Iterable[Json]:
        name = self._called.get(result.call_id)
        if name is None:
            raise BadRequest(
                f'a tool result answers call "{result.call_id[:80]}", which no message made', param="messages"
            )
        text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
        media = [self._media(part) for part in result.parts if not isinstance(part, Text)]
        response: Json = {
            "id": result.call_id,
            "name": self._names.outward(name),
            "response": {"error" if result.is_error else "output": text},
        }
        pieces = [piece for piece in media if piece is not None]
        if pieces and self._generation >= 3:
            response["parts"] = pieces
            pieces = []  # before, a result could only be text, and pictures stand behind it
        yield {"functionResponse": response}
        yield from pieces

    # parameters

    def _config(self) -> Json:
        ask = self._ask
        config: Json = {
            name: value
            for name, value in (
                ("maxOutputTokens", ask.max_tokens),
                ("temperature", ask.temperature),
                ("topP", ask.top_p),
                ("topK", ask.top_k),
                ("seed", ask.seed),
                ("presencePenalty", ask.presence_penalty),
                ("frequencyPenalty", ask.frequency_penalty),
            )
            if value is not None
        }
        stops = [text for text in ask.stop if text]  # an empty one stops nothing
        if stops:
            if len(stops) > MAX_STOPS:
                self._losses.lose("stop", f"{MAX_STOPS} at most")
            config["stopSequences"] = stops[:MAX_STOPS]
        if ask.logprobs:
            config["responseLogprobs"] = True
            if ask.top_logprobs:
                config["logprobs"] = ask.top_logprobs
        if ask.response_format is not None:
            config |= _format(ask.response_format)
        if ask.reasoning is not None:
            thinking = self._thinking(ask.reasoning)
            if thinking:
                config["thinkingConfig"] = thinking
        return config

    def _thinking(self, reasoning: Reasoning) -> Json:
        """From Gemini 3 on a level, before a number of tokens; never both, which is refused."""
        off = reasoning.off or reasoning.effort == "none"
        if off:
            if self._generation >= 3:
                self._losses.lose("reasoning", "this model always thinks")
                return {"thinkingLevel": "MINIMAL"}
            return {"thinkingBudget": 0}
        thinking: Json = {"includeThoughts": reasoning.show is not False}
        if reasoning.budget is not None:
            thinking["thinkingBudget"] = reasoning.budget
        elif reasoning.effort is not None:
            table: dict[str, Any] = _LEVELS if self._generation >= 3 else _BUDGETS
            if reasoning.effort not in table:
                self._losses.lose("reasoning", "an effort that Gemini does not know")
            else:
                thinking["thinkingLevel" if table is _LEVELS else "thinkingBudget"] = table[reasoning.effort]
        return thinking

    # tools

    def _declaration(self, tool: Tool) -> Json:
        declaration: Json = {"name": self._names.outward(tool.name)}
        if tool.description:
            declaration["description"] = tool.description
        if tool.schema is not None and not _is_empty(tool.schema):
            declaration["parametersJsonSchema"] = tool.schema
        return declaration

    def _choice(self) -> Json | None:
        """Modes ANY and VALIDATED keep to the schema, which is what `strict` asks for, and take a list of names."""
        choice = self._ask.tool_choice
        free = "VALIDATED" if any(tool.strict for tool in self._ask.tools) else "AUTO"
        if choice is None:
            return {"mode": free} if free == "VALIDATED" else None
        names = [self._names.outward(name) for name in choice.names]
        match choice.mode:
            case "auto":
                return {"mode": free}
            case "none":
                return {"mode": "NONE"}
            case "required":
                return {"mode": "ANY"}
            case "tool" | "allowed_required":
                return {"mode": "ANY", "allowedFunctionNames": names}
            case "allowed_auto":
                return {"mode": "VALIDATED", "allowedFunctionNames": names}


def _marked(ask: Ask) -> bool:
    """Whether there are breakpoints for a prompt cache in it."""
    parts = [part for message in ask.messages for part in message.parts]
    parts += [inner for part in parts if isinstance(part, ToolResult) for inner in part.parts]
    return any(tool.cache for tool in ask.tools) or any(getattr(part, "cache", None) for part in parts)


def _add(contents: list[Json], role: str, parts: list[Json]) -> None:
    """Neighbours of one role become one."""
    if parts and contents and contents[-1]["role"] == role:
        contents[-1]["parts"] += parts
    elif parts:
        contents.append({"role": role, "parts": parts})


_FILES: Final = "https://generativelanguage.googleapis.com/"


def _format(format: Format) -> Json:
    config: Json = {"responseMimeType": "application/json"}
    if format.schema is not None:
        config["responseJsonSchema"] = format.schema
    return config


def _is_empty(schema: msgspec.Raw) -> bool:
    """A tool without parameters has no schema here: an object without properties is refused."""
    try:
        members = _members(schema)
    except (msgspec.MsgspecError, RecursionError):
        return False
    properties = members.get("properties")
    nothing = properties is None or bytes(properties).translate(None, b" \t\r\n") == b"{}"
    return nothing and not members.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"}
