"""The form of an API key, `sk-pen-<8 public>-<43 secret><6 checksum>`, and the digests that are stored instead of it.

The public part may be logged and shown; it tells people which key it was. The checksum lets a typing error, or a secret
scanner's find, be told from a real key without asking anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import string
import zlib

PREFIX = "sk-pen-"
ENTROPY_BYTES = 37  # 5 for the public part, 32 (256 bits) for the secret

PEPPER_BYTES = 16  # at least
USERS = b"penstock: end users"

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PUBLIC_CHARS = 8  # 32**8 = 2**40: exactly 5 bytes
_SECRET_CHARS = 43  # 62**43 > 2**256
_CHECKSUM_CHARS = 6  # 62**6 > 2**32
_LENGTH = len(PREFIX) + _PUBLIC_CHARS + 1 + _SECRET_CHARS + _CHECKSUM_CHARS


def mint(entropy: bytes) -> str:
    """A new key from `ENTROPY_BYTES` bytes of a cryptographic random source; the same bytes give the same key."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key is made from {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    public = _digits(int.from_bytes(entropy[:5], "big"), _BASE32, _PUBLIC_CHARS)
    secret = _digits(int.from_bytes(entropy[5:], "big"), _BASE62, _SECRET_CHARS)
    body = f"{PREFIX}{public}-{secret}"
    return body + _checksum(body)


def well_formed(key: str) -> bool:
    """Whether this can be a key that `mint` made. False for a mistyped one; true says nothing about being allowed."""
    if len(key) != _LENGTH or not key.isascii() or not key.startswith(PREFIX):
        return False
    body = key[:-_CHECKSUM_CHARS]
    return _checksum(body) == key[-_CHECKSUM_CHARS:]


def public_part(key: str) -> str:
    """The 8 characters that may be shown, from a well-formed key. Raises ValueError for anything else."""
    if not well_formed(key):
        raise ValueError("not a Penstock key")  # never quote it: it may be somebody's other secret
    return key[len(PREFIX) : len(PREFIX) + _PUBLIC_CHARS]


def digest(key: str) -> str:
    """SHA-256 of the whole key, 64 hex digits: what configuration files hold.

    A plain fast hash is enough *because* the secret has 256 bits of entropy: there is nothing to guess. A slow password
    hash would cost 28-155 ms per request and be a lever for denial of service.
    """
    return hashlib.sha256(key.encode()).hexdigest()


class Pepper:
    """HMAC-SHA-256 (RFC 2104) under one secret that is kept apart from the digests: without it they let nobody in, and
    changing it revokes every key at once.

    The secret's two blocks are hashed once, and the states copied for each key: 0.7 us; `hmac.digest` takes 1.6.
    """

    __slots__ = ("_inner", "_outer", "user_secret")

    def __init__(self, secret: bytes) -> None:
        """Raises `ValueError` for a secret that could be guessed."""
        if len(secret) < PEPPER_BYTES:
            raise ValueError(f"a pepper has at least {PEPPER_BYTES} characters: `openssl rand -hex 32` makes one")
        block = (secret if len(secret) <= 64 else hashlib.sha256(secret).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self.user_secret = hmac.digest(secret, USERS, "sha256")  # for another purpose, another key

    def digest(self, key: bytes) -> bytes:
        """32 bytes, of the whole key."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key)
        outer.update(inner.digest())
        return outer.digest()


def user_hash(user: bytes, org: str, secret: bytes) -> str:
    """32 hex digits instead of an end user's id: the same for the same user of an organisation, whatever the key, and
    not to be linked between organisations. `secret` is `Pepper.user_secret`; with `USERS`, for want of one, whoever
    can guess an id can find its hash.
    """
    return hmac.digest(secret, org.encode() + b"\0" + user, "sha256").hex()[:32]


def _checksum(body: str) -> str:
    return _digits(zlib.crc32(body.encode()), _BASE62, _CHECKSUM_CHARS)


def _digits(value: int, alphabet: str, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        value, digit = divmod(value, len(alphabet))
        digits.append(alphabet[digit])
    assert value == 0, "width too small"
    return "".join(reversed(digits))
