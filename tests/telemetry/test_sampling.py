"""What went wrong or took long is kept, of the rest a share, and never more than there is room for."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.outcome import Outcome
from penstock.telemetry.options import Sampling
from penstock.telemetry.sampling import ENOUGH, KEPT, LOOK_EVERY, TailSampler
from penstock.wire.trace_context import trace_id_of
from tests.telemetry.outcomes import OUTCOMES, STREAMED, like

NONE = Sampling(ratio=0.0)
HEX = "f" * 32


def verdict(outcome: Outcome, options: Sampling = NONE, *, flagged: bool = False) -> str:
    return TailSampler(options).decide(outcome, HEX, flagged)


def test_a_request_that_is_nothing_special_is_not_kept_but_for_its_share() -> None:
    assert verdict(STREAMED) == "no"
    assert verdict(STREAMED, Sampling(ratio=1.0)) == "ratio"


@pytest.mark.parametrize(
    ("outcome", "flagged", "why"),
    [
        (like(STREAMED, error="idle_timeout"), False, "error"),
        (STREAMED, True, "flagged"),
        (like(STREAMED, degraded=("max_tokens",)), False, "degraded"),
        (like(STREAMED, sampled=True), False, "caller"),
    ],
)
def test_what_is_special_is_kept_and_says_why(outcome: Outcome, flagged: bool, why: str) -> None:
    assert verdict(outcome, flagged=flagged) == why


def test_a_caller_can_be_left_out_of_it() -> None:
    assert verdict(like(STREAMED, sampled=True), Sampling(ratio=0.0, honour_caller=False)) == "no"


def test_a_stream_is_slow_by_its_first_token_and_another_answer_by_its_whole() -> None:
    options = Sampling(ratio=0.0, slow_ttft=0.5, slow_duration=5.0)
    assert verdict(like(STREAMED, first_token_after=0.51), options) == "slow"
    assert verdict(like(STREAMED, first_token_after=0.5, duration=60.0), options) == "no"
    assert verdict(like(STREAMED, stream=False, duration=5.1), options) == "slow"
    assert verdict(like(STREAMED, stream=False, first_token_after=1.0, duration=5.0), options) == "no"


def test_without_a_threshold_the_slowest_hundredth_of_a_model_is_kept_once_enough_is_known(rng: Random) -> None:
    sampler = TailSampler(Sampling(ratio=0.0, most_per_second=1e9))
    usual = [like(STREAMED, first_token_after=rng.uniform(0.1, 0.2)) for _ in range(ENOUGH + LOOK_EVERY)]
    assert {sampler.decide(outcome, HEX) for outcome in usual[: ENOUGH - 1]} == {"no"}
    for outcome in usual:
        sampler.decide(outcome, HEX)
    assert sampler.decide(like(STREAMED, first_token_after=0.4), HEX) == "slow"
    assert sampler.decide(like(STREAMED, first_token_after=0.15), HEX) == "no"
    assert sampler.decide(like(STREAMED, model="a slow one", first_token_after=9.0), HEX) == "no"


def test_what_is_usual_follows_a_model_that_has_become_slower() -> None:
    sampler = TailSampler(Sampling(ratio=0.0, most_per_second=1e9))
    for took in [0.1] * 1_000 + [1.0] * 5_000:
        last = sampler.decide(like(STREAMED, first_token_after=took), HEX)
    assert last == "no"


def test_when_everything_fails_only_so_many_are_kept_in_each_second_and_the_rest_by_their_share() -> None:
    sampler = TailSampler(Sampling(ratio=0.0, most_per_second=3))
    broken = like(STREAMED, error="idle_timeout")
    assert [sampler.decide(broken, HEX) for _ in range(5)] == ["error"] * 3 + ["capped"] * 2
    assert sampler.decide(like(broken, received_at=broken.received_at + 1), HEX) == "error"
    everyone = TailSampler(Sampling(ratio=1.0, most_per_second=0))
    assert everyone.decide(broken, HEX) == "ratio"


def test_two_gateways_draw_the_same_traces() -> None:
    ids = [trace_id_of(str(i)) for i in range(2_000)]
    drawn = [[TailSampler(Sampling(ratio=0.1)).decide(STREAMED, one) for one in ids] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert 140 < drawn[0].count("ratio") < 260


@given(st.lists(OUTCOMES, max_size=8), st.floats(0, 1))
def test_every_error_is_kept_while_there_is_room(outcomes: list[Outcome], ratio: float) -> None:
    sampler = TailSampler(Sampling(ratio=ratio, most_per_second=100))
    for outcome in outcomes:
        why = sampler.decide(outcome, outcome.trace_id or HEX)
        assert why in (*KEPT, "no")
        assert outcome.error is None or why == "error"
