"""The ledger's row of a receipt, in a form that every database takes, whatever a caller or an upstream has put into it:
one row that cannot be written would keep all those behind it waiting.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import msgspec

from penstock.core.outcome import Outcome
from penstock.core.plan import OK, Attempt
from penstock.stores.entry import Entry
from penstock.stores.entry_checks import MAX_COST_NANOS, MAX_TAGS, MAX_TEXT_BYTES, MAX_TOKENS

_tags_encoder = msgspec.json.Encoder(order="sorted")


def entry_of(outcome: Outcome, *, cache: str = "", price_version: str = "") -> Entry:
    """The row of a receipt. Never raises for what a caller or an upstream has put into it.

    Text that is too long is cut; NUL and lone surrogates, which no database takes, are replaced. A cost that is beyond
    all reason is no price at all: the row is unpriced, and somebody is told.
    """
    usage, cost_nanos = outcome.usage, outcome.cost_nanos
    absurd = cost_nanos is not None and not -MAX_COST_NANOS <= cost_nanos <= MAX_COST_NANOS
    return Entry(
        request_id=plain(outcome.request_id),
        at_micros=int(outcome.received_at * 1e6 + 0.5),
        org=plain(outcome.tenant),
        team=plain(outcome.team),
        key_id=plain(outcome.key_id),
        user_hash=plain(outcome.user_hash),
        feature=plain(outcome.feature),
        session=plain(outcome.session),
        tags=_tags(outcome.tags) if outcome.tags else "{}",
        model=plain(outcome.model),
        deployment=plain(outcome.deployment),
        replica=plain(_answered_by(outcome.attempts)),
        endpoint=plain(outcome.endpoint),
        status=outcome.status,
        error=None if outcome.error is None else plain(outcome.error),
        cache=plain(cache),
        input_tokens=_tokens(usage.input_tokens),
        cached_tokens=_tokens(usage.cached_tokens),
        cache_write_tokens=_tokens(usage.cache_write_tokens - usage.cache_write_1h_tokens),
        cache_write_1h_tokens=_tokens(usage.cache_write_1h_tokens),
        output_tokens=_tokens(usage.completion_tokens - usage.reasoning_tokens),
        reasoning_tokens=_tokens(usage.reasoning_tokens),
        usage_source=outcome.usage_source.value,
        cost_nanos=None if absurd else cost_nanos,
        price_version=plain(price_version),
        duration_micros=int(outcome.duration * 1e6 + 0.5),
    )


def plain(text: str, most: int = MAX_TEXT_BYTES) -> str:
    """The same text where every database can hold it; otherwise the nearest to it, of at most `most` bytes."""
    if len(text) <= most and text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "?").encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _tags(tags: Iterable[str]) -> str:
    """`name=value` under its name, and a bare word with an empty value."""
    named = (tag.partition("=") for tag in islice(tags, MAX_TAGS))
    return _tags_encoder.encode({plain(name): plain(value) for name, _, value in named}).decode()


def _tokens(counted: int) -> int:
    return min(max(counted, 0), MAX_TOKENS)


def _answered_by(attempts: tuple[Attempt, ...]) -> str:
    """The replica whose answer it was; without one, the last that was tried."""
    for attempt in attempts:
        if attempt.ended == OK:
            return attempt.replica
    return attempts[-1].replica if attempts else ""
