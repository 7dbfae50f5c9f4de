"""What callers have chosen to write, made fit to be kept: it may be a key in the wrong field, or endless."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from penstock.core.outcome import Outcome
from penstock.telemetry.redact import redact, suspicious

SHORT: Final = 20  # characters: what is shorter and only letters and digits is none of the secrets that can be told
MAX_NAME: Final = 128  # characters of a model name that are kept


def fit_to_keep(outcome: Outcome) -> Outcome:
    """The receipt for logs and traces; the same one where there is nothing to change, as nearly always."""
    if not outcome.attempts or len(outcome.model) > MAX_NAME:
        model = redact(outcome.model[: MAX_NAME * 4])
        outcome = structs.replace(outcome, model=model if len(model) <= MAX_NAME else model[:MAX_NAME] + "...")
    words = (outcome.feature, outcome.session, outcome.prompt_version, *outcome.tags, *outcome.context)
    for word in words:
        if word and not (len(word) < SHORT and word.isalnum()) and suspicious(word):
            return structs.replace(
                outcome,
                feature=redact(outcome.feature),
                session=redact(outcome.session),
                prompt_version=redact(outcome.prompt_version),
                tags=tuple(map(redact, outcome.tags)),
                context=tuple(map(redact, outcome.context)),
            )
    return outcome
