"""HTTP/1.1 out: keep-alive connections to one origin, answers handed to a `Receiver` straight from the socket's
callback, because a queue or a future per chunk would cost more than the chunk.

One rule that surprises: a request is sent a second time when a *reused* connection closes at once and unanswered. The
upstream had closed it before, and our request crossed its goodbye on the wire: not a retry that anybody decides about.
"""

import asyncio
import socket as sockets
import ssl as tls
from functools import partial
from math import inf
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import httptools

from penstock.http.members import Members
from penstock.http.names import LOWERED
from penstock.http.options import ClientOptions
from penstock.http.wheel import Wheel

_NO_HEADERS: list[tuple[bytes, bytes]] = []  # shared by all whose answer has none yet; nothing is put into it
_COPY = 65_536  # joining head and body costs a copy; beyond this a second buffer is cheaper

TransportFailure = Literal["connect", "connect_timeout", "tls", "dns", "reset", "eof", "protocol"]


class TransportError(Exception):
    """The exchange with the upstream broke below HTTP.

    `kind`: `connect`, `connect_timeout`, `tls`, `dns` (no connection), `reset` (broken off), `eof` (closed before the
    answer was complete), `protocol` (not HTTP/1.1, or beyond our limits). `sent`: whether the upstream may have seen
    any of the request.
    """

    def __init__(self, kind: TransportFailure, detail: str, *, sent: bool) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
        self.sent = sent


