"""Personal data in text, by kind: a light look with checksums where there are any, meant to keep it inside, not to
remove it. Where in doubt it is found: a false alarm costs a detour, a miss cannot be taken back.

Libraries were looked at: python-stdnum (LGPL) validates numbers that somebody else has found, phonenumbers brings 8 MB
of national plans. What is needed here are two checksums.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from penstock.routing.spec import Pii

# Possessive and bounded, so that no text makes them slow.
_EMAIL: Final = re.compile(r"[\w.+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}", re.ASCII)
_PHONE: Final = re.compile(
    r"(?<![\w+./-])(?<![0-9] )"
    r"(?:(?:\+|00)[1-9][0-9]{0,2}[ ./-]?(?:\(0?[0-9]{0,4}\)[ ./-]?)?[0-9]{1,5}(?:[ ./-]?[0-9]{2,5}){1,4}"
    r"|\(0?[0-9]{2,5}\)[ ./-]?[0-9]{3,5}(?:[ ./-]?[0-9]{2,5}){1,2}"
    r"|0[1-9][0-9]{1,4}[ /-][0-9]{3,5}(?:[ -]?[0-9]{2,5}){0,2}"
    r"|[2-9][0-9]{2}[ .-][2-9][0-9]{2}[ .-][0-9]{4})(?![\w])",
    re.ASCII,
)
_CARD: Final = re.compile(r"(?<![0-9])[2-6](?:[ -]?[0-9]){12,18}(?![0-9])", re.ASCII)
_IBAN: Final = re.compile(r"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}", re.ASCII | re.IGNORECASE)
_SSN: Final = re.compile(r"(?<![0-9-])(?!000|666|9[0-9]{2})[0-9]{3}([- ])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![0-9-])")
# Each of the numbers above has one of these in it. They begin with a digit, to which the search can jump: text without
# numbers costs a tenth.
_MAYBE_NUMBER: Final = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){5}")
_MAYBE_IBAN: Final = re.compile(r"[0-9]{2}(?: ?[A-Za-z0-9]){11}")
_FEWEST_DIGITS: Final = 8  # of a number that is called a phone's; ITU-T E.164 has at most 15
_IBAN_LENGTHS: Final = range(15, 35)  # ISO 13616: Norway's to the longest allowed


def find_pii(text: str, kinds: Iterable[Pii]) -> tuple[Pii, ...]:
    """Those of `kinds` of which there is at least one."""
    number, account = _MAYBE_NUMBER.search(text) is not None, _MAYBE_IBAN.search(text) is not None
    possible = {"email": "@" in text, "phone": number, "card": number, "iban": account, "ssn": number}
    return tuple(kind for kind in kinds if possible[kind] and _FINDERS[kind](text))


def _email(text: str) -> bool:
    return _EMAIL.search(text) is not None


def _phone(text: str) -> bool:
    return any(_FEWEST_DIGITS <= sum(map(str.isdigit, found[0])) <= 15 for found in _PHONE.finditer(text))


def _card(text: str) -> bool:
    return any(luhn([int(digit) for digit in found[0] if digit.isdigit()]) for found in _CARD.finditer(text))


def _iban(text: str) -> bool:
    for found in _IBAN.finditer(text):
        # words may follow it, and nothing says where it ends but the checksum
        written = found[0].replace(" ", "").upper()
        if any(iban(written[:n]) for n in _IBAN_LENGTHS if n <= len(written)):
            return True
    return False


def _ssn(text: str) -> bool:
    return _SSN.search(text) is not None


def luhn(digits: list[int]) -> bool:
    """ISO/IEC 7812-1, annex B. All zeros are nobody's."""
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban(written: str) -> bool:
    """ISO 7064 MOD 97-10, as ISO 13616 has it. `written` has letters and digits only."""
    turned = written[4:] + written[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


_FINDERS: Final = {"email": _email, "phone": _phone, "card": _card, "iban": _iban, "ssn": _ssn}
