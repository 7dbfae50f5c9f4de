"""When requests are sent, what is measured of them, and what happens when they fail or somebody stops it."""

import msgspec
import pytest

from penstock.loadtest.run import LoadOptions
from penstock.loadtest.sample import Slo
from penstock.loadtest.summary import summary
from penstock.testing.fake_upstream import DONE, ROLE, STOP, TOKEN, USAGE, Script
from tests.loadtest.worlds import loaded

EVEN = {"kind": "constant", "rate": 10.0}
STEADY = Script(ttft=0.2, tokens=5, tpot=0.05)


def test_latencies_are_what_the_server_took():
    run, _ = loaded({"arrivals": EVEN, "requests": 20}, STEADY)
    result = summary(run, Slo())
    assert (result.requests, result.ok, result.failures) == (20, 20, {})
    assert result.ttft.at(50.0).value == pytest.approx(0.2)
    assert result.tpot.at(99.0).value == pytest.approx(0.05)
    assert result.itl.n == 20 * 4 and result.itl.mean == pytest.approx(0.05)
    assert result.e2e.largest == pytest.approx(0.4)
    assert result.output_tokens == 5 and result.output_counted


def test_an_open_loop_sends_on_time_however_slow_the_answers_are():
    run, _ = loaded({"arrivals": EVEN, "requests": 30}, Script(ttft=60.0))
    assert sorted(s.sent for s in run.samples) == pytest.approx([(i + 1) / 10 for i in range(30)])


def test_what_is_held_back_counts_from_when_it_was_meant_to_be_sent():
    one_second = Script(ttft=1.0)
    run, _ = loaded({"arrivals": EVEN, "requests": 20}, one_second, options=LoadOptions(max_in_flight=1))
    result = summary(run, Slo())
    assert run.held_back == 19
    assert result.ttft_from_sending.largest == pytest.approx(1.0)
    assert result.ttft.largest == pytest.approx(20 * 0.9 + 0.1, abs=0.01)
    assert result.sent_late.largest == pytest.approx(19 * 0.9, abs=0.01)


def test_a_closed_loop_never_has_more_in_flight_than_users():
    run, transport = loaded({"arrivals": {"kind": "users", "users": 3}, "requests": 30}, STEADY)
    times = sorted([(s.sent, 1) for s in run.samples] + [(s.ended, -1) for s in run.samples])
    in_flight, most = 0, 0
    for _, step in times:
        in_flight += step
        most = max(most, in_flight)
    assert most == 3
    assert len(transport.bodies) == 30
    assert run.seconds == pytest.approx(10 * 0.4)


def test_a_turn_carries_the_conversation_with_the_answers_that_were_given():
    tree = {"arrivals": {"kind": "users", "users": 1}, "turns": 3, "requests": 3, "shared_prefix": {"tokens": 50}}
    run, transport = loaded(tree, STEADY)
    one, two, three = (msgspec.json.decode(body)["messages"] for body in transport.bodies)
    assert [m["role"] for m in three] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert two[:2] == one and three[:4] == two
    assert two[2]["content"] == " hi" * 5
    assert [s.turn for s in run.samples] == [0, 1, 2]


def test_the_body_asks_for_the_length_that_was_wanted_and_has_what_was_given_besides():
    _, transport = loaded(
        {"arrivals": EVEN, "requests": 1, "output_tokens": 77}, STEADY, extra={"temperature": 0}, exact=True
    )
    body = msgspec.json.decode(transport.bodies[0])
    assert body["max_tokens"] == 77 and body["ignore_eos"] and body["temperature"] == 0
    assert body["stream"] and body["stream_options"] == {"include_usage": True}
    assert body["model"] == "tiny"


def test_each_tenant_shows_its_own_key_and_the_others_the_common_one():
    tree = [{"arrivals": EVEN, "requests": 1, "tenant": name} for name in ("a", "b")]
    _, transport = loaded(tree, STEADY, key="common", tenant_keys={"a": "of-a"})
    assert sorted(line for head in transport.heads for line in head.split(b"\r\n") if b"authoriz" in line) == [
        b"authorization: Bearer common",
        b"authorization: Bearer of-a",
    ]


def broken_stream(*events: bytes, end: str = "end") -> Script:
    return Script(steps=lambda fields: [(0.1, b"".join(events)), (0.1, end)])


