"""Fits a cost model to what was measured of a live engine, by least squares in which every point's relative error
counts alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import numpy as np


class Decoded(msgspec.Struct, frozen=True):
    """`sequences` decoded side by side, attending to `context` tokens all together: seconds between two tokens."""

    sequences: int
    context: float
    seconds: float


class Prefilled(msgspec.Struct, frozen=True):
    """Nothing else ran: seconds to the first token of a prompt of so many, none of them cached."""

    tokens: int
    seconds: float


class Fitted(msgspec.Struct, frozen=True):
    """Seconds; errors are the mean relative ones of the points that were fitted. `overhead` is what every first token
    took beside the engine's steps: the network, and the server around the engine.
    """

    step: float
    per_sequence: float
    per_prefill_token: float
    per_context_token: float
    overhead: float
    decode_error: float
    prefill_error: float

    @property
    def yaml(self) -> str:
        """For a scenario."""

        def span(seconds: float) -> str:
            return f"{seconds * 1e3:.9f}".rstrip("0").rstrip(".") + "ms"

        return (
            "engine_model:\n"
            f"  step: {span(self.step)}\n"
            f"  per_sequence: {span(self.per_sequence)}\n"
            f"  per_prefill_token: {span(self.per_prefill_token)}\n"
            f"  per_context_token: {span(self.per_context_token)}\n"
            f"  overhead: {span(self.overhead)}\n"
        )


def fit(decoded: Sequence[Decoded], prefilled: Sequence[Prefilled], chunk: int) -> Fitted:
    """`chunk`: the most prompt tokens of one step. Raises `ValueError` where there are too few different points."""
    if len({one.sequences for one in decoded}) < 2 or len({one.tokens for one in prefilled}) < 2:
        raise ValueError("a fit needs at least two batch sizes and two prompt lengths")
    rows = [(1.0, float(one.sequences), one.context) for one in decoded]
    (step, per_sequence, per_context), decode_error = _solve(rows, [one.seconds for one in decoded])
    steps = [-(-one.tokens // chunk) for one in prefilled]
    rest = [max(0.0, one.seconds - step * n) for one, n in zip(prefilled, steps, strict=True)]
    (overhead, per_prefill), _ = _solve(
        [(1.0, float(one.tokens)) for one in prefilled], rest, scale=[one.seconds for one in prefilled]
    )
    errors = [
        abs(overhead + step * n + per_prefill * one.tokens - one.seconds) / one.seconds
        for one, n in zip(prefilled, steps, strict=True)
    ]
    return Fitted(step, per_sequence, per_prefill, per_context, overhead, decode_error, sum(errors) / len(errors))


def _solve(
    rows: Sequence[tuple[float, ...]], values: Sequence[float], scale: Sequence[float] | None = None
) -> tuple[list[float], float]:
    """Coefficients, none below zero, and the mean relative error. A term that would be negative is left out."""
    import numpy

    inputs = numpy.array(rows)
    wanted = numpy.array(values)
    size = numpy.array(scale if scale is not None else values)
    kept = list(range(inputs.shape[1]))
    found: np.ndarray[Any, Any] = numpy.zeros(inputs.shape[1])
    while kept:
        part = inputs[:, kept]
        best = numpy.linalg.lstsq(part / size[:, None], wanted / size, rcond=None)[0]
        if best.min() >= 0:
            found[kept] = best
            break
        del kept[int(best.argmin())]
    error = numpy.abs(inputs @ found - wanted) / size
    return [float(value) for value in found], float(error.mean())
