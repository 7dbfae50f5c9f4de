"""Whether an answer begins as refusals do. A hint: it misses what is refused in other words or languages, and takes a
refusal that is quoted without quotes for one. A provider that says so itself is believed (`telemetry.taxonomy`).
"""

from __future__ import annotations

import re
from typing import Final

LOOKED_AT: Final = 200  # characters from the beginning: models that refuse say so first

_OPENINGS: Final = re.compile(
    r"^\W*(?:(?:i['’]?m|i am) (?:very |so |really )?sorry[,.]? (?:but )?|sorry[,.]? (?:but )?|unfortunately[,.]? |"
    r"i apologi[sz]e[,.]? (?:but )?|i appreciate [^.,]{0,60}[,.] (?:but )?)?"
    r"(?:as an? (?:ai|large language model|ai language model|ai assistant)[^.,]{0,40}, )?"
    r"(?:i|we)(?: (?:really )?(?:can(?:no|['’])t|can not|could(?: not|n['’]t)|will not|won['’]t|must decline|"
    r"have to decline|decline|refuse)|(?: am|['’]m| are|['’]re) (?:not (?:able|going|comfortable|allowed)|unable)|"
    r" do(?: not|n['’]t) feel comfortable)"
    r"(?:(?: to| with)?(?: \w+){0,2} (?:help|assist|provid\w*|creat\w*|writ\w*|generat\w*|shar\w*|discuss\w*|answer\w*|"
    r"comply|fulfill?|engag\w*|support\w*|giv\w*|do (?:that|this)|that|this|your request)\b|\W*$)|"
    r"^\W*(?:(?:(?:i['’]?m|i am) )?sorry[,.]? (?:but )?no|es tut mir leid|ich kann (?:dir|ihnen|das|dabei)?\s?nicht|"
    r"je ne peux pas|lo siento)\b",
    re.IGNORECASE,
)


def reads_like_a_refusal(text: str) -> bool:
    """Only the beginning of `text` is looked at."""
    return _OPENINGS.match(text[:LOOKED_AT]) is not None
