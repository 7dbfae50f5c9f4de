"""The two models inside the package: small enough to ship, complete, and consistent with themselves."""

import json
import struct
from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

BUNDLED = Path(__file__).parents[2] / "penstock" / "engine" / "bundled"
SIZE_LIMITS = {"tiny": 12_000_000, "tiny-small": 2_000_000}  # bytes, all files together
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}

each_model = pytest.mark.parametrize("name", sorted(SIZE_LIMITS))


def read(name: str, file: str) -> dict:
    return json.loads((BUNDLED / name / file).read_text(encoding="utf-8"))


def tensor_headers(name: str) -> dict:
    """The names, types and shapes in model.safetensors (a length of 8 bytes, then JSON)."""
    with (BUNDLED / name / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        headers = json.loads(file.read(length))
    headers.pop("__metadata__", None)
    return headers


@each_model
def test_a_bundled_model_is_complete_and_within_its_size_limit(name):
    files = list((BUNDLED / name).iterdir())
    assert {file.name for file in files} == FILES
    assert sum(file.stat().st_size for file in files) <= SIZE_LIMITS[name]


@each_model
def test_the_weights_have_the_shapes_that_the_config_says(name):
    config, tensors = read(name, "config.json"), tensor_headers(name)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    expected = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        expected |= {
            at + "input_layernorm.weight": [hidden],
            at + "post_attention_layernorm.weight": [hidden],
            at + "self_attn.q_proj.weight": [queries, hidden],
            at + "self_attn.k_proj.weight": [keys, hidden],
            at + "self_attn.v_proj.weight": [keys, hidden],
            at + "self_attn.o_proj.weight": [hidden, queries],
            at + "mlp.gate_proj.weight": [inner, hidden],
            at + "mlp.up_proj.weight": [inner, hidden],
            at + "mlp.down_proj.weight": [hidden, inner],
        }
    assert {key: tensor["shape"] for key, tensor in tensors.items()} == expected
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] == 2048


@each_model
def test_the_tokenizer_and_the_configs_agree_on_the_vocabulary_and_the_special_tokens(name):
    tokenizer = Tokenizer.from_file(str(BUNDLED / name / "tokenizer.json"))
    config, generation = read(name, "config.json"), read(name, "generation_config.json")
    names = read(name, "tokenizer_config.json")
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 2048
    for kind in ("bos", "eos", "pad"):
        number = tokenizer.token_to_id(names[f"{kind}_token"])
        assert number is not None
        assert number == config[f"{kind}_token_id"] == generation[f"{kind}_token_id"]
    assert names["eos_token"] == "<|im_end|>"


@each_model
def test_any_text_survives_the_tokenizer_and_digits_stay_single(name):
    tokenizer = Tokenizer.from_file(str(BUNDLED / name / "tokenizer.json"))
    for text in ("What is 12 + 345?", "Grüße, 世界! \U0001f600\n\tx  y", '{"a": [1, 2]}'):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("2048").ids) == 4


@each_model
def test_the_chat_template_is_plain_jinja_and_writes_chatml(name):
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(  # no HTML here
        read(name, "tokenizer_config.json")["chat_template"]
    )
    text = template.render(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>"}],
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer = Tokenizer.from_file(str(BUNDLED / name / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_both_models_share_one_tokenizer_so_that_one_can_stand_in_for_the_other():
    small, large = (read(name, "tokenizer.json") for name in ("tiny-small", "tiny"))
    assert small == large


@each_model
def test_the_model_card_warns_and_gives_the_measured_table(name):
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8")
    assert "Do not trust it with facts" in card
    assert "python models/train.py" in card
    assert "| **Mean of the ten** |" in card
