"""From logits to the next token: greedy, or drawn with temperature, top-k, top-p and min-p, the same way for the same
seed.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.engine.checkpoint import Floats

Doubles = NDArray[np.float64]

# Candidates that are sorted before looking at the whole vocabulary: a sort of 128 k floats costs 8 ms, a partition
# of them 1 ms.
TOP_P_CANDIDATES = 1024


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer is generated. Ranges are checked by `engine.api`, where the field names are known."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    min_p: float = 0.0
    """Tokens less likely than this fraction of the likeliest are left out."""
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: int | None = None
    """How many alternatives to tell for each token; 0: only the chosen one's probability. None: nothing."""

    @property
    def only_best(self) -> bool:
        """The likeliest token is all that is asked for, so logits need not be looked at."""
        return (
            self.temperature == 0
            and self.logprobs is None
            and not self.logit_bias
            and not self.frequency_penalty
            and not self.presence_penalty
        )


class Logprobs(NamedTuple):
    """Natural logarithms of probabilities, before temperature and penalties."""

    chosen: float
    top: list[tuple[int, float]]


class Sampler:
    """The random numbers and token counts of one sequence. Its n-th token depends on nothing but the parameters, the
    tokens before it, its logits, and the n-th number of its seed.

    So an answer is the same alone, in a batch, after preemption, and when another replica goes on with it.
    """

    __slots__ = ("_bits", "_counts", "_params", "_rng")

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._bits = np.random.PCG64(params.seed) if params.temperature > 0 else None
        self._rng = np.random.Generator(self._bits) if self._bits is not None else None
        self._counts: Counter[int] = Counter()

    def choose(self, logits: Floats) -> tuple[int, Logprobs | None]:
        """The next token, from finite logits of shape [vocab_size], which are left as they are."""
        adjusted = self._adjust(logits)
        token = int(adjusted.argmax()) if self._rng is None else self._draw(adjusted, self._rng.random())
        self._counts[token] += 1
        return token, None if self._params.logprobs is None else self._logprobs(logits, token)

    def skip(self, token: int) -> None:
        """As if `token` had just been chosen."""
        if self._bits is not None:
            self._bits.advance(1)  # one draw of 64 bits is what a choice takes
        self._counts[token] += 1

    def _adjust(self, logits: Floats) -> Floats:
        params = self._params
        penalised = self._counts and (params.frequency_penalty or params.presence_penalty)
        if not penalised and not params.logit_bias:
            return logits
        adjusted = logits.copy()
        if penalised:
            for token, count in self._counts.items():
                adjusted[token] -= params.frequency_penalty * count + params.presence_penalty
        for token, bias in params.logit_bias.items():
            adjusted[token] += bias
        return adjusted

    def _draw(self, logits: Floats, uniform: float) -> int:
        """Inverse transform sampling: `uniform` in [0, 1) decides."""
        params = self._params
        # Relative to the largest before dividing, so that a tiny temperature cannot overflow.
        scaled = (logits - logits.max()).astype(np.float64) / max(params.temperature, 1e-6)
        weights = np.exp(scaled)
        if params.top_k == 0 and params.top_p >= 1.0 and params.min_p <= 0.0:
            return _inverse(weights, uniform)
        order = self._likeliest(logits, weights)
        chosen = weights[order]
        # top_p counts over all tokens, or over the top_k when that is given too.
        total = float(chosen.sum() if params.top_k else weights.sum())
        if params.min_p > 0:
            chosen = chosen[chosen >= params.min_p * chosen[0]]
        if params.top_p < 1.0:
            # The smallest set that reaches top_p (nucleus sampling, Holtzman et al., 2020).
            chosen = chosen[np.cumsum(chosen) - chosen < params.top_p * total]
        return int(order[_inverse(chosen, uniform)])

    def _likeliest(self, logits: Floats, weights: Doubles) -> NDArray[np.intp]:
        """Tokens from likely to unlikely; as many as the parameters can need. By logits, of which fewer are equal."""
        params = self._params
        wanted = params.top_k or TOP_P_CANDIDATES
        if wanted < len(weights):
            candidates = np.argpartition(-logits, wanted - 1)[:wanted]
            enough = params.top_k or (params.top_p < 1.0 and weights[candidates].sum() >= params.top_p * weights.sum())
            if enough:
                # Sorted by token first, so that equal weights have one order.
                candidates.sort()
                return candidates[np.argsort(-logits[candidates], kind="stable")]
        return np.argsort(-logits, kind="stable")

    def _logprobs(self, logits: Floats, token: int) -> Logprobs:
        shifted = logits.astype(np.float64) - float(logits.max())
        logs = shifted - np.log(np.exp(shifted).sum())
        count = min(self._params.logprobs or 0, len(logs))
        top: list[tuple[int, float]] = []
        if count:
            best = np.argpartition(-logs, count - 1)[:count]
            best = best[np.lexsort((best, -logs[best]))]
            top = [(int(index), float(logs[index])) for index in best]
        return Logprobs(float(logs[token]), top)


def _inverse(weights: Doubles, uniform: float) -> int:
    cumulative = np.cumsum(weights)
    index = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(index, len(weights) - 1)
