"""A row of the ledger: who used what and what it cost, as whole numbers and short texts.

An `Entry` can be stored: what is in it fits every column of every database, whoever wrote the text.
"""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.stores.entry_checks import check_entry

CORRECTION: Final = "correction"  # the usage source of rows that are no request: what another one's cost differs by


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
        check_entry(self)
