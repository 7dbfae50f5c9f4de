"""What inference servers say of themselves: a table from their metrics' names to ours, and a reader of their pages.

A page of vLLM has a thousand lines, and a whole fleet is asked every few seconds: so only the lines that are wanted are
looked at. Whatever is not understood is not known: a page never makes a replica unusable.

Names: vLLM 0.33 vllm/v1/metrics/loggers.py, SGLang 0.5.23 sglang/srt/observability/metrics_collector.py, llama.cpp
tools/server/README.md, TensorRT-LLM tensorrt_llm/metrics, Triton's tensorrtllm_backend, TGI docs/source/metrics.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Final

import msgspec


class Source(msgspec.Struct, frozen=True):
    """One metric of one engine. `where` are labels it must have; with `label`, the value is that label's and not the
    sample's; with `times`, it is multiplied by that other label of the same sample. Several samples (engines behind one
    address, reasons of waiting) are added, or of a `mean` their mean is taken.
    """

    metric: str
    where: tuple[tuple[str, str], ...] = ()
    label: str = ""
    times: str = ""
    mean: bool = False


class EngineReport(msgspec.Struct, frozen=True, gc=False):
    """A moment of an engine, and counts since it was started. None: it does not say."""

    running: float | None = None  # sequences in its batch
    waiting: float | None = None  # requests in its queue
    kv_used: float | None = None  # fraction of KV blocks held, 0..1
    kv_tokens: float | None = None  # that fit into its KV cache
    max_running: float | None = None
    prompt_tokens: float | None = None
    prefix_hit_tokens: float | None = None  # of the prompt tokens, found in its prefix cache
    generation_tokens: float | None = None
    preemptions: float | None = None


_SCHEDULED: Final = (("request_type", "scheduled"),)
_WAITING: Final = (("request_type", "waiting"),)

SOURCES: Final[dict[str, tuple[Source, ...]]] = {
    "running": (
        Source("penstock_engine_requests_running"),
        Source("vllm:num_requests_running"),
        Source("sglang:num_running_reqs"),
        Source("llamacpp:requests_processing"),
        Source("trtllm_num_requests_running"),
        Source("nv_trt_llm_request_metrics", _SCHEDULED),
        Source("tgi_batch_current_size"),
    ),
    "waiting": (
        Source("penstock_engine_requests_waiting"),
        Source("vllm:num_requests_waiting"),
        Source("sglang:num_queue_reqs"),
        Source("llamacpp:requests_deferred"),
        Source("trtllm_num_requests_waiting"),
        Source("nv_trt_llm_request_metrics", _WAITING),
        Source("tgi_queue_size"),
    ),
    "kv_used": (
        Source("penstock_engine_kv_used_ratio", mean=True),
        Source("vllm:kv_cache_usage_perc", mean=True),
        Source("vllm:gpu_cache_usage_perc", mean=True),  # before 0.11
        Source("sglang:token_usage", mean=True),
        Source("trtllm_kv_cache_utilization", mean=True),
        Source("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", "fraction"),), mean=True),
    ),
    "kv_tokens": (
        Source("penstock_engine_kv_capacity_tokens"),
        Source("vllm:cache_config_info", label="num_gpu_blocks", times="block_size"),
        Source("sglang:max_total_num_tokens"),
        Source("sglang:cache_config_info", label="num_pages", times="page_size"),  # before 0.5.11
    ),
    "max_running": (Source("penstock_engine_requests_max"),),
    "prompt_tokens": (
        Source("penstock_engine_prompt_tokens_total"),
        Source("vllm:prompt_tokens_total"),
        Source("sglang:prompt_tokens_total"),
        Source("llamacpp:prompt_tokens_total"),
    ),
    "prefix_hit_tokens": (
        Source("penstock_engine_prefix_hit_tokens_total"),
        Source("vllm:prefix_cache_hits_total"),
        Source("sglang:cached_tokens_total"),
    ),
    "generation_tokens": (
        Source("penstock_engine_generation_tokens_total"),
        Source("vllm:generation_tokens_total"),
        Source("sglang:generation_tokens_total"),
        Source("llamacpp:tokens_predicted_total"),
    ),
    "preemptions": (
        Source("penstock_engine_preemptions_total"),
        Source("vllm:num_preemptions_total"),
        Source("sglang:num_retracted_requests_total"),
    ),
}
"""By field of `EngineReport`, the first that a page has: newer names before older ones."""

_LABEL: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\\n]|\\.)*)"').findall


def _samples_of(names: Iterable[str]) -> Callable[[str], list[tuple[str, str, str]]]:
    either = "|".join(sorted({re.escape(name) for name in names}, key=len, reverse=True))
    # name, labels (in which quoted text may hold a brace), value; a timestamp may follow
    pattern = rf'^({either})(?:\{{((?:[^"}}\n]|"(?:[^"\\\n]|\\.)*")*)\}})?[ \t]+([^ \t\n]+)'
    return re.compile(pattern, re.MULTILINE).findall


_samples: Final = _samples_of(source.metric for sources in SOURCES.values() for source in sources)


def read(page: bytes) -> EngineReport:
    """What a page in Prometheus' text format or in OpenMetrics says. Never raises."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in _samples(page.decode("utf-8", "replace")):
        number = _number(value)
        if number is not None:
            found.setdefault(name, []).append((dict(_LABEL(labels)), number))
    return EngineReport(**{field: _value(sources, found) for field, sources in SOURCES.items()})


def _value(sources: tuple[Source, ...], found: dict[str, list[tuple[dict[str, str], float]]]) -> float | None:
    for source in sources:
        values = []
        for labels, number in found.get(source.metric, ()):
            if all(labels.get(name) == wanted for name, wanted in source.where):
                value = _number(labels.get(source.label, "")) if source.label else number
                factor = _number(labels.get(source.times, "")) if source.times else 1.0
                if value is not None and factor is not None:
                    values.append(value * factor)
        if values:
            return sum(values) / len(values) if source.mean else sum(values)
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None
