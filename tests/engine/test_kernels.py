"""Which compiled kernels are used, and what is said when there are none."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from penstock.engine.checkpoint import CheckpointError
from penstock.engine.kernels import BUILDS, Kernels, find_kernels, processor_flags
from penstock.engine.load import load_model
from penstock.engine.options import EngineOptions
from penstock.engine.random_model import RandomModel, write_random_model

FIXTURE = Path(__file__).parent / "fixtures" / "llama-gqa"
BUILT = [name for name in BUILDS if isinstance(find_kernels(name), Kernels)]  # type: ignore[arg-type]  # names of BUILDS


def options(**changes: object) -> EngineOptions:
    return EngineOptions(**{"model": str(FIXTURE), "kv_tokens": 512, **changes})  # type: ignore[arg-type]


def test_where_nothing_was_built_numpy_computes_and_says_why(tmp_path):
    why = find_kernels("auto", tmp_path)
    assert isinstance(why, str)
    assert "compiler" in why


def test_a_library_of_something_else_is_not_used(tmp_path):
    (tmp_path / "_kernels_portable.so").write_bytes(b"not a library")
    why = find_kernels("portable", tmp_path)
    assert isinstance(why, str)
    assert "cannot be loaded" in why


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
def test_kernels_that_the_processor_lacks_instructions_for_are_not_loaded(monkeypatch):
    monkeypatch.setattr("penstock.engine.kernels.processor_flags", lambda: frozenset({"fma"}))
    why = find_kernels("avx2")
    assert why == "this processor lacks avx2"
    found = find_kernels("auto")
    assert isinstance(found, str) or found.name == "portable"


def test_flags_are_read_where_linux_tells_them(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\nbugs\t\t:\n")
    assert processor_flags(cpuinfo) == {"fpu", "avx2", "fma"}
    assert processor_flags(tmp_path / "nowhere") == frozenset()


def test_kernels_that_were_asked_for_and_are_not_there_are_an_error(monkeypatch, tmp_path):
    shutil.copy(FIXTURE / "config.json", tmp_path)
    monkeypatch.setattr("penstock.engine.load.find_kernels", lambda choice: "not built here")
    with pytest.raises(CheckpointError, match="avx2 kernels cannot be used: not built here"):
        load_model(options(kernels="avx2"), str)
    loaded = load_model(options(kernels="auto"), str)
    assert loaded.forward.name == "numpy"
    assert loaded.notes == ("computing with NumPy in float32, several times slower: not built here",)


@pytest.mark.skipif(not BUILT, reason="no kernels were built")
def test_a_model_of_odd_sizes_is_computed_with_numpy(tmp_path):
    write_random_model(tmp_path, RandomModel(hidden_size=66, head_dim=16), seed=1)
    loaded = load_model(options(model=str(tmp_path)), str)
    assert loaded.forward.name == "numpy"
    assert "hidden_size is 66" in loaded.notes[0]


@pytest.mark.skipif(not BUILT, reason="no kernels were built")
def test_the_best_kernels_are_used_by_themselves():
    loaded = load_model(options(), str)
    assert (loaded.forward.name, loaded.forward.dtype, loaded.notes) == (BUILT[0], "bf16", ())


@pytest.mark.parametrize("kernels", ["numpy", *BUILT])
def test_more_kv_cache_than_there_is_memory_is_refused_with_advice(kernels):
    with pytest.raises(CheckpointError, match="fewer kv_tokens"):
        load_model(options(kernels=kernels, kv_tokens=2**50), str)
