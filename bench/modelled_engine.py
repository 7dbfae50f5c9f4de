"""An engine that computes nothing and takes its time: `python bench/modelled_engine.py PORT SPEED`.

What lies under it is the simulator's engine: the live batching scheduler, prefix cache and all, with cost model A, so
many times as fast. It speaks as vLLM does: streamed chats, /v1/models, /health, and /metrics with vLLM's names. A token
is a word; full blocks of 512 that begin a prompt as another did are cached.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from xxhash import xxh3_128_digest

from penstock.batching.scheduler import Refused
from penstock.batching.sequence import CountedSequence
from penstock.sim.cost_model import MODEL_A
from penstock.sim.engine_model import EngineCall, EngineModel
from penstock.sim.world import World

MODEL = "modelled"
PIECE = 0.1  # seconds between two pieces of an answer; the simulator's engine decodes many steps at once


class RealTime:
    """Lets a simulated world go by the clock. What is late happens at the time for which it was due."""

    def __init__(self, speed: float) -> None:
        self.world = World()
        self._speed = speed
        self._began = perf_counter()
        self._timer: asyncio.TimerHandle | None = None

    def catch_up(self) -> None:
        """Let everything happen that is due."""
        until = (perf_counter() - self._began) * self._speed
        self.world.run(until)
        self.world.now = max(self.world.now, until)

    def wake(self) -> None:
        """When something is due: whoever has put something into the world asks for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.world.next_at()
        if due < inf:
            wait = due / self._speed - (perf_counter() - self._began)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wait), self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.catch_up()
        self.wake()


class Engine:
    def __init__(self, speed: float) -> None:
        self._time = RealTime(speed)
        self._model = EngineModel(self._time.world, MODEL_A)
        self._n = self._prompt_tokens = self._hit_tokens = self._output_tokens = 0

    async def chat(self, request: Request) -> Response:
        fields = json.loads(await request.body())
        words = [word for message in fields["messages"] for word in str(message["content"]).split()]
        wanted = int(fields.get("max_tokens") or fields.get("max_completion_tokens") or 16)
        self._n += 1
        told: asyncio.Queue[str] = asyncio.Queue()
        sequence = CountedSequence(str(self._n), len(words), wanted, wanted, blocks(words))
        call = EngineCall(sequence, lambda: told.put_nowait("first"), lambda: told.put_nowait("end"))
        self._time.catch_up()
        try:
            self._model.submit(call)
            self._time.wake()
        except Refused as refused:
            return JSONResponse({"error": {"message": str(refused), "type": "overloaded"}}, status_code=503)
        return StreamingResponse(self._answer(call, told, len(words)), media_type="text/event-stream")

    async def _answer(self, call: EngineCall, told: asyncio.Queue[str], prompt: int) -> AsyncIterator[bytes]:
        sequence, sent = call.sequence, 0
        try:
            await told.get()
            yield chunk("a")
            sent = 1
            while True:
                try:
                    await asyncio.wait_for(told.get(), PIECE)
                    break
                except TimeoutError:
                    yield chunk(" a")
                    sent += 1
            total = max(1, sequence.generated)
            self._prompt_tokens += prompt
            self._hit_tokens += sequence.cached
            self._output_tokens += total
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": total,
                "total_tokens": prompt + total,
                "prompt_tokens_details": {"cached_tokens": sequence.cached},
            }
            yield chunk(" a" * max(0, total - sent), finish="length") + chunk(None, usage=usage) + b"data: [DONE]\n\n"
        finally:  # harmless after the end
            self._time.catch_up()
            self._model.abort(call)
            self._time.wake()

    async def metrics(self, request: Request) -> Response:
        self._time.catch_up()
        model, label = self._model, f'{{model_name="{MODEL}"}}'
        config = f'{{block_size="{model.options.block_size}",num_gpu_blocks="{model.options.n_blocks}"}}'
        return PlainTextResponse(
            f"vllm:num_requests_running{label} {model.n_running}\n"
            f"vllm:num_requests_waiting{label} {model.n_waiting}\n"
            f"vllm:kv_cache_usage_perc{label} {model.kv_used}\n"
            f"vllm:cache_config_info{config} 1\n"
            f"vllm:prompt_tokens_total{label} {self._prompt_tokens}\n"
            f"vllm:prefix_cache_hits_total{label} {self._hit_tokens}\n"
            f"vllm:generation_tokens_total{label} {self._output_tokens}\n"
        )

    async def models(self, request: Request) -> Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "bench", "max_model_len": 131_072}
        return JSONResponse({"object": "list", "data": [model]})

    async def other(self, request: Request) -> Response:
        """Whatever routers ask before they send anything."""
        return JSONResponse({"model_path": MODEL, "served_model_name": MODEL, "status": "ready"})


def blocks(words: list[str]) -> list[bytes]:
    """Names of the full blocks, each for all that is before it too."""
    size, names, name = MODEL_A.block_size, [], b""
    for start in range(0, len(words) - size + 1, size):
        name = xxh3_128_digest(name + " ".join(words[start : start + size]).encode())
        names.append(name)
    return names


def chunk(content: str | None, finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    event: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": MODEL}
    event["choices"] = [{"index": 0, "delta": {"content": content}, "finish_reason": finish}] if usage is None else []
    if usage is not None:
        event["usage"] = usage
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def main() -> None:
    engine = Engine(float(sys.argv[2]))
    routes = [
        Route("/v1/chat/completions", engine.chat, methods=["POST"]),
        Route("/v1/models", engine.models),
        Route("/metrics", engine.metrics),
        Route("/{path:path}", engine.other),
    ]
    config = uvicorn.Config(
        Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main())
