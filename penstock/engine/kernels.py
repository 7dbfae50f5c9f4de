"""Finds the compiled kernels that this processor can run, packs a model's weights for them, and computes steps with
them.

The structures here mirror those in kernels.cpp field by field. Every array whose address is handed over is kept alive
here.
"""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.engine.checkpoint import Checkpoint, Floats
from penstock.engine.forward import Batch, Ints
from penstock.engine.model import (
    Linear,
    ModelConfig,
    read_embedding,
    read_final_norm,
    read_head,
    read_layers,
    rope_table,
)
from penstock.engine.options import DType, KernelChoice

VERSION = 1
KINDS: dict[DType, int] = {"float32": 0, "bf16": 1, "int8": 2}
BLOCK = 16  # tokens per KV block, fixed in kernels.cpp
LANES = 16  # dimensions of values are padded to whole multiples of it
LARGEST_PANEL = 64
ALIGNMENT = 64  # bytes: a cache line, and the widest register

# What /proc/cpuinfo must list for each build, best first.
BUILDS: dict[str, frozenset[str]] = {
    "avx512": frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni", "fma"}),
    "avx2": frozenset({"avx2", "fma"}),
    "portable": frozenset(),
}


class _Linear(ctypes.Structure):
    _fields_ = (
        ("packed", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("outputs", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("qkv", _Linear),
        ("output", _Linear),
        ("gate_up", _Linear),
        ("down", _Linear),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("inner", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("vocabulary", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        ("scale", ctypes.c_float),
        ("embedding", ctypes.c_void_p),
        ("final_norm", ctypes.c_void_p),
        ("rope", ctypes.c_void_p),
        ("layer", ctypes.c_void_p),
        ("head", _Linear),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("key_layer", ctypes.c_size_t),
        ("value_layer", ctypes.c_size_t),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("tokens", ctypes.c_int32),
        ("samples", ctypes.c_int32),
        ("table_width", ctypes.c_int32),
        ("longest", ctypes.c_int32),
        ("ids", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("sampled", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("best", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
    )


class Kernels(NamedTuple):
    """One compiled build of kernels.cpp, loaded."""

    name: str
    library: ctypes.CDLL


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor can do, in Linux's words; nothing where that cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def find_kernels(choice: KernelChoice, directory: Path | None = None) -> Kernels | str:
    """The kernels of that name, or the best with `auto`; or a sentence that says why there are none."""
    if choice == "numpy":
        return "NumPy was asked for"
    directory = directory or Path(__file__).parent
    flags = processor_flags()
    reasons: list[str] = []
    for name in BUILDS if choice == "auto" else (choice,):
        if not BUILDS[name] <= flags and platform.machine() in ("x86_64", "AMD64"):
            reasons.append(f"this processor lacks {', '.join(sorted(BUILDS[name] - flags))}")
            continue
        path = directory / f"_kernels_{name}.so"
        if not path.exists():
            reasons.append(f"{path.name} was not built when penstock was installed (is there a C++ compiler?)")
            continue
        try:
            library = ctypes.CDLL(str(path))
            version = library.penstock_version()
        except (OSError, AttributeError) as error:
            reasons.append(f"{path.name} cannot be loaded: {error}")
            continue
        if version != VERSION:
            reasons.append(f"{path.name} is of another version of penstock: install again")
            continue
        return Kernels(name, _declared(library))
    return reasons[-1]


def unfit(config: ModelConfig) -> str:
    """Why the kernels cannot compute this model; empty when they can."""
    for name, size in (
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_attention_heads x head_dim", config.n_heads * config.head_dim),
    ):
        if size % 4:
            return f"{name} is {size}, which is not a multiple of 4"
    return ""


class CompiledForward:
    """Implements `Forward`. Memory for a step of `max_batched_tokens` is taken once, here."""

    def __init__(
        self,
        kernels: Kernels,
        checkpoint: Checkpoint,
        config: ModelConfig,
        *,
        dtype: DType,
        n_blocks: int,
        max_positions: int,
        max_batched_tokens: int,
        threads: int,
    ) -> None:
        self.name = kernels.name
        self.dtype: str = dtype
        self._library = kernels.library
        self._kind = KINDS[dtype]
        self._kept: list[NDArray[Any]] = []
        self._max_tokens = max_batched_tokens
        self._max_positions = max_positions
        layers = [self._layer(checkpoint, layer) for layer in read_layers(checkpoint, config)]
        self._layers = (_Layer * len(layers))(*layers)
        embedding = read_embedding(checkpoint, config)
        head = self._linear(read_head(checkpoint, config, embedding))
        cache = np.float32 if dtype == "float32" else np.uint16
        per_token = config.n_kv_heads * n_blocks * BLOCK
        key_layer = per_token * config.head_dim
        value_layer = per_token * (-(-config.head_dim // LANES) * LANES)
        self._keys = _zeros(config.n_layers * key_layer, cache)
        self._values = _zeros(config.n_layers * value_layer, cache)
        self._model = _Model(
            kind=self._kind,
            layers=config.n_layers,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.n_heads,
            kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            vocabulary=config.vocab_size,
            threads=threads,
            epsilon=config.rms_norm_eps,
            scale=config.head_dim**-0.5,
            embedding=self._keep(embedding if dtype == "float32" else self._narrow(embedding)),
            final_norm=self._keep(read_final_norm(checkpoint, config)),
            rope=self._keep(rope_table(config, max_positions)),
            layer=ctypes.addressof(self._layers),
            head=head,
            keys=self._keep(self._keys),
            values=self._keep(self._values),
            key_layer=key_layer,
            value_layer=value_layer,
        )
        size = self._library.penstock_workspace_bytes(ctypes.byref(self._model), max_batched_tokens, max_positions)
        self._workspace = self._keep(_zeros(size, np.uint8))
        self._logits = np.zeros((1, config.vocab_size), np.float32)

    def compute(self, batch: Batch) -> tuple[Floats, Ints]:
        n_tokens, n_samples = len(batch.ids), len(batch.samples)
        longest = int(batch.positions.max()) + 1
        # The kernels trust these: a step beyond them would write outside of the workspace.
        if n_tokens > self._max_tokens or longest > self._max_positions:
            raise ValueError(
                f"a step of {n_tokens} tokens up to position {longest}; there is room for {self._max_tokens} tokens "
                f"up to position {self._max_positions}"
            )
        if n_samples > len(self._logits):
            self._logits = np.zeros((n_samples, self._logits.shape[1]), np.float32)
        best = np.zeros(n_samples, np.int32)
        step = _Step(
            tokens=n_tokens,
            samples=n_samples,
            table_width=batch.tables.shape[1],
            longest=longest,
            ids=batch.ids.ctypes.data,
            positions=batch.positions.ctypes.data,
            rows=batch.rows.ctypes.data,
            tables=batch.tables.ctypes.data,
            sampled=batch.samples.ctypes.data,
            logits=self._logits.ctypes.data,
            best=best.ctypes.data,
            workspace=self._workspace,
        )
        self._library.penstock_compute(ctypes.byref(self._model), ctypes.byref(step))
        return self._logits[:n_samples], best

    def _layer(self, checkpoint: Checkpoint, layer: Any) -> _Layer:
        return _Layer(
            input_norm=self._keep(layer.input_norm),
            post_norm=self._keep(layer.post_norm),
            query_norm=None if layer.query_norm is None else self._keep(layer.query_norm),
            key_norm=None if layer.key_norm is None else self._keep(layer.key_norm),
            qkv=self._linear(layer.qkv),
            output=self._linear(layer.output),
            gate_up=self._linear(layer.gate_up),
            down=self._linear(layer.down),
        )

    def _linear(self, linear: Linear) -> _Linear:
        """Pack a matrix into the order that the kernels read. Scales, sums and bias are padded to whole panels."""
        outputs, inputs = linear.weight.shape
        padded = -(-outputs // LARGEST_PANEL) * LARGEST_PANEL
        weight = np.ascontiguousarray(linear.weight, np.float32)
        packed = _zeros(self._library.penstock_packed_bytes(self._kind, outputs, inputs), np.uint8)
        quantized = self._kind == KINDS["int8"]
        scales = _zeros(padded if quantized else 0, np.float32)
        sums = _zeros(padded if quantized else 0, np.int32)
        arrays = (packed.ctypes.data, scales.ctypes.data, sums.ctypes.data)
        self._library.penstock_pack(self._kind, weight.ctypes.data, outputs, inputs, *arrays)
        bias = None
        if linear.bias is not None:
            values = _zeros(padded, np.float32)
            values[:outputs] = linear.bias
            bias = self._keep(values)
        return _Linear(
            packed=self._keep(packed),
            scales=self._keep(scales),
            sums=self._keep(sums),
            bias=bias,
            outputs=outputs,
            inputs=inputs,
        )

    def _narrow(self, values: Floats) -> NDArray[np.uint16]:
        values = np.ascontiguousarray(values)
        narrowed = np.zeros(values.shape, np.uint16)
        self._library.penstock_narrow(values.ctypes.data, narrowed.ctypes.data, values.size)
        return narrowed

    def _keep(self, values: NDArray[Any]) -> int:
        """The address of an array that lives as long as this object."""
        values = np.ascontiguousarray(values)
        self._kept.append(values)
        return values.ctypes.data


def _zeros(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros that begin at a cache line."""
    item = np.dtype(dtype).itemsize
    memory = np.zeros(size * item + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size * item].view(dtype)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the types, without which it would pass addresses as 32-bit integers."""
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "penstock_packed_bytes": (size, (number, number, number)),
        "penstock_pack": (None, (number, pointer, number, number, pointer, pointer, pointer)),
        "penstock_narrow": (None, (pointer, pointer, size)),
        "penstock_workspace_bytes": (size, (pointer, number, number)),
        "penstock_compute": (None, (pointer, pointer)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
