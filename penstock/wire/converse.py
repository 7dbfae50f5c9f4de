"""Amazon Bedrock's Converse and ConverseStream, the request: one dialect in front of Claude, Nova, Llama and others.

The body is the same for all models, but what only some have (top_k, thinking, a tool choice of none) goes into
`additionalModelRequestFields` in the model's own words, so requests are written for a family. Sources: the Amazon
Bedrock API reference (Converse), the service model that botocore ships, and the user guide's pages on inference
parameters and prompt caching.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import msgspec

from penstock.wire.anthropic.claude import claude
from penstock.wire.anthropic.request_out import sampling, with_closed_objects
from penstock.wire.anthropic.thinking_out import ThinkingOut
from penstock.wire.canonical import Ask, Losses, Reasoning, Tool, ToolChoice
from penstock.wire.converse_turns import Family, Json, Turns, family_of, keep_breakpoints
from penstock.wire.tool_names import ToolNames

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_NO_WORD: Final[dict[str, object]] = {
    "n": 1,
    "seed": None,
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": None,
    "logprobs": False,
    "top_logprobs": 0,
    "verbosity": "medium",
}
"""Fields without a counterpart, and the value that says no more than leaving them out."""
_METADATA: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}").fullmatch
_MAX_METADATA: Final = 16
_TIERS: Final = {"default": "default", "standard_only": "default", "flex": "flex", "priority": "priority"}
_NOVA_EFFORTS: Final = {"minimal": "low", "low": "low", None: "medium", "medium": "medium"}  # above, it is high


def path(served: str, *, stream: bool) -> str:
    """The model id is one segment: its slashes and colons are escaped. A signature escapes the path a second time."""
    return f"/model/{quote(served, safe='')}/{'converse-stream' if stream else 'converse'}"


def write_request(ask: Ask, *, served: str, losses: Losses) -> bytes:
    """The body for Converse and ConverseStream alike: the path says which.

    Raises `Untranslatable` for what this model cannot be told, `BadRequest` for what nobody could be told.
    """
    return _encode(_Writer(ask, served, losses).body)


class _Writer:
    """One request on its way out."""

    def __init__(self, ask: Ask, served: str, losses: Losses) -> None:
        self._ask, self._lose = ask, losses.lose
        self._family, self._claude = family_of(served), claude(served)
        self._names = ToolNames.of(ask)
        self._extra: Json = {}  # additionalModelRequestFields
        for name in ask.extra:
            self._lose(name)
        for name, silent in _NO_WORD.items():
            if getattr(ask, name) not in (None, silent):
                self._lose(name)
        self._turns = Turns(ask, served, self._names, losses)
        self.body: Json = {"messages": self._turns.turns}
        if self._turns.system:
            self.body["system"] = self._turns.system
        thinks = self._reasoning(losses)
        self._inference(thinks, losses)
        self._tools(thinks)
        self._format()
        self._records()
        if self._extra:
            self.body["additionalModelRequestFields"] = self._extra
        tools = self.body.get("toolConfig", {}).get("tools", [])
        keep_breakpoints([tools, self._turns.system, *(turn["content"] for turn in self._turns.turns)], losses)

    # parameters

    def _inference(self, thinks: bool, losses: Losses) -> None:
        ask = self._ask
        if self._family is Family.CLAUDE:
            sampled = sampling(ask, self._claude, thinks, losses)
        else:
            sampled = {"temperature": ask.temperature, "top_p": ask.top_p, "top_k": ask.top_k}
            if ask.temperature is not None and ask.temperature > 1:
                self._lose("temperature", "from 0 to 1")
                sampled["temperature"] = None
        top_k = sampled.get("top_k")
        if top_k is not None:
            if self._family is Family.CLAUDE:
                self._extra["top_k"] = top_k
            elif self._family is Family.NOVA:
                self._extra["inferenceConfig"] = {"topK": top_k}
            else:
                self._lose("top_k")
        inference = {
            "maxTokens": ask.max_tokens,
            "temperature": sampled.get("temperature"),
            "topP": sampled.get("top_p"),
            "stopSequences": self._stops(),
        }
        inference = {name: value for name, value in inference.items() if value is not None}
        if inference:
            self.body["inferenceConfig"] = inference

    def _stops(self) -> list[str] | None:
        """An empty text stops nothing; Claude refuses those of white space alone."""
        stops = [text for text in self._ask.stop if text]
        if self._family is not Family.CLAUDE:
            return stops or None
        if not all(map(str.strip, stops)):
            self._lose("stop", "Claude does not stop at white space alone")
            stops = list(filter(str.strip, stops))
        if stops:  # the answer says which it was, where it is asked
            self.body["additionalModelResponseFieldPaths"] = ["/stop_sequence"]
        return stops or None

    def _reasoning(self, losses: Losses) -> bool:
        """In the model's own words. True: Claude thinks, and its sampling may not be changed."""
        wanted = self._ask.reasoning
        if self._family is Family.CLAUDE:
            thinking = ThinkingOut(self._ask, self._claude, losses, self._turns.thoughts_are_missing)
            if thinking.config is not None:
                self._extra["thinking"] = thinking.config
            if thinking.effort is not None:
                self.body["outputConfig"] = {"effort": thinking.effort}
            return thinking.on
        if wanted is not None:
            self._others_reasoning(wanted)
        return False

    def _others_reasoning(self, wanted: Reasoning) -> None:
        off = wanted.off or wanted.effort == "none"
        match self._family:
            case Family.NOVA:
                if off:
                    return  # Nova thinks only when told to
                if wanted.budget is not None:
                    self._lose("reasoning", "Nova takes an effort, not a budget")
                effort = _NOVA_EFFORTS.get(wanted.effort, "high")
                self._extra["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
            case Family.OPENAI if not off and wanted.effort in ("low", "medium", "high"):
                self._extra["reasoning_effort"] = wanted.effort
            case _:
                self._lose("reasoning", "this model cannot be told how hard to think")

    def _format(self) -> None:
        format = self._ask.response_format
        if format is None:
            return
        if format.kind == "json_object" or format.schema is None:
            self._lose("response_format", "JSON needs a schema here")
            return
        schema = bytes(format.schema)
        if self._family is Family.CLAUDE:
            if not self._claude.structured:
                self._lose("response_format", "this model cannot be held to a schema")
                return
            schema = _encode(with_closed_objects(msgspec.json.decode(schema)))
        definition = {"schema": schema.decode(), "name": format.name or None, "description": format.description or None}
        definition = {name: value for name, value in definition.items() if value is not None}
        text_format = {"type": "json_schema", "structure": {"jsonSchema": definition}}
        self.body.setdefault("outputConfig", {})["textFormat"] = text_format

    def _records(self) -> None:
        """What is for the account's own logs, and what it is charged."""
        ask = self._ask
        records = self._metadata()
        if ask.user:  # an opaque id: its digest is as opaque
            records.setdefault("user", ask.user if _METADATA(ask.user) else sha256(ask.user.encode()).hexdigest())
        if len(records) > _MAX_METADATA:
            self._lose("metadata", f"{_MAX_METADATA} entries at most")
        elif records:
            self.body["requestMetadata"] = records
        if ask.service_tier not in (None, "auto"):
            tier = _TIERS.get(ask.service_tier)
            if tier is None:
                self._lose("service_tier")
            else:
                self.body["serviceTier"] = {"type": tier}

    def _metadata(self) -> dict[str, str]:
        if self._ask.metadata is None:
            return {}
        try:
            records = msgspec.json.decode(self._ask.metadata, type=dict[str, str])
        except (msgspec.MsgspecError, RecursionError):
            self._lose("metadata", "a map of strings")
            return {}
        if all(_METADATA(word) for pair in records.items() for word in pair):
            return records
        self._lose("metadata", "letters, digits and a few signs, 256 characters at most")
        return {}

    # tools

    def _tools(self, thinks: bool) -> None:
        """Claude's own `tool_choice` says what Converse's cannot: none, and one call at a time. Never both: that is
        refused as a contradiction."""
        ask, is_claude = self._ask, self._family is Family.CLAUDE
        choice = ask.tool_choice or ToolChoice("auto")
        mode = {"required": "any", "allowed_required": "any", "allowed_auto": "auto"}.get(choice.mode, choice.mode)
        listed = frozenset(choice.names) if choice.mode.startswith("allowed") else None
        tools = [tool for tool in ask.tools if listed is None or tool.name in listed]
        called = self._turns.called
        if not called and (not tools or mode == "none"):
            if mode in ("any", "tool"):
                self._lose("tool_choice", "there are no tools")
            return
        if tools:
            blocks = [block for tool in tools for block in (self._tool(tool), *self._turns.cache_point(tool.cache))]
        else:  # a history with calls must come with their tools, though the caller offers none any more
            mode, blocks = "none", [_spec(name) for name in called]
        config: Json = {"tools": blocks}
        self.body["toolConfig"] = config
        by_itself = is_claude and not self._claude.forced_tools and (thinks or self._claude.thinks_unasked)
        if by_itself and mode in ("any", "tool"):
            self._lose("tool_choice", "a model that thinks chooses itself whether to call a tool")
            mode = "auto"
        one_at_a_time = ask.parallel_tool_calls is False and mode != "none"
        if not is_claude and mode == "none":
            self._lose("tool_choice", "this model cannot be kept from using a tool that it has used")
        elif not is_claude and one_at_a_time:
            self._lose("parallel_tool_calls")
        name = {"name": self._names.outward(choice.names[0])} if mode == "tool" else {}
        if is_claude and (mode == "none" or one_at_a_time):
            alone = {"disable_parallel_tool_use": True} if one_at_a_time else {}
            self._extra["tool_choice"] = {"type": mode, **name, **alone}
        elif mode != "none" and ask.tool_choice is not None:
            config["toolChoice"] = {mode: name}

    def _tool(self, tool: Tool) -> Json:
        strict = bool(tool.strict)
        if strict and self._family is Family.CLAUDE and not self._claude.structured:
            self._lose("strict", "this model cannot be held to a schema")
            strict = False
        schema = _schema(tool.schema)
        if strict and self._family is Family.CLAUDE:
            schema = with_closed_objects(msgspec.json.decode(_encode(schema)))
        spec = _spec(self._names.outward(tool.name), schema)
        if tool.description:
            spec["toolSpec"]["description"] = tool.description
        if strict:
            spec["toolSpec"]["strict"] = True
        return spec


def _spec(name: str, schema: Any = None) -> Json:
    return {"toolSpec": {"name": name, "inputSchema": {"json": _ANY_OBJECT if schema is None else schema}}}


_ANY_OBJECT: Final = {"type": "object", "properties": {}}


def _schema(raw: msgspec.Raw | None) -> Any:
    """A tool's input is an object, whether its schema says so or not."""
    if raw is None:
        return _ANY_OBJECT
    try:
        members = _members(raw)
    except (msgspec.MsgspecError, RecursionError):
        return raw  # not an object: the upstream will say what is wrong with it
    return raw if "type" in members else {"type": "object", **members}
