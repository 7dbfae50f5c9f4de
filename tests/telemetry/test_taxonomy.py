"""Every error that a caller can be told has its nature."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import penstock.engine
import penstock.gateway
import penstock.http
from penstock.balancing.queue_values import Reason
from penstock.core.errors import FailureKind, LimitExceeded, PenstockError, QueueRefused, UpstreamFailed
from penstock.resilience.failures import CONSEQUENCES, NATURES, Blame, Lasting
from penstock.telemetry.taxonomy import LIMITS, OF_CODES, REFUSALS, UNKNOWN_NATURE, nature_of, refusal_signal
from penstock.wire.canonical import FinishReason

HAVE_NO_CODE_OF_THEIR_OWN = (PenstockError, LimitExceeded, QueueRefused, UpstreamFailed)


def errors(of: type[PenstockError] = PenstockError) -> Iterator[type[PenstockError]]:
    yield of
    for below in of.__subclasses__():
        yield from errors(below)


def test_every_error_that_is_defined_is_in_the_table() -> None:
    for room in (penstock.gateway, penstock.http, penstock.engine):  # where errors of their own are defined
        for module in pkgutil.iter_modules(room.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{room.__name__}.{module.name}")
    codes = {one.code for one in errors() if one.__module__.startswith("penstock.")}
    assert codes - set(OF_CODES) == set()


def test_codes_that_are_chosen_when_they_are_raised_are_in_the_table_too() -> None:
    assert {reason.value for reason in Reason} | {"shed", "client_left"} <= set(OF_CODES)
    assert set(OF_CODES) >= LIMITS
    assert set(OF_CODES) >= REFUSALS


@pytest.mark.parametrize("kind", FailureKind)
def test_what_a_caller_is_told_of_a_failed_attempt_has_the_nature_of_that_failure(kind: FailureKind) -> None:
    assert nature_of(CONSEQUENCES[kind].code) == NATURES[kind]


def test_a_limit_passes_and_is_the_callers_while_a_full_queue_is_ours() -> None:
    assert (nature_of("token_rate_limit").lasting, nature_of("token_rate_limit").blame) == (
        Lasting.TRANSIENT,
        Blame.CALLER,
    )
    assert nature_of("queue_full").blame is Blame.SYSTEM
    assert nature_of("a code that nobody has heard of") is UNKNOWN_NATURE


@pytest.mark.parametrize(
    ("finish_reason", "error", "signal"),
    [
        ("stop", None, ""),
        (None, None, ""),
        ("content_filter", None, "content_filter"),
        ("refusal", None, "refusal"),
        (FinishReason.REFUSAL, None, "refusal"),
        (None, "content_policy_violation", "content_policy_violation"),
        ("length", "idle_timeout", ""),
    ],
)
def test_a_receipt_says_whether_a_model_would_not_answer(
    finish_reason: str | None, error: str | None, signal: str
) -> None:
    assert refusal_signal(finish_reason, error) == signal
