"""HTTP/1.1 in: bytes become an `Exchange`, the handler answers it. Strict about what it accepts (llhttp, no leniency),
because what a proxy in front of us reads differently is how requests are smuggled.

Nothing here allocates a timer, a future or a task per chunk; a request costs one task and one write, a chunk one write.
Requests on one connection are answered one by one, in order; a few may wait (`max_pipelined`), then we stop reading.

Longer than a module should be, because `Exchange` and `Connection` share their state: a call between them is a tenth of
what a request costs here, so the seam runs around both.
"""

import asyncio
import socket as sockets
import ssl as tls
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from math import inf
from typing import Any, Protocol

import httptools
import msgspec

from penstock.http.members import Members
from penstock.http.names import LOWERED
from penstock.http.options import ServerOptions
from penstock.http.wheel import Wheel

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_JSON = b"application/json"
_BODYLESS = frozenset({204, 304})
_COPY = 65_536  # joining head and body costs a copy; beyond this a second buffer is cheaper
_CLOSE = b"connection: close\r\n"
# Headers that change how a message is read or answered; everything else is the handler's business.
_SPECIAL = frozenset({b"connection", b"transfer-encoding", b"expect", b"upgrade"})
# A read longer than this is parsed in slices, so that one read full of tiny requests does not become thousands of
# exchanges before anybody counts.
_SLICE = 4_096
_LINGER = 2.0  # seconds to go on reading after a refusal, so that the reset of unread bytes does not destroy our answer
_LINGER_BYTES = 1 << 20

# States of an exchange, in order.
NEW, HELD, SENDING, FINISHED = range(4)
# How the end of an answer is told: by chunks, by the end of the connection (HTTP/1.0), or not at all (HEAD).
_CHUNKED, _TO_THE_END, _NO_BODY = range(3)
# Where the parser is.
_BETWEEN, _IN_HEAD, _IN_BODY = range(3)
_MANY_PARTS = 64
_LOOK_EVERY = 1.0  # seconds between looks at a caller whose connection we are not reading
_LAST_WORDS = 5.0  # seconds for a cancelled request to let go of things
_BACKLOG = 4_096
# What is empty for as long as an answer streams is empty together. Nothing is ever put into these.
_NO_HEADERS: list[tuple[bytes, bytes]] = []
_NO_NAMES: dict[bytes, bytes] = {}
_NO_PARTS: list[bytes] = []


