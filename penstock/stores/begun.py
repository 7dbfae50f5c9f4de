"""A request that has begun and not ended: what its row of the ledger will say, should its process die before."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.core.outcome import Outcome, UsageSource
from penstock.core.request import Usage
from penstock.stores.entry import Entry
from penstock.stores.receipts import entry_of

GATEWAY_CRASHED: Final = "gateway_crashed"  # the error of such a row
STATUS: Final = 500  # of such a row: its caller saw a connection break


class Begun(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is known of a request when its first upstream is about to be called. Nothing in it needs to be checked."""

    request_id: str
    at: float  # Unix seconds, when it was received
    org: str = ""
    team: str = ""
    key_id: str = ""
    user_hash: str = ""
    feature: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""
    deployment: str = ""  # where it goes first, if that is known
    endpoint: str = ""
    prompt_tokens: int = 0  # an estimate
    max_tokens: int = 0  # that are expected of the answer at most
    cost_nanos: int | None = None  # the most it may cost; None: nobody knows
    price_version: str = ""

    def entry(self) -> Entry:
        """Its row, should it never get one of its own: an estimate."""
        outcome = Outcome(
            received_at=self.at,
            request_id=self.request_id,
            endpoint=self.endpoint,
            tenant=self.org,
            key_id=self.key_id,
            model=self.model,
            stream=False,
            status=STATUS,
            error=GATEWAY_CRASHED,
            attempts=(),
            usage=Usage(self.prompt_tokens, self.max_tokens),
            usage_source=UsageSource.ESTIMATE,
            finish_reason=None,
            first_token_after=None,
            duration=0.0,
            plane_version=0,
            deployment=self.deployment,
            team=self.team,
            user_hash=self.user_hash,
            feature=self.feature,
            session=self.session,
            tags=self.tags,
            cost_nanos=self.cost_nanos,
        )
        return entry_of(outcome, price_version=self.price_version)


_decoder = msgspec.msgpack.Decoder(Begun)


def row_of(record: bytes) -> Entry | None:
    """The row of what another process had begun; None when a version that knows more wrote it."""
    try:
        return _decoder.decode(record).entry()
    except (msgspec.DecodeError, ValueError):
        return None
