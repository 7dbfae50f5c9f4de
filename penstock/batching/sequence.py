"""One prompt and what was generated after it, as the scheduler sees it: tokens, how many are computed, which blocks
hold them.
"""

from __future__ import annotations

from enum import Enum

from penstock.batching.prefix import extend


class State(Enum):
    """Where a sequence stands. `NEW` is not yet added; `ENDED` holds nothing any more, however it ended."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence:
    """Mutable; the `Scheduler` it was added to owns every attribute. Callers only read.

    `tokens`: the prompt, then the generated ones; only grows. `length`: how many those are. `max_tokens`: the most that
    may be generated. `salt`: sequences with different ones never share KV blocks. `computed`: tokens from the beginning
    whose keys and values are in `blocks`. `cached`: prompt tokens that were found computed when it was first admitted.
    """

    __slots__ = (
        "admissions", "blocks", "cached", "computed", "digests", "id", "length", "max_tokens", "preemptions",
        "prompt_length", "salt", "state", "tokens",
    )  # fmt: skip

    def __init__(self, id: str, tokens: list[int], prompt_length: int, max_tokens: int, salt: bytes = b"") -> None:
        self.id = id
        self.tokens = tokens
        self.length = prompt_length
        self.prompt_length = prompt_length
        self.max_tokens = max_tokens
        self.salt = salt
        self.state: State = State.NEW
        self.computed = 0
        self.blocks: list[int] = []
        self.digests: list[bytes] = []
        self.cached = 0
        self.admissions = 0
        self.preemptions = 0

    @property
    def generated(self) -> int:
        return self.length - self.prompt_length

    @property
    def missing(self) -> int:
        """Tokens that must be computed before the next one can be sampled; 1 while decoding."""
        return self.length - self.computed

    @property
    def decoding(self) -> bool:
        """Only the token sampled last is missing."""
        return self.length - self.computed == 1 and self.length > self.prompt_length

    def push(self, token: int) -> None:
        """One more was generated."""
        self.tokens.append(token)
        self.length += 1

    def grow(self, n_tokens: int) -> None:
        """That many more were generated, without saying which. Only for sequences that count their tokens."""
        raise TypeError(f"the tokens of {self.id!r} are known, and must be pushed one by one")

    def name_blocks(self, n_blocks: int, block_size: int) -> None:
        """Let `digests` name at least the first `n_blocks`, which are full."""
        extend(self.digests, self.tokens, block_size, n_blocks, self.salt)


class CountedSequence(Sequence):
    """A sequence whose tokens nobody looks at: only how many there are. `tokens` stays empty.

    `names` are digests for the prompt's first full blocks, from whoever knows which prompts begin alike; every later
    block is its own. `stops_after` is how many tokens the model will generate, at most `max_tokens`.
    """

    __slots__ = ("stops_after",)

    def __init__(self, id: str, prompt_length: int, max_tokens: int, stops_after: int, names: list[bytes]) -> None:
        super().__init__(id, [], prompt_length, max_tokens)
        self.stops_after = stops_after
        self.digests = names

    @property
    def left(self) -> int:
        """Tokens that the model will still generate."""
        return self.stops_after - (self.length - self.prompt_length)

    def push(self, token: int) -> None:
        self.length += 1

    def grow(self, n_tokens: int) -> None:
        self.length += n_tokens

    def name_blocks(self, n_blocks: int, block_size: int) -> None:
        for place in range(len(self.digests), n_blocks):
            self.digests.append(f"own/{self.id}/{place}".encode())


def new_sequence(id: str, prompt: list[int], max_tokens: int, salt: bytes = b"") -> Sequence:
    """A sequence that has not been added to a scheduler. The prompt is copied."""
    return Sequence(id, list(prompt), len(prompt), max_tokens, salt)
