"""What one replica of the embedded engine is told at its start. Pure data, so that `config` and the command line can
import it.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

DType = Literal["bf16", "int8", "float32"]
KernelChoice = Literal["auto", "avx512", "avx2", "portable", "numpy"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Raises `ValueError` for a value out of range; the message names the option."""

    model: str = "tiny"
    """A directory with a Hugging Face checkpoint, or the name of a bundled model: `tiny`, `tiny-small`."""
    host: str = "127.0.0.1"
    port: int = 8001
    """0 takes a free port; it is told in `Ready.port`."""
    served_names: tuple[str, ...] = ()
    """The names callers may use in `model`. Empty: the last part of the model's path."""
    dtype: DType = "bf16"
    """`bf16`: weights, keys and values in bfloat16. `int8`: weights in 8 bits. `float32`: for exact comparisons."""
    threads: int = 1
    """Threads per step. Several replicas of one thread are better than one of several threads."""
    kernels: KernelChoice = "auto"
    """Which compiled kernels to use; `auto` takes the fastest that this machine can run, and else NumPy."""
    max_seqs: int = 32
    """Sequences computed at the same time."""
    max_batched_tokens: int = 512
    """Tokens computed in one step, decoding and prefill together."""
    max_waiting: int = 256
    """Requests that may wait for their turn, beyond those that run; one more gets a 429."""
    max_model_len: int = 0
    """The longest prompt and answer together, in tokens. 0: what the model and the KV cache allow."""
    kv_tokens: int = 16_384
    """Tokens for which keys and values are kept, for running sequences and remembered prefixes together."""
    prefix_cache: bool = True
    kv_events: str = ""
    """Where to publish what the prefix cache holds, such as `tcp://127.0.0.1:5557`, or `tcp://127.0.0.1:*` for a free
    port, told in `Ready.kv_events`. Empty: nowhere."""
    kv_replay: str = ""
    """Likewise, where the last batches of that are repeated for those who missed some. Needs `kv_events`."""
    drain_seconds: float = 20.0
    """After a SIGTERM, how long running requests may take to finish."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be 0..65535, not {self.port}")
        for name in ("threads", "max_seqs", "max_batched_tokens", "max_waiting", "kv_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_model_len < 0:
            raise ValueError(f"max_model_len must not be negative, is {self.max_model_len}")
        if self.drain_seconds < 0:
            raise ValueError(f"drain_seconds must not be negative, is {self.drain_seconds}")
        if self.kv_replay and not self.kv_events:
            raise ValueError("kv_replay repeats what kv_events publishes: give both")
        for name in ("kv_events", "kv_replay"):
            if not re.fullmatch(r"(tcp://[^ /]+:(\d{1,5}|\*))?", getattr(self, name)):
                raise ValueError(
                    f"{name} must be an endpoint such as tcp://127.0.0.1:5557, not {getattr(self, name)!r}"
                )
        if self.max_batched_tokens < self.max_seqs:
            raise ValueError(
                f"max_batched_tokens ({self.max_batched_tokens}) must be at least max_seqs ({self.max_seqs})"
            )


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says when it can be used."""

    host: str
    port: int
    model: str
    """The first served name."""
    kernels: str
    """`avx512`, `avx2`, `portable` or `numpy`."""
    dtype: str
    """What is computed in, which differs from the option where the kernels could not be used."""
    parameters: int
    max_model_len: int
    kv_events: str = ""
    """Where the changes of its prefix cache are published; empty: nowhere."""
    kv_replay: str = ""
    notes: tuple[str, ...] = ()
    """Sentences a person should read, for example why the kernels are not used."""

    def __str__(self) -> str:
        return (
            f"{self.model} ready on http://{self.host}:{self.port}/v1 "
            f"({self.parameters / 1e6:.1f} M parameters, {self.dtype}, {self.kernels} kernels)"
        )
