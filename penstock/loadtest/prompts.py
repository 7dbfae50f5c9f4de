"""Text for prompts of a wanted length, alike as far as the traffic says and different from the first word where not.

Common English words are one token in most vocabularies, so a prompt is so many words. How many tokens a word really is
comes from the server's own counts (two small requests beforehand), from a tokenizer, or is an estimate and called so.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from itertools import accumulate
from random import Random
from typing import Final, Literal

import msgspec
from xxhash import xxh3_64_intdigest

from penstock.traffic.arrival import Arrival

_TEXT: Final = """\
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law
"""
WORDS: Final = _TEXT.split()
assert len(WORDS) == 64, len(WORDS)

_POOL: Final = 16_384  # words that texts are cut out of
_NAME: Final = 11  # words that spell 64 bits
_CACHED: Final = 4_096  # blocks of traces whose text is kept

Message = dict[str, str]


class Fit(msgspec.Struct, frozen=True):
    """Tokens of a prompt: `overhead` for what the chat template adds, and `per_word`."""

    per_word: float = 1.0
    overhead: float = 0.0
    by: Literal["server", "tokenizer", "estimate"] = "estimate"


class Prompts:
    """Makes texts. `seed` makes those of one run different from those of every other, so that no cache knows them."""

    def __init__(self, seed: int, fit: Fit) -> None:
        self.fit = fit
        self._seed = seed
        # One order of all the words after another: however it is cut, a long text has as many tokens as any other.
        rng = Random(seed)
        words = [word for _ in range(_POOL // len(WORDS)) for word in rng.sample(WORDS, len(WORDS))]
        self._text = " ".join(words)
        self._starts = array("l", accumulate((len(word) + 1 for word in words), initial=0))
        self._blocks: OrderedDict[tuple[int, int], str] = OrderedDict()

    def messages(self, arrival: Arrival, said: list[Message]) -> list[Message]:
        """Of a chat in which `said` was said before this turn."""
        if said:
            return [*said, {"role": "user", "content": self._of_session(arrival)}]
        spare = self.fit.overhead
        if arrival.shared >= 0:
            system = self.text(f"shared {arrival.shared}", arrival.shared_tokens - spare)
            return [
                {"role": "system", "content": system},
                {"role": "user", "content": self._of_session(arrival)},
            ]
        pieces = []
        before = 0
        for block, until in zip(arrival.prefix_hashes, arrival.prefix_tokens, strict=True):
            pieces.append(self._block(block, round(until - spare) - round(before - spare if before else 0)))
            before = until
        return [{"role": "user", "content": " ".join(piece for piece in pieces if piece)}]

    def text(self, name: str, tokens: float) -> str:
        """So many tokens by the fit, at least one word; the same for the same name."""
        digest = xxh3_64_intdigest(f"{self._seed} {name}".encode())
        n = max(1, round(tokens / self.fit.per_word))
        spelled = []
        left = digest
        for _ in range(min(n, _NAME)):
            spelled.append(WORDS[left & 63])
            left >>= 6
        n -= len(spelled)
        at = digest % (_POOL // 2)
        while n > 0:
            step = min(n, _POOL // 2)
            spelled.append(self._text[self._starts[at] : self._starts[at + step] - 1])
            n -= step
        return " ".join(spelled)

    def _of_session(self, arrival: Arrival) -> str:
        return self.text(f"turn {arrival.prefix_hashes[-1]}", arrival.new_tokens)

    def _block(self, block: int, tokens: int) -> str:
        if tokens <= 0:
            return ""
        found = self._blocks.get((block, tokens))
        if found is None:
            found = self._blocks[(block, tokens)] = self.text(f"block {block}", tokens)
            if len(self._blocks) > _CACHED:
                self._blocks.popitem(last=False)
        return found


def probe(rounds: int) -> str:
    """A text for `fitted`: every word so many times."""
    return " ".join(WORDS * rounds)


def fitted(few: tuple[int, int], many: tuple[int, int]) -> Fit:
    """From (rounds, tokens as the server counted) of two probes; an estimate when they make no sense."""
    per_round = (many[1] - few[1]) / (many[0] - few[0])
    if per_round <= 0:
        return Fit()
    return Fit(per_round / len(WORDS), max(0.0, few[1] - per_round * few[0]), "server")
