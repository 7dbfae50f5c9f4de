"""Responses that nobody waits for: `background: true` is answered at once, and the work goes on under an id.

The work itself is an ordinary request, served for an exchange that leads nowhere; its end is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from msgspec import structs

from penstock.config.spec import PlaneSpec
from penstock.core.errors import BadRequest, Overloaded
from penstock.core.request import Request
from penstock.gateway.exchange import Exchange, Flow
from penstock.gateway.stored_responses import StoredResponses, owner
from penstock.wire import responses
from penstock.wire.dialects import asked_of
from penstock.wire.prompts import UNREADABLE

MAX_RUNNING: Final = 1_000  # in one worker
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_FALSE: Final = msgspec.Raw(b"false")


def wanted(body: bytes) -> bool:
    """Whether a request is to run in the background; one that is no JSON is left to whoever reads it for good."""
    if b'"background"' not in body:
        return False
    try:
        fields = _decode(body)
    except UNREADABLE:
        return False
    return bytes(fields.get("background", b"")) == b"true"


class Nowhere:
    """An exchange whose caller has been answered already; keeps what it would have been told."""

    def __init__(self, exchange: Exchange, body: bytes) -> None:
        self.method, self.path, self.query, self.body = exchange.method, exchange.path, exchange.query, body
        self.header, self.values, self.peer = exchange.header, exchange.values, exchange.peer
        self.flow: Flow | None = None
        self.status, self.answer = 0, b""

    @property
    def started(self) -> bool:
        return self.status != 0

    def respond(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"") -> None:
        self.status, self.answer = status, body

    def start(self, status: int, headers: bytes = b"", content_type: bytes = b"") -> None:
        raise AssertionError("streams were refused")

    def write(self, data: bytes) -> None:
        raise AssertionError("streams were refused")

    def finish(self, data: bytes = b"") -> None:
        raise AssertionError("streams were refused")

    def abort(self) -> None:
        """Nobody is there."""

    def forget(self) -> None:
        self.body = b""


class Background:
    """The responses that are being worked on in this worker."""

    def __init__(self, stored: StoredResponses) -> None:
        self._stored = stored
        stored.on_cancel = self.cancel
        self._running: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def run(
        self,
        exchange: Exchange,
        request: Request,
        created: int,
        spec: PlaneSpec,
        serve: Callable[[Exchange], Coroutine[Any, Any, None]],
    ) -> None:
        """Answer at once with a response in progress, then `serve` it. Raises `PenstockError` before that."""
        fields = request.fields
        if request.stream:
            raise BadRequest("`stream` and `background` do not go together here: ask for it later.", param="stream")
        if bytes(fields.get("store", b"")) == b"false" or not (spec.responses_retention and spec.responses_max):
            raise BadRequest("`background` needs a stored response, and this one is not to be kept.", param="store")
        if len(self._running) >= MAX_RUNNING:
            raise Overloaded("Too many responses are running in the background.", retry_after=10.0)
        recalled = await self._stored.recall(request)
        fields = {name: raw for name, raw in recalled.request.fields.items() if name != "background"}
        asked = asked_of(structs.replace(recalled.request, fields=fields), created)
        opening = responses.in_progress(asked)
        kept = structs.replace(recalled, fields=fields)
        await self._stored.put(kept, opening, spec)
        exchange.respond(200, opening)
        # stored by us, under the id that was told
        nowhere = Nowhere(exchange, _encode(fields | {"store": _FALSE}))
        task, key = asyncio.current_task(), (owner(request.caller), f"resp_{asked.id}")
        assert task is not None
        self._running[key] = task
        try:
            await serve(nowhere)
            await self._stored.put(kept, _ended(opening, nowhere), spec)
        finally:
            del self._running[key]

    def cancel(self, owner: str, id: str) -> None:
        """Stop it, if it runs in this worker."""
        task = self._running.get((owner, id))
        if task is not None:
            task.cancel()


def _ended(opening: bytes, nowhere: Nowhere) -> bytes:
    fields = _decode(opening)
    said = _decode(nowhere.answer)
    if nowhere.status == 200:
        ours = {name: fields[name] for name in ("id", "background", "store", "previous_response_id") if name in fields}
        return _encode(fields | said | ours)
    error = _decode(said["error"])
    told = {"code": error.get("code"), "message": error["message"]}
    return _encode(fields | {"status": msgspec.Raw(b'"failed"'), "error": msgspec.Raw(_encode(told))})
