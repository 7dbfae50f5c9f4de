"""Prompts are as long as wanted and as alike as wanted."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.loadtest.prompts import WORDS, Fit, Prompts, fitted, probe
from penstock.loadtest.target import address
from penstock.traffic.options import read
from penstock.traffic.source import Source

PROMPTS = Prompts(1, Fit())  # takes milliseconds, which Hypothesis would wait for each time


def first(n, tree, trace=""):
    source = Source(read(tree), lambda name: [(name, trace.splitlines())], Random(1))
    return [source.next() for _ in range(n)]


def common(a, b):
    """Words that two texts begin with alike."""
    n = 0
    for x, y in zip(a.split(), b.split(), strict=False):
        if x != y:
            break
        n += 1
    return n


@given(st.integers(1, 100_000), st.floats(0.5, 3), st.text())
def test_a_text_has_as_many_words_as_the_tokens_need(tokens, per_word, name):
    PROMPTS.fit = Fit(per_word)
    text = PROMPTS.text(name, tokens)
    assert len(text.split()) == max(1, round(tokens / per_word))


def test_texts_differ_from_their_first_words_by_name_and_by_seed():
    one = Prompts(1, Fit()).text("a", 50)
    assert Prompts(1, Fit()).text("a", 50) == one
    assert common(one, Prompts(1, Fit()).text("b", 50)) < 4
    assert common(one, Prompts(2, Fit()).text("a", 50)) < 4


def test_prompts_are_alike_exactly_as_far_as_their_hashes_are():
    trace = (
        '{"timestamp":0,"input_length":1500,"output_length":1,"hash_ids":[0,1,2]}\n'
        '{"timestamp":1,"input_length":1300,"output_length":1,"hash_ids":[0,1,5]}\n'
        '{"timestamp":2,"input_length":900,"output_length":1,"hash_ids":[7,8]}\n'
    )
    arrivals = first(3, {"arrivals": {"kind": "trace", "file": "t", "format": "mooncake"}}, trace)
    prompts = Prompts(1, Fit())
    one, two, three = (prompts.messages(arrival, [])[0] for arrival in arrivals)
    assert 1024 <= common(one["content"], two["content"]) < 1028
    assert common(one["content"], three["content"]) < 4
    assert [len(m["content"].split()) for m in (one, two, three)] == [1500, 1300, 900]


def test_those_with_the_same_system_prompt_have_it_as_their_first_message():
    one, two = first(2, {"arrivals": {"kind": "constant", "rate": 1}, "shared_prefix": {"tokens": 300}})
    prompts = Prompts(1, Fit(overhead=10))
    a, b = prompts.messages(one, []), prompts.messages(two, [])
    assert a[0] == b[0] and a[0]["role"] == "system" and len(a[0]["content"].split()) == 290
    assert common(a[1]["content"], b[1]["content"]) < 4


def test_words_are_measured_by_two_probes():
    few, many = len(probe(1).split()), len(probe(3).split())
    assert (few, many) == (len(WORDS), 3 * len(WORDS))
    fit = fitted((1, 64 * 2 + 7), (3, 3 * 64 * 2 + 7))
    assert (fit.per_word, fit.overhead, fit.by) == (2.0, 7.0, "server")
    assert fitted((1, 50), (3, 50)).by == "estimate"


@pytest.mark.parametrize("n", [200, 1_000, 5_000])
def test_the_overhead_of_the_template_is_taken_off(n):
    (arrival,) = first(1, {"arrivals": {"kind": "constant", "rate": 1}, "prompt_tokens": n})
    (message,) = Prompts(1, Fit(2.0, 40.0)).messages(arrival, [])
    assert len(message["content"].split()) == pytest.approx((n - 40) / 2, abs=6)


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "/v1/chat/completions"),
        ("http://h/v1", "http://h", "/v1/chat/completions"),
        ("https://h/base/v1/", "https://h", "/base/v1/chat/completions"),
        ("http://h:1/v1/chat/completions", "http://h:1", "/v1/chat/completions"),
    ],
)
def test_an_address_may_be_written_in_each_usual_way(url, origin, path):
    assert (address(url).origin, address(url).path) == (origin, path)


@pytest.mark.parametrize("url", ["", "ftp://h", "http://", "http://h\r\nx: y", "http://ü"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="is not the address of a server"):
        address(url)
