"""What an engine says about its KV cache: batches of blocks stored, removed and cleared, as vLLM publishes them.

There are three forms of the same words in the field, and all are read: batch and events as arrays (vLLM at first,
SGLang, Dynamo's clients), an array of maps, and maps throughout (vllm/distributed/kv_events.py of 2026). Fields that
are not known are passed over, events of a kind that is not known are counted; anything else that is not as expected
makes the whole frame a `BadFrame`, because half a batch is not what the engine holds.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from penstock.wire.prompts import UNREADABLE

MAX_FRAME: Final = 16 * 1024 * 1024  # bytes of one batch
MAX_BLOCK: Final = 65_536  # tokens in one block; vLLM's largest are a few thousand
LOW_BITS: Final = (1 << 64) - 1
ON_GPU: Final = ("", "GPU")  # other media (CPU, disk) have to be loaded before they save anything
WHOLE_PREFIX: Final = ("", "full_attention", "mla_attention", "sink_full_attention")
"""The kinds of KV cache whose blocks mean that all before them can be used. A hybrid model has groups of other kinds
too (Mamba states, sliding windows), which are stored and removed under hashes of their own, or even the same ones."""

WireHash: TypeAlias = int | bytes
TokenId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class BadFrame(ValueError):
    """What came is no batch of events."""


class BlockStored(msgspec.Struct, tag="BlockStored", omit_defaults=True, gc=False):
    """`block_hashes`, one for every `block_size` of `token_ids`, were computed after the block `parent_block_hash`."""

    block_hashes: list[WireHash]
    parent_block_hash: WireHash | None
    token_ids: list[TokenId]
    block_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK)]
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[msgspec.Raw] | None = None
    """One for each block: what beside its tokens tells it from others (a salt, an adapter, a picture), or nil."""
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None

    @property
    def usable(self) -> bool:
        """It says that a prefix can be reused: on the GPU, and of a kind of cache where blocks make up a prefix."""
        return (self.medium or "") in ON_GPU and (self.kv_cache_spec_kind or "") in WHOLE_PREFIX

    def extra(self, place: int) -> bytes:
        """What tells the block at `place` from others with these tokens and this parent; b"" for most."""
        keys = self.extra_keys
        own = bytes(keys[place]) if keys is not None and place < len(keys) else _NIL
        adapter = self.lora_name if self.lora_name is not None else self.lora_id
        if own == _NIL and adapter is None:
            return b""
        return own + msgspec.msgpack.encode(adapter)


class BlockRemoved(msgspec.Struct, tag="BlockRemoved", omit_defaults=True, gc=False):
    block_hashes: list[WireHash]
    medium: str | None = None
    group_idx: int | None = None

    @property
    def usable(self) -> bool:
        return (self.medium or "") in ON_GPU


class AllBlocksCleared(msgspec.Struct, tag="AllBlocksCleared", gc=False):
    """The cache is empty now."""


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Events in their order. `ts`: Unix seconds when they were published. `unknown`: events of no known kind."""

    ts: float
    events: list[Event]
    rank: int = 0
    """Of several engines behind one address (data parallel), which."""
    unknown: int = 0


class _StoredRow(BlockStored, tag="BlockStored", array_like=True, gc=False):
    pass


class _RemovedRow(BlockRemoved, tag="BlockRemoved", array_like=True, gc=False):
    pass


class _ClearedRow(AllBlocksCleared, tag="AllBlocksCleared", array_like=True, gc=False):
    pass


class _BatchRow(msgspec.Struct, array_like=True, gc=False):
    ts: float
    events: list[msgspec.Raw]
    rank: int | None = None


class _BatchMap(msgspec.Struct, gc=False):
    ts: float
    events: list[msgspec.Raw]
    data_parallel_rank: int | None = None
    attn_dp_rank: int | None = None


class _KindRow(msgspec.Struct, array_like=True, gc=False):
    kind: str


class _KindMap(msgspec.Struct, gc=False):
    type: str


_NIL: Final = msgspec.msgpack.encode(None)
_batch_row = msgspec.msgpack.Decoder(_BatchRow).decode
_batch_map = msgspec.msgpack.Decoder(_BatchMap).decode
_event_row = msgspec.msgpack.Decoder(_StoredRow | _RemovedRow | _ClearedRow).decode
_event_map = msgspec.msgpack.Decoder(Event).decode
_kind_row = msgspec.msgpack.Decoder(_KindRow).decode
_kind_map = msgspec.msgpack.Decoder(_KindMap).decode
_encode = msgspec.msgpack.Encoder().encode
_KINDS: Final = frozenset(("BlockStored", "BlockRemoved", "AllBlocksCleared"))


def decode(payload: bytes) -> Batch:
    """Raises `BadFrame`."""
    if len(payload) > MAX_FRAME:
        raise BadFrame(f"a batch of {len(payload)} bytes; at most {MAX_FRAME} are read")
    try:
        if _is_map(payload):
            mapped = _batch_map(payload)
            ts, raws = mapped.ts, mapped.events
            rank = mapped.attn_dp_rank if mapped.data_parallel_rank is None else mapped.data_parallel_rank
        else:
            row = _batch_row(payload)
            ts, raws, rank = row.ts, row.events, row.rank
        events: list[Event] = []
        unknown = 0
        for raw in raws:
            is_map = _is_map(bytes(raw))
            kind = _kind_map(raw).type if is_map else _kind_row(raw).kind
            if kind not in _KINDS:
                unknown += 1
                continue
            event: Event = _event_map(raw) if is_map else _event_row(raw)
            if isinstance(event, BlockStored) and event.usable:
                _check(event)
            events.append(event)
    except UNREADABLE as error:
        raise BadFrame(str(error)) from None
    return Batch(ts, events, rank or 0, unknown)


def encode(batch: Batch) -> bytes:
    """In the form that everybody reads: arrays."""
    rows: list[_StoredRow | _RemovedRow | _ClearedRow] = []
    for event in batch.events:
        if isinstance(event, BlockStored):
            rows.append(_StoredRow(*(getattr(event, name) for name in BlockStored.__struct_fields__)))
        elif isinstance(event, BlockRemoved):
            rows.append(_RemovedRow(event.block_hashes, event.medium, event.group_idx))
        else:
            rows.append(_ClearedRow())
    return _encode((batch.ts, rows, batch.rank))


def short(block: WireHash) -> int:
    """An engine's name for a block in 64 bits, as vLLM itself shortens its digests."""
    return block & LOW_BITS if isinstance(block, int) else int.from_bytes(block[-8:], "big")


def _check(event: BlockStored) -> None:
    tokens, blocks = len(event.token_ids), len(event.block_hashes)
    if tokens != blocks * event.block_size:
        raise BadFrame(f"{tokens} tokens in {blocks} blocks of {event.block_size}")
    if event.extra_keys is not None and len(event.extra_keys) != blocks:
        raise BadFrame(f"extra keys of {len(event.extra_keys)} blocks, not {blocks}")


def _is_map(payload: bytes) -> bool:
    first = payload[0] if payload else 0
    return first & 0xF0 == 0x80 or first in (0xDE, 0xDF)
