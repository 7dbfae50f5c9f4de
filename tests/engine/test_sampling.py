"""The next token: greedy or drawn, within what the parameters allow, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.engine.sampling import TOP_P_CANDIDATES, Sampler, SamplingParams

logits_of_any_size = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32))


def params(**changes: Any) -> SamplingParams:
    return SamplingParams(max_tokens=9, **changes)


def drawn(logits: Any, n: int = 2_000, **changes: Any) -> Counter[int]:
    sampler = Sampler(params(**changes))
    return Counter(sampler.choose(np.asarray(logits, np.float32))[0] for _ in range(n))


@given(logits_of_any_size)
def test_without_temperature_the_likeliest_is_chosen_and_the_first_of_equals(logits):
    assert Sampler(params(temperature=0.0)).choose(logits)[0] == int(logits.argmax())


@given(logits_of_any_size, st.integers(0, 2**64 - 1), st.floats(0.01, 2), st.integers(0, 50), st.floats(0.01, 1))
def test_the_same_seed_draws_the_same_tokens(logits, seed, temperature, top_k, top_p):
    same = params(seed=seed, temperature=temperature, top_k=top_k, top_p=top_p)
    first, second = Sampler(same), Sampler(same)
    assert [first.choose(logits)[0] for _ in range(5)] == [second.choose(logits)[0] for _ in range(5)]


@given(logits_of_any_size, st.integers(0, 99), st.integers(1, 10))
def test_top_k_draws_only_the_k_likeliest(logits, seed, top_k):
    token, _ = Sampler(params(seed=seed, top_k=top_k)).choose(logits)
    assert (logits > logits[token]).sum() < top_k


def test_tokens_are_drawn_as_often_as_they_are_likely():
    counts = drawn(np.log([0.5, 0.3, 0.2]), 6_000, seed=4)
    # five standard deviations of a share of 6,000 draws
    assert [counts[token] / 6_000 for token in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.033)


def test_a_low_temperature_prefers_the_likeliest_and_a_tiny_one_takes_it():
    assert drawn([1.0, 0.0], temperature=0.2)[0] > 1_950
    assert drawn([1e4, 0.0, -1e4], temperature=1e-9) == {0: 2_000}


def test_top_p_draws_from_the_smallest_set_that_reaches_it():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert set(drawn(logits, top_p=0.79)) == {0, 1}
    assert set(drawn(logits, top_p=0.81)) == {0, 1, 2}
    assert set(drawn(logits, top_p=0.0001)) == {0}


def test_top_p_looks_at_the_whole_vocabulary_when_the_likeliest_few_are_not_enough():
    size = TOP_P_CANDIDATES * 4
    assert len(drawn(np.zeros(size), 4_000, top_p=0.9)) > TOP_P_CANDIDATES


def test_min_p_leaves_out_what_is_much_less_likely_than_the_likeliest():
    assert set(drawn(np.log([0.6, 0.3, 0.1]), min_p=0.3)) == {0, 1}


def test_a_bias_can_force_or_forbid_a_token():
    logits = np.zeros(4)
    assert set(drawn(logits, logit_bias={2: 100.0})) == {2}
    assert set(drawn(logits, logit_bias={2: -100.0})) == {0, 1, 3}


def test_penalties_make_repetition_less_likely():
    logits = np.array([1.0, 0.9, 0.8], np.float32)
    greedy = Sampler(params(temperature=0.0, presence_penalty=0.15))
    assert [greedy.choose(logits)[0] for _ in range(4)] == [0, 1, 0, 0]
    greedy = Sampler(params(temperature=0.0, frequency_penalty=0.25))
    assert [greedy.choose(logits)[0] for _ in range(4)] == [0, 1, 2, 0]


def test_logits_are_left_as_they_are():
    logits = np.array([1.0, 2.0], np.float32)
    Sampler(params(logit_bias={0: 5.0}, logprobs=1)).choose(logits)
    assert logits.tolist() == [1.0, 2.0]


def test_logprobs_are_of_the_model_not_of_the_temperature():
    _, told = Sampler(params(temperature=0.0, logprobs=2)).choose(np.log(np.array([0.1, 0.7, 0.2], np.float32)))
    assert told is not None
    assert told.chosen == pytest.approx(np.log(0.7))
    assert told.top == [(1, pytest.approx(np.log(0.7))), (2, pytest.approx(np.log(0.2)))]


def test_only_what_is_asked_for_needs_the_logits():
    assert params(temperature=0.0).only_best
    for more in ({"logprobs": 0}, {"logit_bias": {1: 1.0}}, {"temperature": 0.5}, {"presence_penalty": 1.0}):
        assert not params(**{"temperature": 0.0, **more}).only_best
