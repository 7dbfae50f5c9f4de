"""The state of the Responses API: answers kept, built upon by `previous_response_id`, asked for again, deleted.

Penstock keeps them itself, whoever answered, so a conversation may go on with another provider. Every look-up is by the
caller's own owner: an id alone opens nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qs

import msgspec
from msgspec import structs

from penstock.config.spec import PlaneSpec
from penstock.core.clock import Clock
from penstock.core.errors import BadRequest, MethodNotAllowed, NotFound, StoreUnavailable
from penstock.core.request import Caller, Request
from penstock.gateway.exchange import Exchange
from penstock.stores.base import Responses, StoredResponse, StoreFailed
from penstock.wire import responses
from penstock.wire.prompts import decode_flag, decode_text, read_field

_PATH: Final = re.compile(
    rb"(?:/openai)?/v1/responses/(?!(?:compact|input_tokens)(?:/|$))([A-Za-z0-9_-]{1,128})(?:/(cancel|input_items))?"
).fullmatch


_encode = msgspec.json.Encoder().encode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
Value = TypeVar("Value")


class PreviousNotFound(BadRequest):
    code = "previous_response_not_found"


class ResponseNotFound(NotFound):
    code = "response_not_found"


class Recalled(msgspec.Struct, frozen=True):
    """A request with its history. `fields` outlive those of the request, which a stream forgets; None: not kept."""

    request: Request
    fields: dict[str, msgspec.Raw] | None


class StoredResponses:
    def __init__(self, store: Responses, clock: Clock, tell: Callable[[str], None] = lambda line: None) -> None:
        """`tell` is for the operator, when an answer could not be kept."""
        self._store, self._clock, self._tell = store, clock, tell
        self.on_cancel: Callable[[str, str], object] = lambda owner, id: None  # who stops the work

    async def recall(self, request: Request) -> Recalled:
        """Put what came before in front of the input. Raises `BadRequest` for an id that is not the caller's."""
        previous = read_field(request.fields, "previous_response_id", decode_text)
        if previous is not None:
            stored = await self._get(request.caller, previous)
            if stored is None:
                raise PreviousNotFound(
                    f"There is no response {previous[:100]!r} of yours here; it may have expired or been deleted.",
                    param="previous_response_id",
                )
            request = structs.replace(responses.resolved(request, _kept(stored)), follows=previous)
        wants = read_field(request.fields, "store", decode_flag) is not False
        return Recalled(request, dict(request.fields) if wants else None)

    async def keep(self, recalled: Recalled, body: bytes | None, spec: PlaneSpec) -> None:
        """After the answer was whole; None: it is none that is kept. `spec` says for how long, and how many."""
        if body is not None:
            try:
                await self.put(recalled, body, spec)
            except StoreUnavailable as error:  # the caller has had their answer
                self._tell(f"A response was not kept: {error.message}")

    async def put(self, recalled: Recalled, body: bytes, spec: PlaneSpec) -> None:
        if recalled.fields is None or not (spec.responses_retention and spec.responses_max):
            return
        kept, now = responses.keep(recalled.fields, body), self._clock.wall()
        await _working(
            self._store.put(
                StoredResponse(
                    id=kept.id,
                    owner=owner(recalled.request.caller),
                    body=body,
                    input=_encode(kept.input),
                    created_at=now,
                    expires_at=now + spec.responses_retention,
                ),
                spec.responses_max,
            )
        )

    def asked(self, exchange: Exchange) -> tuple[str, str] | None:
        """The id and the sub-path ("" for none) when this path names a stored response."""
        found = _PATH(exchange.path)
        return None if found is None else (found[1].decode("ascii"), (found[2] or b"").decode("ascii"))

    def answer(self, exchange: Exchange, caller: Caller, id: str, part: str) -> Coroutine[Any, Any, bytes]:
        """The body for a request about one response. Raises `MethodNotAllowed`, and `NotFound` when awaited."""
        if part == "" and exchange.method == b"DELETE":
            return self._delete(caller, id)
        if part == "cancel" and exchange.method == b"POST":
            return self._cancel(caller, id)
        if part != "cancel" and exchange.method in (b"GET", b"HEAD"):
            return self._body(caller, id) if part == "" else self._input_items(caller, id, exchange.query)
        allow = {"": "GET, HEAD, DELETE", "cancel": "POST", "input_items": "GET, HEAD"}[part]
        raise MethodNotAllowed(f"This path takes {allow}.", allow=allow)

    async def _body(self, caller: Caller, id: str) -> bytes:
        return (await self._found(caller, id)).body

    async def _input_items(self, caller: Caller, id: str, query: bytes) -> bytes:
        said = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
        limit = said.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= responses.MAX_PAGE:
            raise BadRequest(f"`limit` must be from 1 to {responses.MAX_PAGE}", param="limit")
        order: Literal["asc", "desc"] = "asc" if said.get("order") == "asc" else "desc"
        stored = _kept(await self._found(caller, id))
        return responses.input_items_list(stored, after=said.get("after"), limit=int(limit), order=order)

    async def _delete(self, caller: Caller, id: str) -> bytes:
        if not await _working(self._store.delete(owner(caller), id)):
            raise _missing(id)
        return responses.deleted_body(id)

    async def _cancel(self, caller: Caller, id: str) -> bytes:
        """Cancelling again is harmless. One that runs in another worker is only marked; its work ends by itself."""
        stored = await self._found(caller, id)
        status = responses.status_of(stored.body)
        if status not in ("in_progress", "cancelled"):
            raise BadRequest(f"Only a response in the background can be cancelled, and this one is {status}.")
        self.on_cancel(owner(caller), id)
        body, now = responses.cancelled(stored.body), self._clock.wall()
        await _working(self._store.put(structs.replace(stored, body=body, created_at=now), sys.maxsize))
        return body

    async def _found(self, caller: Caller, id: str) -> StoredResponse:
        stored = await self._get(caller, id)
        if stored is None:
            raise _missing(id)
        return stored

    async def _get(self, caller: Caller, id: str) -> StoredResponse | None:
        return await _working(self._store.get(owner(caller), id, self._clock.wall()))


async def _working(asked: Coroutine[Any, Any, Value]) -> Value:
    try:
        return await asked
    except StoreFailed as failed:
        raise StoreUnavailable(f"Stored responses cannot be reached at the moment ({failed}).") from None


def _kept(stored: StoredResponse) -> responses.Stored:
    return responses.Stored(stored.id, msgspec.Raw(stored.body), tuple(_decode_items(stored.input)))


def owner(caller: Caller) -> str:
    """Whose a response is: everybody's of a tenant, else the key's own. The prefixes keep the two apart."""
    return f"tenant:{caller.tenant}" if caller.tenant else f"key:{caller.key_id}"


def _missing(id: str) -> ResponseNotFound:
    return ResponseNotFound(f"There is no response {id!r} of yours here; it may have expired or been deleted.")
