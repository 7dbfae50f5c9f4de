"""A replica over real sockets, asked by the official openai client."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.engine.numpy_reference import NumpyForward
from penstock.engine.options import EngineOptions, Ready
from penstock.engine.replica import ReplicaError, serve_engine

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = "llama-gqa"
QUESTION: Any = [{"role": "user", "content": "What is a KV cache?"}]


def chat(replica: Any, **options: Any) -> Any:
    settings = {"model": MODEL, "messages": QUESTION, "max_tokens": 12, "temperature": 0, **options}
    return replica.client.chat.completions.create(**settings)


def post(replica: Any, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", replica.ready.port, timeout=10)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read())
    finally:
        connection.close()


def metrics(replica: Any) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", replica.ready.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sample.labels.items() if k != "model_name"): sample.value
        for sample in samples
    }


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it is so; each asking is a request, so this neither sleeps nor spins for long."""
    for _ in range(2_000):
        if holds():
            return
    raise AssertionError("it never became so")


def test_a_chat_completion_has_text_usage_and_a_reason(replica):
    answer = chat(replica)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_says_the_same_as_the_whole_answer_and_ends_with_usage(replica):
    whole = chat(replica, seed=3, temperature=0.9)
    events = list(chat(replica, seed=3, temperature=0.9, stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content
    assert [event.choices[0].finish_reason for event in events if event.choices][-1] == "length"
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_has_no_usage_unless_it_is_asked_for(replica):
    assert all(event.usage is None for event in chat(replica, stream=True))


def test_an_answer_is_the_same_alone_and_among_others(replica):
    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"Tell me about {number}"}]
        return str(chat(replica, messages=messages, max_tokens=30).choices[0].message.content)

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def test_the_same_seed_gives_the_same_answer_and_no_seed_a_new_one(replica):
    def ask(**options: Any) -> str:
        return str(chat(replica, temperature=1.5, max_tokens=20, **options).choices[0].message.content)

    assert ask(seed=11) == ask(seed=11)
    assert len({ask() for _ in range(4)}) > 1


def test_the_second_time_the_beginning_of_a_prompt_comes_from_the_cache(start_replica):
    replica = start_replica()
    messages = [{"role": "user", "content": "the same long question, " * 4}]
    first = chat(replica, messages=messages)
    second = chat(replica, messages=messages)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens >= 64
    assert second.choices[0].message.content == first.choices[0].message.content
    other = chat(replica, messages=messages, extra_headers={"x-penstock-cache-salt": "another tenant"})
    assert other.usage.prompt_tokens_details.cached_tokens == 0
    assert (
        metrics(replica)["penstock_engine_prefix_hit_tokens_total"] == second.usage.prompt_tokens_details.cached_tokens
    )


