"""What engines say of themselves is understood, whoever made them, and nonsense is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.engine_metrics import SOURCES, EngineReport, read

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b \\"c\\""} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000"} 1.0
vllm:prefix_cache_hits_total{engine="0"} 500.0
vllm:prompt_tokens_total{engine="0"} 1200.0 1790000000000
vllm:generation_tokens_total{engine="0"} 1e+03
vllm:num_preemptions_total{engine="0"} 1.0
"""


def test_of_several_engines_behind_one_address_counts_are_added_and_shares_are_not():
    assert read(VLLM) == EngineReport(
        running=7.0,
        waiting=2.0,
        kv_used=0.5,
        kv_tokens=32_000.0,
        prompt_tokens=1200.0,
        prefix_hit_tokens=500.0,
        generation_tokens=1000.0,
        preemptions=1.0,
    )


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            b"sglang:num_running_reqs 5\nsglang:num_queue_reqs 1\n"
            b"sglang:token_usage 0.5\nsglang:max_total_num_tokens 64",
            EngineReport(running=5, waiting=1, kv_used=0.5, kv_tokens=64),
        ),
        (
            b'sglang:cache_config_info{page_size="16",num_pages="100"} 1\n',
            EngineReport(kv_tokens=1600),
        ),
        (b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 3\n", EngineReport(running=2, waiting=3)),
        (
            b'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 4\n'
            b'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 6\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.1\n'
            b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 900\n',
            EngineReport(running=6, waiting=4, kv_used=0.1),
        ),
        (b"tgi_queue_size 7\ntgi_batch_current_size 8\n", EngineReport(running=8, waiting=7)),
        (b"vllm:gpu_cache_usage_perc 0.5\n", EngineReport(kv_used=0.5)),
    ],
)
def test_every_engine_is_understood(page, said):
    assert read(page) == said


def test_what_an_engine_calls_by_a_newer_name_is_read_once():
    assert read(b"vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.9\n").kv_used == 0.5


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"many", b""])
def test_numbers_that_are_none_are_not_known(value):
    assert read(b"tgi_queue_size " + value + b"\n") == EngineReport()


def test_our_own_engine_says_everything_that_can_be_read():
    ours = [source.metric for sources in SOURCES.values() for source in sources if "penstock" in source.metric]
    page = "".join(f'{name}{{model_name="tiny"}} {n}\n' for n, name in enumerate(ours, 1)).encode()
    assert read(page) == EngineReport(*[float(n) for n in range(1, len(EngineReport.__struct_fields__) + 1)])


@given(st.binary(max_size=2_000), st.integers(0, len(VLLM)))
def test_no_page_is_too_odd_to_be_read(junk, at):
    read(VLLM[:at] + junk + VLLM[at:])
