"""Whether a model refused, and how sure that is.

A provider that says so is believed (`telemetry.taxonomy` reads it off the receipt, and it is all that is counted).
Words are a hint: they are looked at where somebody has kept the beginning of an answer, they miss what is refused in
other words or languages, and they take a quoted refusal for one. Nothing is concluded from how long an answer is.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

LOOKED_AT: Final = 200  # characters from the beginning: models that refuse say so first


class Sure(StrEnum):
    DECLARED = "declared"  # by the provider or the model's own stop reason
    WORDED = "worded"  # it reads like one
    NO = "no"
    UNKNOWN = "unknown"  # nothing was declared, and nobody kept the words


_OPENINGS: Final = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:very |so |really )?sorry[,.]? (?:but )?|sorry[,.]? (?:but )?|unfortunately[,.]? |"
    r"i apologi[sz]e[,.]? (?:but )?|i appreciate [^.,]{0,60}[,.] (?:but )?)?"
    r"(?:as an? (?:ai|large language model|ai language model|ai assistant)[^.,]{0,40}, )?"
    r"(?:i|we)(?: (?:really )?(?:can(?:no|['’])t|can not|could(?: not|n['’]t)|will not|won['’]t|must decline|"
    r"have to decline|decline|refuse)|(?: am|['’]m| are|['’]re) (?:not (?:able|going|comfortable|allowed)|unable)|"
    r" do(?: not|n['’]t) feel comfortable)"
    r"(?: to| with)?(?: \w+){0,2} (?:help|assist|provid\w*|creat\w*|writ\w*|generat\w*|shar\w*|discuss\w*|answer\w*|"
    r"comply|fulfill?|engag\w*|support\w*|giv\w*|do (?:that|this)|that|this|your request)\b",
    re.IGNORECASE,
)


def refused(declared: str, opening: str | None) -> Sure:
    """`declared` is what the receipt says ("": nothing); `opening` the beginning of the answer, None: not kept."""
    if declared:
        return Sure.DECLARED
    if opening is None:
        return Sure.UNKNOWN
    return Sure.WORDED if _OPENINGS.match(opening[:LOOKED_AT]) else Sure.NO
