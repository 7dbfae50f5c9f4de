"""Recorded traffic, small ones by hand and the public ones when they are here."""

from pathlib import Path

import pytest

from penstock.traffic.options import TrafficError
from tests.traffic.worlds import arrivals

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
MOONCAKE = """\
{"timestamp": 3000, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 512, "output_length": 6, "hash_ids": [0]}
{"timestamp": 9000, "input_length": 1300, "output_length": 7, "hash_ids": [0, 1, 7]}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
CLIENT = "0,0,0,,0,0\n600,2,1.1,Gamma,0.8,0.6\n1200,0.5,,,0,0\n1800,1,2,Weibull,0.5,1\n"


def trace(format, text, **more):
    tree = {"arrivals": {"kind": "trace", "format": format, "file": "t"} | more.pop("trace", {})}
    return arrivals(tree | more, files={"t": text})


def test_a_mooncake_trace_is_replayed_with_its_own_prefixes():
    one, two, three = trace("mooncake", MOONCAKE)
    assert [a.at for a in (one, two, three)] == [0.0, 0.0, 6.0]
    assert (one.prompt_tokens, one.output_tokens, one.prefix_hashes) == (700, 5, (0, 1))
    assert three.prefix_tokens == (512, 1024, 1300)
    assert one.session == "" and one.shared == -1 and one.new_tokens == 700


def test_an_azure_trace_keeps_its_times_to_the_microsecond():
    one, two = trace("azure", AZURE)
    assert (one.at, two.at) == (0.0, pytest.approx(4.314579))
    assert (two.prompt_tokens, two.output_tokens) == (396, 109)


def test_a_trace_can_be_faster_begin_later_and_end_earlier():
    assert [a.at for a in trace("mooncake", MOONCAKE, speed=1.5)] == [0.0, 0.0, 4.0]
    assert [a.at for a in trace("mooncake", MOONCAKE, trace={"skip": "1s"})] == [5.0]
    assert len(trace("mooncake", MOONCAKE, requests=1)) == 1
    assert len(trace("mooncake", MOONCAKE, duration="5s")) == 2


def test_a_trace_that_two_tenants_replay_is_not_shared_between_them():
    one = {"arrivals": {"kind": "trace", "format": "mooncake", "file": "t"}}
    given_out = arrivals([one | {"tenant": "a"}, one | {"tenant": "b"}], files={"t": MOONCAKE})
    a, b = ({h for x in given_out if x.tenant == tenant for h in x.prefix_hashes} for tenant in "ab")
    assert len(a) == len(b) == 3 and not a & b


def test_the_rates_of_a_client_are_met():
    given_out = trace("servegen", CLIENT, prompt_tokens=7)
    counts = [sum(600 * i <= a.at < 600 * (i + 1) for a in given_out) for i in range(4)]
    assert counts[0] == 0
    assert counts[1:] == [pytest.approx(1_200, rel=0.15), pytest.approx(300, rel=0.25), pytest.approx(600, rel=0.3)]
    assert {a.prompt_tokens for a in given_out} == {7}


def test_each_client_of_a_folder_is_a_tenant():
    tree = {"arrivals": {"kind": "trace", "format": "servegen", "file": "d/", "skip": "20m"}, "tenant": "team"}
    given_out = arrivals(tree, files={"d/0.csv": CLIENT, "d/1.csv": CLIENT})
    assert {a.tenant for a in given_out} == {"team-0", "team-1"}
    assert [a.at for a in given_out] == sorted(a.at for a in given_out)
    assert given_out[-1].at <= 1_200


def test_lengths_can_be_those_of_a_trace_and_stay_together():
    tree = {"arrivals": {"kind": "poisson", "rate": 1}, "lengths": {"file": "t", "format": "azure"}, "requests": 50}
    pairs = {(a.prompt_tokens, a.output_tokens) for a in arrivals(tree, files={"t": AZURE})}
    assert pairs == {(374, 44), (396, 109)}


@pytest.mark.parametrize(
    ("format", "text", "told"),
    [
        ("mooncake", '{"timestamp": 1}\n', "t:1: is not a Mooncake request"),
        ("mooncake", MOONCAKE + MOONCAKE, "t:4: comes before the line above it"),
        ("mooncake", '{"timestamp":0,"input_length":2000,"output_length":1,"hash_ids":[1]}', "do not cover"),
        ("azure", MOONCAKE, "t:1: is not an Azure trace; its first line must name ContextTokens, Gener"),
        ("azure", AZURE + "yesterday,1,2\n", "t:4: is not a request"),
        ("azure", AZURE + "2023-11-17 00:00:00,1\n", "t:4: is not a request"),
        ("servegen", "0,1\n", "t:1: is not a row of"),
        ("servegen", CLIENT + "1800,1,2,Weibull,0.5,1\n", "t:5: comes before the row above it"),
        ("servegen", "0,1,1,Cauchy,1,1\n", "t:1: the family must be Gamma or Weibull"),
    ],
)
def test_what_is_wrong_with_a_trace_is_told_with_its_line(format, text, told):
    with pytest.raises(TrafficError) as error:
        trace(format, text)
    assert told in str(error.value)


@pytest.mark.skipif(not TRACES.exists(), reason="the public traces are not beside this repository (../shared/data)")
def test_the_public_traces_are_read_whole():
    def replay(format, path, **more):
        tree = {"arrivals": {"kind": "trace", "format": format, "file": "t"}} | more
        return arrivals(tree, most=100_000, files={"t": path.read_text()})

    chat = replay("mooncake", TRACES / "mooncake" / "conversation_first_half.jsonl")
    assert len(chat) == 6_015 and sum(a.prompt_tokens for a in chat) / len(chat) == pytest.approx(12_781, abs=1)
    azure = replay("azure", TRACES / "azure" / "AzureLLMInferenceTrace_conv.csv")
    assert len(azure) == 19_366
    client = replay("servegen", TRACES / "servegen" / "m-small" / "chunk-8-trace.csv", duration="10d", requests=50)
    assert len(client) == 50
