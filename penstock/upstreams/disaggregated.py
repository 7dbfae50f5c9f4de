"""One answer from two replicas of vLLM: the first computes the prompt, the second decodes.

The prompt is sent to the first with `max_tokens: 1` and `kv_transfer_params`; what it answers under that name says
where its keys and values lie, and goes with the request itself to the second, which fetches them (vLLM's NixlConnector
and those with the same interface). Whatever goes wrong before that costs time but no answer: the second gets the
request as it came, and computes the prompt itself.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final, Protocol

import msgspec
from msgspec import structs

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, PenstockError, UpstreamError
from penstock.core.outcome import UsageSource
from penstock.core.request import Endpoint, Request, Usage
from penstock.upstreams.base import Listener, Sink, Stream, Upstream
from penstock.wire.prompts import UNREADABLE
from penstock.wire.readings import Reading

CAN: Final = frozenset((Endpoint.CHAT, Endpoint.COMPLETION))
"""Where vLLM takes and gives `kv_transfer_params`."""
PREFILL_MAY_TAKE: Final = 30.0  # seconds; then the second replica starts over
_ASK: Final = msgspec.Raw(
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,'
    b'"remote_host":null,"remote_port":null}'
)
_ONE: Final = msgspec.Raw(b"1")
_FALSE: Final = msgspec.Raw(b"false")
_ABOUT_LENGTH: Final = ("min_tokens", "stream_options", "max_completion_tokens", "n", "best_of")
"""Fields that would contradict a single token in one piece."""


class _Answer(msgspec.Struct):
    kv_transfer_params: dict[str, msgspec.Raw] | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class Handed(Enum):
    """What came of a prefill elsewhere."""

    OVER = "over"  # the second replica was told where to fetch it
    FAILED = "failed"  # the second replica computes the prompt itself
    LEFT = "left"  # nobody wants the answer any more


class Prefill(Protocol):
    """Who counts the prompt's load on the first replica. Both are called exactly once, in this order."""

    def began(self) -> None:
        """Before anything is sent."""
        ...

    def ended(self, how: Handed, failure: UpstreamError | None) -> None:
        """`failure` is why, where it `FAILED`."""
        ...