class Flow(Protocol):
    """The source of an answer. A handler that has returned leaves the rest of the answer to it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def left(self) -> None:
        """The caller is gone, and no handler is there to be cancelled."""
        ...


def status_line(status: int) -> bytes:
    """`b"HTTP/1.1 200 OK\\r\\n"`; a status nobody has named gets an empty phrase."""
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


def error_body(status: int, message: str) -> bytes:
    """What a caller reads when the request never reached the handler."""
    return msgspec.json.encode({"error": {"message": message, "type": "http_error", "code": status}})


class Exchange:
    """One request and its response. To a caller that has left, everything can be written and nothing is.

    `headers` given to `respond` and `start` are ready-made lines (`b"name: value\\r\\n..."`), trusted as they are:
    whoever builds them from foreign text must refuse CR and LF. No `content_type` (b"") means no such line.
    One exchange has one answer: a second one raises `RuntimeError`.
    """

    __slots__ = (
        "_begun",
        "_connection",
        "_framing",
        "_gone",
        "_head",
        "_keep",
        "_named",
        "_state",
        "_task",
        "body",
        "flow",
        "headers",
        "method",
        "path",
        "peer",
        "query",
    )

    method: bytes  # b"POST"
    path: bytes  # as sent, without the query; never decoded
    query: bytes  # as sent, without "?"
    headers: list[tuple[bytes, bytes]]  # names in lower case, in order
    body: bytes  # complete and de-chunked
    peer: str  # the caller's address; "" on a Unix socket
    flow: Flow | None  # told to pause when the caller reads more slowly than the source writes, and that they left

    def __init__(self, method: bytes, headers: list[tuple[bytes, bytes]], peer: str) -> None:
        self._connection: Connection | None = None
        self.method = method
        self.headers = headers
        self.peer = peer
        self.body = b""
        self.flow = None
        self._task: asyncio.Task[None] | None = None
        self._state = NEW
        self._gone = False
        self._keep = True
        self._framing = _NO_BODY if method == b"HEAD" else _CHUNKED
        self._begun = False  # the task has reached the handler's coroutine
        self._head = b""
        # The first value wins, as it would in a search from the top.
        self._named = dict(headers)
        if len(self._named) != len(headers):
            self._named = dict(reversed(headers))

    def header(self, name: bytes) -> bytes | None:
        """The first value under `name`, which is in lower case; None when there is none."""
        return self._named.get(name)

    def values(self, name: bytes) -> list[bytes]:
        """Of all lines under `name`, in order. Searches them."""
        return [value for known, value in self.headers if known == name]

    def forget(self) -> None:
        """Drop headers and body: a long answer should not hold the question. Some 2 kB per stream for a short one."""
        self.headers = _NO_HEADERS
        self._named = _NO_NAMES
        self.body = b""
        if self._connection is not None:
            self._connection.forget(self)

    @property
    def started(self) -> bool:
        """Whether any of the answer has been given: after that there can be no other status."""
        return self._state != NEW

    @property
    def finished(self) -> bool:
        return self._state == FINISHED

    @property
    def gone(self) -> bool:
        """Whether the caller left before the answer was finished."""
        return self._gone

    def respond(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        """The whole answer in one write, with its length."""
        if self._state:
            raise RuntimeError("this exchange has been answered already")
        self._state = FINISHED
        connection = self._connection
        if connection is None:
            return
        line = _STATUS_LINES.get(status)
        if (
            line is None
            or not (self._keep and content_type)
            or self._framing
            or status in _BODYLESS
            or connection.closing
        ):
            self._respond_unusually(connection, status, body, headers, content_type)
        elif len(body) <= _COPY:
            connection.write(
                b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (line, content_type, headers, len(body), body)
            )
        else:
            connection.write(
                b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n" % (line, content_type, headers, len(body))
            )
            connection.write(body)
        connection.answered(self)

    def _respond_unusually(
        self, connection: "Connection", status: int, body: bytes, headers: bytes, content_type: bytes
    ) -> None:
        """HEAD, HTTP/1.0, statuses without a body, unnamed statuses, and the last answer of a connection."""
        lines = status_line(status)
        if content_type and status not in _BODYLESS:
            lines += b"content-type: %b\r\n" % content_type
        lines += headers
        if status in _BODYLESS:
            body = b""
        else:
            lines += b"content-length: %d\r\n" % len(body)
        if not self._keep or connection.closing:
            lines += _CLOSE
        connection.write(lines + b"\r\n" + (b"" if self._framing == _NO_BODY else body))

    def start(
        self, status: int, headers: bytes = b"", content_type: bytes = b"text/event-stream; charset=utf-8"
    ) -> None:
        """Begin a chunked answer. The head waits for the first `write`, so that both leave in one packet."""
        if self._state:
            raise RuntimeError("this exchange has been answered already")
        self._state = HELD
        connection = self._connection
        if connection is None:
            return
        head = status_line(status)
        if content_type:
            head += b"content-type: %b\r\n" % content_type
        head += headers
        if not self._keep or connection.closing:
            head += _CLOSE
        self._head = head + (b"\r\n" if self._framing else b"transfer-encoding: chunked\r\n\r\n")

    def write(self, data: bytes) -> None:
        """One chunk. Never blocks; `flow` is told to pause when the caller cannot keep up. Nothing is not a chunk."""
        state = self._state
        if state == SENDING:
            if data and self._connection is not None:
                if self._framing:
                    if self._framing == _TO_THE_END:
                        self._connection.write(data)
                else:
                    self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif state == HELD:
            if data and self._connection is not None:
                self._state = SENDING
                head, self._head = self._head, b""
                if not self._framing:
                    self._connection.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
                else:
                    self._connection.write(head + data if self._framing == _TO_THE_END else head)
        else:
            raise RuntimeError("write comes after start and before finish")

    def finish(self, data: bytes = b"") -> None:
        """The last chunk and the end in one write; then the connection turns to its next request."""
        if self._state not in (HELD, SENDING):
            raise RuntimeError("finish comes once, after start")
        self._state = FINISHED
        connection = self._connection
        if connection is None:
            return
        head, self._head = self._head, b""
        if not self._framing:
            if data:
                connection.write(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(data), data))
            else:
                connection.write(head + b"0\r\n\r\n")
        else:
            rest = head + data if self._framing == _TO_THE_END else head
            if rest:
                connection.write(rest)
        connection.answered(self)

    def abort(self) -> None:
        """Close the connection in mid-answer, so that the caller can see that it was cut. Again is harmless."""
        if self._state == FINISHED:
            return
        self._state = FINISHED
        connection = self._connection
        if connection is not None:
            connection.cut(self)

    async def drain(self) -> None:
        """Wait until the caller has taken enough of what was written. Returns at once when the caller has left."""
        if self._connection is not None:
            await self._connection.drained()


Handler = Callable[[Exchange], Coroutine[Any, Any, None] | None]


class _Refused(Exception):
    """The message cannot be served, and nothing after it on this connection can be trusted."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Connection(asyncio.Protocol):
    """One caller's connection: parses, queues, hands over, writes. Lives until `connection_lost`."""

    __slots__ = (
        "_active",
        "_ahead",
        "_assembled",
        "_chunked",
        "_counted",
        "_deaf",
        "_dispatching",
        "_expects",
        "_fault",
        "_head_read",
        "_headers",
        "_incoming",
        "_length",
        "_lingering",
        "_loop",
        "_message_deadline",
        "_options",
        "_parser",
        "_parts",
        "_pending",
        "_phase",
        "_read_paused",
        "_server",
        "_stash",
        "_timed_phase",
        "_transport",
        "_unsent",
        "_upgrading",
        "_url",
        "_waiters",
        "_write_paused",
        "closing",
        "deadline",
        "due",
        "on_body",
        "peer",
        "write",
    )

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._options = server.options
        self._loop = server.loop
        self._transport: Any = None
        self._parser: Any = None
        self.write: Callable[[bytes], None] = _to_nobody
        self.peer = ""
        # The message being read
        self._phase = _BETWEEN
        self._url = b""
        self._headers = _NO_HEADERS
        self._incoming: Exchange | None = None  # its head is complete, its body is not
        self._parts = _NO_PARTS
        self.on_body: Callable[[bytes], None] = _to_nobody  # called by the parser with no Python frame in between
        self._assembled: bytearray | None = None  # what came before `_parts`, when there were many
        self._chunked = False
        self._length = 0  # of the body: announced, or what arrived so far when chunked
        self._counted = 0  # raw bytes of a chunked body
        self._head_read = 0  # bytes of earlier reads that belong to an unfinished head
        self._expects = False  # 100-continue is owed
        self._upgrading = False
        self._timed_phase = _BETWEEN
        self._message_deadline = inf
        # The messages read
        self._active: Exchange | None = None
        self._pending: tuple[Exchange, ...] = ()
        self._ahead = 0  # bytes read while an exchange was in progress
        self._stash: memoryview | None = None  # read, not parsed: the queue was full
        self._fault: _Refused | None = None  # to be said once everything before it is answered
        self._deaf = False  # nothing after this is for us
        self._dispatching = False
        self._read_paused = False
        # Writing
        self._write_paused = False
        self._unsent = 0
        self._waiters: list[asyncio.Future[None]] | None = None
        self.closing = False  # the next answer is the last
        self._lingering = -1  # bytes thrown away since the refusal; -1: not there yet
        self.deadline = inf
        self.due = inf

    # What the transport tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        self._transport = transport
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=self._options.high_water)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._new_parser()
        self.closing = server.draining
        server.open_connections.add(self)
        if len(server.open_connections) > self._options.max_connections:
            self._refuse(_Refused(503, "too many connections; try again later"))
        else:
            self._limit(self._options.keep_alive_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        server = self._server
        server.open_connections.discard(self)
        server.wheel.forget(self)
        # The parser holds our methods: without this, every connection waits for the garbage collector.
        self._parser = None
        self._transport = None
        self.write = _to_nobody
        self.on_body = _to_nobody
        self._stash = None
        self._incoming = None
        self._pending = ()
        self._parts.clear()
        self._assembled = None
        self._leave()
        self._wake()
        server.closed_one()

    def eof_received(self) -> bool:
        if self._active is not None or self._write_paused:
            # Half-closed or gone cannot be told apart; like everybody else we take it for gone.
            self._transport.abort()
        return False  # the transport closes itself, after what is written

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._discard(data)
            return
        n = len(data)
        if n <= _SLICE:
            self._feed(data)
            last = n
        else:
            last = self._feed_long(memoryview(data))
        if self._active is None:
            if self._pending:
                self._next()
            if self._phase:
                self._unfinished(last)
        else:
            self._read_ahead(n, last)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._limit(self._options.write_timeout)
        active = self._active
        if active is not None and active.flow is not None:
            active.flow.pause()

    def resume_writing(self) -> None:
        self._write_paused = False
        active = self._active
        if active is None:
            self._next()
        else:
            self.deadline = inf
            if active.flow is not None:
                active.flow.resume()
        self._wake()

    # What the parser tells us

    def on_message_begin(self) -> None:
        if self._deaf:
            raise _Refused(400, "the request before this one was the last of its connection")
        self._phase = _IN_HEAD
        self._chunked = False
        self._url = b""
        self._headers = []
        self._head_read = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = LOWERED.get(name)
        # a value that ends in white space is rare
        self._headers.append(
            (name.lower() if lowered is None else lowered, value.rstrip() if value and value[-1] < 33 else value)
        )

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        exchange = Exchange(parser.get_method(), headers, self.peer)
        exchange._connection = self
        named = exchange._named
        if self._head_read or self._server.tight:
            self._check_head(headers)
        if not parser.should_keep_alive() or not _SPECIAL.isdisjoint(named):
            self._look_closer(exchange)
        elif b"host" not in named:
            raise _Refused(400, "a request needs a host header")
        if len(named) != len(headers):
            self._check_repeated(exchange)
        url = self._url
        if not url.startswith(b"/"):
            url = _path_of(exchange.method, url)
        exchange.path, _, exchange.query = url.partition(b"?")
        length = named.get(b"content-length")
        if length is not None:
            self._length = int(length)
            if self._length > self._options.max_body_bytes:
                raise _Refused(
                    413, f"the body is {self._length} bytes; at most {self._options.max_body_bytes} are accepted"
                )
        else:
            self._length = 0
        self._incoming = exchange
        self._phase = _IN_BODY

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None or self._upgrading:
            return
        self._incoming = None
        self._phase = _BETWEEN
        self._timed_phase = _BETWEEN
        self._expects = False
        parts = self._parts
        if parts or self._assembled is not None:
            if self._assembled is not None:
                self._gather()
                exchange.body = bytes(self._assembled)
                self._assembled = None
            elif len(parts) == 1:
                exchange.body = parts[0]
            else:
                exchange.body = b"".join(parts)
            parts.clear()
        if not exchange._keep:
            self._deaf = True
        self._pending += (exchange,)

    # Reading

    def _new_parser(self) -> Any:
        self._parts = []
        self.on_body = self._parts.append
        self._parser = httptools.HttpRequestParser(self)
        return self._parser

    def _feed(self, data: bytes | memoryview) -> None:
        parser = self._parser
        if parser is None:
            parser = self._new_parser()
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if not self._deaf:  # what follows `connection: close` is thrown away, not judged
                self._broken(error)

    def _feed_long(self, data: memoryview) -> int:
        """A long read in slices, until it ends or the queue is full; the rest waits in `_stash`.

        Says how many bytes are still to be measured: those of the last slice.
        """
        start, end = 0, len(data)
        piece = data[:0]
        while start < end and not self._deaf:
            if len(self._pending) >= self._options.max_pipelined:
                self._stash = data[start:]
                self._pause_reading()
                return 0
            size = _SLICE
            if self._phase == _IN_BODY and not self._chunked:
                # The rest of a counted body cannot hold another request.
                size = max(size, self._length - sum(map(len, self._parts)) - len(self._assembled or b""))
            elif start == 0 and self._phase == _BETWEEN:
                # The head alone: a body that is all there then comes in one piece, and need not be joined from two.
                head_ends = bytes(data[:_SLICE]).find(b"\r\n\r\n")
                size = head_ends + 4 if head_ends >= 0 else _SLICE
            piece = data[start : start + size]
            start += size
            self._feed(piece)
            if self._phase and start < end and not self._deaf:
                self._measure(len(piece))
        return len(piece)

    def _measure(self, n: int) -> None:
        """Hold an unfinished message to its limits, after `n` more bytes of it."""
        options = self._options
        if self._phase == _IN_HEAD:
            self._head_read += n
            if self._head_read > options.max_head_bytes + _SLICE or len(self._headers) > options.max_headers:
                self._stop(self._head_too_large())
        elif self._chunked:
            self._counted += n
            self._gather()
            if self._length > options.max_body_bytes:
                self._stop(_Refused(413, f"the body is too large; at most {options.max_body_bytes} bytes are accepted"))
            elif self._counted > options.max_head_bytes + 16 * self._length:
                # Sizes and extensions of chunks are free of charge to nobody.
                self._stop(_Refused(400, "the chunks of the body are mostly overhead"))
        elif len(self._parts) >= _MANY_PARTS:
            self._gather()

    def _gather(self) -> None:
        """Many small parts become one buffer: an object per two bytes would cost twenty times the body."""
        if self._assembled is None:
            self._assembled = bytearray()
        for part in self._parts:
            self._assembled += part
        self._parts.clear()
        if self._chunked:
            self._length = len(self._assembled)

    def _unfinished(self, n: int) -> None:
        """The read ended inside a message: measure it, give it a time limit, and say 100 when that is waited for."""
        self._measure(n)
        if self._deaf:
            return
        if self._timed_phase != self._phase:
            self._timed_phase = self._phase
            options = self._options
            span = options.head_timeout if self._phase == _IN_HEAD else options.body_timeout
            self._message_deadline = self._loop.time() + span
        if self._active is None and not self._write_paused:
            self.deadline = self._message_deadline
            if self.deadline < self.due:
                self._server.wheel.hasten(self)
            if self._expects:
                self._expects = False
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_ahead(self, n: int, unmeasured: int) -> None:
        """Data came while a request is being answered: fine, up to a point."""
        if self._phase:
            self._measure(unmeasured)
        self._ahead += n
        if self._ahead > self._options.high_water or len(self._pending) >= self._options.max_pipelined:
            self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()
            # The loop no longer tells us when the caller leaves: look now and then.
            self._limit(_LOOK_EVERY)

    def _resume_reading(self) -> None:
        self._read_paused = False
        self._ahead = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _check_head(self, headers: list[tuple[bytes, bytes]]) -> None:
        size = len(self._url) + 16 + sum(len(name) + len(value) + 4 for name, value in headers)
        if size > self._options.max_head_bytes or len(headers) > self._options.max_headers:
            raise self._head_too_large()

    def _head_too_large(self) -> _Refused:
        options = self._options
        if not self._headers and len(self._url) > options.max_head_bytes:
            return _Refused(414, f"the address is longer than {options.max_head_bytes} bytes")
        return _Refused(
            431,
            f"the headers are too large; at most {options.max_headers} in {options.max_head_bytes} bytes are accepted",
        )

    def _check_repeated(self, exchange: Exchange) -> None:
        if len(exchange.headers) > self._options.max_headers:
            raise self._head_too_large()
        if sum(name == b"host" for name, _ in exchange.headers) > 1:
            raise _Refused(400, "a request has one host header")

    def _look_closer(self, exchange: Exchange) -> None:
        """Everything that an ordinary HTTP/1.1 request on a kept connection does not have."""
        parser = self._parser
        version = parser.get_http_version()
        named = exchange._named
        exchange._keep = parser.should_keep_alive() and version == "1.1"
        if version == "1.0":
            if exchange._framing == _CHUNKED:
                exchange._framing = _TO_THE_END
        elif version != "1.1":
            raise _Refused(505, "this is an HTTP/1.1 server")
        elif b"host" not in named:
            raise _Refused(400, "a request needs a host header")
        coding = named.get(b"transfer-encoding")
        self._chunked = coding is not None
        if coding is not None:
            codings = [value for name, value in exchange.headers if name == b"transfer-encoding"]
            if version == "1.0":
                raise _Refused(400, "HTTP/1.0 has no transfer codings")
            if len(codings) > 1 or coding.lower() != b"chunked":
                raise _Refused(501, "the only transfer coding understood is chunked")
            self._counted = 0
            self._headers = []  # trailers come through `on_header` too, and are not headers
        expected = named.get(b"expect")
        if expected is not None and version == "1.1":
            if expected.lower() != b"100-continue":
                raise _Refused(417, "the only expectation understood is 100-continue")
            self._expects = True
        if parser.should_upgrade():
            exchange._keep = False
            self._upgrading = True

    def _decline_upgrade(self, rest: bytes | memoryview) -> None:
        """RFC 9110 7.8 lets us ignore an upgrade, and clients that try h2c with their first request (Java's) need it.

        llhttp gives up the body of such a message: a fresh parser reads it, behind a head that asks for no upgrade.
        """
        exchange = self._incoming
        self._upgrading = False
        if exchange is None:
            return
        if (exchange.header(b"upgrade") or b"").lower() != b"h2c":
            self._stop(_Refused(501, "upgrading the connection to another protocol is not supported here"))
            return
        framing = b"transfer-encoding: chunked" if self._chunked else b"content-length: %d" % self._length
        self._parser = httptools.HttpRequestParser(_BodyOnly(self))
        self._feed(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest and not self._deaf:
            self._feed(rest)

    # Refusing

    def _broken(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, _Refused):
            self._stop(cause)
        elif isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            raise cause  # a mistake of ours
        else:
            self._stop(_Refused(400, f"this is not HTTP/1.1: {error}"))

    def _stop(self, fault: _Refused) -> None:
        """Read nothing more; say `fault` when everything before it is answered."""
        self._deaf = True
        self._incoming = None
        self._stash = None
        self._phase = self._timed_phase = _BETWEEN
        self._parts.clear()
        self._assembled = None
        self._fault = fault
        if self._active is None and not self._pending and not self._dispatching:
            self._refuse(fault)

    def _refuse(self, fault: _Refused) -> None:
        self._fault = None
        self._deaf = self.closing = True
        body = self._server.error_body(fault.status, fault.message)
        self.write(
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (status_line(fault.status), len(body), _CLOSE, body)
        )
        self._hang_up()

    def _hang_up(self) -> None:
        """Close after what is written, and take in for a moment what is still coming: unread bytes make the kernel send
        a reset, which can overtake our last answer."""
        transport = self._transport
        if transport is None or self._lingering >= 0 or transport.is_closing():
            return
        self._lingering = 0
        if not transport.can_write_eof():  # TLS
            self._limit(self._options.write_timeout)
            transport.close()
            return
        if self._read_paused:
            self._resume_reading()
        transport.write_eof()
        self._limit(_LINGER)

    def _discard(self, data: bytes) -> None:
        if self._lingering >= 0:
            self._lingering += len(data)
            if self._lingering > _LINGER_BYTES:
                self._transport.abort()
        elif self._active is not None:
            self._read_ahead(len(data), len(data))

    # Handing over

    def _next(self) -> None:
        """Take up whatever waits: the next request, unparsed bytes, a refusal, or reading itself."""
        while self._active is None and not self._write_paused and self._transport is not None:
            if self._pending:
                exchange, self._pending = self._pending[0], self._pending[1:]
                self._hand_over(exchange)
            elif self._stash is not None:
                data, self._stash = self._stash, None
                self._feed_long(data)
                if not self._pending and self._phase and not self._deaf:
                    self._unfinished(0)
            elif self._fault is not None:
                self._refuse(self._fault)
                return
            else:
                if self._read_paused:
                    self._resume_reading()
                if self._phase:
                    self._unfinished(0)
                elif self._lingering < 0 and not self._transport.is_closing():
                    self._limit(self._options.keep_alive_timeout)
                return

    def _hand_over(self, exchange: Exchange) -> None:
        server = self._server
        self._active = exchange
        self.deadline = inf
        self._dispatching = True
        try:
            coroutine = server.handler(exchange)
        except Exception as error:  # noqa: BLE001 - the one broad boundary: reported, and answered 500
            self._crashed(exchange, error)
            return
        finally:
            self._dispatching = False
        if coroutine is not None:
            task = exchange._task = self._loop.create_task(self._run(exchange, coroutine))
            server.tasks.add(task)
        elif exchange._state != FINISHED:
            self._crashed(exchange, RuntimeError("the handler returned without an answer"))

    async def _run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, None]) -> None:
        exchange._begun = True
        if exchange._gone and exchange._task is not None:
            # It left before we came here. What the handler took before it returned the coroutine must still be given
            # back, so the coroutine begins, and is cancelled at its first await.
            exchange._task.cancel()
        try:
            await coroutine
            if exchange._state != FINISHED and not exchange._gone and exchange.flow is None:
                self._crashed(exchange, RuntimeError("the handler returned without an answer"))
        except asyncio.CancelledError:
            if exchange._state != FINISHED:
                self._fail(exchange, 503, "the server is shutting down")
            raise
        except Exception as error:  # noqa: BLE001 - the one broad boundary: reported, and answered 500
            self._crashed(exchange, error)
        finally:
            task = exchange._task
            exchange._task = None
            if task is not None:
                self._server.tasks.discard(task)

    def _crashed(self, exchange: Exchange, error: Exception) -> None:
        self._fail(exchange, 500, "internal error")
        self._server.on_crash(error)

    def _fail(self, exchange: Exchange, status: int, message: str) -> None:
        if exchange._state == NEW:
            exchange.respond(status, self._server.error_body(status, message))
        else:
            exchange.abort()

    def answered(self, exchange: Exchange) -> None:
        """The whole answer is written: go on, or close when it was the last."""
        exchange._connection = exchange.flow = None  # a flow knows its exchange: no cycle for the collector
        self._active = None
        if not exchange._keep or self.closing:
            self._close_after_last_answer()
        elif self._pending or self._read_paused or self._phase or self._fault is not None:
            if not self._dispatching:
                # Not from here: this is the stack of a handler that may have more to do.
                self._loop.call_soon(self._next)
        else:
            self.deadline = deadline = self._loop.time() + self._options.keep_alive_timeout
            if deadline < self.due:
                self._server.wheel.hasten(self)

    def _close_after_last_answer(self) -> None:
        self.closing = self._deaf = True
        self._pending = ()
        if self._phase or self._ahead or self._read_paused:
            self._hang_up()  # it is sending still
        else:
            self._limit(self._options.write_timeout)
            self._transport.close()

    def forget(self, exchange: Exchange) -> None:
        if self._phase == _BETWEEN:
            self._headers = _NO_HEADERS
            self._url = b""
            self._parser = None  # 1 kB with what belongs to it, which the next message, if one comes, gets anew
            self._parts = _NO_PARTS
            self.on_body = _to_nobody

    def cut(self, exchange: Exchange) -> None:
        """End the connection in the middle of an answer."""
        exchange._connection = exchange.flow = None
        self._active = None
        self._pending = ()
        self._fault = None
        self._deaf = self.closing = True
        if exchange._framing == _CHUNKED:
            self._limit(self._options.write_timeout)
            self._transport.close()  # what was written still goes out; the missing terminator tells
        else:
            self._transport.abort()  # only a reset tells that this was not the end

    def _leave(self) -> None:
        """The caller is gone: its request is cancelled, and nothing else happens."""
        exchange = self._active
        if exchange is None:
            return
        self._active = None
        flow = exchange.flow
        exchange._connection = exchange.flow = None
        exchange._gone = True
        task = exchange._task
        if task is None:
            if flow is not None:
                flow.left()
        elif exchange._begun:
            task.cancel()

    # Waiting

    async def drained(self) -> None:
        while self._write_paused and self._transport is not None:
            waiter = self._loop.create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _limit(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds
        if self.deadline < self.due:
            self._server.wheel.hasten(self)

    def expired(self, now: float) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._lingering >= 0 or transport.is_closing():
            transport.abort()
        elif self._write_paused:
            unsent = transport.get_write_buffer_size()
            if unsent >= self._unsent:
                transport.abort()
            else:
                self._unsent = unsent
                self._limit(self._options.write_timeout)
        elif self._read_paused:
            if self._active is not None:
                if _has_left(transport):
                    transport.abort()
                else:
                    self._limit(_LOOK_EVERY)
        elif self._active is not None:
            pass
        elif self._phase:
            what = "headers" if self._phase == _IN_HEAD else "body"
            self._stop(_Refused(408, f"the {what} did not arrive in time"))
        elif transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()

    def end(self) -> None:
        """Shutting down: the answer in progress is the last; with none, close now."""
        self.closing = True
        if self._active is None and not self._pending and not self._phase and self._transport is not None:
            self._limit(self._options.write_timeout)
            self._transport.close()

    def give_up(self) -> None:
        """There is no more time: cut off an answer that no handler is there for."""
        exchange = self._active
        if exchange is not None and exchange._task is None and exchange.flow is not None:
            flow = exchange.flow
            exchange.abort()
            flow.left()

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _BodyOnly:
    """What a parser is told to call when the head has been read already."""

    __slots__ = ("on_body", "on_message_complete")

    def __init__(self, connection: Connection) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


def _to_nobody(data: bytes) -> None:
    """What writing to a caller that has left does."""


def _path_of(method: bytes, url: bytes) -> bytes:
    """The path in a request target that does not begin with one (RFC 9112 3.2)."""
    if method == b"CONNECT":
        raise _Refused(501, "this is not a proxy")
    if url == b"*" and method == b"OPTIONS":
        return url
    scheme, separator, rest = url.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        for i in range(len(rest)):
            if rest[i] in b"/?":
                return rest[i:] if rest[i] == 47 else b"/" + rest[i:]
        return b"/"
    raise _Refused(400, "the address of a request begins with a slash")


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether the peer closed its side, on a connection we do not read from. Linux only; elsewhere the answer is no."""
    socket = transport.get_extra_info("socket")
    option = getattr(sockets, "TCP_INFO", None)
    if socket is None or option is None or socket.family not in (sockets.AF_INET, sockets.AF_INET6):
        return False
    state = socket.getsockopt(sockets.IPPROTO_TCP, option, 1)[0]
    return state in (7, 8)  # TCP_CLOSE, TCP_CLOSE_WAIT


class Server:
    """Listens, and knows every connection and every task that a request started.

    `on_crash` hears of exceptions that escape the handler; `error_body(status, message)` renders the body of an answer
    that the handler had no part in (malformed, too large, too slow, crashed).
    """

    def __init__(
        self,
        handler: Handler,
        options: ServerOptions | None = None,
        *,
        on_crash: Callable[[Exception], None],
        error_body: Callable[[int, str], bytes] = error_body,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.handler = handler
        self.options = options = options if options is not None else ServerOptions()
        self.on_crash = on_crash
        self.error_body = error_body
        self.loop = loop if loop is not None else asyncio.get_running_loop()
        self.wheel = Wheel(self.loop)
        self.tasks: Any = Members()  # of asyncio.Task; under uvicorn its own sets
        self.open_connections: Any = Members()  # of Connection
        self.draining = False
        self.tight = options.max_head_bytes < _SLICE  # a head in one slice may break the limit
        self._listeners: list[Any] = []  # asyncio.Server, or uvloop's, whose `sockets` is a list
        self._empty: asyncio.Future[None] | None = None

    def protocol(self) -> Connection:
        """The protocol for one more connection; for those who accept connections themselves."""
        return Connection(self)

    async def start(
        self,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        sock: sockets.socket | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Listen. Port 0 takes a free one (see `port`). Raises `OSError` when the address cannot be had."""
        secure: dict[str, Any] = {}
        if ssl is not None:
            secure = {"ssl": ssl, "ssl_handshake_timeout": self.options.head_timeout}
        if sock is not None:
            listener = await self.loop.create_server(self.protocol, sock=sock, backlog=_BACKLOG, **secure)
        else:
            listener = await self.loop.create_server(
                self.protocol, host, port, backlog=_BACKLOG, reuse_port=reuse_port or None, **secure
            )
        self._listeners.append(listener)

    async def start_unix(self, path: str) -> None:
        self._listeners.append(await self.loop.create_unix_server(self.protocol, path, backlog=_BACKLOG))

    @property
    def ports(self) -> list[int]:
        """Of every TCP socket listened on."""
        names = [socket.getsockname() for listener in self._listeners for socket in listener.sockets]
        return [name[1] for name in names if isinstance(name, tuple)]

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def connections(self) -> int:
        return len(self.open_connections)

    async def drain(self, seconds: float | None = None) -> None:
        """Stop listening, let requests in flight end within `seconds`, then cancel them (503, or cut off)."""
        seconds = self.options.drain_seconds if seconds is None else seconds
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.open_connections):
            connection.end()
        until = self.loop.time() + seconds
        if self.open_connections:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=seconds)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=max(0.0, until - self.loop.time()))
        for connection in list(self.open_connections):
            connection.give_up()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS)
        self.close()
        await asyncio.sleep(0)  # transports say goodbye in the next turn of the loop

    def close(self) -> None:
        """Stop at once: every connection is dropped, every request cancelled."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.open_connections):
            connection.drop()
        for task in list(self.tasks):
            task.cancel()
        self.wheel.close()

    def closed_one(self) -> None:
        """A connection has ended."""
        if self._empty is not None and not self.open_connections and not self._empty.done():
            self._empty.set_result(None)
