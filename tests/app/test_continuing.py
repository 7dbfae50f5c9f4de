"""An engine is killed in the middle of an answer, and the caller does not notice: real processes, real weights."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from penstock.app.serve import ServeOptions
from penstock.engine.random_model import RandomModel, write_random_model
from tests.app.driver import Running, serving
from tests.app.test_embedded import engines, run

pytestmark = pytest.mark.journey

CONFIG = """
models: { chat: { deployments: [toy], on_cut: continue } }
deployments: { toy: { model: ./toy, replicas: 2 } }
server: { port: 0, access_log: off }
"""
N_TOKENS = 400


async def stream(port: int, kill: bool, **fields: object) -> str:
    """The text of an answer, of which the replica is killed after its first tokens if `kill` says so."""
    messages = [{"role": "user", "content": "What is a KV cache?"}]
    asked = {"model": "chat", "stream": True, "messages": messages, "max_tokens": N_TOKENS, "ignore_eos": True}
    body = json.dumps(asked | fields).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        answer = await reader.readuntil(b'"content":"')
        if kill:
            number = int(answer.partition(b"x-penstock-replica: toy/")[2].partition(b"\r\n")[0])
            os.kill(engines()[number], signal.SIGKILL)
        answer += await reader.read(-1)
    finally:
        writer.close()
    lines = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: ")]
    assert lines.pop().strip() == b"[DONE]", answer[-500:]
    events = [json.loads(line) for line in lines]
    assert len({event["id"] for event in events}) == 1
    assert b"token_ids" not in answer
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"temperature": 1.0, "seed": 11}], ids=["greedy", "seeded"])
def test_an_engine_that_is_killed_in_the_middle_of_an_answer_is_not_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
):
    """Takes some seconds: an engine process needs about one to start."""
    write_random_model(tmp_path / "toy", RandomModel(hidden_size=256, intermediate_size=512, num_hidden_layers=8))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)

    async def story() -> None:
        async def use(server: Running) -> None:
            whole = await stream(server.port, kill=False, **fields)
            assert await stream(server.port, kill=True, **fields) == whole
            _, metrics = await server.get("/metrics")
            assert b'penstock_retries_total{model="chat"} 1' in metrics, "or it was killed too late"

        code, _ = await serving(ServeOptions(config_text=CONFIG, insecure_dev=True), use)
        assert code == 0
        assert engines() == []

    run(story())
