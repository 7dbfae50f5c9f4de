"""A streamed answer, its time to first token, and which replica gave it."""

import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("PENSTOCK_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ.get("PENSTOCK_API_KEY", "not needed in development mode"),
)
asked_at = time.perf_counter()
response = client.chat.completions.with_raw_response.create(
    model="tiny",
    messages=[{"role": "user", "content": "What is time to first token?"}],
    temperature=0,
    stream=True,
)
first = True
for chunk in response.parse():
    text = chunk.choices[0].delta.content if chunk.choices else None
    if text and first:
        print(f"(first token after {(time.perf_counter() - asked_at) * 1000:.0f} ms)")
        first = False
    print(text or "", end="", flush=True)
print(f"\n(from {response.headers['x-penstock-replica']})")
