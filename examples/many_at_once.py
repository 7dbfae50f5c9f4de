"""Forty requests at the same time: the engine batches them, the gateway spreads them over replicas."""

import asyncio
import os
import time
from collections import Counter

from openai import AsyncOpenAI

N_REQUESTS = 40
client = AsyncOpenAI(
    base_url=os.environ.get("PENSTOCK_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PENSTOCK_API_KEY", "not needed in development mode"),
)


async def ask(number: int) -> tuple[str, int]:
    """The replica that answered, and how many tokens it made."""
    response = await client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "user", "content": f"What is {number} plus {number + 3}?"}],
        max_tokens=32,
    )
    usage = response.parse().usage
    return response.headers["x-penstock-replica"], usage.completion_tokens if usage else 0


async def main() -> None:
    started_at = time.perf_counter()
    answers = await asyncio.gather(*(ask(number) for number in range(N_REQUESTS)))
    seconds = time.perf_counter() - started_at
    tokens = sum(tokens for _, tokens in answers)
    print(f"{N_REQUESTS} answers, {tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s")
    for replica, n in sorted(Counter(replica for replica, _ in answers).items()):
        print(f"  {replica} answered {n}")


asyncio.run(main())
