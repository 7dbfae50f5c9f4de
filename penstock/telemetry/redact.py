"""Masks what looks like a secret in a text on its way to a log or a terminal.

The last line of defence, not the first: secrets should never get into messages. It would rather mask too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "***"

# Shorter "secrets" are words; masking them would only garble messages.
MIN_SECRET_LENGTH: Final = 6

# Each with what a text must have in it, in lower case, before it is worth a look: clean text costs a hundredth then.
_PATTERNS: Final = (
    # sk-..., sk-pen-..., sk-ant-..., pk-lf-...: OpenAI and everybody who copied them
    (("sk-", "pk-", "rk-"), re.compile(r"\b((?:sk|pk|rk)-)[A-Za-z0-9][A-Za-z0-9_\-]{6,}"), r"\1" + MASK),
    (
        ("bearer", "basic", "token"),
        re.compile(r"\b((?:Bearer|Basic|Token)\s+)[A-Za-z0-9._~+/\-]{6,}=*", re.IGNORECASE),
        r"\1" + MASK,
    ),
    # a header or a field: x-api-key: abc, "api_key": "abc", password=abc
    (
        (
            *("apikey", "api-key", "api_key", "secret", "password", "passwd", "authorization"),
            *("accesstoken", "access-token", "access_token"),
        ),
        re.compile(
            r"\b([a-z0-9_-]{0,40}(?:api[-_]?key|secret|password|passwd|access[-_]?token)|authorization)"
            r"(['\"]?\s*[:=]\s*['\"]?)(?!Bearer\b|Basic\b|Token\b)[^\s'\"&,;}]+",
            re.IGNORECASE,
        ),
        r"\1\2" + MASK,
    ),
    # in a URL: user:password@, and ?key=abc (Gemini's way)
    (("://",), re.compile(r"(://[^\s/:@]*:)[^\s/@]+(@)"), r"\1" + MASK + r"\2"),
    (
        ("key=", "token=", "sig=", "signature=", "auth="),
        re.compile(r"([?&](?:key|token|sig|signature|auth)=)[^\s&'\"]+", re.IGNORECASE),
        r"\1" + MASK,
    ),
    (("akia", "asia"), re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"), r"\1" + MASK),  # AWS access key ids
    (("aiza",), re.compile(r"\b(AIza)[0-9A-Za-z_\-]{30,}"), r"\1" + MASK),  # Google
    (
        ("hf_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "xox", "gsk_", "r8_"),
        re.compile(r"\b(hf_|gh[oprsu]_|github_pat_|xox[abpr]-|gsk_|r8_)[A-Za-z0-9_\-]{10,}"),
        r"\1" + MASK,
    ),
    (("eyj",), re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"), MASK),  # JSON web tokens
    (
        ("private key",),
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without anything that looks like a key, and without the given `secrets` (of 6 characters or more)."""
    # longest first: one secret may be the beginning of another
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, MASK)
    folded = text.casefold()  # as IGNORECASE does, the long s is an s
    for needed, pattern, replacement in _PATTERNS:
        for one in needed:
            if one in folded:
                text = pattern.sub(replacement, text)
                break
    return text


# more than `redact` would mask, in one look
_SUSPICIOUS: Final = re.compile(
    r"[spr]k-|a[ks]ia|aiza|hf_|gh[oprsu]_|github|xox|gsk_|r8_|eyj|:/|api.?key|secret|passw|auth|access|bearer|basic|"
    r"token|key=|sig=|private",
    re.IGNORECASE,
).search


def suspicious(text: str) -> bool:
    """Whether `redact` might find anything in it."""
    return _SUSPICIOUS(text) is not None
