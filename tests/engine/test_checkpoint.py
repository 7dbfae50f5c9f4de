"""Files of a model that cannot be used are named, with what is wrong and what to do: never a traceback, never wrong
answers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.checkpoint import Checkpoint, CheckpointError
from penstock.engine.load import load_model, model_directory
from penstock.engine.model import read_config
from penstock.engine.options import EngineOptions
from penstock.engine.random_model import RandomModel, write_random_model, write_safetensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A good random model; tests break one thing about it."""
    write_random_model(tmp_path / "model", RandomModel(), seed=1)
    return tmp_path / "model"


def load(directory: Path) -> None:
    load_model(EngineOptions(model=str(directory), kernels="numpy", kv_tokens=512), lambda form: form)


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def test_a_good_model_loads(model):
    load(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(model)


def test_a_path_that_is_not_there_lists_the_bundled_models(tmp_path):
    with pytest.raises(CheckpointError, match="tiny"):
        model_directory(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"{not json", b'{"a": "\xff"}', b"[" * 50_000, b"[]"])
def test_a_file_that_is_not_json_is_named(model, content):
    (model / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read|should hold)"):
        load(model)


def test_pickled_weights_are_refused_with_advice(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="convert them to safetensors"):
        load(model)


@pytest.mark.parametrize(
    ("keep", "message"), [(0, "is empty"), (4, "truncated"), (100, "truncated"), (-10, "truncated")]
)
def test_a_truncated_file_is_named(model, keep, message):
    path = model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors .*{message}"):
        load(model)


def test_a_header_that_is_not_json_is_named(model):
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8:20] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="header that is not valid"):
        load(model)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(model):
    edit(model / "config.json", intermediate_size=256)
    with pytest.raises(CheckpointError, match=r"mlp\.gate_proj\.weight.*\[128, 64\].*\[256, 64\]"):
        load(model)


def test_a_missing_tensor_is_named(model):
    rewrite_header(model / "model.safetensors", lambda header: header.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"no tensor 'model\.norm\.weight'"):
        load(model)


def test_weights_that_nothing_uses_are_refused_because_the_answers_would_be_wrong(model):
    def add(header: dict[str, Any]) -> None:
        header["model.layers.0.self_attn.extra.weight"] = header["model.norm.weight"]

    rewrite_header(model / "model.safetensors", add)
    with pytest.raises(CheckpointError, match=r"does not know: 'model\.layers\.0\.self_attn\.extra\.weight'"):
        load(model)


def test_an_unknown_number_type_is_named(model):
    rewrite_header(model / "model.safetensors", lambda header: header["model.norm.weight"].update(dtype="F8_E4M3"))
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' is F8_E4M3"):
        load(model)


def test_offsets_that_do_not_fit_the_shape_are_refused(model):
    rewrite_header(model / "model.safetensors", lambda header: header["model.norm.weight"].update(shape=[65]))
    with pytest.raises(CheckpointError, match="bytes for shape"):
        load(model)


def test_an_index_that_leaves_the_directory_is_refused(model):
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside of the model's directory"):
        load(model)


def test_a_shard_that_is_missing_or_lacks_a_tensor_is_named(model):
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "model-1.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"model-1\.safetensors is missing"):
        load(model)
    index.write_text(json.dumps({"weight_map": {"x": "model.safetensors"}}))
    with pytest.raises(CheckpointError, match="lacks tensor 'x'"):
        load(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures = .*GPT2LMHeadModel.*LlamaForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"model_type": "mistral", "sliding_window": 128}, "sliding_window = 128"),
        ({"use_sliding_window": True, "sliding_window": 128}, "sliding_window = 128"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling = 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling = 'dynamic'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor should be a number"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"num_local_experts": 8}, "num_local_experts = 8"),
        ({"hidden_size": "big"}, "hidden_size should be a number"),
        ({"hidden_size": 64.5}, "hidden_size should be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers should be a number above 0"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 66, "head_dim": ...}, "hidden_size 66 is not a multiple"),
        ({"head_dim": 15}, "head_dim = 15"),
        ({"vocab_size": 10}, "the model's vocab_size is 10"),
    ],
)
def test_what_a_config_asks_for_and_the_engine_cannot_do_is_refused_by_name(model, changes, message):
    edit(model / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load(model)


def test_a_window_that_is_as_long_as_the_context_is_no_window(model):
    edit(model / "config.json", model_type="mistral", sliding_window=512)
    load(model)


def test_end_tokens_come_from_both_files(model):
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    assert read_config(model).eos_token_ids == (2, 7)


def test_rope_parameters_of_transformers_5_mean_the_same(model):
    edit(
        model / "config.json",
        rope_theta=...,
        rope_scaling=...,
        rope_parameters={"rope_type": "default", "rope_theta": 77.0},
    )
    assert read_config(model).rope_theta == 77.0


def test_a_context_that_does_not_fit_is_refused(model):
    with pytest.raises(CheckpointError, match="max_model_len 300"):
        load_model(
            EngineOptions(model=str(model), kernels="numpy", kv_tokens=256, max_model_len=300), lambda form: form
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_are_read_as_they_were_written(tmp_path, dtype):
    values = np.array([[1.0, -2.5, 0.0], [3.0e-5, 65504.0, -0.125]], np.float32)
    write_safetensors(tmp_path / "model.safetensors", {"x": values}, dtype)
    checkpoint = Checkpoint(tmp_path)
    read = checkpoint.tensor("x", (2, 3))
    checkpoint.close()
    # 8 or 11 significant bits, rounded to nearest
    np.testing.assert_allclose(
        read, values, rtol={"bfloat16": 2**-9, "float16": 2**-11, "float32": 0}[dtype], atol=3e-8
    )


@settings(max_examples=150)
@given(st.data())
def test_any_damaged_byte_gives_an_error_or_a_model_never_a_crash(tmp_path_factory, data):
    good = tmp_path_factory.getbasetemp() / "damaged"
    if not good.exists():
        write_random_model(good, RandomModel(hidden_size=16, intermediate_size=16, num_hidden_layers=1), seed=1)
        (good / "model.safetensors").rename(good / "good")
    content = bytearray((good / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 2_000))] = data.draw(st.integers(0, 255))
    (good / "model.safetensors").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        Checkpoint(good).close()
    except CheckpointError as error:
        assert "model.safetensors" in str(error)  # noqa: PT017  either outcome is right
