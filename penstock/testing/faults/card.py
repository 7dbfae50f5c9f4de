"""The score card: for the terminal, as JSON, and as a table that sets several gateways side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from penstock.testing.faults.run import Mark
from penstock.testing.faults.scenarios import Scenario, Wall

CALLERS: Final = ("openai-stream", "openai-plain", "anthropic-stream", "anthropic-plain")
_WIDTH: Final = 72


class Card(msgspec.Struct, frozen=True):
    """What one gateway was given. `gateway` is its name and, where known, its version."""

    gateway: str
    marks: list[Mark]

    @property
    def n_right(self) -> int:
        return sum(mark.wrong is None for mark in self.marks)

    def of(self, row: str) -> list[Mark]:
        return [mark for mark in self.marks if mark.row == row]


def text(card: Card, wall: Wall) -> str:
    """Rows and cells for a terminal; what is wrong is told below."""
    vias = list(dict.fromkeys(mark.via for mark in card.marks))
    columns = [(via, caller) for via in vias for caller in CALLERS]
    short = {"openai-stream": "oS", "openai-plain": "oP", "anthropic-stream": "aS", "anthropic-plain": "aP"}
    lines = [
        f"{card.gateway}: callers of OpenAI's (o) and Anthropic's (a) dialect, stream (S) and plain (P)",
        "",
        " " * _WIDTH + "".join(f" {via + ' upstream':<{len(CALLERS) * 3}}" for via in vias),
        " " * _WIDTH + "".join(f" {short[caller]}" for _, caller in columns),
    ]
    for heading, scenarios in wall.items():
        lines += ["", heading]
        for scenario in scenarios:
            by_column = {(mark.via, mark.caller): mark for mark in card.of(scenario.name)}
            if by_column:
                cells = "".join(f" {_sign(by_column.get(column))}" for column in columns)
                lines.append(f"  {scenario.title[: _WIDTH - 3]:.<{_WIDTH - 2}}{cells}")
    wrong = [mark for mark in card.marks if mark.wrong is not None]
    if wrong:
        lines += ["", "What is wrong:"]
        lines += [f"  {mark.row} ({mark.caller} via {mark.via}): {mark.wrong}" for mark in wrong]
    lines += ["", f"{card.n_right} of {len(card.marks)} cells are right."]
    return "\n".join(lines) + "\n"


def _sign(mark: Mark | None) -> str:
    if mark is None:
        return " -"
    return "ok" if mark.wrong is None else "NO"


def as_json(card: Card) -> str:
    """A line for each mark, so that two runs can be compared."""
    marks = ",\n".join(f"    {msgspec.json.encode(mark).decode()}" for mark in card.marks)
    return f'{{\n  "gateway": {msgspec.json.encode(card.gateway).decode()},\n  "marks": [\n{marks}\n  ]\n}}\n'


def markdown(cards: Sequence[Card], wall: Wall) -> str:
    """One table for each heading; a column for each gateway."""
    head = f"| the upstream (or the caller) | what the caller should get | {' | '.join(c.gateway for c in cards)} |"
    totals = " | ".join(f"**{card.n_right} of {len(card.marks)}**" for card in cards)
    lines = [head, "|---" * (2 + len(cards)) + "|", f"| all cells | | {totals} |", ""]
    for heading, scenarios in wall.items():
        lines += [f"### {heading}", "", head, "|---" * (2 + len(cards)) + "|"]
        lines += _rows(cards, scenarios)
        lines.append("")
    return "\n".join(lines)


def _rows(cards: Sequence[Card], scenarios: Sequence[Scenario]) -> Iterator[str]:
    for scenario in scenarios:
        if scenario.only is None:
            cells = " | ".join(_summary(card.of(scenario.name)) for card in cards)
            yield f"| {scenario.title} | {scenario.right.says} | {cells} |"


def _summary(marks: Sequence[Mark]) -> str:
    if not marks:
        return "-"
    reasons = Counter(mark.wrong for mark in marks if mark.wrong is not None)
    if not reasons:
        return "ok"
    n_right = len(marks) - reasons.total()
    told = "; ".join(reason.replace("|", "\\|") for reason, _ in reasons.most_common(3))
    return f"{n_right} of {len(marks)}: {told}"
