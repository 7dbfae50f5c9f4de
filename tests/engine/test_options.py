"""What a replica may be told, and what it says when it is ready."""

from __future__ import annotations

import msgspec
import pytest

from penstock.engine.options import EngineOptions, Ready


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"port": 70_000}, "port"),
        ({"threads": 0}, "threads"),
        ({"kv_tokens": 0}, "kv_tokens"),
        ({"max_model_len": -1}, "max_model_len"),
        ({"drain_seconds": -1.0}, "drain_seconds"),
        ({"max_seqs": 600}, "max_batched_tokens"),
        ({"dtype": "fp4"}, "dtype"),
    ],
)
def test_an_option_out_of_range_is_named(options, name):
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert(options, EngineOptions)


def test_readiness_reads_as_one_line():
    ready = Ready(
        host="127.0.0.1",
        port=8001,
        model="tiny",
        kernels="avx2",
        dtype="bf16",
        parameters=5_248_512,
        max_model_len=2048,
    )
    assert str(ready) == "tiny ready on http://127.0.0.1:8001/v1 (5.2 M parameters, bf16, avx2 kernels)"
