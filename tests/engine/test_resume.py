"""An answer that broke off goes on, here or on another replica, as if nothing had happened: text, tokens, logprobs,
limits, and why it ended.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.engine.core import Generation, Piece
from penstock.engine.progress import Progress
from penstock.engine.sampling import Sampler, SamplingParams
from penstock.engine.tokenizer import Tokenizer
from tests.engine.test_core import World

FIXTURES = Path(__file__).parent / "fixtures"
TOKENIZER = Tokenizer(FIXTURES / "llama-gqa", 288, lambda form: form)
EOS = frozenset({1, 2})
tokens_of_an_answer = st.lists(st.integers(0, 287), min_size=1, max_size=40)


# --- the text and the random numbers, without a model ----------------------------------------------------------------


def told(params: SamplingParams, tokens: list[int]) -> tuple[list[tuple[int, str]], str | None]:
    """Every token with the text that could be shown after it, up to the end of the answer, and why it ended."""
    progress = Progress(params, TOKENIZER.stream(), EOS)
    pieces = []
    for token in tokens:
        pieces.append((token, progress.push(token)))
        if progress.finish is not None:
            break
    return pieces, progress.finish


@given(
    tokens_of_an_answer, st.integers(0, 40), st.integers(1, 40), st.lists(st.text("abcé 😀", min_size=1, max_size=3))
)
@example(TOKENIZER.encode("a 😀 b"), 3, 40, [])
@example(TOKENIZER.encode("abcabc"), 2, 40, ["cab"])
def test_the_text_after_a_cut_is_what_would_have_come(tokens, cut, max_tokens, stops):
    """Held-back text included: half of a stop string, or of a character, may stand at the cut."""
    params = SamplingParams(max_tokens=max_tokens, stop=tuple(stops))
    whole, finish = told(params, tokens)
    cut = min(cut, len(whole))
    resumed = Progress(params, TOKENIZER.stream(), EOS)
    resumed.take_over([token for token, _ in whole[:cut]])
    assert [resumed.push(token) for token, _ in whole[cut:]] == [text for _, text in whole[cut:]]
    assert (resumed.finish, resumed.n_tokens) == (finish, len(whole))


def test_half_a_character_and_half_a_stop_string_wait_at_the_cut():
    params = SamplingParams(max_tokens=40, stop=("xyz",))
    emoji = TOKENIZER.encode("😀")
    assert len(emoji) > 1, "the fixture's vocabulary has it in several tokens"
    resumed = Progress(params, TOKENIZER.stream(), EOS)
    resumed.take_over([*TOKENIZER.encode("ax"), *TOKENIZER.encode("y"), *emoji[:-1]])
    assert resumed.push(emoji[-1]) == "xy😀"
    resumed = Progress(params, TOKENIZER.stream(), EOS)
    resumed.take_over([*TOKENIZER.encode("ax"), *TOKENIZER.encode("y")])
    assert (resumed.push(TOKENIZER.encode("z")[-1]), resumed.finish) == ("", "stop")


@given(st.integers(0, 2**64 - 1), st.integers(0, 20), st.floats(0, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_the_next_draw_is_that_of_its_place_in_the_answer(seed, cut, temperature, frequency, presence):
    params = SamplingParams(
        max_tokens=40, seed=seed, temperature=temperature, frequency_penalty=frequency, presence_penalty=presence
    )
    logits = np.linspace(-1, 1, 30, dtype=np.float32)
    first, second = Sampler(params), Sampler(params)
    whole = [first.choose(logits)[0] for _ in range(25)]
    for token in whole[:cut]:
        second.skip(token)
    assert [second.choose(logits)[0] for _ in range(25 - cut)] == whole[cut:]


# --- the engine ------------------------------------------------------------------------------------------------------


async def pieces_of(generation: Generation) -> list[Piece]:
    pieces = []
    while (piece := await generation.read()) is not None:
        pieces.append(piece)
    return pieces


def joined(pieces: list[Piece]) -> tuple[str, list[Any], str | None]:
    return "".join(p.text for p in pieces), [part for p in pieces for part in p.tokens], pieces[-1].finish


def random_params(rng: Random) -> SamplingParams:
    return SamplingParams(
        max_tokens=rng.randint(1, 40),
        seed=rng.getrandbits(64),
        temperature=rng.choice([0.0, 0.0, 0.7, 1.5]),
        top_p=rng.choice([1.0, 0.8]),
        top_k=rng.choice([0, 20]),
        frequency_penalty=rng.choice([0.0, 0.5]),
        presence_penalty=rng.choice([0.0, -0.5]),
        logprobs=rng.choice([None, 2]),
        stop_token_ids=frozenset(rng.sample(range(288), 3)),
        stop=tuple(rng.choice("aeiou t") + rng.choice("abn ") for _ in range(rng.randint(0, 2))),
    )


def test_an_answer_resumed_anywhere_ends_as_the_uninterrupted_one(rng):
    """Random prompts, parameters and cuts; the resumed halves run in other batches, on an engine that computed none of
    it and on one that remembers the prompt.
    """

    async def story() -> None:
        first, second = World(max_seqs=8, max_waiting=64), World(max_seqs=4, max_waiting=64)
        first.core.start()
        second.core.start()
        try:
            asked = []
            for number in range(24):
                params, prompt = random_params(rng), [rng.randrange(288) for _ in range(rng.randint(1, 40))]
                asked.append((prompt, params, first.core.submit(str(number), prompt, params)))
            wholes = [(prompt, params, await pieces_of(generation)) for prompt, params, generation in asked]
            resumed = []
            for number, (prompt, params, pieces) in enumerate(wholes):
                cut = rng.randint(0, len(pieces))
                resume = [part.token for piece in pieces[:cut] for part in piece.tokens]
                world = (first, second)[number % 2]
                generation = world.core.submit(f"again {number}", prompt, params, resume=resume)
                resumed.append((pieces, cut, generation))
            for pieces, cut, generation in resumed:
                text, parts, finish = joined(await pieces_of(generation))
                assert (text, [part.token for part in parts], finish) == (
                    "".join(piece.text for piece in pieces[cut:]),
                    [part.token for piece in pieces[cut:] for part in piece.tokens],
                    pieces[-1].finish,
                )
                for ours, before in zip(parts, [p for piece in pieces[cut:] for p in piece.tokens], strict=True):
                    assert (ours.logprobs is None) == (before.logprobs is None)
                    if ours.logprobs is not None and before.logprobs is not None:
                        # NumPy multiplies other shapes in another order: equal but for the last bits of a float32.
                        assert ours.logprobs.chosen == pytest.approx(before.logprobs.chosen, abs=1e-3)
                n_tokens = sum(len(piece.tokens) for piece in pieces)
                assert generation.completion_tokens == n_tokens
            await first.idle()
            await second.idle()
            assert first.core.active == second.core.active == 0
        finally:
            first.core.stop()
            second.core.stop()

    asyncio.run(story())


def test_resuming_what_had_ended_says_why_and_computes_nothing():
    async def story() -> None:
        world = World()
        world.core.start()
        try:
            params = SamplingParams(max_tokens=5, temperature=0.0)
            pieces = await pieces_of(world.core.submit("1", [40, 41], params))
            computed = world.core.stats().computed_tokens
            tokens = [part.token for piece in pieces for part in piece.tokens]
            again = world.core.submit("2", [40, 41], params, resume=tokens)
            assert joined(await pieces_of(again)) == ("", [], "length")
            assert (again.completion_tokens, again.prompt_tokens) == (5, 2)
            assert world.core.stats().computed_tokens == computed
            assert world.core.active == 0
        finally:
            world.core.stop()

    asyncio.run(story())


# --- over HTTP -------------------------------------------------------------------------------------------------------


def post(replica: Any, path: str, **fields: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", replica.ready.port, timeout=20)
    try:
        connection.request("POST", path, json.dumps(fields), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Streamed:
    """A stream with the tokens of each of its events."""

    def __init__(self, replica: Any, path: str, **fields: Any) -> None:
        options = {"stream": True, "return_token_ids": True, "stream_options": {"include_usage": True}}
        status, body = post(replica, path, **fields, **options)
        assert status == 200, body
        events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
        assert body.endswith(b"data: [DONE]\n\n")
        self.usage = events[-1]["usage"]
        choices = [event["choices"][0] for event in events if event["choices"]]
        self.events = [choice for choice in choices if choice.get("delta", {}).get("role") is None]

    def text(self, begin: int = 0) -> str:
        choices = self.events[begin:]
        return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)

    def tokens(self, end: int | None = None) -> list[int]:
        return [token for choice in self.events[:end] for token in choice["token_ids"]]

    def logprobs(self, *names: str) -> list[list[Any]]:
        """One list over all events for each of the names."""
        told = [choice["logprobs"] for choice in self.events if choice["logprobs"]]
        return [[value for some in told for value in some[name]] for name in names]


BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is a KV cache?"}]}),
    ("/v1/completions", {"prompt": "KV cache "}),
]


@pytest.mark.parametrize("model", ["llama-gqa", "qwen3", "mistral"])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.2, "seed": 5}], ids=["greedy", "seeded"])
@pytest.mark.parametrize(("path", "body"), BODIES, ids=["chat", "completion"])
def test_another_replica_goes_on_after_every_token_exactly(start_replica, model, options, path, body):
    """With the compiled kernels and bfloat16, as replicas run."""
    here = start_replica(model, kernels="auto", max_batched_tokens=64)
    there = start_replica(model, kernels="auto", max_batched_tokens=16, max_seqs=4)
    asked = {**body, **options, "max_tokens": 30}
    plain = json.loads(post(here, path, **asked)[1])["choices"][0]
    whole = Streamed(here, path, **asked)
    assert whole.text() == plain.get("text", plain.get("message", {}).get("content"))
    assert len(whole.tokens()) == whole.usage["completion_tokens"]
    stop = whole.text()[len(whole.text()) // 2 :][:3]
    for stops in ([], [stop]):
        whole = Streamed(here, path, **asked, stop=stops)
        ends = {len(whole.tokens(number)): whole.text(number) for number in range(len(whole.events))}
        for cut in range(len(whole.tokens())):
            known = whole.tokens()[:cut]
            resumed = Streamed(there, path, **asked, stop=stops, resume_token_ids=known)
            assert known + resumed.tokens() == whole.tokens()
            assert whole.text().endswith(resumed.text())
            assert resumed.text() == ends.get(cut, resumed.text())
            assert resumed.events[-1]["finish_reason"] == whole.events[-1]["finish_reason"]
            assert resumed.usage["completion_tokens"] == whole.usage["completion_tokens"]
            assert resumed.usage["prompt_tokens"] == whole.usage["prompt_tokens"]


@pytest.mark.parametrize("dtype", ["bf16", "int8", "float32"])
def test_compiled_kernels_give_equal_numbers_to_the_bit_after_a_cut(start_replica, dtype):
    """What was decoded one by one there is one prefill here, in chunks, and rounding would tell them apart."""
    here = start_replica(kernels="auto", dtype=dtype)
    there = start_replica(kernels="auto", dtype=dtype, max_batched_tokens=8, max_seqs=4)
    if here.ready.kernels == "numpy":
        pytest.skip("no compiled kernels here: NumPy's sums depend on the shapes")
    asked = {"prompt": "KV cache ", "max_tokens": 40, "temperature": 1.0, "seed": 9, "logprobs": 0, "ignore_eos": True}
    whole = Streamed(here, "/v1/completions", **asked)
    for cut in (1, 7, 16, 33):
        resumed = Streamed(there, "/v1/completions", **asked, resume_token_ids=whole.tokens()[:cut])
        assert resumed.logprobs("token_logprobs") == [whole.logprobs("token_logprobs")[0][cut:]]


def test_offsets_of_logprobs_go_on_after_the_cut(replica):
    asked = {"prompt": "KV cache ", "max_tokens": 12, "temperature": 0, "logprobs": 0}
    whole = Streamed(replica, "/v1/completions", **asked)
    resumed = Streamed(replica, "/v1/completions", **asked, resume_token_ids=whole.tokens()[:5])
    assert resumed.logprobs("tokens", "text_offset") == [
        values[5:] for values in whole.logprobs("tokens", "text_offset")
    ]


def test_the_last_text_and_why_it_ended_come_in_one_event(replica):
    """Else whoever has the last tokens would not know which of their text was told."""
    whole = Streamed(replica, "/v1/completions", prompt="KV ", max_tokens=9, temperature=0)
    assert [event["finish_reason"] for event in whole.events[:-1]] == [None] * (len(whole.events) - 1)
    assert whole.events[-1]["finish_reason"] == "length"
    assert whole.events[-1]["token_ids"]


def test_a_whole_answer_carries_its_tokens_and_can_be_resumed_too(replica):
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "temperature": 0.0}
    path = "/v1/chat/completions"
    plain = json.loads(post(replica, path, **asked)[1])
    assert "token_ids" not in plain["choices"][0]
    whole = json.loads(post(replica, path, **asked, return_token_ids=True)[1])
    tokens = whole["choices"][0]["token_ids"]
    assert len(tokens) == whole["usage"]["completion_tokens"]
    streamed = Streamed(replica, path, **asked)
    assert streamed.tokens() == tokens
    end = json.loads(post(replica, path, **asked, resume_token_ids=streamed.tokens(1))[1])
    assert end["choices"][0]["message"]["content"] == streamed.text(1)
    assert end["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert end["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def test_where_the_prompt_is_remembered_resuming_costs_little(start_replica):
    replica = start_replica(kernels="auto")
    asked = {"prompt": "a prompt that is long enough for several blocks " * 2, "max_tokens": 60, "ignore_eos": True}
    whole = Streamed(replica, "/v1/completions", **asked, temperature=0)
    resumed = Streamed(replica, "/v1/completions", **asked, temperature=0, resume_token_ids=whole.tokens()[:40])
    prompt = resumed.usage["prompt_tokens"]
    assert prompt - 16 <= resumed.usage["prompt_tokens_details"]["cached_tokens"] <= prompt


@pytest.mark.parametrize("tokens", [[-1], [999_999], list(range(10)), ["a"], 5, [[1]]])
def test_tokens_that_cannot_be_resumed_are_refused_by_name(replica, tokens):
    status, body = post(replica, "/v1/completions", prompt="a", max_tokens=9, resume_token_ids=tokens)
    assert status == 400
    assert json.loads(body)["error"]["param"].startswith("resume_token_ids")


def test_many_broken_answers_can_be_resumed_at_once(start_replica):
    replica = start_replica(kernels="auto", max_seqs=4)
    prompts = [f"question {number} " * (1 + number % 3) for number in range(12)]
    asked = [{"prompt": prompt, "max_tokens": 20, "temperature": 0.9, "seed": 3} for prompt in prompts]
    wholes = [Streamed(replica, "/v1/completions", **fields) for fields in asked]
    ends: dict[int, list[int]] = {}

    def resume(number: int) -> None:
        known = wholes[number].tokens()[:number]
        resumed = Streamed(replica, "/v1/completions", **asked[number], resume_token_ids=known)
        ends[number] = known + resumed.tokens()

    threads = [threading.Thread(target=resume, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == {number: whole.tokens() for number, whole in enumerate(wholes)}