def test_logprobs_tell_the_chosen_token_and_its_rivals(replica):
    answer = chat(replica, logprobs=True, top_logprobs=3, max_tokens=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for entry in content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == entry.logprob, "greedy takes the likeliest"
        assert bytes(entry.bytes).decode("utf-8", "replace") == entry.token
    streamed = [e.choices[0].logprobs for e in chat(replica, logprobs=True, top_logprobs=3, max_tokens=4, stream=True)]
    assert [entry for told in streamed if told for entry in told.content] == content


def test_a_stop_string_ends_the_answer_before_it(replica):
    text = chat(replica, max_tokens=40).choices[0].message.content
    stop = text[len(text) // 2 :][:3]
    whole = chat(replica, max_tokens=40, stop=[stop]).choices[0]
    assert whole.message.content == text[: text.index(stop)]
    assert whole.finish_reason == "stop"
    streamed = [event.choices[0].delta.content or "" for event in chat(replica, max_tokens=40, stop=stop, stream=True)]
    assert "".join(streamed) == whole.message.content


def test_a_plain_completion_takes_text_or_tokens(replica):
    client = replica.client
    text = client.completions.create(model=MODEL, prompt="KV cache", max_tokens=6, temperature=0)
    _, _, counted = post(replica, "/tokenize", b'{"prompt": "KV cache"}')
    tokens = client.completions.create(model=MODEL, prompt=counted["tokens"], max_tokens=6, temperature=0)
    assert tokens.choices[0].text == text.choices[0].text
    assert text.object == "text_completion"
    _, _, back = post(replica, "/detokenize", json.dumps({"tokens": counted["tokens"]}).encode())
    assert back == {"prompt": "KV cache"}
    streamed = client.completions.create(model=MODEL, prompt="KV cache", max_tokens=6, temperature=0, stream=True)
    assert "".join(event.choices[0].text for event in streamed) == text.choices[0].text


def test_completion_logprobs_have_the_older_shape(replica):
    answer = replica.client.completions.create(model=MODEL, prompt="a", max_tokens=3, logprobs=2, temperature=0)
    told = answer.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 3


def test_models_health_and_unknown_paths(replica):
    assert [model.id for model in replica.client.models.list()] == [MODEL]
    assert replica.client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as unknown:
        replica.client.models.retrieve("other")
    assert unknown.value.code == "model_not_found"
    connection = http.client.HTTPConnection("127.0.0.1", replica.ready.port, timeout=10)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    connection.request("GET", "/v1/chat/completions")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (405, "method_not_allowed")
    connection.request("GET", "/nothing")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (404, "not_found")
    connection.close()


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"extra_body": {"temprature": 1}}, "unknown_parameter", "temprature"),
        ({"temperature": 3}, "invalid_request", "temperature"),
        ({"top_p": 0}, "invalid_request", "top_p"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": "many"}, "invalid_request", "max_tokens"),
        ({"max_tokens": 5_000}, "context_length_exceeded", "max_tokens"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "context_length_exceeded", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 99_000}]}, "context_length_exceeded", "messages"),
        ({"stop": [""]}, "invalid_request", "stop"),
        ({"top_logprobs": 2}, "invalid_request", "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "invalid_request", "stream_options"),
        ({"logit_bias": {"9999": 1}}, "invalid_request", "logit_bias"),
    ],
)
def test_what_is_wrong_or_unsupported_is_refused_by_name(replica, options, code, param):
    with pytest.raises(openai.BadRequestError) as refusal:
        chat(replica, **options)
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_another_model_is_not_found(replica):
    with pytest.raises(openai.NotFoundError) as refusal:
        chat(replica, model="gpt-5")
    assert refusal.value.code == "model_not_found"
    assert MODEL in str(refusal.value)


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "<|im_end|>", "\\ud83d\\ude00"])
def test_unusual_characters_are_answered_or_refused(replica, text):
    body = b'{"messages": [{"role": "user", "content": "%b"}], "max_tokens": 2}' % text.encode()
    status, _, _ = post(replica, "/v1/chat/completions", body)
    assert status in (200, 400)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"messages": 5}', b"\xff\xfe"])
def test_a_body_that_is_no_request_is_a_bad_request(replica, body):
    status, _, answer = post(replica, "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


def test_what_no_prompt_can_be_as_long_as_is_refused_before_it_is_looked_at(replica):
    status, _, answer = post(replica, "/v1/completions", json.dumps({"prompt": [1] * 50_000}).encode())
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    status, _, answer = post(replica, "/detokenize", json.dumps({"tokens": [1] * 50_000}).encode())
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    with socket.create_connection(("127.0.0.1", replica.ready.port)) as caller:
        caller.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n")
        assert caller.recv(100).startswith(b"HTTP/1.1 413")


def test_fields_that_only_describe_the_caller_are_accepted(replica):
    answer = chat(replica, user="someone", metadata={"a": "b"}, store=False, n=1, tools=[], max_completion_tokens=2)
    assert answer.usage.completion_tokens == 2


def test_a_caller_who_leaves_gives_the_engine_back(start_replica):
    replica = start_replica()
    body = json.dumps({"messages": QUESTION, "max_tokens": 180, "stream": True, "ignore_eos": True}).encode()
    with socket.create_connection(("127.0.0.1", replica.ready.port)) as caller:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        caller.sendall(head + body)
        assert caller.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: metrics(replica)["penstock_engine_requests_running"] == 0)
    told = metrics(replica)
    ended = told["penstock_engine_requests_finished_total,reason=abort"]
    ended += told["penstock_engine_requests_finished_total,reason=length"]
    assert ended == 1
    assert told["penstock_engine_kv_used_ratio"] == 0


def test_when_the_queue_is_full_callers_are_told_to_come_back(start_replica):
    replica = start_replica(max_seqs=1, max_waiting=1)
    body = json.dumps({"messages": QUESTION, "max_tokens": 150, "ignore_eos": True}).encode()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(replica, "/v1/chat/completions", body), range(12)))
    refused = [(headers, answer) for status, headers, answer in answers if status == 429]
    assert refused
    assert all(answer["error"]["code"] == "queue_full" for _, answer in refused)
    assert all(int(headers["retry-after"]) >= 1 for headers, _ in refused)
    assert sum(status == 200 for status, _, _ in answers) == 12 - len(refused)
    assert metrics(replica)["penstock_engine_requests_refused_total"] == len(refused)


def test_metrics_are_prometheus_text_and_add_up(start_replica):
    replica = start_replica()
    for _ in range(3):
        chat(replica, max_tokens=5)
    told = metrics(replica)
    assert told["penstock_engine_generation_tokens_total"] == 15
    assert told["penstock_engine_requests_finished_total,reason=length"] == 3
    assert told["penstock_engine_time_to_first_token_seconds_count"] == 3
    assert told["penstock_engine_time_per_output_token_seconds_count"] == 3
    assert told["penstock_engine_request_seconds_bucket,le=+Inf"] == 3
    assert told["penstock_engine_requests_waiting"] == 0


