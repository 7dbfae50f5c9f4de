"""What each Claude takes in a request. They differ, and one field too many is a 400 for the whole request.

Sources, as of October 2026, under https://platform.claude.com/docs/en: build-with-claude/thinking (its types), /effort,
/structured-outputs and /mid-conversation-system-messages, and about-claude/models/migration-guide (sampling, prefill,
forced tools).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_FEW: Final = ("low", "medium", "high")
_ALL: Final = ("low", "medium", "high", "xhigh", "max")

BUDGETS: Final = {"minimal": 1024, "low": 4096, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 32_768}
"""Tokens of thinking for an effort, on models that only know budgets. Ours: Anthropic names 1,024 as the least and sees
little gain beyond 32k."""


class Claude(msgspec.Struct, frozen=True, kw_only=True):
    """A model's rules. The defaults are those of the plain dialect, for models of others who speak it."""

    max_tokens: int = 8192  # that it is sure to allow; what a request asks for when its caller set no maximum
    adaptive: bool = False  # `thinking: adaptive`
    budget: bool = True  # `thinking: enabled` with a budget
    thinks_unasked: bool = False
    off: str | None = "disabled"  # the type that turns thinking off; None: it always thinks
    off_with: tuple[str, ...] = _ALL  # efforts that go with that
    efforts: tuple[str, ...] = ()  # `output_config.effort`, from little to much
    sampling: bool = True  # temperature, top_p and top_k; if not, only their defaults
    temperature_and_top_p: bool = True  # both at once
    prefill: bool = True  # a trailing assistant turn
    system_turns: bool = False  # `role: system` among the messages
    forced_tools: bool = True  # tool_choice `any` and `tool`, even where it thinks
    structured: bool = True  # output_config.format, and strict tools


_OTHERS: Final = Claude()
_ENOUGH: Final = 32_000  # every Claude since 4 allows this much: Opus 4 and 4.1 have the least

_CLAUDE_3: Final = Claude(max_tokens=4096, budget=False, structured=False)
_CLAUDE_3_5: Final = msgspec.structs.replace(_CLAUDE_3, max_tokens=8192)
_CLAUDE_3_7: Final = Claude(max_tokens=_ENOUGH, forced_tools=False, structured=False)
_CLAUDE_4: Final = _CLAUDE_3_7
_CLAUDE_4_1: Final = msgspec.structs.replace(_CLAUDE_4, temperature_and_top_p=False, structured=True)
_OPUS_4_5: Final = msgspec.structs.replace(_CLAUDE_4_1, efforts=_FEW)
_CLAUDE_4_6: Final = msgspec.structs.replace(_CLAUDE_4_1, adaptive=True, efforts=(*_FEW, "max"), prefill=False)
_OPUS_4_7: Final = Claude(max_tokens=_ENOUGH, adaptive=True, budget=False, efforts=_ALL, sampling=False, prefill=False)
_OPUS_4_8: Final = msgspec.structs.replace(_OPUS_4_7, system_turns=True)
_SONNET_5: Final = msgspec.structs.replace(_OPUS_4_7, thinks_unasked=True)
_OPUS_5: Final = msgspec.structs.replace(_SONNET_5, system_turns=True, off_with=_FEW)
_ALWAYS_THINKS: Final = msgspec.structs.replace(_SONNET_5, system_turns=True, off=None)  # Fable 5, Mythos 5
_OPUS_5_5: Final = msgspec.structs.replace(_ALWAYS_THINKS, forced_tools=False)
_SONNET_5_5: Final = msgspec.structs.replace(_OPUS_5_5, off="between_tools", off_with=_FEW)
_HAIKU_5_5: Final = msgspec.structs.replace(_SONNET_5, off_with=_FEW)

_SINCE: Final[dict[str, tuple[tuple[tuple[int, int], Claude], ...]]] = {
    "opus": (
        ((3, 0), _CLAUDE_3), ((4, 0), _CLAUDE_4), ((4, 1), _CLAUDE_4_1), ((4, 5), _OPUS_4_5), ((4, 6), _CLAUDE_4_6),
        ((4, 7), _OPUS_4_7), ((4, 8), _OPUS_4_8), ((5, 0), _OPUS_5), ((5, 5), _OPUS_5_5),
    ),
    "sonnet": (
        ((3, 0), _CLAUDE_3), ((3, 5), _CLAUDE_3_5), ((3, 7), _CLAUDE_3_7), ((4, 0), _CLAUDE_4), ((4, 5), _CLAUDE_4_1),
        ((4, 6), _CLAUDE_4_6), ((5, 0), _SONNET_5), ((5, 5), _SONNET_5_5),
    ),
    "haiku": (((3, 0), _CLAUDE_3), ((3, 5), _CLAUDE_3_5), ((4, 5), _CLAUDE_4_1), ((5, 5), _HAIKU_5_5)),
    "fable": (((5, 0), _ALWAYS_THINKS), ((5, 1), _OPUS_5_5)),
    "mythos": (((5, 0), _ALWAYS_THINKS), ((5, 1), _OPUS_5_5)),
}  # fmt: skip
"""For each line, the version from which rules hold; later ones than we know are taken to be like the last."""

_NAME: Final = re.compile(
    r"claude-(?:(?P<old>\d)(?:[-.](?P<old_minor>\d))?-)?(?P<line>opus|sonnet|haiku|fable|mythos)"
    r"(?:-(?P<major>\d)(?:[-.](?P<minor>\d{1,2})(?!\d))?(?!\d))?"
)


def claude(served: str) -> Claude:
    """The rules for a model by its name: Anthropic's own, or one of Bedrock, Vertex or Foundry, which contain it."""
    named = _NAME.search(served)
    if named is None:
        return _OTHERS
    part = named.groupdict()
    major, minor = part["old"] or part["major"], part["old_minor"] or part["minor"]
    versions = _SINCE[part["line"]]
    if major is None:  # an alias such as `claude-opus-latest`
        return versions[-1][1]
    version = (int(major), int(minor or 0))
    return next((rules for since, rules in reversed(versions) if since <= version), versions[0][1])


def nearest_effort(wanted: str, known: tuple[str, ...]) -> str:
    """The highest that is known and not above `wanted`; the lowest where there is none."""
    order = list(BUDGETS)
    if wanted not in order:
        return wanted  # not ours to judge: the upstream will say what it thinks of it
    below = [effort for effort in known if order.index(effort) <= order.index(wanted)]
    return below[-1] if below else known[0]


def effort_of_budget(budget: int) -> str:
    """The effort whose budget comes closest from below."""
    return [effort for effort, tokens in BUDGETS.items() if tokens <= max(budget, BUDGETS["low"])][-1]
