"""Text to tokens and back, and chat messages to a prompt, from tokenizer.json and tokenizer_config.json.

Chat templates are programs that came with a model, so they run in Jinja's sandbox, with the same settings and
functions as in Hugging Face transformers (`utils/chat_template_utils.py`): otherwise a model would see prompts that it
was not trained on.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from tokenizers import Tokenizer as HuggingFaceTokenizer

from penstock.engine.checkpoint import CheckpointError, read_json

# Tokens looked at for one character. UTF-8 needs four bytes at most; what is not a character by then is no character.
MAX_TOKENS_PER_CHARACTER = 8


# What a program that came with a model may do wrong with the messages of a caller.
_TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class TemplateRefused(Exception):
    """The model's chat template does not accept these messages. The message is the template's own, for the caller."""


class TextStream(Protocol):
    """Turns tokens into text one at a time, never giving out half a character."""

    def push(self, token: int) -> str:
        """The text that is certain now; often a word, sometimes nothing."""
        ...

    def finish(self) -> str:
        """What was held back: characters that were never completed, as U+FFFD."""
        ...


class Tokenizer:
    """One model's tokenizer. `vocab_size` is that of the model: what the tokenizer may not exceed."""

    def __init__(self, directory: Path, vocab_size: int, today: Callable[[str], str]) -> None:
        """`today` formats the current date for templates that ask for it, as `strftime` does."""
        path = directory / "tokenizer.json"
        description = read_json(path)
        try:
            self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  the library raises nothing narrower
            raise CheckpointError(f"{path} is not a tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if size > vocab_size:
            raise CheckpointError(f"{path} has {size} tokens, but the model's vocab_size is {vocab_size}")
        self.vocab_size = vocab_size
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = frozenset(token for token, content in added.items() if content.special)
        self._bytes = self._token_bytes(description, size) if _is_byte_level(description) else None
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.longest_token = max((len(text) for text in vocabulary), default=1)
        self._template = _ChatTemplate(directory, today)

    @property
    def has_chat_template(self) -> bool:
        return self._template.exists

    def encode(self, text: str) -> list[int]:
        """The tokens of a plain prompt, with a beginning-of-text token where the model wants one."""
        return list(self._tokenizer.encode(text, add_special_tokens=True).ids)

    def encode_chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation, up to where the assistant speaks. Raises `TemplateRefused`."""
        return list(self._tokenizer.encode(self._template.render(messages), add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """The text of `tokens`, without special ones."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def token_text(self, token: int) -> tuple[str, bytes]:
        """How a token reads on its own, for log probabilities; special ones by their name."""
        if self._bytes is not None and token < len(self._bytes) and token not in self.special:
            data = self._bytes[token]
            return data.decode("utf-8", "replace"), data
        text = str(self._tokenizer.decode([token], skip_special_tokens=False))
        return text, text.encode()

    def stream(self) -> TextStream:
        if self._bytes is not None:
            return _ByteLevelStream(self._bytes, self.special)
        return _PrefixStream(self.decode, self.special)

    def _token_bytes(self, description: dict[str, Any], size: int) -> list[bytes]:
        """The bytes of every token of a byte-level vocabulary, where a printable character stands for each byte."""
        alphabet = {character: byte for byte, character in _byte_alphabet().items()}
        table: list[bytes] = []
        for token in range(size):
            text = self._tokenizer.id_to_token(token) or ""
            try:
                table.append(bytes(alphabet[character] for character in text))
            except KeyError:  # an added token, which is written as it reads
                table.append(text.encode())
        return table


class _ByteLevelStream:
    """For byte-level vocabularies: every token is known bytes, so decoding is incremental and exact."""

    def __init__(self, table: list[bytes], special: frozenset[int]) -> None:
        self._table = table
        self._special = special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        if token in self._special or token >= len(self._table):
            return ""
        return self._decoder.decode(self._table[token])

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _PrefixStream:
    """For any other vocabulary: decodes the last few tokens twice, and gives out what the new one adds.

    The tokens before are there because some decoders treat the first token differently. As vLLM and TGI do it.
    """

    def __init__(self, decode: Callable[[list[int]], str], special: frozenset[int]) -> None:
        self._decode = decode
        self._special = special
        self._known: list[int] = []
        self._fresh: list[int] = []

    def push(self, token: int) -> str:
        if token in self._special:
            return ""
        self._fresh.append(token)
        before = self._decode(self._known)
        text = self._decode(self._known + self._fresh)
        if text.endswith("�") and len(self._fresh) < MAX_TOKENS_PER_CHARACTER:
            return ""
        self._known, self._fresh = self._fresh, []
        return text[len(before) :]

    def finish(self) -> str:
        if not self._fresh:
            return ""
        before = self._decode(self._known)
        text = self._decode(self._known + self._fresh)
        self._fresh = []
        return text[len(before) :]


class _ChatTemplate:
    """The template of tokenizer_config.json or chat_template.jinja, and the special tokens it may name."""

    def __init__(self, directory: Path, today: Callable[[str], str]) -> None:
        config_path = directory / "tokenizer_config.json"
        config = read_json(config_path) if config_path.exists() else {}
        self._special = {name: _content(config[name]) for name in config if name.endswith("_token") and config[name]}
        source = _template_source(directory, config)
        self.exists = source is not None
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = today
        try:
            self._template = environment.from_string(source or "")
        except jinja2.TemplateSyntaxError as error:
            raise CheckpointError(f"{directory}: the chat template is not valid: {error}") from None

    def render(self, messages: list[dict[str, Any]]) -> str:
        if not self.exists:
            raise TemplateRefused("this model has no chat template: use /v1/completions")
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except _TEMPLATE_ERRORS as error:
            raise TemplateRefused(f"the model's chat template refused the messages: {error}") from None


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant said, for training; here it only shows its contents."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _template_source(directory: Path, config: dict[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _content(token: object) -> str:
    """The text of a special token, which is written as a string or as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _is_byte_level(description: dict[str, Any]) -> bool:
    decoder = description.get("decoder") or {}
    parts = decoder.get("decoders", [decoder]) if decoder.get("type") == "Sequence" else [decoder]
    return [part.get("type") for part in parts] == ["ByteLevel"]


def _byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies (Radford et al., 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(256 + index) for index, byte in enumerate(others)}
