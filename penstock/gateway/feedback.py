"""`POST /v1/feedback`: what a caller says of an answer, by its `x-request-id`. The same again changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import MethodNotAllowed, NotFound, StoreUnavailable
from penstock.core.request import Caller
from penstock.gateway.exchange import Exchange
from penstock.quality.feedback import Feedback, Signal, Verdict, parse
from penstock.stores.base import StoreFailed
from penstock.stores.feedback import FeedbackStore, NotTheirs, Taken

PATH: Final = b"/v1/feedback"

Count = Callable[[str, Signal, Verdict], None]


class Answered(msgspec.Struct, frozen=True):
    """`known`: the ledger has the request, and it is the caller's."""

    feedback: Feedback
    known: bool
    object: str = "feedback"


_encode: Final = msgspec.json.Encoder().encode


class FeedbackPage:
    """`store` is asked for at every request, as the database comes after the gateway. `count` is called once for each
    signal that is new: model ("" : not known yet), signal, verdict.
    """

    def __init__(self, store: Callable[[], FeedbackStore], clock: Clock, count: Count) -> None:
        self._store, self._clock, self._count = store, clock, count

    async def answer(self, exchange: Exchange, caller: Caller) -> None:
        """Raises `BadRequest`, `NotFound`, `MethodNotAllowed` and `StoreUnavailable`."""
        if exchange.method != b"POST":
            raise MethodNotAllowed("This path takes POST.", allow="POST")
        said = parse(exchange.body)
        try:
            taken = await self._store().put(caller, said, int(self._clock.wall() * 1e6))
        except NotTheirs:
            raise NotFound("There is no such request of yours here.", param="request_id") from None
        except StoreFailed:
            raise StoreUnavailable("Feedback cannot be kept at the moment; send it again.", retry_after=5.0) from None
        self._count_new(taken)
        known = bool(taken.model)
        exchange.respond(200 if known else 202, _encode(Answered(taken.after, known)))

    def _count_new(self, taken: Taken) -> None:
        before = {} if taken.before is None else taken.before.verdicts()
        for signal, verdict in taken.after.verdicts().items():
            if before.get(signal) is not verdict:
                self._count(taken.model, signal, verdict)
