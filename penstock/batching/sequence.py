"""One prompt and what was generated after it, as the scheduler sees it: tokens, how many are computed, which blocks
hold them.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class State(Enum):
    """Where a sequence stands. `NEW` is not yet added; `ENDED` holds nothing any more, however it ended."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence(msgspec.Struct, eq=False, kw_only=True):
    """Mutable; the `Scheduler` it was added to owns every field. Callers only read."""

    id: str
    tokens: list[int]
    """The prompt, then the generated tokens. Only grows."""
    prompt_length: int
    max_tokens: int
    """The most tokens that may be generated."""
    salt: bytes = b""
    """Sequences with different salts never share KV blocks."""
    state: State = State.NEW
    computed: int = 0
    """Tokens from the beginning whose keys and values are in `blocks`."""
    blocks: list[int] = []
    digests: list[bytes] = []
    cached: int = 0
    """Prompt tokens that were found computed when the sequence was first admitted."""
    admissions: int = 0
    preemptions: int = 0

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def missing(self) -> int:
        """Tokens that must be computed before the next one can be sampled; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Only the token sampled last is missing."""
        return self.missing == 1 and self.generated > 0


def new_sequence(id: str, prompt: list[int], max_tokens: int, salt: bytes = b"") -> Sequence:
    """A sequence that has not been added to a scheduler. The prompt is copied."""
    return Sequence(id=id, tokens=list(prompt), prompt_length=len(prompt), max_tokens=max_tokens, salt=salt)
