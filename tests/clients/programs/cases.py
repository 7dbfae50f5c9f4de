"""What every program here does: read the targets, try the six cases on each, print what happened.

Programs run in the environment of their client, apart from Penstock and its tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

GREET = "Say hello."
ASK = "How is the weather in Paris and in Oslo?"
TOLD = {"Paris": "21 degrees", "Oslo": "12 degrees"}
DESCRIPTION = "The weather in a city, now."
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Target:
    """An address that speaks the client's dialect, and the names of its models."""

    origin: str
    model: str
    limited: str  # answers 429
    unknown: str  # is not there


def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return TOLD[city]


def streamed(pieces: Iterable[str]) -> dict[str, Any]:
    """What a stream said, and whether it came in more than one piece."""
    said = list(pieces)
    return {"text": "".join(said), "in_pieces": sum(map(bool, said)) > 1}


def main(cases: dict[str, Callable[[Target], Any]]) -> None:
    """`cases`: chat, stream, tools, schema, and `model` for both errors, which asks for the model that it is given."""
    report = {}
    for name, fields in json.load(sys.stdin).items():
        target = Target(**fields)
        wanted = {**cases, "unknown": cases["chat"], "limited": cases["chat"]}
        report[name] = {
            case: outcome(ask, Target(target.origin, getattr(target, case, target.model), "", ""))
            for case, ask in wanted.items()
        }
    json.dump(report, sys.stdout)


def outcome(ask: Callable[[Target], Any], target: Target) -> Any:
    try:
        return ask(target)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is what it tells its user
        response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
        return {
            "error": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "retry_after": None if response is None else response.headers.get("retry-after"),
            "message": str(error)[:600],
        }