class Disaggregated:
    """The stream of both. As `Stream`, it is the second's once there is one."""

    def __init__(self, request: Request, decode: Upstream, listener: Listener, clock: Clock, prefill: Prefill) -> None:
        self._request, self._decode, self._clock, self._prefill = request, decode, clock, prefill
        self._listener: Listener | None = listener
        self._first: Stream | None = None
        self._second: Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progressed_at = clock.now()
        self.content_type = b"text/event-stream; charset=utf-8" if request.stream else b"application/json"
        self.lost: tuple[str, ...] = ()

    def send(self, prefill: Upstream, now: float, give_up_after: float) -> None:
        self._prefill.began()
        try:
            self._first = prefill.open(prefill_request(self._request), _First(self), now)
        except (PenstockError, UpstreamError) as error:
            asyncio.get_running_loop().call_soon(self.prefilled, _failure(error))
            return
        self._timer = asyncio.get_running_loop().call_later(give_up_after, self._give_up)

    def prefilled(self, failure: UpstreamError | None) -> None:
        """The first has answered, or will not. Asks the second."""
        listener, self._listener = self._listener, None
        if listener is None:  # let go of, or asked already
            return
        request = self._request
        first, self._first = self._first, None
        if failure is None:
            assert first is not None, "an answer has a stream"
            try:
                params = _answer(first.plain or b"").kv_transfer_params
            except UNREADABLE as error:
                params, failure = None, UpstreamError(FailureKind.BAD_PAYLOAD, f"kv_transfer_params: {error}")
            if params:
                request = decode_request(request, params)
            elif failure is None:
                failure = UpstreamError(FailureKind.BAD_PAYLOAD, "an answer without kv_transfer_params")
        self._over(first, Handed.OVER if failure is None else Handed.FAILED, failure)
        try:
            self._second = self._decode.open(request, listener, self._clock.now())
        except (PenstockError, UpstreamError) as error:
            listener.on_failed(_failure(error))
            return
        self.content_type, self.lost = self._second.content_type, self._second.lost

    def _give_up(self) -> None:
        self.prefilled(UpstreamError(FailureKind.FIRST_TOKEN_TIMEOUT, "the prompt was not computed in time"))

    def _over(self, first: Stream | None, how: Handed, failure: UpstreamError | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if first is not None:
            first.close()
        self._prefill.ended(how, failure)

    # --- Stream ---

    @property
    def progressed_at(self) -> float:
        return self._progressed_at if self._second is None else self._second.progressed_at

    @progressed_at.setter
    def progressed_at(self, at: float) -> None:
        self._progressed_at = at

    @property
    def reading(self) -> Reading:
        return self._begun.reading

    @property
    def plain(self) -> bytes | None:
        return None if self._second is None else self._second.plain

    @property
    def finish_reason(self) -> str | None:
        return None if self._second is None else self._second.finish_reason

    def usage(self) -> tuple[Usage, UsageSource]:
        """The second's, which counts the whole prompt; nothing as long as only the first was asked."""
        return (Usage(), UsageSource.NONE) if self._second is None else self._second.usage()

    def relay(self, sink: Sink) -> None:
        self._begun.relay(sink)

    def pause(self) -> None:
        if self._second is not None:
            self._second.pause()

    def resume(self) -> None:
        if self._second is not None:
            self._second.resume()

    def close(self) -> None:
        if self._listener is not None:
            self._listener = None
            first, self._first = self._first, None
            self._over(first, Handed.LEFT)
        if self._second is not None:
            self._second.close()

    @property
    def _begun(self) -> Stream:
        assert self._second is not None, "no first token has come"
        return self._second


class _First:
    """Listens to the first replica."""

    def __init__(self, stream: Disaggregated) -> None:
        self._stream = stream

    def on_first_token(self) -> None:
        self._stream.prefilled(None)

    def on_failed(self, failure: UpstreamError) -> None:
        self._stream.prefilled(failure)

    def traceparent(self) -> bytes:
        return b""


def open_disaggregated(
    request: Request,
    prefill: Upstream,
    decode: Upstream,
    listener: Listener,
    clock: Clock,
    load: Prefill,
    give_up_after: float = PREFILL_MAY_TAKE,
) -> Disaggregated:
    """Send it, as `Upstream.open` does; `request.endpoint` is one of `CAN`. Seconds.

    A failure of the first is told to `load` alone; `listener` hears of the second.
    """
    assert request.endpoint in CAN, f"{request.endpoint} cannot be disaggregated"
    stream = Disaggregated(request, decode, listener, clock, load)
    stream.send(prefill, clock.now(), give_up_after)
    return stream


def prefill_request(request: Request) -> Request:
    """The same prompt for a single token, and its keys and values kept for somebody else."""
    fields = {name: raw for name, raw in request.fields.items() if name not in _ABOUT_LENGTH}
    fields.update(max_tokens=_ONE, stream=_FALSE, kv_transfer_params=_ASK)
    return structs.replace(request, fields=fields, stream=False, include_usage=False, max_tokens=1, received=None)


def decode_request(request: Request, params: dict[str, msgspec.Raw]) -> Request:
    """The request with where its prompt's keys and values lie."""
    fields = {**request.fields, "kv_transfer_params": msgspec.Raw(_encode(params))}
    return structs.replace(request, fields=fields, received=None)


def _failure(error: PenstockError | UpstreamError) -> UpstreamError:
    """A request that cannot be said to an upstream is at fault itself."""
    return error if isinstance(error, UpstreamError) else UpstreamError(FailureKind.REJECTED, str(error))


_: type[Stream] = Disaggregated
