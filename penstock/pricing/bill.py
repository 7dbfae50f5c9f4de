"""What of an answer is charged, and what it came to. Apart from the arithmetic, which is compiled."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.pricing.prices import Row
from penstock.pricing.rates import Class


class Media(msgspec.Struct, frozen=True, gc=False):
    """What of a usage was sound or picture: parts of the prompt and of the answer, as the upstream counted them.
    `images` are pictures that were made, None when nobody counted them."""

    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    images: int | None = None


TEXT: Final = Media()


class Part(msgspec.Struct, frozen=True, gc=False):
    """One line of the bill."""

    name: Class
    amount: int  # tokens, pictures, requests
    rate: int  # pico-dollars each

    @property
    def picos(self) -> int:
        return self.amount * self.rate


class Cost(msgspec.Struct, frozen=True):
    """`nanos` is the sum of the parts, rounded once; None when it is not known. `row` is the price that was used."""

    nanos: int | None
    parts: tuple[Part, ...] = ()
    row: Row | None = None

    @property
    def priced(self) -> bool:
        return self.nanos is not None


UNPRICED: Final = Cost(None)
