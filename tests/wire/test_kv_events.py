"""Batches of KV events in the three forms of the field, and what is no batch."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.kv_events import (
    MAX_FRAME,
    AllBlocksCleared,
    BadFrame,
    Batch,
    BlockRemoved,
    BlockStored,
    decode,
    encode,
    short,
)


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def stored_row(*more: Any) -> list[Any]:
    return ["BlockStored", [11, 12], None, [1, 2, 3, 4], 2, *more]


def test_batches_of_arrays_are_read_as_vllm_wrote_them_at_first():
    batch = decode(packed([1.5, [stored_row(None), ["BlockRemoved", [11]], ["AllBlocksCleared"]], 3]))
    stored, removed, cleared = batch.events
    assert (batch.ts, batch.rank, batch.unknown) == (1.5, 3, 0)
    assert isinstance(stored, BlockStored) and stored.block_hashes == [11, 12] and stored.token_ids == [1, 2, 3, 4]
    assert isinstance(removed, BlockRemoved) and removed.block_hashes == [11]
    assert isinstance(cleared, AllBlocksCleared)


def test_batches_of_maps_are_read_as_vllm_writes_them_now():
    event = {
        "type": "BlockStored",
        "block_hashes": [b"\x00" * 31 + b"\x07"],
        "parent_block_hash": b"\x00" * 31 + b"\x06",
        "token_ids": [9, 8],
        "block_size": 2,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
        "a_field_of_next_year": {"x": 1},
    }
    batch = decode(packed({"ts": 2.0, "events": [event], "data_parallel_rank": 1, "more": True}))
    (stored,) = batch.events
    assert isinstance(stored, BlockStored) and batch.rank == 1
    assert [short(block) for block in stored.block_hashes] == [7]
    assert stored.parent_block_hash is not None and short(stored.parent_block_hash) == 6


def test_maps_in_an_array_are_read_as_sglang_writes_them():
    event = {"type": "BlockRemoved", "block_hashes": [-1], "medium": "GPU"}
    (removed,) = decode(packed([0.5, [event], None])).events
    assert isinstance(removed, BlockRemoved) and short(removed.block_hashes[0]) == (1 << 64) - 1


def test_trailing_fields_that_nobody_knows_are_passed_over():
    row = stored_row(None, "GPU", None, None, 0, "full_attention", None, "what", ["comes", "next"])
    batch = decode(packed([1.0, [row], 0, "and here"]))
    assert len(batch.events) == 1


def test_events_of_an_unknown_kind_are_counted_and_the_others_are_kept():
    batch = decode(packed([1.0, [["BlockMoved", 1, 2], stored_row(), {"type": "Snapshot", "blocks": []}]]))
    assert len(batch.events) == 1 and batch.unknown == 2


def test_what_lies_elsewhere_than_on_the_gpu_does_not_count_as_reusable():
    on_cpu = decode(packed([1.0, [stored_row(None, "CPU")]])).events[0]
    on_gpu = decode(packed([1.0, [stored_row(None, "GPU")]])).events[0]
    assert isinstance(on_cpu, BlockStored) and not on_cpu.usable
    assert isinstance(on_gpu, BlockStored) and on_gpu.usable


def test_states_of_a_mamba_layer_are_not_taken_for_a_prefix_and_may_have_fewer_blocks_than_tokens():
    row = ["BlockStored", [11], None, list(range(3840)), 768, None, "GPU", None, None, 1, "mamba"]
    (event,) = decode(packed([1.0, [row]])).events
    assert isinstance(event, BlockStored) and not event.usable


def test_salts_and_adapters_tell_blocks_apart_and_nothing_else_does():
    plain = BlockStored([1, 2], None, [1, 2], 1, extra_keys=None)
    nils = BlockStored([1, 2], None, [1, 2], 1, extra_keys=[msgspec.Raw(packed(None))] * 2)
    salted = BlockStored([1, 2], None, [1, 2], 1, extra_keys=[msgspec.Raw(packed(["s"])), msgspec.Raw(packed(None))])
    adapted = BlockStored([1, 2], None, [1, 2], 1, lora_name="poet")
    assert plain.extra(0) == nils.extra(0) == nils.extra(1) == salted.extra(1) == b""
    assert len({plain.extra(0), salted.extra(0), adapted.extra(0)}) == 3


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "truncated"),
        (b"\xff\xff", "array"),
        (packed("batch"), "array"),
        (packed([1.0]), "length"),
        (packed({"ts": 1.0}), "events"),
        (packed([1.0, [7]]), "array"),
        (packed([1.0, [[]]]), "length"),
        (packed([1.0, [{}]]), "type"),
        (packed([1.0, [["BlockStored", [1], None, [1], 2]]]), "1 tokens in 1 blocks of 2"),
        (packed([1.0, [["BlockStored", [1], None, [-1], 1]]]), ">= 0"),
        (packed([1.0, [["BlockStored", [1], None, [1 << 40], 1]]]), "4294967"),
        (packed([1.0, [["BlockStored", [1], None, [1], 0]]]), ">= 1"),
        (packed([1.0, [["BlockStored", ["text"], None, [1], 1]]]), "int"),
        (packed([1.0, [stored_row(None, "GPU", None, [None])]]), "extra keys of 1 blocks, not 2"),
        (packed([1.0, [["BlockRemoved", None]]]), "array"),
        (b"\x91" * 5_000, "length"),
    ],
)
def test_what_is_no_batch_is_refused_with_the_reason(frame: bytes, why: str):
    with pytest.raises(BadFrame, match=why):
        decode(frame)


def test_a_frame_that_is_too_large_is_refused_unread():
    with pytest.raises(BadFrame, match="at most"):
        decode(b"\x93" + b"\x00" * MAX_FRAME)


@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_a_bad_frame(frame: bytes):
    with contextlib.suppress(BadFrame):
        decode(frame)


@given(st.data())
def test_no_damage_to_a_batch_is_worse_than_a_bad_frame(data: st.DataObject):
    frame = bytearray(encode(Batch(1.0, [BlockStored([1, 2], 3, [5, 6], 1, medium="GPU"), BlockRemoved([4])])))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadFrame):
        decode(bytes(frame[: data.draw(st.integers(0, len(frame)))]))


hashes = st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(min_size=8, max_size=32))


@st.composite
def stored(draw: st.DrawFn) -> BlockStored:
    blocks, size = draw(st.lists(hashes, max_size=4)), draw(st.integers(1, 4))
    tokens = draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(blocks) * size, max_size=len(blocks) * size))
    parent, adapter = draw(st.none() | hashes), draw(st.none() | st.text(max_size=3))
    return BlockStored(blocks, parent, tokens, size, medium=draw(st.sampled_from((None, "GPU"))), lora_name=adapter)


events = st.lists(
    st.one_of(stored(), st.builds(BlockRemoved, st.lists(hashes, max_size=3)), st.builds(AllBlocksCleared))
)


@given(events, st.floats(0, 2e9), st.integers(0, 7))
def test_what_is_written_is_read(said: list[Any], ts: float, rank: int):
    batch = decode(encode(Batch(ts, said, rank)))
    assert (batch.ts, batch.rank, batch.unknown) == (ts, rank, 0)
    assert [msgspec.structs.asdict(event) for event in batch.events] == [msgspec.structs.asdict(one) for one in said]
