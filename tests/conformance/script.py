"""What the scripted upstream says, in no dialect: whoever reads the request knows the answer.

- Tools that may be used are called: once per city that the user names where the tool asks for a `city`, else once.
- Tool results are repeated: "Results: ...". Where tools *must* be used, the next one that was not used is called.
- A JSON schema is answered with a minimal value of that schema.
- Anything else is answered `GREETING`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

GREETING: Final = "Hello from the scripted upstream."
CITIES: Final = re.compile(r"\b(?:Paris|Oslo|Lima)\b")
LIMITED: Final = "limited"
"""The model that always answers 429, with `RETRY_AFTER`."""
RETRY_AFTER: Final = 7  # seconds
UNKNOWN: Final = "no-such-model"
"""The model that is not there."""
BROKEN_OFF: Final = "broken-off"
"""The model whose streams end after the first words, without a terminal event."""


class Tool(msgspec.Struct, frozen=True):
    name: str
    schema: dict[str, Any]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a conversation, and what may follow."""

    text: str = ""  # the user's last words
    results: tuple[str, ...] = ()  # of tools, where they are the last thing that was said
    used: frozenset[str] = frozenset()  # the tools that were called before
    tools: tuple[Tool, ...] = ()
    choice: str = "auto"  # auto, none, required, or the name of a tool
    schema: dict[str, Any] | None = None  # of the whole answer


class Call(msgspec.Struct, frozen=True):
    name: str
    arguments: dict[str, Any]


class Says(msgspec.Struct, frozen=True):
    text: str = ""
    calls: tuple[Call, ...] = ()

    @property
    def pieces(self) -> list[str]:
        """The text as a stream brings it: joined, they are the text."""
        return re.findall(r"\S+\s*|\s+", self.text)


def play(turn: Turn) -> Says:
    fresh = [tool for tool in turn.tools if tool.name not in turn.used]
    forced = turn.choice == "required" or any(tool.name == turn.choice for tool in turn.tools)
    if turn.choice != "none" and fresh and (forced or not turn.results):
        return Says(calls=calls(next((tool for tool in fresh if tool.name == turn.choice), fresh[0]), turn.text))
    if turn.schema is not None:
        return Says(json.dumps(example(turn.schema)))
    if turn.results:
        return Says(f"Results: {'; '.join(turn.results)}")
    return Says(GREETING)


def calls(tool: Tool, text: str) -> tuple[Call, ...]:
    arguments = example(tool.schema)
    if "city" in arguments:
        return tuple(Call(tool.name, {**arguments, "city": city}) for city in CITIES.findall(text) or ["Paris"])
    return (Call(tool.name, arguments),)


def example(schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """A minimal value of a JSON schema: every required property, the first of what may be chosen."""
    root = root or schema
    if "$ref" in schema:
        return example(root.get("$defs", root.get("definitions", {}))[schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for many in ("anyOf", "oneOf", "allOf"):
        if many in schema:
            return example(schema[many][0], root)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "string":
            return "Paris"
        case "integer" | "number":
            return max(schema.get("minimum", 21), min(schema.get("maximum", 21), 21))
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [example(schema.get("items", {}), root)] * max(1, schema.get("minItems", 1))
    properties = {name: inner for name, inner in schema.get("properties", {}).items() if isinstance(inner, dict)}
    return {name: example(inner, root) for name, inner in properties.items() if name in schema.get("required", ())}
