"""Reads a Hugging Face checkpoint directory: JSON files, and tensors from safetensors files, checked before anything
is used.

An own reader for safetensors, because NumPy has no bfloat16 and because a truncated or mismatched file should be
named, not met as a traceback. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Headers beyond this are refused by the reference implementation as well.
MAX_HEADER_BYTES = 100_000_000
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


class CheckpointError(Exception):
    """The files of a model cannot be used. The message names the file and says what to do."""


class _Tensor(NamedTuple):
    """Where a tensor lies: `start` and `end` are byte offsets in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `CheckpointError` when it is missing or not an object."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: a model is a directory with config.json, tokenizer.json and *.safetensors"
        ) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} should hold a JSON object")
    return value


class Checkpoint:
    """The tensors of one model directory. Files are mapped, not read, until a tensor is asked for; `close` lets go of
    them.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise CheckpointError(f"{directory} is not a directory: give a model's path, or the name of a bundled one")
        self.directory = directory
        self._maps: dict[Path, mmap.mmap] = {}
        self._tensors: dict[str, _Tensor] = {}
        self._used: set[str] = set()
        try:
            for file, expected in self._files().items():
                self._open(file, expected)
        except BaseException:
            self.close()
            raise

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(prod(tensor.shape) for tensor in self._tensors.values())

    @property
    def unused(self) -> list[str]:
        """Names of tensors that were never asked for."""
        return sorted(self._tensors.keys() - self._used)

    def skip(self, name: str) -> None:
        """Say that a tensor is known and not needed."""
        self._used.add(name)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        """A copy of a tensor in float32. Raises `CheckpointError` when it is missing or of another shape."""
        found = self._tensors.get(name)
        if found is None:
            raise CheckpointError(f"{self.directory} has no tensor {name!r}: the checkpoint is incomplete")
        if found.shape != shape:
            raise CheckpointError(
                f"{found.file}: tensor {name!r} has shape {list(found.shape)}, config.json asks for {list(shape)}"
            )
        self._used.add(name)
        data = self._maps[found.file][found.start : found.end]
        if found.dtype == "BF16":
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif found.dtype == "F16":
            values = np.frombuffer(data, "<f2").astype(np.float32)
        else:
            values = np.frombuffer(data, "<f4").astype(np.float32)
        return values.reshape(shape)

    def close(self) -> None:
        for mapped in self._maps.values():
            mapped.close()
        self._maps.clear()

    def _files(self) -> Mapping[Path, set[str] | None]:
        """The safetensors files, each with the names that an index says it holds."""
        index_path = self.directory / "model.safetensors.index.json"
        single = self.directory / "model.safetensors"
        if index_path.exists():
            try:
                index = msgspec.convert(read_json(index_path), _Index)
            except msgspec.ValidationError as error:
                raise CheckpointError(f"{index_path} is not an index of tensors: {error}") from None
            files: dict[Path, set[str] | None] = {}
            for name, file in index.weight_map.items():
                if Path(file).name != file:
                    raise CheckpointError(f"{index_path} names {file!r}, which is outside of the model's directory")
                names = files.setdefault(self.directory / file, set())
                assert names is not None
                names.add(name)
            return files
        if single.exists():
            return {single: None}
        if list(self.directory.glob("*.bin")) or list(self.directory.glob("*.pt*")):
            raise CheckpointError(f"{self.directory} holds pickled weights: convert them to safetensors first")
        raise CheckpointError(f"{single} is missing")

    def _open(self, file: Path, expected: set[str] | None) -> None:
        try:
            size = file.stat().st_size
            with file.open("rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except FileNotFoundError:
            raise CheckpointError(f"{file} is missing, but the index names it") from None
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from None
        if mapped is None:
            raise CheckpointError(f"{file} is empty")
        self._maps[file] = mapped
        header_bytes = int.from_bytes(mapped[:8], "little")
        if size < 8 or header_bytes > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{file} is not a safetensors file, or is truncated "
                f"({size:,} bytes; its header should be {header_bytes:,})"
            )
        try:
            header = msgspec.json.decode(mapped[8 : 8 + header_bytes], type=dict[str, msgspec.Raw])
            header.pop("__metadata__", None)
            entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CheckpointError(f"{file} has a header that is not valid: {error}") from None
        if expected is not None and (lost := expected - entries.keys()):
            raise CheckpointError(f"{file} lacks tensor {min(lost)!r}, which the index says is there")
        data = 8 + header_bytes
        for name, entry in entries.items():
            self._add(
                name,
                _Tensor(file, entry.dtype, entry.shape, data + entry.data_offsets[0], data + entry.data_offsets[1]),
            )

    def _add(self, name: str, tensor: _Tensor) -> None:
        item = ITEM_BYTES.get(tensor.dtype)
        if item is None:
            raise CheckpointError(
                f"{tensor.file}: tensor {name!r} is {tensor.dtype}; supported are {', '.join(ITEM_BYTES)}"
            )
        size = len(self._maps[tensor.file])
        if not 0 <= tensor.start <= tensor.end <= size:
            raise CheckpointError(
                f"{tensor.file} is truncated: tensor {name!r} ends at byte {tensor.end:,}, the file at {size:,}"
            )
        if min(tensor.shape, default=0) < 0 or tensor.end - tensor.start != prod(tensor.shape) * item:
            n_bytes = tensor.end - tensor.start
            raise CheckpointError(f"{tensor.file}: tensor {name!r} has {n_bytes} bytes for shape {list(tensor.shape)}")
        if name in self._tensors:
            raise CheckpointError(f"{tensor.file}: tensor {name!r} is in {self._tensors[name].file} as well")
        self._tensors[name] = tensor
