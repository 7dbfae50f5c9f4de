"""How hard a request is, 0 to 1: by what it looks like, or by what a classifier has learned from labelled requests.

The classifier is a logistic regression over hashed n-grams of words (Weinberger et al., 2009) and the same marks that
the heuristics look at: a local embedding of which nothing is stored but weights. It decides in plain Python, so it
needs nothing that is not here; `routing.training` makes it.
"""

from __future__ import annotations

import base64
import binascii
import re
from array import array
from collections.abc import Sequence
from itertools import pairwise
from math import exp, log2
from typing import Final
from zlib import crc32

import msgspec

from penstock.routing.facts import Reading

MAX_WORDS: Final = 200  # looked at: the first and the last halves, where people say what they want
MAX_CHARACTERS: Final = 8_000
FORMAT: Final = 1

_LETTERS: Final = re.compile(r"[a-z]+")
_WORD: Final = re.compile(r"[^\W\d_]+|[0-9]+|[^\w\s]")
_CODE: Final = ("```", "def ", "class ", "import ", "#include", "select ", "function ", "();", "{\n", "};", "</")
_SUM: Final = re.compile(r"[0-9]\s{0,3}[-+*/^=<>]\s{0,3}[0-9]")
_MATHS: Final = frozenset({
    "solve", "equation", "integral", "derivative", "probability", "calculate", "compute", "theorem", "sqrt", "frac",
    "polynomial", "matrix", "modulo",
})  # fmt: skip
_REASONING: Final = frozenset({
    "why", "prove", "proof", "derive", "reason", "analyse", "analyze", "compare", "tradeoff", "tradeoffs", "design",
    "plan", "debug", "optimise", "optimize", "critique", "evaluate", "refactor", "strategy", "justify",
})  # fmt: skip
_PHRASES: Final = ("step by step", "explain how", "trade-off")
_CONSTRAINTS: Final = frozenset({
    "must", "should", "exactly", "least", "most", "without", "only", "never", "always", "ensure", "each", "both",
    "except",
})  # fmt: skip
_ITEMS: Final = ("\n- ", "\n* ", "\n1. ", "\n2. ", "\n3. ")
MARKS: Final = ("length", "code", "maths", "reasoning", "constraints", "turns", "images", "answer")
_WEIGHTS: Final = (0.9, 0.9, 0.9, 0.9, 0.6, 0.4, 0.5, 0.3)  # of the marks in turn, each 0 to 1 (see `marks`)
_BIAS: Final = -1.6  # a short plain question is 0.17


def marks(reading: Reading, max_tokens: int) -> tuple[float, ...]:
    """What a request looks like, each 0 to 1, in the order of `MARKS`. The words are those of the last turn; the length
    is that of the whole conversation."""
    last = (reading.last[-MAX_CHARACTERS:] or reading.words[-MAX_CHARACTERS:]).lower()
    words = _LETTERS.findall(last)
    maths, reasoning, constraints = (
        sum(map(known.__contains__, words)) for known in (_MATHS, _REASONING, _CONSTRAINTS)
    )
    return (
        min(1.0, max(0.0, log2(1 + len(reading.words) / 200) / 7)),  # 25,000 characters are 1
        min(1.0, sum(map(last.count, _CODE)) / 2),
        min(1.0, (maths + len(_SUM.findall(last))) / 2),
        min(1.0, (reasoning + sum(map(last.count, _PHRASES))) / 2),
        min(1.0, (constraints + sum(map(last.count, _ITEMS))) / 6),
        min(1.0, max(0, reading.turns - 1) / 8),
        min(1.0, float(reading.images)),
        min(1.0, max_tokens / 4_096),
    )


def heuristic(reading: Reading, max_tokens: int) -> float:
    """A guess by hand, for when nothing was learned."""
    return logistic(_BIAS + 2 * sum(w * m for w, m in zip(_WEIGHTS, marks(reading, max_tokens), strict=True)))


def tokens_of(text: str) -> list[str]:
    """Words, single punctuation, and numbers by their length; at most `MAX_WORDS`."""
    found = _WORD.findall(text[:MAX_CHARACTERS].lower())
    if len(found) > MAX_WORDS:
        found = found[: MAX_WORDS // 2] + found[-MAX_WORDS // 2 :]
    return [f"<{len(word)}>" if word.isdigit() else word for word in found]


def buckets(text: str, n: int) -> list[int]:
    """Where in a table of `n` the text's features are, each once, in rising order: words, pairs, what it begins with,
    how many words and clauses there are."""
    tokens = tokens_of(text)
    features = {*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))}
    features.update(f"^{token}" for token in tokens[:2])
    features.add(f"#{min(len(tokens), 20)}")
    features.add(f"##{len(tokens) // 10}")
    return sorted({crc32(feature.encode()) % n for feature in features})


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `penstock route train` writes. `weights` are little-endian 32-bit floats in base64, `marks` the weights of
    `MARKS`; `trained` is for people."""

    format: int
    bias: float
    marks: tuple[float, ...]
    weights: str
    trained: dict[str, float | int | str] = {}


class Classifier:
    """Immutable."""

    __slots__ = ("_bias", "_marks", "_weights", "trained")

    def __init__(self, bias: float, marks: Sequence[float], weights: Sequence[float]) -> None:
        """`weights` of a power of two buckets."""
        self._bias = bias
        self._marks = tuple(marks)
        self._weights = array("f", weights)
        self.trained: dict[str, float | int | str] = {}

    @classmethod
    def read(cls, text: str) -> Classifier:
        """Raises `ValueError` with a sentence."""
        try:
            file = msgspec.json.decode(text, type=File)
            data = base64.b64decode(file.weights, validate=True)
        except (msgspec.MsgspecError, binascii.Error, UnicodeError, RecursionError) as error:
            raise ValueError(f"is not a file of `penstock route train`: {error}") from None
        n = len(data) // 4
        if file.format != FORMAT or len(file.marks) != len(MARKS) or n * 4 != len(data) or n < 2 or n & (n - 1):
            raise ValueError("is of another version of `penstock route train`; train it again")
        weights = array("f", data)
        if not all(map(_finite, (file.bias, *file.marks, *weights))):
            raise ValueError("has weights that are not numbers; train it again")
        classifier = cls(file.bias, file.marks, weights)
        classifier.trained = file.trained
        return classifier

    def write(self, trained: dict[str, float | int | str]) -> str:
        """The text of a file that `read` reads."""
        weights = base64.b64encode(self._weights.tobytes()).decode()
        return msgspec.json.encode(File(FORMAT, self._bias, self._marks, weights, trained)).decode()

    def score(self, reading: Reading, max_tokens: int) -> float:
        """0..1: how likely it is that the easy deployments would not do."""
        weights = self._weights
        text = reading.last or reading.words
        total = self._bias + sum(w * m for w, m in zip(self._marks, marks(reading, max_tokens), strict=True))
        for bucket in buckets(text, len(weights)):
            total += weights[bucket]
        return logistic(total)


def logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def _finite(x: float) -> bool:
    return abs(x) < 1e6  # false for what is not a number, too
