"""Money as integers: prices in pico-dollars, sums in nano-dollars, and the one rounding between the two.

A price per token is a whole number of pico-dollars (1e-12 $): $1 per million tokens is 1,000,000. A request's cost is
added up in them, exactly, and rounded once to nano-dollars (1e-9 $), in which everything is kept from there on: 64 bits
with a sign hold nine billion dollars of them. Nothing here is a float.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

NANOS_PER_DOLLAR: Final = 10**9
PICOS_PER_DOLLAR: Final = 10**12
PICOS_PER_NANO: Final = PICOS_PER_DOLLAR // NANOS_PER_DOLLAR

NUMBER: Final = r"(?:[0-9]{1,9}|[0-9]{1,3}(?:,[0-9]{3}){1,2})(?:\.[0-9]{1,12})?"
"""Up to nine digits, in threes with commas or without, and up to twelve after the point. No sign, no exponent."""
MONEY_PATTERN: Final = rf"^(?:\$|USD )?{NUMBER}(?: ?USD)?$"

_MONEY: Final = re.compile(MONEY_PATTERN)
_NUMBER: Final = re.compile(NUMBER)


def round_to_nanos(picos: int) -> int:
    """The nearest number of nano-dollars; a half goes up. The only place where money is rounded."""
    assert picos >= 0, picos
    return (picos + PICOS_PER_NANO // 2) // PICOS_PER_NANO


def read_nanos(text: str) -> int:
    """Nano-dollars of "$50", "0.15", "50 USD" or "1,250.50". Raises `ValueError` for anything else, and for what is
    finer than a nano-dollar."""
    return _units(text, NANOS_PER_DOLLAR)


def read_picos(text: str) -> int:
    """Likewise in pico-dollars."""
    return _units(text, PICOS_PER_DOLLAR)


def units(number: str, per_dollar: int) -> int:
    """A number of dollars in parts of a dollar, exactly. Raises `ValueError` when it is not of the form `NUMBER`, or
    finer than such a part."""
    if _NUMBER.fullmatch(number) is None:
        raise ValueError(f"not a number such as 50, 0.15 or 1,250.50: {number!r}")
    whole, _, fraction = number.replace(",", "").partition(".")
    amount, rest = divmod(int(whole + fraction.ljust(12, "0")) * per_dollar, PICOS_PER_DOLLAR)
    if rest:
        raise ValueError(f"finer than 1/{per_dollar:,} of a dollar: {number}")
    return amount


def dollars(nanos: int) -> Decimal:
    """Exactly, however much it is, with nine digits after the point."""
    return Decimal((int(nanos < 0), tuple(int(digit) for digit in str(abs(nanos))), -9))


def show(nanos: int) -> str:
    """With all the digits that there are, and never fewer than cents: "$12.00", "$0.000000015", "-$0.25"."""
    return _shown(nanos, 9)


def show_picos(picos: int) -> str:
    """Likewise."""
    return _shown(picos, 12)


def _units(text: str, per_dollar: int) -> int:
    if _MONEY.fullmatch(text) is None:
        raise ValueError(f"not an amount of dollars such as $50, 0.15 or 50 USD: {text!r}")
    return units(text.strip("$USD "), per_dollar)


def _shown(amount: int, places: int) -> str:
    digits = str(abs(amount)).rjust(places + 1, "0")
    cents = digits[-places:].rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}${digits[:-places]}.{cents}"
