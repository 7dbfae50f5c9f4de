"""What every column of every database can hold. Apart from the row itself, because this runs with every request, and
is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.stores.entry import Entry

MAX_TEXT_BYTES: Final = 256  # of UTF-8; eight of them are one key of PostgreSQL's index, which holds 2,704 bytes
MAX_TAGS: Final = 16
MAX_TOKENS: Final = 10**12  # nobody has used more in one request: a broken count must not overflow a sum
MAX_COST_NANOS: Final = 10**16  # ten million dollars, likewise
_MAX_INTEGER: Final = 2**53


def check_entry(entry: Entry) -> None:
    """Raises ValueError for what a column cannot hold."""
    if not entry.request_id:
        raise ValueError("a row of the ledger needs a request id")
    texts = (
        entry.request_id,
        entry.org,
        entry.team,
        entry.key_id,
        entry.user_hash,
        entry.feature,
        entry.session,
        entry.model,
        entry.deployment,
        entry.replica,
        entry.endpoint,
        entry.error or "",
        entry.cache,
        entry.usage_source,
        entry.price_version,
    )
    together = "".join(texts)
    if not together.isascii() or "\0" in together or max(map(len, texts)) > MAX_TEXT_BYTES:
        for text in texts:
            check_text(text, MAX_TEXT_BYTES)
    if entry.tags != "{}":
        check_text(entry.tags, MAX_TAGS * 4 * MAX_TEXT_BYTES)
    cost = entry.cost_nanos
    if cost is not None and not -MAX_COST_NANOS <= cost <= MAX_COST_NANOS:
        raise ValueError("a cost in the ledger is at most ten million dollars")
    tokens = (
        entry.input_tokens,
        entry.cached_tokens,
        entry.cache_write_tokens,
        entry.cache_write_1h_tokens,
        entry.output_tokens,
        entry.reasoning_tokens,
    )
    if max(tokens) > MAX_TOKENS or min(tokens) < -MAX_TOKENS:
        raise ValueError("a count of tokens in the ledger has at most 13 digits")
    if not (0 <= entry.at_micros < _MAX_INTEGER and 0 <= entry.duration_micros < _MAX_INTEGER):
        raise ValueError("a time in the ledger is in microseconds, not before 1970")
    if not 0 <= entry.status < 1000:
        raise ValueError("a status in the ledger is one of HTTP")


def check_text(text: str, most: int = MAX_TEXT_BYTES) -> None:
    """Raises ValueError unless every database can hold it. (UnicodeEncodeError, for lone surrogates, is one.)"""
    if len(text.encode()) > most:
        raise ValueError(f"a text that is stored here has at most {most:,} bytes")
    if "\0" in text:
        raise ValueError("a text that is stored has no NUL")
