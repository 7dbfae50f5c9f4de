import pytest

from penstock.core.fleet import Replica


def test_what_attempts_take_is_given_back():
    replica = Replica("r", "d")
    replica.started(1_100, 900)
    replica.started(600, 500)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (2, 1_700, 1_400)
    replica.first_token(900)
    replica.ended(1_100)
    replica.ended(600, 500)
    assert (replica.inflight, replica.inflight_tokens, replica.pending_tokens) == (0, 0, 0)


def test_an_end_without_a_start_is_a_bug_that_shows():
    with pytest.raises(AssertionError, match="r: more ends than starts"):
        Replica("r", "d").ended(5)
    with pytest.raises(AssertionError, match="r: more prompt tokens computed than sent"):
        Replica("r", "d").first_token(5)


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