@pytest.mark.parametrize(
    ("script", "failure", "said"),
    [
        (Script(status=503), "overloaded", "503: scripted 503"),
        (Script(status=429), "rate_limited", "429"),
        (Script(status=401), "auth", "401"),
        (Script(fault="connect"), "connect", ""),
        (Script(fault="reset"), "network", ""),
        (Script(tokens=9, cut_after=3), "truncated", "ended before"),
        (Script(tokens=9, cut_after=3, cut="reset"), "network", ""),
        (Script(tokens=9, cut_after=3, cut="stall"), "total_timeout", "within 30 s"),
        (broken_stream(ROLE, STOP, USAGE % (0, 9), DONE), "empty", "without a token"),
        (broken_stream(TOKEN, b'data: {"error":{"message":"out of memory"}}\n\n'), "server_error", "out of memory"),
        (broken_stream(b"data: <html>\n\n"), "bad_payload", "not a stream"),
    ],
)
def test_every_failure_has_a_class_and_the_words_of_the_first(script, failure, said):
    run, _ = loaded({"arrivals": EVEN, "requests": 3}, script, options=LoadOptions(timeout=30.0))
    result = summary(run, Slo(ttft=1.0))
    assert result.failures == {failure: 3}
    assert said in result.examples[failure]
    assert result.ok == 0 and result.good == 0.0 and result.ttft is None


def test_reasoning_and_tool_calls_are_tokens_too_and_comments_are_not():
    def piece(delta: bytes) -> bytes:
        return b'data: {"choices":[{"index":0,"delta":{%b}}]}\n\n' % delta

    script = Script(
        steps=lambda fields: [
            (0.1, ROLE),
            (0.1, b": ping\n\n"),
            (0.1, piece(b'"reasoning_content":"hm"')),
            (0.1, piece(b'"tool_calls":[{"index":0}]')),
            (0.1, STOP + DONE),
            (0.0, "end"),
        ]
    )
    run, _ = loaded({"arrivals": {"kind": "users", "users": 1}, "requests": 1}, script)
    (sample,) = run.samples
    assert sample.first == pytest.approx(0.3) and sample.last == pytest.approx(0.4)
    assert sample.ended == pytest.approx(0.5)
    assert sample.pieces == 2 and not sample.counted and sample.output_tokens == 2


def test_the_warm_up_is_sent_and_not_measured():
    run, _ = loaded({"arrivals": EVEN, "duration": "10s"}, STEADY, options=LoadOptions(warm_up=4.0))
    result = summary(run, Slo())
    assert result.warm_up_requests == 39 and result.requests == 61
    assert result.itl.n == result.ok * 4
    assert result.seconds == pytest.approx(10.4 - 4.0)


def test_stopping_keeps_what_was_measured_and_lets_go_of_the_rest():
    run, transport = loaded({"arrivals": EVEN, "duration": "1h"}, Script(ttft=2.0), stop_at=5.05)
    result = summary(run, Slo())
    assert run.stopped and run.seconds == pytest.approx(5.05)
    assert result.ok == 30 and result.unfinished == 20 and not result.failures
    assert all(call.closed or call.finished for call in transport.calls)


def test_a_user_goes_on_after_a_failure():
    answers = iter([503, 200, 200])

    def steps(fields):
        status = next(answers)
        return [(0.5, "reset")] if status == 503 else [(0.5, TOKEN + STOP + DONE), (0.0, "end")]

    run, _ = loaded({"arrivals": {"kind": "users", "users": 1}, "turns": 2, "requests": 3}, Script(steps=steps))
    assert [(s.failure, s.turn) for s in run.samples] == [("network", 0), ("", 0), ("", 1)]


def test_goodput_counts_what_met_every_bound():
    run, _ = loaded({"arrivals": EVEN, "requests": 10}, STEADY)
    assert summary(run, Slo(ttft=0.21, tpot=0.051, e2e=0.41)).good == 1.0
    for slo in (Slo(ttft=0.19), Slo(tpot=0.049), Slo(e2e=0.39)):
        assert summary(run, slo).good == 0.0
    assert summary(run, Slo()).good is None


def test_nothing_to_send_is_a_run_of_nothing():
    run, _ = loaded({"arrivals": {"kind": "users", "users": 1}, "duration": "0s", "start": "0s", "requests": 1}, STEADY)
    assert len(run.samples) == 1
    none, _ = loaded({"arrivals": EVEN, "duration": "0s"}, STEADY)
    result = summary(none, Slo(ttft=1.0))
    assert result.requests == 0 and result.ttft is None and result.good is None
