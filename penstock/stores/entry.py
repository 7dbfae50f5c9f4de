"""A row of the ledger: who used what and what it cost, as whole numbers and short texts.

An `Entry` can be stored: what is in it fits every column of every database, whoever wrote the text.
"""

from __future__ import annotations

from typing import Final

import msgspec

MAX_TEXT_BYTES: Final = 256  # of UTF-8; eight of them are one key of PostgreSQL's index, which holds 2,704 bytes
MAX_TAGS: Final = 16
MAX_TOKENS: Final = 10**12  # nobody has used more in one request: a broken count must not overflow a sum
MAX_COST_NANOS: Final = 10**16  # ten million dollars, likewise
CORRECTION: Final = "correction"  # the usage source of rows that are no request: what another one's cost differs by
_MAX_INTEGER: Final = 2**53


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the ledger keeps of one request, in the order of its columns.

    Token classes do not overlap: `cache_write_tokens` are those not kept for an hour, `output_tokens` those that are
    not reasoning; the first four make up the prompt. `cost_nanos` is in 1e-9 dollars and None where no price was known;
    below zero is a correction. Raises ValueError for what a column cannot hold.
    """

    request_id: str  # ours and unique; never one that a caller chose, who could then be counted once for two requests
    at_micros: int  # since the Unix epoch, when the request was received
    org: str = ""
    team: str = ""
    key_id: str = ""
    user_hash: str = ""
    feature: str = ""
    session: str = ""
    tags: str = "{}"  # a JSON object of texts, its names sorted
    model: str = ""
    deployment: str = ""
    replica: str = ""
    endpoint: str = ""
    status: int = 200
    error: str | None = None
    cache: str = ""  # which of our caches answered; empty: none
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: str = ""  # a `core.outcome.UsageSource`, or `CORRECTION`
    cost_nanos: int | None = None
    price_version: str = ""
    duration_micros: int = 0

    def __post_init__(self) -> None:
        if not self.request_id:
            raise ValueError("a row of the ledger needs a request id")
        texts = (
            self.request_id,
            self.org,
            self.team,
            self.key_id,
            self.user_hash,
            self.feature,
            self.session,
            self.model,
            self.deployment,
            self.replica,
            self.endpoint,
            self.error or "",
            self.cache,
            self.usage_source,
            self.price_version,
        )
        together = "".join(texts)
        if not together.isascii() or "\0" in together or max(map(len, texts)) > MAX_TEXT_BYTES:
            for text in texts:
                check_text(text, MAX_TEXT_BYTES)
        if self.tags != "{}":
            check_text(self.tags, MAX_TAGS * 4 * MAX_TEXT_BYTES)
        cost = self.cost_nanos
        if cost is not None and not -MAX_COST_NANOS <= cost <= MAX_COST_NANOS:
            raise ValueError("a cost in the ledger is at most ten million dollars")
        tokens = (
            self.input_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        )
        if max(tokens) > MAX_TOKENS or min(tokens) < -MAX_TOKENS:
            raise ValueError("a count of tokens in the ledger has at most 13 digits")
        if not (0 <= self.at_micros < _MAX_INTEGER and 0 <= self.duration_micros < _MAX_INTEGER):
            raise ValueError("a time in the ledger is in microseconds, not before 1970")
        if not 0 <= self.status < 1000:
            raise ValueError("a status in the ledger is one of HTTP")


def check_text(text: str, most: int = MAX_TEXT_BYTES) -> None:
    """Raises ValueError unless every database can hold it. (UnicodeEncodeError, for lone surrogates, is one.)"""
    if len(text.encode()) > most:
        raise ValueError(f"a text that is stored here has at most {most:,} bytes")
    if "\0" in text:
        raise ValueError("a text that is stored has no NUL")
