"""The language of a text, as far as it is worth a rule: by its script, else by its commonest little words.

Nothing is guessed from less than a few words; "" is an honest answer, and rules can ask for it.
"""

from __future__ import annotations

import re
from typing import Final

LOOKED_AT: Final = 2_000  # characters
ENOUGH: Final = 2  # little words, and more than of any other language

_LITTLE: Final = {
    "en": "the of and to in is that it for was with as on are be this have from what how you your",
    "de": "der die das und ist nicht ein eine zu den mit von sich auf für dem wie ich was sie es wird",
    "fr": "le la les des et est une dans que qui pour pas sur avec plus par ce vous je du comment quel",
    "es": "el los las y es una que de por con para no se lo como más del qué al cómo cuál",
    "it": "il gli che è di una per non con sono del della come le nel più anche cosa lo perché",
    "pt": "o os as e é um uma que não para com por mais do da em como você dos qual são",
    "nl": "de het een en van is niet dat op te in met voor zijn wat hoe je ik er maar",
}
_LANGUAGES_OF: Final[dict[str, tuple[str, ...]]] = {}
for _language, _words in _LITTLE.items():
    for _word in _words.split():
        _LANGUAGES_OF[_word] = (*_LANGUAGES_OF.get(_word, ()), _language)
_WORD: Final = re.compile(r"[^\W\d_]+")
_SCRIPTS: Final = (  # the first that is there decides, so kana comes before what Chinese and Japanese share
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("uk", re.compile("[іїєґІЇЄҐ]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
)
SHARE: Final = 0.2  # of the letters, before a script decides: a quoted word does not make a text Greek


def language_of(text: str) -> str:
    """A code of ISO 639-1, or "" when too little says which."""
    text = text[:LOOKED_AT]
    if not text.isascii():
        letters = sum(map(str.isalpha, text)) or 1
        for language, script in _SCRIPTS:
            needed = 1 if language in ("ja", "uk") else SHARE * letters
            if len(script.findall(text)) >= needed and (language != "uk" or _SCRIPTS[-1][1].search(text)):
                foreign = sum(1 for letter in text if letter.isalpha() and letter > "\u036f")
                if foreign >= SHARE * letters:
                    return language
    counts = dict.fromkeys(_LITTLE, 0)
    for word in _WORD.findall(text.lower()):
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] += 1
    best, second = sorted(counts, key=counts.__getitem__, reverse=True)[:2]
    return best if counts[best] >= ENOUGH and counts[best] > counts[second] else ""
