"""Whom and what a request is for, as its caller says in headers or the body: an end user, a feature, a session, tags.

It is never asked whether that is true: it sorts the caller's own costs, and lets nobody in. What callers write has no
end, so words that are counted by come from a `Vocabulary`, which has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.keys import user_hash
from penstock.core.request import UNATTRIBUTED, Attribution

OTHER: Final = "other"  # what a word becomes that came after the vocabulary was full
MAX_TAGS: Final = 8  # of one request

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63}").fullmatch
_SESSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}").fullmatch
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}(?:=[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,63})?").fullmatch


class Vocabulary:
    """The features and tags of each organisation: the first `most` of its words; those that come later are `other`.

    One organisation's words take no room from another's, and organisations are as many as the configuration names.
    """

    __slots__ = ("_words", "most", "n_others")

    def __init__(self, most: int = 1_000) -> None:
        self.most = most
        self._words: dict[str, set[str]] = {}
        self.n_others = 0  # times that a word was not taken

    def takes(self, org: str, word: str) -> bool:
        """Whether it is known, or becomes so."""
        words = self._words.setdefault(org, set())
        if word in words:
            return True
        if len(words) >= self.most:
            self.n_others += 1
            return False
        words.add(word)
        return True


_text = msgspec.json.Decoder(str).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOBODY: Final = msgspec.Raw(b'""')
_USERS: Final[tuple[tuple[str, Callable[[msgspec.Raw], str]], ...]] = (
    ("safety_identifier", _text),
    ("user", _text),
    ("metadata", lambda raw: _text(_members(raw).get("user_id", _NOBODY))),
)


def attribution(
    header: Callable[[bytes], bytes | None],
    fields: Mapping[str, msgspec.Raw],
    org: str,
    secret: bytes,
    vocabulary: Vocabulary,
) -> Attribution:
    """`fields` is the request's body in any dialect, `secret` what end users are hashed with. Changes `vocabulary`.
    Raises `BadRequest` for a header of ours that is not as documented; what is odd in a body is the upstream's affair.
    """
    user = header(b"x-penstock-user") or _user_in(fields)
    feature = header(b"x-penstock-feature")
    session = header(b"x-penstock-session")
    tags = header(b"x-penstock-tags")
    if not user and feature is None and session is None and tags is None:
        return UNATTRIBUTED
    return Attribution(
        user_hash(user, org, secret) if user else "",
        "" if feature is None else _feature(feature, org, vocabulary),
        "" if session is None else _matching(_SESSION, "x-penstock-session", session),
        () if tags is None else _tags(tags, org, vocabulary),
    )


def _user_in(fields: Mapping[str, msgspec.Raw]) -> bytes:
    """OpenAI's `safety_identifier` and its older `user`, Anthropic's `metadata.user_id`."""
    for name, read in _USERS:
        raw = fields.get(name)
        if raw is not None and (user := _read(read, raw)):
            return user.encode()
    return b""


def _read(read: Callable[[msgspec.Raw], str], raw: msgspec.Raw) -> str:
    try:
        return read(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""  # null, or of another type: it names nobody


def _feature(said: bytes, org: str, vocabulary: Vocabulary) -> str:
    feature = _matching(_WORD, "x-penstock-feature", said)
    return feature if vocabulary.takes(org, feature) else OTHER


def _tags(said: bytes, org: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    tags = [part.strip(" \t") for part in said.decode("latin-1").split(",")]
    if len(tags) > MAX_TAGS or not all(map(_TAG, tags)):
        raise BadRequest(
            f"x-penstock-tags must be at most {MAX_TAGS} words or name=value, with commas between them; a name has at "
            "most 32 letters, digits and . _ -, a value at most 64 of these and : / @ +",
            param="x-penstock-tags",
        )
    # no feature has a comma: tags are words of their own
    return tuple(sorted({tag if vocabulary.takes(org, f"{tag},") else OTHER for tag in tags}))


def _matching(pattern: Callable[[str], re.Match[str] | None], name: str, said: bytes) -> str:
    text = said.decode("latin-1")
    if pattern(text) is None:
        most = 128 if pattern is _SESSION else 64
        raise BadRequest(
            f"{name} must begin with a letter or digit and have at most {most} letters, digits and . _ : / @ + -",
            param=name,
        )
    return text
