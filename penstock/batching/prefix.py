"""Names for the beginning of a prompt: a chain of digests, one per full block, each covering every token before it.

Two sequences share a KV block only when their digests are equal. The digest is BLAKE2b with 128 bits, so that nobody
can craft a prompt which collides with another tenant's; a salt keeps tenants apart even when their prompts are equal.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

DIGEST_BYTES = 16


def first_digest(salt: bytes) -> bytes:
    """The digest before the first block. Sequences with different salts never share a block."""
    return hashlib.blake2b(salt, digest_size=DIGEST_BYTES, person=b"penstock-prefix").digest()


def next_digest(previous: bytes, tokens: Sequence[int]) -> bytes:
    """The digest of a block that holds `tokens` and follows everything that `previous` covers."""
    return hashlib.blake2b(previous + array("q", tokens).tobytes(), digest_size=DIGEST_BYTES).digest()


def extend(digests: list[bytes], tokens: Sequence[int], block_size: int, n_blocks: int, salt: bytes) -> None:
    """Lengthen `digests` in place until it names the first `n_blocks` full blocks of `tokens`."""
    previous = digests[-1] if digests else first_digest(salt)
    for index in range(len(digests), n_blocks):
        previous = next_digest(previous, tokens[index * block_size : (index + 1) * block_size])
        digests.append(previous)
