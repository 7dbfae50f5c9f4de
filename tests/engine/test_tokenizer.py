"""Tokens to text without half characters, and chat templates as transformers renders them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models

from penstock.engine.checkpoint import CheckpointError
from penstock.engine.random_model import RandomModel, write_random_model
from penstock.engine.tokenizer import TemplateRefused, Tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_random_model(directory, RandomModel(), seed=1)
    return directory


@pytest.fixture(scope="module")
def byte_level(directory: Path) -> Tokenizer:
    return Tokenizer(directory, 320, lambda form: form)


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As Llama 2 and Mistral have it: words with a mark for the space, and a token for each byte."""
    directory = tmp_path_factory.mktemp("sentence-piece")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁KV", "▁cache", "s", "▁"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = HuggingFaceTokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    return Tokenizer(directory, 300, lambda form: form)


def streamed(tokenizer: Tokenizer, tokens: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.push(token) for token in tokens), stream.finish()]


# Special tokens are never shown, and Hypothesis knows their names: it tries the strings of the code under test.
@given(text=st.text(max_size=40).filter(lambda text: "<|" not in text))
def test_any_text_comes_back_from_its_tokens_and_no_piece_is_half_a_character(byte_level, text):
    tokens = byte_level.encode(text)
    pieces = streamed(byte_level, tokens)
    assert "".join(pieces) == text
    if "�" not in text:
        assert not any("�" in piece for piece in pieces)


@given(tokens=st.lists(st.integers(0, 319), max_size=30))
def test_any_tokens_become_the_same_text_streamed_or_at_once(byte_level, tokens):
    assert "".join(streamed(byte_level, tokens)) == byte_level.decode(tokens)


def test_a_character_of_several_tokens_comes_when_it_is_whole(byte_level):
    assert streamed(byte_level, byte_level.encode("é!")) == ["", "é", "!", ""]


def test_a_character_that_is_never_completed_is_told_at_the_end(byte_level):
    half = byte_level.encode("é")[:1]
    assert streamed(byte_level, half) == ["", "�"]


def test_special_tokens_are_not_text(byte_level):
    assert "".join(streamed(byte_level, [0, *byte_level.encode("hi"), 2])) == "hi"
    assert byte_level.token_text(2) == ("<|im_end|>", b"<|im_end|>")


def test_a_vocabulary_with_marked_spaces_is_streamed_with_its_spaces(sentence_piece):
    tokens = [1, *(259, 260, 261, 262), *(3 + byte for byte in " – é".encode()), 2]
    pieces = streamed(sentence_piece, tokens)
    assert "".join(pieces) == sentence_piece.decode(tokens) == "the KV caches – é"
    assert not any("�" in piece for piece in pieces)


def test_an_unfinished_character_of_such_a_vocabulary_is_told_at_the_end_too(sentence_piece):
    assert streamed(sentence_piece, [259, 3 + 0xC3]) == ["the", "", "�"]
    assert sentence_piece.token_text(261) == ("cache", b"cache")


def test_bytes_that_are_no_text_are_not_held_back_for_ever(sentence_piece):
    stream = sentence_piece.stream()
    shown = "".join(stream.push(3 + 0x80) for _ in range(40))
    assert len(shown) >= 32
    assert len(shown + stream.finish()) == 40


def with_template(directory: Path, tmp_path: Path, template: Any) -> Tokenizer:
    (tmp_path / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    config = {"chat_template": template, "bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer(tmp_path, 320, lambda form: f"<{form}>")


HELLO = [{"role": "user", "content": "hello <b>"}]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages[0].content }}", "hello <b>"),
        ("{{ messages[0].content | tojson }}", '"hello <b>"'),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{{ strftime_now('%Y') }}", "<%Y>"),
        ("{% for m in messages %}{% if loop.first %}{% break %}{% endif %}{% endfor %}z", "z"),
        ([{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}], "yes"),
    ],
)
def test_templates_are_rendered_as_transformers_does(directory, tmp_path, template, text):
    tokenizer = with_template(directory, tmp_path, template)
    assert tokenizer.decode(tokenizer.encode_chat(HELLO)) == text


def test_special_tokens_have_their_names_in_templates(directory, tmp_path):
    tokenizer = with_template(directory, tmp_path, "{{ bos_token }}{{ eos_token }}")
    assert tokenizer.encode_chat(HELLO) == [0, 2]


def test_a_template_in_a_file_of_its_own_goes_first(directory, tmp_path):
    (tmp_path / "chat_template.jinja").write_text("file")
    tokenizer = with_template(directory, tmp_path, "config")
    assert tokenizer.decode(tokenizer.encode_chat(HELLO)) == "file"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.__class__.__mro__ }}", "unsafe|undefined"),
        ("{{ messages[5].content }}", "undefined|no element"),
        ("{{ messages.append(1) }}", "immutable|not safely callable|append"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_what_a_template_refuses_or_may_not_do_is_told_to_the_caller(directory, tmp_path, template, message):
    tokenizer = with_template(directory, tmp_path, template)
    with pytest.raises(TemplateRefused, match=message):
        tokenizer.encode_chat(HELLO)


def test_a_model_without_a_template_has_no_chat(directory, tmp_path):
    tokenizer = with_template(directory, tmp_path, None)
    assert not tokenizer.has_chat_template
    with pytest.raises(TemplateRefused, match="/v1/completions"):
        tokenizer.encode_chat(HELLO)


def test_a_template_that_is_no_template_is_an_error_of_the_model(directory, tmp_path):
    with pytest.raises(CheckpointError, match="chat template is not valid"):
        with_template(directory, tmp_path, "{% if %}")


def test_a_tokenizer_that_is_none_is_named(directory, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer(tmp_path, 320, lambda form: form)