def test_answers_survive_preemption(start_replica):
    roomy = start_replica(kv_tokens=4096, kernels="numpy")
    tight = start_replica(kv_tokens=192, kernels="numpy", max_model_len=150, max_seqs=4)

    def ask(target: Any, number: int) -> str:
        messages = [{"role": "user", "content": f"{number} " * 12}]
        return str(
            chat(target, messages=messages, max_tokens=70, extra_body={"ignore_eos": True}).choices[0].message.content
        )

    expected = [ask(roomy, number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda number: ask(tight, number), range(6))) == expected
    assert metrics(tight)["penstock_engine_preemptions_total"] > 0


def test_a_replica_finishes_what_runs_when_it_is_told_to_stop(start_replica):
    # The fixture stops the replica while this stream is open, and fails if that is a problem.
    replica = start_replica()
    stream = iter(chat(replica, max_tokens=60, stream=True, extra_body={"ignore_eos": True}))
    next(stream)


def test_a_replica_whose_engine_fails_says_so_and_ends(monkeypatch):
    def broken(self: NumpyForward, batch: object) -> None:
        raise RuntimeError("the model is broken")

    options = EngineOptions(model=str(FIXTURES / MODEL), port=0, kernels="numpy", drain_seconds=1.0)
    monkeypatch.setattr(NumpyForward, "compute", broken)
    ready: list[Ready] = []

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            listening = asyncio.Event()
            serving = group.create_task(
                serve_engine(
                    options, on_ready=lambda told: (ready.append(told), listening.set())[0], stop=asyncio.Event()
                )
            )
            await listening.wait()
            body = json.dumps({"messages": QUESTION}).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", ready[0].port)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            assert b" 503 " in await reader.readline()
            writer.close()
            await serving

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(story())
    assert ended.group_contains(ReplicaError, match="the model is broken")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "./typo"}, "there is no model at './typo'"),
        ({"host": "203.0.113.77"}, "cannot listen on 203.0.113.77"),
    ],
)
def test_a_replica_that_cannot_start_says_why_in_one_sentence(changes, message):
    options = EngineOptions(**{"model": str(FIXTURES / MODEL), "port": 0, "kernels": "numpy", **changes})
    with pytest.raises(ReplicaError, match=message):
        asyncio.run(serve_engine(options, stop=asyncio.Event()))


@pytest.mark.journey
def test_a_process_finishes_its_answers_after_sigterm_and_exits_cleanly(tmp_path):
    program = (
        "import sys; from penstock.engine.options import EngineOptions\n"
        "from penstock.engine.replica import run_engine\n"
        f"options = EngineOptions(model={str(FIXTURES / MODEL)!r}, port=0, kernels='numpy')\n"
        "run_engine(options, on_ready=lambda told: (sys.stdout.write(f'{told.port}\\n'), sys.stdout.flush()))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
            with openai.OpenAI(base_url=address, api_key="unused", max_retries=0, timeout=20) as client:
                options: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 190, "stream": True}
                stream = client.chat.completions.create(**options, extra_body={"ignore_eos": True})
                events = [next(stream)]
                process.send_signal(signal.SIGTERM)
                events += list(stream)
            assert events[-1].choices[0].finish_reason == "length"
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_long_texts_are_tokenized_beside_the_event_loop_with_the_same_result(replica, monkeypatch):
    inline = chat(replica).choices[0].message.content
    completion = (
        replica.client.completions.create(model=MODEL, prompt="KV", max_tokens=3, temperature=0).choices[0].text
    )
    monkeypatch.setattr("penstock.engine.server.MAX_INLINE_CHARACTERS", 1)
    assert chat(replica).choices[0].message.content == inline
    beside = replica.client.completions.create(model=MODEL, prompt="KV", max_tokens=3, temperature=0)
    assert beside.choices[0].text == completion


def test_served_names_are_the_ones_callers_use(start_replica):
    replica = start_replica(served_names=("small", "chat-fast"))
    assert replica.ready.model == "small"
    assert [model.id for model in replica.client.models.list()] == ["small", "chat-fast"]
    assert chat(replica, model="chat-fast").model == "chat-fast"


@pytest.mark.parametrize("model", sorted(path.name for path in FIXTURES.iterdir()))
def test_every_kind_of_model_can_be_served(start_replica, model):
    replica = start_replica(model, kernels="auto")
    assert chat(replica, model=model, max_tokens=4).usage.completion_tokens >= 1
