"""What one unit of each class costs. The classes are disjoint: a token is in one of them, and is paid for once.

Rates are pico-dollars each. A class that a price list does not name costs what its parent does (`PARENT`): a token read
from a cache is an input token, a reasoning token is an output token.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, TypeAlias

import msgspec

from penstock.core.money import PICOS_PER_DOLLAR, show_picos, units

Class: TypeAlias = Literal[
    "input",  # neither read from a cache nor written to one, and neither sound nor picture
    "cached_input",  # read from a cache
    "cache_write",  # written to one that is kept for some minutes
    "cache_write_1h",  # written to one that is kept for an hour
    "audio_input",
    "image_input",
    "output",
    "reasoning",  # thought, not shown
    "audio_output",
    "image_output",
    "image",  # one picture that was made, where pictures and not their tokens are what is sold
    "request",
]
Service: TypeAlias = Literal["standard", "batch", "flex", "priority"]
"""How fast, for how much. The names are OpenAI's; others sell some of the same."""

INPUT: Final[tuple[Class, ...]] = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "image_input",
)
OUTPUT: Final[tuple[Class, ...]] = ("output", "reasoning", "audio_output", "image_output")
TOKENS: Final = (*INPUT, *OUTPUT)
ITEMS: Final[tuple[Class, ...]] = ("image", "request")
CLASSES: Final = (*TOKENS, *ITEMS)
"""Parents come before their children."""
PARENT: Final[dict[Class, Class]] = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "image_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}
PICOS_PER_TOKEN: Final = PICOS_PER_DOLLAR // 1_000_000
"""Those of one token, when a million of them cost one dollar."""


def _dearer(one: int | None, other: int | None) -> int | None:
    return max(one, other) if one is not None and other is not None else one if other is None else other


class Rates(msgspec.Struct, frozen=True, gc=False):
    """Pico-dollars for one of each class. None: not sold, or in what somebody wrote, not named."""

    input: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    image_input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    image: int | None = None
    request: int | None = None

    def of(self, name: Class) -> int | None:
        rate: int | None = getattr(self, name)
        return rate

    def highest_input(self, without: Collection[Class] = ()) -> int:
        """Of any token of a prompt, but for the classes named; 0 where none is sold."""
        if without:
            return max((self.of(name) or 0 for name in INPUT if name not in without), default=0)
        return max(  # spelled out, for it runs with every request
            self.input or 0,
            self.cached_input or 0,
            self.cache_write or 0,
            self.cache_write_1h or 0,
            self.audio_input or 0,
            self.image_input or 0,
        )

    def highest_output(self, without: Collection[Class] = ()) -> int:
        """Likewise of an answer."""
        if without:
            return max((self.of(name) or 0 for name in OUTPUT if name not in without), default=0)
        return max(self.output or 0, self.reasoning or 0, self.audio_output or 0, self.image_output or 0)

    def complete(self, outside: Rates | None = None) -> Rates:
        """With every class that is not named filled in: from its parent and, where these are the rates inside a service
        or above a length, from what was named `outside`. The dearer of the two counts, for neither is known to be it.
        """
        full: dict[Class, int | None] = {}
        for name in CLASSES:
            rate = self.of(name)
            if rate is None:
                parent = full[PARENT[name]] if name in PARENT else None
                rate = _dearer(parent, outside.of(name) if outside is not None else None)
            full[name] = rate
        return Rates(**full)

    def over(self, other: Rates) -> Rates:
        """What is named here, and for the rest what is named there."""
        return Rates(**{name: other.of(name) if self.of(name) is None else self.of(name) for name in CLASSES})

    def dearer(self, other: Rates) -> Rates:
        """Class by class, the higher of what is named."""
        return Rates(**{name: _dearer(self.of(name), other.of(name)) for name in CLASSES})

    def less(self, basis_points: int) -> Rates:
        """With a discount of so many hundredths of a percent (0..10,000), rounded up to a whole pico-dollar."""
        assert 0 <= basis_points <= 10_000, basis_points
        full: dict[Class, int | None] = {}
        for name in CLASSES:
            rate = self.of(name)
            full[name] = None if rate is None else -(-rate * (10_000 - basis_points) // 10_000)
        return Rates(**full)


FREE: Final = Rates(input=0, output=0).complete()


class Tier(msgspec.Struct, frozen=True, gc=False):
    """The rates of requests whose prompt, all of it, has more than `above` tokens: of the whole request, not of what is
    beyond."""

    above: int
    rates: Rates


def dollars_per_million(number: str) -> int:
    """Pico-dollars per token of a bare number of dollars per million tokens, exactly. Raises `ValueError`."""
    try:
        return units(number, PICOS_PER_TOKEN)
    except ValueError:
        raise ValueError(f"not a number of dollars per million tokens, in steps of $0.000001: {number!r}") from None


def show_rate(name: Class, rate: int | None) -> str:
    """ "$2.50/M" for tokens, "$0.04 each" for pictures and requests, "-" for what is not sold."""
    if rate is None:
        return "-"
    return f"{show_picos(rate)} each" if name in ITEMS else f"{show_picos(rate * 1_000_000)}/M"
