import pytest

from penstock.balancing.policies import running_at
from penstock.core.fleet import Replica


def test_what_attempts_take_is_given_back():
    replica = Replica("r", "d")
    replica.started(1_100, 900, 0.0)
    replica.started(600, 500, 0.0)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (2, 1_700, 1_400)
    replica.first_token(900, 1.0)
    replica.ended(1_100, 0, 1.0)
    replica.ended(600, 500, 1.0)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (0, 0, 0)


def test_an_end_without_a_start_is_a_bug_that_shows():
    with pytest.raises(AssertionError, match="r: more ends than starts"):
        Replica("r", "d").ended(5, 0, 0.0)
    with pytest.raises(AssertionError, match="r: more prompt tokens computed than sent"):
        Replica("r", "d").first_token(5, 0.0)


def test_a_report_without_capacities_leaves_those_that_were_known():
    replica = Replica("r", "d")
    replica.reported(waiting=3, running=9, kv_used=0.5, kv_tokens=500_000, max_running=256)
    replica.reported(waiting=0, running=1, kv_used=0.1)
    assert (replica.kv_tokens, replica.max_running, replica.waiting) == (500_000, 256, 0)


def test_a_shorter_request_to_be_left_alone_does_not_shorten_a_longer_one():
    replica = Replica("r", "d")
    replica.cool(10.0, rate_limited=False)
    replica.cool(5.0, rate_limited=True)
    assert (replica.cool_until, replica.rate_limited) == (10.0, True)


def test_what_waits_is_computed_in_order_and_as_time_goes_by():
    replica = Replica("r", "d", prefill_rate=1_000.0, step_base=0.0, itl_slope=0.0)
    assert replica.prefill_wait(10.0) == 0.0
    replica.started(3_000, 3_000, 10.0)
    replica.started(1_000, 1_000, 11.0)
    assert replica.prefill_wait(11.0) == pytest.approx(3.0)
    assert replica.prefill_wait(13.0) == pytest.approx(1.0), "the first one should be done by now"
    assert replica.prefill_wait(20.0) == pytest.approx(1.0 + 7.0), "it is late, and so will be what comes next"
    replica.first_token(3_000, 20.0)
    assert replica.prefill_wait(20.0) == pytest.approx(1.0), "it was slower, and the second only begins now"
    replica.ended(1_000, 1_000, 20.5)
    assert replica.prefill_wait(20.5) == 0.0


def test_short_prompts_may_be_computed_in_one_step_before_any_has_its_first_token():
    replica = Replica("r", "d", prefill_rate=1_000.0, step_base=0.25, itl_slope=0.0)
    for _ in range(3):
        replica.started(500, 500, 0.0)
    assert replica.prefill_wait(1.0) == pytest.approx(0.5)
    assert replica.prefill_wait(1.5) == 0.0
    assert replica.prefill_wait(1.75) == 0.0, "a step takes time too"
    assert replica.prefill_wait(2.0) == pytest.approx(0.25)


def test_a_replica_that_says_nothing_fills_up_and_never_drains():
    replica = Replica("r", "d", prefill_rate=1_000.0)
    for number in range(20):
        replica.started(1_000, 1_000, number * 1.0)
    assert replica.prefill_wait(30.0) > 17.0 + 27.0


def test_a_prompt_behind_one_that_is_late_begins_no_earlier_than_it_came():
    replica = Replica("r", "d", prefill_rate=1_000.0)
    replica.started(1_000, 1_000, 0.0)
    replica.started(3_000, 3_000, 10.0)
    assert replica.prefill_wait(10.0) >= 3.0


def test_a_report_is_believed_about_others_and_ours_are_counted_as_they_come_and_go():
    replica = Replica("r/0", "r", max_running=8)
    for _ in range(8):
        replica.started(100, 10, 0.0)
    replica.reported(waiting=2, running=8, kv_used=0.5)
    assert (replica.others_running, replica.others_waiting) == (0, 2), "eight are ours, and two somebody else's"
    for _ in range(6):
        replica.first_token(10, 1.0)
        replica.ended(100, 0, 1.0)
    assert running_at(replica) == 2, "the report is old"
    replica.reported(waiting=0, running=5, kv_used=0.5)
    assert (running_at(replica), replica.others_waiting) == (5, 0)
    replica.reported(waiting=0, running=1, kv_used=0.5)
    assert running_at(replica) == 2, "one was on its way to it"
