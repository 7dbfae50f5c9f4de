"""What callers have chosen to write, made fit to be kept: it may be a key in the wrong field, or endless."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from penstock.core.outcome import Outcome
from penstock.telemetry.redact import redact

MAX_NAME: Final = 128  # characters of a model name that are kept


def fit_to_keep(outcome: Outcome) -> Outcome:
    """The receipt for logs and traces; the same one where there is nothing to change, as nearly always."""
    if not outcome.attempts or len(outcome.model) > MAX_NAME:
        model = redact(outcome.model[: MAX_NAME * 4])
        outcome = structs.replace(outcome, model=model if len(model) <= MAX_NAME else model[:MAX_NAME] + "...")
    if outcome.feature or outcome.session or outcome.tags or outcome.prompt_version or outcome.context:
        feature, session, version = map(redact, (outcome.feature, outcome.session, outcome.prompt_version))
        tags, context = tuple(map(redact, outcome.tags)), tuple(map(redact, outcome.context))
        said = (outcome.feature, outcome.session, outcome.prompt_version, outcome.tags, outcome.context)
        if (feature, session, version, tags, context) != said:
            outcome = structs.replace(
                outcome, feature=feature, session=session, prompt_version=version, tags=tags, context=context
            )
    return outcome
