"""How far one answer has come: all that its next token depends on beside the logits, and the text that may be shown.

Pure, and a function of the parameters and the tokens so far alone. That is what lets another replica go on exactly
where this one broke off: it takes over the tokens, and only the text of those that follow is new.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.engine.sampling import Sampler, SamplingParams
from penstock.engine.stop_strings import StopStrings
from penstock.engine.tokenizer import TextStream


class Progress:
    """`finish` is None until the answer has ended: `stop` or `length`. `n_tokens` counts those taken over, too."""

    __slots__ = ("_eos", "_params", "_stops", "_text", "finish", "n_tokens", "sampler")

    def __init__(self, params: SamplingParams, text: TextStream, eos: frozenset[int]) -> None:
        """`eos`: the tokens with which the model itself ends an answer."""
        self.sampler = Sampler(params)
        self.finish: str | None = None
        self.n_tokens = 0
        self._params = params
        self._text = text
        self._stops = StopStrings(params.stop)
        self._eos = eos

    def push(self, token: int) -> str:
        """Add the next token; the text that can be shown now. The last token brings all that was held back."""
        assert self.finish is None, "the answer had ended"
        params = self._params
        self.n_tokens += 1
        if token in params.stop_token_ids or (token in self._eos and not params.ignore_eos):
            self.finish = "stop"
            return self._rest()
        shown = self._stops.feed(self._text.push(token))
        if self._stops.found is not None:
            self.finish = "stop"
        elif self.n_tokens >= params.max_tokens:
            self.finish = "length"
            shown += self._rest()
        return shown

    def take_over(self, tokens: Iterable[int]) -> None:
        """Stand where these tokens lead, whose text was shown before; an answer that had ended stays so."""
        for token in tokens:
            if self.finish is not None:
                return
            self.push(token)
            self.sampler.skip(token)

    def _rest(self) -> str:
        return self._stops.feed(self._text.finish()) + self._stops.finish()
