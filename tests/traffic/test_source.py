"""Sessions, users, mixes and limits."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.traffic.options import read
from penstock.traffic.source import Source
from tests.traffic.worlds import arrivals, traced

EVEN = {"kind": "constant", "rate": 1.0}


def test_the_same_seed_gives_the_same_traffic_and_another_one_another():
    tree = {"arrivals": {"kind": "poisson", "rate": 9}, "turns": {"kind": "geometric", "mean": 3}, "duration": "20s"}
    assert arrivals(tree) == arrivals(tree)
    assert arrivals(tree) != arrivals(tree, seed=2)


def test_what_sessions_ask_does_not_depend_on_how_fast_they_are_answered():
    tree = {
        "arrivals": {"kind": "poisson", "rate": 9},
        "turns": {"kind": "geometric", "mean": 4},
        "prompt_tokens": {"kind": "lognormal", "median": 300, "p95": 2000},
        "duration": "60s",
    }

    def asked(answer):
        return {(a.session, a.turn): (a.prompt_tokens, a.prefix_hashes) for a in arrivals(tree, answer=answer)}

    fast, slow = asked(0.1), asked(30.0)
    assert len(fast) > 1_000
    assert slow.items() <= fast.items()


def test_longer_prompts_do_not_come_at_other_times():
    def times(tokens):
        tree = {"arrivals": {"kind": "gamma", "rate": 9}, "prompt_tokens": tokens, "requests": 100}
        return [a.at for a in arrivals(tree)]

    assert times(5) == times({"kind": "pareto", "min": 5})


def test_a_turn_comes_after_its_answer_and_some_thought_and_repeats_what_was_said():
    tree = {
        "arrivals": EVEN,
        "turns": 3,
        "think": "5s",
        "think_cv": 0,
        "prompt_tokens": 600,
        "output_tokens": 200,
        "shared_prefix": {"tokens": 1024},
        "duration": "20s",
    }
    one, two, three = (a for a in arrivals(tree, answer=2.0) if a.session == "0-1")
    assert [a.turn for a in (one, two, three)] == [0, 1, 2]
    assert [a.at for a in (one, two, three)] == [1.0, 8.0, 15.0]
    assert [a.prompt_tokens for a in (one, two, three)] == [1624, 2424, 3224]
    assert {a.new_tokens for a in (one, two, three)} == {600}
    # 1,624 tokens are three full blocks of 512 and one that is begun
    assert two.prefix_hashes[:3] == one.prefix_hashes[:3]
    assert two.prefix_hashes[3] != one.prefix_hashes[3]
    assert three.prefix_hashes[:4] == two.prefix_hashes[:4]
    assert two.prefix_tokens == (512, 1024, 1536, 2048, 2424)


def test_prompts_are_alike_as_far_as_they_share_a_system_prompt_and_no_further():
    tree = {"arrivals": EVEN, "shared_prefix": {"tokens": 1100, "prompts": 2}, "prompt_tokens": 500, "requests": 40}
    given_out = arrivals(tree)
    groups = {shared: [a for a in given_out if a.shared == shared] for shared in {a.shared for a in given_out}}
    assert len(groups) == 2
    for group in groups.values():
        assert len({a.prefix_hashes[:2] for a in group}) == 1  # 1,024 of the 1,100 tokens
        assert len({a.prefix_hashes[2] for a in group}) == len(group)
    first, second = groups.values()
    assert first[0].prefix_hashes[0] != second[0].prefix_hashes[0]


def test_a_skew_makes_one_system_prompt_the_most_popular():
    tree = {"arrivals": EVEN, "shared_prefix": {"tokens": 9, "prompts": 3, "skew": 1}, "requests": 6_000}
    counts = sorted((sum(a.shared == i for a in arrivals(tree)) for i in range(3)), reverse=True)
    assert counts == pytest.approx([6_000 * 6 / 11, 6_000 * 3 / 11, 6_000 * 2 / 11], rel=0.1)


def test_workloads_never_share_a_prefix():
    one = {"arrivals": EVEN, "shared_prefix": {"tokens": 1024}, "requests": 50}
    given_out = arrivals([one | {"tenant": "a"}, one | {"tenant": "b"}])
    a, b = ({h for x in given_out if x.tenant == tenant for h in x.prefix_hashes} for tenant in "ab")
    assert a and b and not a & b
    assert len({x.shared for x in given_out}) == 2


def test_a_mix_is_in_the_order_of_time_and_a_workload_begins_when_it_should():
    late = {"arrivals": {"kind": "constant", "rate": 10.0}, "tenant": "late", "start": "20s", "duration": "5s"}
    given_out = arrivals([{"arrivals": EVEN, "duration": "30s"}, late])
    assert [a.at for a in given_out] == sorted(a.at for a in given_out)
    assert [a.number for a in given_out] == list(range(len(given_out)))
    assert [a.at for a in given_out if a.tenant == "late"] == pytest.approx([20 + i / 10 for i in range(1, 51)])


def test_speed_makes_arrivals_closer_and_thought_no_shorter():
    tree = {"arrivals": EVEN, "turns": 2, "think": "5s", "think_cv": 0, "requests": 4, "speed": 4.0}
    assert sorted(a.at for a in arrivals(tree, answer=1.0))[:3] == [0.25, 0.5, 0.75]
    assert [a.at for a in arrivals(tree | {"requests": 60}, answer=1.0) if a.session == "0-1"] == [0.25, 6.25]


def test_users_wait_for_their_answers():
    tree = {"arrivals": {"kind": "users", "users": 3, "ramp": "3s"}, "think": "2s", "think_cv": 0, "requests": 9}
    given_out = arrivals(tree, answer=4.0)
    assert [a.at for a in given_out] == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert len({a.prefix_hashes for a in given_out}) == 9


def test_a_user_goes_through_sessions_one_after_another():
    tree = {"arrivals": {"kind": "users", "users": 1}, "turns": 3, "requests": 7}
    assert [(a.session, a.turn) for a in arrivals(tree)] == [
        ("0-1", 0), ("0-1", 1), ("0-1", 2), ("0-2", 0), ("0-2", 1), ("0-2", 2), ("0-3", 0),
    ]  # fmt: skip


def test_after_a_failure_the_session_is_over_and_its_user_begins_another():
    broken = {"ok": lambda arrival: arrival.turn == 0}
    session = {"turns": 3, "requests": 6}
    users = arrivals({"arrivals": {"kind": "users", "users": 1}} | session, **broken)
    assert [(a.session, a.turn) for a in users] == [(f"0-{n}", turn) for n in (1, 2, 3) for turn in (0, 1)]
    alone = arrivals({"arrivals": EVEN, "duration": "9s", "turns": 3}, **broken)
    assert {a.turn for a in alone} == {0, 1}


def test_nothing_comes_after_the_duration():
    tree = {"arrivals": {"kind": "users", "users": 2}, "think": "1s", "duration": "10s"}
    assert 9 <= max(a.at for a in arrivals(tree, answer=0.01)) <= 10


@given(
    st.integers(1, 200),
    st.sampled_from([EVEN, {"kind": "users", "users": 7}, {"kind": "weibull", "rate": 20, "cv": 4}]),
    st.sampled_from([1, 3, {"kind": "geometric", "mean": 2}]),
    st.floats(0, 50),
)
def test_there_are_never_more_requests_than_wanted_and_as_many_where_nothing_else_ends_them(n, process, turns, answer):
    assert len(arrivals({"arrivals": process, "turns": turns, "requests": n}, answer=answer)) == n


@given(st.integers(16, 3_000), st.integers(1, 5_000), st.integers(1, 5_000), st.integers(1, 8), st.integers(16, 600))
def test_prompt_and_answer_fit_the_context_and_hashes_cover_the_prompt(context, prompt, output, turns, block):
    tree = {
        "arrivals": EVEN,
        "context_tokens": context,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "turns": turns,
        "block_tokens": block,
        "requests": 10,
    }
    for a in arrivals(tree):
        assert a.prompt_tokens >= 1 and a.output_tokens >= 1
        assert a.prompt_tokens + a.output_tokens <= context
        assert len(a.prefix_hashes) == len(a.prefix_tokens) == -(-a.prompt_tokens // block)
        assert a.prefix_tokens[-1] == a.prompt_tokens
        assert list(a.prefix_tokens[:-1]) == [block * (i + 1) for i in range(len(a.prefix_tokens) - 1)]


def test_only_what_something_follows_from_is_remembered():
    source = Source(read({"arrivals": EVEN, "turns": 2, "requests": 100}), traced({}), Random(1))
    first, second = source.next(), source.next()
    assert source.n_awaited == 2
    follow = source.ended(first, 5.0)
    assert source.n_awaited == 1, "nothing follows from a last turn"
    assert source.ended(follow, 6.0) is None
    assert source.ended(follow, 7.0) is None
    source.ended(second, 7.0, ok=False)
    assert source.n_awaited == 0
