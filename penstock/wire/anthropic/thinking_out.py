"""How hard to think, in the words that a model has for it: an effort, a budget, both, or neither.

Source: https://platform.claude.com/docs/en/build-with-claude/thinking and /effort.
"""

from __future__ import annotations

from typing import Final

from penstock.wire.anthropic.claude import BUDGETS, Claude, effort_of_budget, nearest_effort
from penstock.wire.canonical import Ask, Losses, Reasoning

ROOM: Final = 4096  # tokens for the answer itself, where the caller gave a budget for thinking and no maximum


class ThinkingOut:
    """How hard to think, in the words of the model; and the maximum, which must leave room for it."""

    def __init__(self, ask: Ask, model: Claude, losses: Losses, thoughts_are_missing: bool) -> None:
        self.config: dict[str, object] | None = None
        self.effort: str | None = None
        self.max_tokens = ask.max_tokens or model.max_tokens
        wanted = ask.reasoning
        if wanted is None:
            pass
        elif wanted.off or wanted.effort == "none":
            self._off(wanted, model, losses)
        elif model.budget and not (model.adaptive and wanted.budget is None):
            budget = self._budget(wanted, ask, model, losses)
            if budget is not None and thoughts_are_missing:
                losses.lose("reasoning", "the thoughts behind the last tool calls are not this model's own")
            elif budget is not None:
                self.config = {"type": "enabled", "budget_tokens": budget}
        elif model.adaptive:
            self.config = {"type": "adaptive"}
            effort = wanted.effort or (None if wanted.budget is None else effort_of_budget(wanted.budget))
            self.effort = None if effort is None else nearest_effort(effort, model.efforts)
        else:
            losses.lose("reasoning", "this model does not think aloud")
        if self.config is not None and self.on and wanted is not None and wanted.show is not None:
            self.config["display"] = "summarized" if wanted.show else "omitted"

    @property
    def on(self) -> bool:
        return self.config is not None and self.config["type"] in ("enabled", "adaptive")

    def _off(self, wanted: Reasoning, model: Claude, losses: Losses) -> None:
        effort = wanted.effort if wanted.effort != "none" else None
        if model.off is None:
            losses.lose("reasoning", "this model always thinks")
            self.effort = effort or model.efforts[0]
            return
        if model.budget or model.adaptive:
            self.config = {"type": model.off}
        if effort is not None and model.efforts:
            self.effort = nearest_effort(effort, model.off_with if model.adaptive else model.efforts)

    def _budget(self, wanted: Reasoning, ask: Ask, model: Claude, losses: Losses) -> int | None:
        if wanted.effort is not None and model.efforts:
            self.effort = nearest_effort(wanted.effort, model.efforts)
        budget = wanted.budget
        if budget is None:
            if wanted.effort is None:
                return None  # the model decides, and this one decides not to
            budget = BUDGETS.get(wanted.effort, BUDGETS["medium"])
            if ask.max_tokens is not None:
                budget = min(budget, ask.max_tokens // 2)
        budget = max(BUDGETS["minimal"], budget)
        if ask.max_tokens is None:
            self.max_tokens = max(self.max_tokens, budget + ROOM)
        elif budget >= ask.max_tokens:
            losses.lose("reasoning", f"`max_tokens` leaves no room for {budget} tokens of thinking")
            return None
        return budget