class Receiver(Protocol):
    """Whoever wants the answer. Called from the event loop, never from inside `Pool.send`; must not block.

    Order: `on_head`, any number of `on_data`, the last of them with `ended`; or `on_failure` at any point instead, and
    nothing after it. A failure before `on_head` means that no answer began.
    """

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The final status (1xx are skipped) and the headers, names in lower case, in order."""
        ...

    def on_data(self, data: bytes, ended: bool) -> None:
        """All body bytes of one read, de-chunked. `data` may be empty only when `ended`."""
        ...

    def on_failure(self, failure: TransportError) -> None: ...


class Call:
    """One request on its way and its answer coming back. Made by `Pool.send`."""

    __slots__ = (
        "_body",
        "_bodyless",
        "_connecting",
        "_connection",
        "_head",
        "_paused",
        "_pool",
        "_receiver",
        "_reused",
        "_sent_at",
    )

    def __init__(self, pool: "Pool", head: bytes, body: bytes, receiver: Receiver) -> None:
        self._pool = pool
        self._head = head
        self._body = body  # b"" when it is short enough to be part of `_head`
        self._bodyless = head.startswith(b"HEAD ")
        self._receiver: Receiver | None = receiver  # None: nobody listens any more
        self._connection: _Connection | None = None
        self._connecting: _Connecting | None = None
        self._reused = False
        self._paused = False
        self._sent_at = 0.0

    def pause(self) -> None:
        """Take nothing more from the upstream for now; at most one further read is delivered."""
        if not self._paused:
            self._paused = True
            if self._connection is not None:
                self._connection.transport.pause_reading()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.transport.resume_reading()

    def close(self) -> None:
        """Let go, at once, in any state; again is harmless. An unfinished answer aborts its connection. No callback
        comes after this.
        """
        self._receiver = None
        self._head = self._body = b""
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.abandon()
        elif self._connecting is not None:
            connecting, self._connecting = self._connecting, None
            connecting.cancel()


class _Connection(asyncio.Protocol):
    """One connection to the origin, for one call at a time."""

    __slots__ = (
        "_begun",
        "_call",
        "_done",
        "_head_due",
        "_head_read",
        "_headers",
        "_heard",
        "_keep",
        "_parser",
        "_parts",
        "_pool",
        "_reused",
        "_status",
        "_to_the_end",
        "idle_since",
        "on_body",
        "transport",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._call: Call | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by the parser with no Python frame in between
        self._parser: Any = httptools.HttpResponseParser(self)
        self.transport: Any = None
        self.idle_since = 0.0
        self._reused = False  # it has answered before
        self._heard = False  # any byte of the answer
        self._begun = False  # a message is being parsed
        self._status = 0
        self._headers = _NO_HEADERS
        self._head_due = False  # parsed, not delivered
        self._head_read = 0
        self._keep = False
        self._to_the_end = False  # the body ends with the connection
        self._done = False

    def begin(self, call: Call) -> None:
        """Send the request of `call`; everything until its end belongs to it."""
        self._call = call
        call._connection = self
        self._heard = self._done = self._head_due = self._to_the_end = False
        self._status = 0
        self._head_read = 0
        transport = self.transport
        transport.write(call._head)
        if call._body:
            transport.write(call._body)
        if call._paused:
            transport.pause_reading()

    def abandon(self) -> None:
        self._call = None
        self.transport.abort()

    # What the transport tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:
            # Idle connections have nothing to say; what they say would be taken for the next answer.
            self._keep = False
            self.transport.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("protocol", "the upstream switched to another protocol unasked")
            return
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail("protocol", f"the answer is not HTTP/1.1: {error}")
                return
            self._keep = False
        if self._head_due:
            self._head_due = False
            call._head = call._body = b""  # it will not be sent again
            options = self._pool.options
            if len(self._headers) > options.max_headers or (
                len(data) > options.max_head_bytes and self._head_size() > options.max_head_bytes
            ):
                self._fail("protocol", "the head of the answer is too large")
                return
            receiver = call._receiver
            assert receiver is not None, "a call that was closed has no connection"
            headers, self._headers = self._headers, _NO_HEADERS  # a long stream should not hold them a second time
            receiver.on_head(self._status, headers)
            if self._call is not call:
                return  # closed by its receiver
        elif not self._status:
            self._head_read += len(data)
            if self._head_read > self._pool.options.max_head_bytes:
                self._fail("protocol", "the head of the answer is too large")
            return
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        elif self._done:
            body = b""
        else:
            return
        receiver = call._receiver
        assert receiver is not None, "a call that was closed has no connection"
        if self._done:
            self._release(call)
            receiver.on_data(body, True)
        else:
            receiver.on_data(body, False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        pool = self._pool
        self._parser = None  # it holds our methods
        pool.lost(self)
        call = self._call
        if call is None:
            return
        if self._to_the_end and exc is None and self._status:
            self._call = call._connection = None
            receiver, call._receiver = call._receiver, None
            if receiver is not None:
                receiver.on_data(b"", True)
        elif self._reused and not self._heard and pool.loop.time() - call._sent_at <= pool.options.stale_window:
            self._call = call._connection = None
            pool.connect(call)
        elif exc is None:
            self._fail(
                "eof", "the upstream closed the connection " + ("in mid-answer" if self._heard else "unanswered")
            )
        else:
            self._fail("reset", str(exc) or type(exc).__name__)

    # What the parser tells us

    def on_message_begin(self) -> None:
        if self._done:
            # An answer nobody asked for; its body must not join the one we have. The parser stops here for good.
            raise _Unasked
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:
            lowered = LOWERED.get(name)
            # a value that ends in white space is rare
            self._headers.append(
                (name.lower() if lowered is None else lowered, value.rstrip() if value and value[-1] < 33 else value)
            )

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            return
        self._status = status
        self._head_due = True
        self._keep = keep = parser.should_keep_alive()
        if self._call is not None and self._call._bodyless:
            # The parser waits for the body that the headers speak of and that never comes, so this is its last answer.
            self._done, self._keep = True, False
            return
        if not keep and status not in (204, 304):
            names = {name for name, _ in self._headers}
            self._to_the_end = b"content-length" not in names and (
                b"transfer-encoding" not in names or not self._ends_in_chunks()
            )

    def on_message_complete(self) -> None:
        if self._status:
            self._done = True

    def _ends_in_chunks(self) -> bool:
        codings = [value for name, value in self._headers if name == b"transfer-encoding"]
        return codings[-1].rpartition(b",")[2].strip(b" \t").lower() == b"chunked"

    def _head_size(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _release(self, call: Call) -> None:
        """The answer is complete: the connection is free for another, if it may live."""
        self._call = call._connection = call._receiver = None
        if call._paused:
            self.transport.resume_reading()
        if self._keep and not self.transport.get_write_buffer_size():
            self._pool.give_back(self)
        else:
            self.transport.close()

    def _fail(self, kind: TransportFailure, detail: str) -> None:
        call = self._call
        self._parts.clear()
        self.transport.abort()
        if call is None:
            return
        self._call = call._connection = None
        receiver, call._receiver = call._receiver, None
        if receiver is not None:
            receiver.on_failure(TransportError(kind, detail, sent=True))


class _Unasked(Exception):
    """The upstream sends more than it was asked for."""


class _Connecting:
    """A connection being made for one call, with its time limit."""

    __slots__ = ("call", "connection", "deadline", "due", "task", "timed_out")

    def __init__(self, call: Call, deadline: float) -> None:
        self.call: Call = call
        self.deadline = deadline
        self.due = inf
        self.timed_out = False
        self.connection: _Connection | None = None
        self.task: asyncio.Task[_Connection] | None = None

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def expired(self, now: float) -> None:
        self.timed_out = True
        self.cancel()


class Pool:
    """Connections to one origin: `http://host:port`, `https://host:port` or `unix:/path`.

    The most recently used idle connection goes first, so that surplus ones grow old and are closed.
    """

    def __init__(
        self,
        origin: str,
        *,
        options: ClientOptions | None = None,
        ssl: tls.SSLContext | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        wheel: Wheel | None = None,
        address: str | None = None,
    ) -> None:
        """Opens nothing yet. Pools of one loop may share a `wheel`. Raises `ValueError` for what is no origin.

        `address`: connect to this IP address instead of looking the host up; the `host` header and TLS keep the name.
        """
        self.origin = origin
        self.options = options if options is not None else ClientOptions()
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.connections: Members[_Connection] = Members()
        self.closed = False
        self.deadline = inf
        self.due = inf
        self._wheel = wheel if wheel is not None else Wheel(self.loop)
        self._idle: list[_Connection] = []
        self._connecting: set[_Connecting] = set()
        self._ssl: tls.SSLContext | None = None
        self._path = ""
        self._host, self._port = "localhost", 0
        self._address = address
        if origin.startswith("unix:"):
            self._path = origin.removeprefix("unix:").removeprefix("//")
            if not self._path:
                raise ValueError(f'"{origin}" names no socket; write unix:/path/of/the/socket')
            self.host = b"localhost"
            return
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f'"{origin}" is not an origin; write http://host:port or https://host')
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.rpartition("@")[2].encode("idna" if not parts.netloc.isascii() else "ascii")
        """The value of the `host` header for this origin."""
        if parts.scheme == "https":
            if ssl is None:
                ssl = tls.create_default_context()
                ssl.set_alpn_protocols(["http/1.1"])
            self._ssl = ssl

    @property
    def idle(self) -> int:
        """Connections open and unused."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """Connections open or being opened."""
        return len(self.connections) + len(self._connecting)

    def send(self, prefix: bytes, extra: bytes, body: bytes, receiver: Receiver) -> Call:
        """Send a request in one write; the answer goes to `receiver`, later.

        `prefix` is the request line, `host` and whatever headers are always the same for this upstream, each line with
        its CRLF: build it once. `extra` is further header lines, or nothing. Both are trusted: no foreign CR or LF may
        be in them. The length of the body and the blank line are added here.
        """
        if not body and prefix.startswith((b"GET ", b"HEAD ")):
            call = Call(self, b"%b%b\r\n" % (prefix, extra), b"", receiver)
        elif len(body) <= _COPY:
            call = Call(self, b"%b%bcontent-length: %d\r\n\r\n%b" % (prefix, extra, len(body), body), b"", receiver)
        else:
            call = Call(self, b"%b%bcontent-length: %d\r\n\r\n" % (prefix, extra, len(body)), body, receiver)
        idle = self._idle
        now = self.loop.time()
        while idle:
            connection = idle.pop()
            if connection.transport.is_closing():
                continue
            if now - connection.idle_since > self.options.keep_alive:
                connection.transport.close()
                continue
            call._reused = connection._reused = True
            call._sent_at = now
            connection.begin(call)
            return call
        self.connect(call)
        return call

    def close(self) -> None:
        """Take no more requests. Idle connections close now, busy ones after their answer."""
        self.closed = True
        self._wheel.forget(self)
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.transport.close()

    def abort(self) -> None:
        """Close everything now; whoever waits for an answer hears `reset`."""
        self.close()
        for connecting in list(self._connecting):
            connecting.cancel()
        for connection in list(self.connections):
            connection.transport.abort()

    # For connections

    def connect(self, call: Call) -> None:
        """Make a new connection for `call`."""
        if self.closed or self.open >= self.options.max_connections:
            why = "the pool is closed" if self.closed else f"all {self.options.max_connections} connections are in use"
            self.loop.call_soon(_fail_unsent, call, "connect", why)
            return
        connecting = _Connecting(call, self.loop.time() + self.options.connect_timeout)
        call._connecting = connecting
        self._connecting.add(connecting)
        self._wheel.hasten(connecting)
        connecting.task = self.loop.create_task(self._open(connecting))
        connecting.task.add_done_callback(partial(self._opened, connecting))

    def give_back(self, connection: _Connection) -> None:
        if self.closed or len(self._idle) >= self.options.max_idle or connection.transport.is_closing():
            connection.transport.close()
            return
        connection.idle_since = now = self.loop.time()
        self._idle.append(connection)
        if self.due == inf:
            self.deadline = now + self.options.keep_alive
            self._wheel.hasten(self)

    def lost(self, connection: _Connection) -> None:
        self.connections.discard(connection)
        if connection._call is None and connection in self._idle:
            self._idle.remove(connection)

    def expired(self, now: float) -> None:
        """Close what has been idle for too long; the list is sorted, oldest first."""
        keep_alive = self.options.keep_alive
        n_old = 0
        while n_old < len(self._idle) and self._idle[n_old].idle_since + keep_alive <= now:
            n_old += 1
        old, self._idle = self._idle[:n_old], self._idle[n_old:]
        for connection in old:
            connection.transport.close()
        if self._idle:
            self.deadline = self._idle[0].idle_since + keep_alive
            self._wheel.hasten(self)

    async def _open(self, connecting: _Connecting) -> _Connection:
        def make() -> _Connection:
            connecting.connection = connection = _Connection(self)
            return connection

        if self._path:
            return (await self.loop.create_unix_connection(make, self._path))[1]
        name, to = self._host, self._address or self._host
        if self._ssl is not None:
            return (await self.loop.create_connection(make, to, self._port, ssl=self._ssl, server_hostname=name))[1]
        return (await self.loop.create_connection(make, to, self._port))[1]

    def _opened(self, connecting: _Connecting, task: asyncio.Task[_Connection]) -> None:
        # Not at the end of `_open`: a task that is cancelled before its first step runs none of its code.
        self._connecting.discard(connecting)
        self._wheel.forget(connecting)
        call = connecting.call
        call._connecting = None
        connection = connecting.connection
        if connection is not None and (task.cancelled() or task.exception() is not None):
            # uvloop closes a connection that it just made without saying `connection_lost`.
            self.connections.discard(connection)
            if connection.transport is not None:
                connection.transport.abort()
        if task.cancelled():
            if connecting.timed_out:
                _fail_unsent(call, "connect_timeout", f"no connection within {self.options.connect_timeout:g} s")
            else:
                _fail_unsent(call, "connect", "the pool was closed")
            return
        error = task.exception()
        if error is not None:
            _fail_unsent(call, *_explain(error, self._host))
            return
        connection = task.result()
        if call._receiver is None:
            self.give_back(connection)  # closed in the very moment it was ready
        elif connection.transport.is_closing():
            _fail_unsent(call, "connect", "the upstream closed the connection at once")
        else:
            connection.begin(call)


def _explain(error: BaseException, host: str) -> tuple[TransportFailure, str]:
    """Why there is no connection, in our words."""
    if isinstance(error, sockets.gaierror):
        return "dns", f'"{host}": {error.strerror}'
    if isinstance(error, tls.SSLError):
        return "tls", str(error)
    return "connect", str(error) or type(error).__name__


def _fail_unsent(call: Call, kind: TransportFailure, detail: str) -> None:
    receiver, call._receiver = call._receiver, None
    if receiver is not None:
        # A request that was sent on a stale connection may have been seen there.
        receiver.on_failure(TransportError(kind, detail, sent=call._reused))
