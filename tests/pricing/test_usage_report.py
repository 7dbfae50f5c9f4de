"""A provider's report is read to the nano-dollar, or refused with the line that is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.request import Usage
from penstock.pricing.usage_report import NAMES, TOKENS, Reported, ReportError, read_report

NANOS = st.integers(0, 10**9)
LINES = st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 10**6), min_size=6, max_size=6), NANOS))


def csv_of(*lines):
    return "\n".join(lines).splitlines(keepends=True)


def test_a_csv_says_what_each_request_cost():
    lines = csv_of("\ufeffrequest_id,model,cost_nanos", "r1,gpt,12", "", "r2,gpt,0")
    assert read_report(lines) == [Reported("r1", None, 12), Reported("r2", None, 0)]


def test_json_lines_say_what_each_request_used():
    lines = ['{"request_id": "r1", "input_tokens": 5, "output_tokens": 7.0, "model": null}\n', "\n"]
    lines.append('{"request_id": "r2", "cached_tokens": 1, "cost": 0.000012345}')
    assert read_report(lines) == [Reported("r1", (5, 0, 0, 0, 7, 0), None), Reported("r2", (0, 1, 0, 0, 0, 0), 12_345)]


def test_columns_may_have_other_names():
    lines = csv_of("id,usd", "r1,$0.5", "r2,1.2e-05")
    told = read_report(lines, {"request_id": "id", "cost": "usd"})
    assert told == [Reported("r1", None, 500_000_000), Reported("r2", None, 12_000)]


def test_attempts_of_one_request_are_added_up_and_rounded_once():
    lines = csv_of("request_id,cost", *["r1,0.0000000004"] * 5)
    assert read_report(lines) == [Reported("r1", None, 2)]


def test_classes_of_tokens_are_those_of_the_ledger():
    assert Reported("r", (1, 2, 4, 8, 16, 32), None).usage == Usage(15, 48, 2, 12, 8, 32)
    assert Reported("r", None, 5).usage is None


@given(lines=LINES, as_json=st.booleans())
def test_nothing_that_is_reported_is_lost_or_counted_twice(lines, as_json):
    rows = [
        dict(zip(("request_id", *TOKENS, "cost_nanos"), (id, *tokens, nanos), strict=True))
        for id, tokens, nanos in lines
    ]
    if as_json:
        text = [json.dumps(row) + "\n" for row in rows]
    else:
        names = [name for name in NAMES if name != "cost"]
        text = csv_of(",".join(names), *(",".join(str(row[name]) for name in names) for row in rows))
    told = {one.request_id: one for one in read_report(text)}
    assert set(told) == {id for id, _, _ in lines}
    for id, one in told.items():
        mine = [line for line in lines if line[0] == id]
        assert one.nanos == sum(nanos for _, _, nanos in mine)
        assert one.tokens == tuple(map(sum, zip(*(tokens for _, tokens, _ in mine), strict=True)))


@given(nanos=NANOS)
def test_dollars_are_exact_however_they_are_written(nanos):
    dollars = nanos / 1e9
    told = read_report(csv_of("request_id,cost", f"r,{dollars:.9f}", f"s,{dollars!r}", f"t,{dollars:.9e}"))
    told += read_report([json.dumps({"request_id": "u", "cost": dollars})])
    assert [one.nanos for one in told] == [nanos] * 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("r2,x,", "line 3: input_tokens is a whole number, not 'x'"),
        ("r2,-1,", "line 3: input_tokens is a whole number, not '-1'"),
        ("r2,1.5,", "line 3: input_tokens is a whole number, not '1.5'"),
        (f"r2,{10**15},", "line 3: input_tokens is a whole number"),
        (f"r2,{10**13},", "what it says of 'r2' is too much for one request"),
        ("r2,,1/3", "line 3: cost is an amount of dollars, not '1/3'"),
        ("r2,,-1", "line 3: cost is an amount of dollars, not '-1'"),
        ("r2,,1e-999", "line 3: cost is an amount of dollars"),
        ("r2,,1e9", "what it says of 'r2' is too much for one request"),
        ("r2,,", "line 3: it says neither what 'r2' used nor what it cost"),
        (",1,1", "line 3: it has no 'request_id'"),
        ("r1,1,", "line 3: other lines about 'r1' say something else than this one"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line, why):
    with pytest.raises(ReportError) as told:
        read_report(csv_of("request_id,input_tokens,cost", "r1,1,1", line))
    assert why in str(told.value)


def test_a_line_that_is_no_json_is_told():
    with pytest.raises(ReportError, match="line 2: JSON"):
        read_report(['{"request_id": "r1", "cost": 1}\n', "{nonsense\n"])
    with pytest.raises(ReportError, match="it has no 'request_id'"):
        read_report(['{"request_id": null, "cost": true}\n'])
