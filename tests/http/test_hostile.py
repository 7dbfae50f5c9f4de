"""What callers send to break in, and that none of it hangs, leaks, or is understood differently from h11."""

import asyncio
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import h11
import pytest
import uvloop
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from penstock.http.options import ServerOptions
from penstock.http.server import Exchange, Server
from tests.http.raw import HOST, STATUS, feed, serving

GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
OPTIONS = ServerOptions(max_head_bytes=2_000, max_headers=20, max_body_bytes=5_000, head_timeout=0.3, body_timeout=0.3)

REFUSED = {
    "both lengths, TE first": (400, POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
    "both lengths, CL first": (400, POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two equal lengths": (400, POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    "two unequal lengths": (400, POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    "a list of lengths": (400, POST + b"content-length: 3, 3\r\n\r\nabc"),
    "a signed length": (400, POST + b"content-length: +3\r\n\r\nabc"),
    "a negative length": (400, POST + b"content-length: -3\r\n\r\nabc"),
    "a hexadecimal length": (400, POST + b"content-length: 0x3\r\n\r\nabc"),
    "an empty length": (400, POST + b"content-length:\r\n\r\nabc"),
    "a length beyond 64 bits": (400, POST + b"content-length: 99999999999999999999999\r\n\r\nabc"),
    "a length with a space inside": (400, POST + b"content-length: 1 2\r\n\r\nabc"),
    "a length with an underscore": (400, POST + b"content-length: 1_0\r\n\r\n0123456789"),
    "an unknown coding": (501, POST + b"transfer-encoding: gzip\r\n\r\n"),
    "a known coding before chunked": (501, POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "two codings in two lines": (501, POST + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice in two lines": (400, POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"),
    "a disguised coding": (501, POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "identity": (501, POST + b"transfer-encoding: identity\r\n\r\n"),
    "chunked in quotes": (501, POST + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    "space before the colon": (400, POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    "a folded header": (400, POST + b"x: a\r\n b\r\n\r\n"),
    "a folded coding": (400, POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nhost: a\r\n\r\n"),
    "bare LF after a header": (400, GET + b"host: a\n\r\n"),
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nhost: a\n\n"),
    "bare CR in a header": (400, GET + HOST + b"x: a\rb\r\n\r\n"),
    "NUL in a value": (400, GET + HOST + b"x: a\0b\r\n\r\n"),
    "NUL in a name": (400, GET + HOST + b"x\0y: ab\r\n\r\n"),
    "a control character in a value": (400, GET + HOST + b"x: \x01\r\n\r\n"),
    "a header without a name": (400, GET + HOST + b": a\r\n\r\n"),
    "a header without a colon": (400, GET + HOST + b"nonsense\r\n\r\n"),
    "NUL in the address": (400, b"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a byte beyond ASCII in the address": (400, b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a space in the address": (400, b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "an address without a slash": (400, b"GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a star that is not for OPTIONS": (400, b"GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
    "no host": (400, GET + b"\r\n"),
    "two hosts": (400, GET + b"host: a\r\nhost: b\r\n\r\n"),
    "an unknown method": (400, b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/1.2": (400, b"GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    "HTTP/2.0 in the old way": (505, b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    "the HTTP/2 preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS to a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "garbage": (400, b"hello there\r\n\r\n"),
    "a chunk size that is no number": (400, POST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n"),
    "a chunk size with 0x": (400, POST + b"transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a sign": (400, POST + b"transfer-encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": (400, POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n"),
    "a chunk longer than it says": (400, POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"),
    "a chunk ended by LF": (400, POST + b"transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n"),
    "a body too large": (413, POST + b"content-length: 5001\r\n\r\n"),
    "a chunked body too large": (413, POST + b"transfer-encoding: chunked\r\n\r\n1400\r\n" + b"a" * 5_120 + b"\r\n"),
    "a flood of chunk extensions": (400, POST + b"transfer-encoding: chunked\r\n\r\n1;" + b"x=y;" * 3_000),
    "a flood of trailers": (400, POST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 3_000),
    "headers too large": (431, GET + HOST + b"x: " + b"a" * 2_000 + b"\r\n\r\n"),
    "headers too large, without an end": (431, GET + HOST + b"x: " + b"a" * 20_000),
    "too many headers": (431, GET + HOST + b"x: y\r\n" * 20 + b"\r\n"),
    "an address too long": (414, b"GET /" + b"a" * 20_000),
    "CONNECT": (501, b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    "a websocket": (501, GET + HOST + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    "an unknown expectation": (417, POST + b"expect: a miracle\r\ncontent-length: 3\r\n\r\nabc"),
    "a head that never ends": (408, GET + HOST),
    "a head of one byte": (408, b"G"),
    "a body that never ends": (408, POST + b"content-length: 3\r\n\r\na"),
    "a chunked body that never ends": (408, POST + b"transfer-encoding: chunked\r\n\r\n3\r\na"),
}


async def echo(exchange: Exchange) -> None:
    exchange.respond(200, exchange.body)


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_a_rule_is_refused_with_its_status_and_the_connection_closed(run, name):
    status, data = REFUSED[name]

    async def main() -> None:
        async with serving(echo, OPTIONS) as world:
            caller = await world.call(data)
            answer = await caller.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer
            assert b"connection: close\r\n" in answer
            assert len(STATUS.findall(answer)) == 1
            caller.leave()
            assert not world.crashes

    run(main())


@pytest.mark.parametrize("name", [name for name, (status, _) in REFUSED.items() if status != 408])
def test_a_refusal_comes_after_the_answers_before_it(run, name):
    status, data = REFUSED[name]

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.001)
        exchange.respond(200, exchange.body)

    async def main() -> None:
        async with serving(slow, OPTIONS) as world:
            caller = await world.call(POST + b"content-length: 5\r\n\r\nfirst" + data)
            answer = await caller.rest()
            assert [int(found) for found in STATUS.findall(answer)] == [200, status], answer

    run(main())


WHOLE = [
    b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n5\r\nworld\r\n0\r\nT:\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: x\r\nConnection: upgrade, a\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
]


@pytest.fixture(scope="module")
def requests_of() -> Iterator[Callable[..., tuple[list[tuple[bytes, ...]], bytes]]]:
    """For thousands of connections, each with a server of its own. To make as many loops would take longer."""
    loop = uvloop.new_event_loop()
    yield partial(read, loop)
    loop.close()


def read(
    loop: asyncio.AbstractEventLoop, pieces: list[bytes], options: ServerOptions | None = None
) -> tuple[list[tuple[bytes, ...]], bytes]:
    """What our server takes these reads for, and what it answered."""
    seen: list[tuple[bytes, ...]] = []

    def handler(exchange: Exchange) -> None:
        seen.append((exchange.method, exchange.path, exchange.query, exchange.body))
        exchange.respond(200, b"")

    async def main() -> bytes:
        crashes: list[Exception] = []
        server = Server(handler, options, on_crash=crashes.append)
        connection, transport = feed(server, pieces)
        connection.connection_lost(None)
        server.close()
        assert not crashes
        return transport.written

    return seen, loop.run_until_complete(main())


@pytest.mark.parametrize("request_", WHOLE, ids=["get", "counted", "chunked", "h2c"])
def test_a_request_is_the_same_wherever_it_is_split(requests_of, request_):
    data = WHOLE[1] + request_
    whole = requests_of([data])
    assert len(whole[0]) == 2
    assert whole[0][1][3] in (b"", b"hello", b"helloworld", b"hello world")
    for i in range(1, len(data)):
        assert requests_of([data[:i], data[i:]]) == whole
    assert requests_of([data[i : i + 1] for i in range(len(data))]) == whole


@pytest.mark.parametrize("name", [name for name, (status, _) in REFUSED.items() if status != 408])
def test_a_refused_request_is_refused_wherever_it_is_split(requests_of, name):
    _, data = REFUSED[name]
    step = max(1, len(data) // 150)
    for i in range(1, len(data), step):
        seen, answer = requests_of([data[:i], data[i:]], OPTIONS)
        assert not seen
        assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), (i, answer)
    seen, answer = requests_of([data[i : i + 1] for i in range(min(len(data), 3_000))], OPTIONS)
    assert not seen


def h11_requests(data: bytes) -> tuple[list[tuple[bytes, ...]], bool]:
    """What h11 takes the bytes for, and whether it refused what follows.

    Each message gets a fresh parser behind its empty lines, which RFC 9112 2.2 lets us skip and h11 refuses.
    """
    seen: list[tuple[bytes, ...]] = []
    rest = data.lstrip(b"\r\n")
    while rest:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
        connection.receive_data(rest)
        request: Any = None
        body = b""
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event in (h11.NEED_DATA, h11.PAUSED):
                    return seen, False
                if isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.Data):
                    body += event.data
        except h11.RemoteProtocolError:
            return seen, True
        seen.append((request.method, *request.target.partition(b"?")[::2], body))
        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is not h11.DONE:
            return seen, False
        rest = connection.trailing_data[0].lstrip(b"\r\n")
    return seen, False


HEADERS = st.sampled_from(
    [
        b"Host: a\r\n",
        b"Host: a\r\n",
        b"host: b\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 5\r\n",
        b"content-length: 03\r\n",
        b"Content-Length: 3 \r\n",
        b"Content-Length:\t3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length : 3\r\n",
        b"Content-Length:\r\n",
        b"Content-Length\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: Chunked\r\n",
        b"transfer-encoding: chunked \r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding\r\n: chunked\r\n",
        b"Transfer-Encoding: \r\n chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: a\r\n b\r\n",
        b"X: \0\r\n",
        b"X: \x7f\r\n",
        b"X: a\nTransfer-Encoding: chunked\r\n",
        b"X: a\rTransfer-Encoding: chunked\r\n",
        b"X: \x80\xff\r\n",
        b"X: y\n",
        b"X;: y\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: Transfer-Encoding\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"",
        b"abc",
        b"abc",
        b"abcde",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;x\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"03\r\nabc\r\n000\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nT: x\r\n\r\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\nG",
        b"3;\n\r\nabc\r\n0\r\n\r\n",
        b'3;"\r\n"\r\nabc\r\n0\r\n\r\n',
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"\r\n\r\n",
    ]
)
STARTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /p HTTP/1.1\r\n",
        b"POST /p HTTP/1.1\r\n",
        b"POST /q?r HTTP/1.1\r\n",
        b"HEAD / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"POST / HTTP/1.0\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET / http/1.1\r\n",
        b"\r\nGET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\n",
        b"GET /\t HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
    ]
)
MESSAGES = st.builds(
    lambda start, headers, end, body: start + b"".join(headers) + end + body,
    STARTS,
    st.lists(HEADERS, max_size=4).map(lambda headers: [b"Host: a\r\n", *headers]) | st.lists(HEADERS, max_size=4),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\r\n", b""]),
    BODIES,
)
SMUGGLED = [
    POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n",
    POST
    + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5c\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n0\r\n\r\n",
    POST + b"content-length: 0\r\ncontent-length: 30\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n",
    POST + b"transfer-encoding: xchunked\r\ncontent-length: 3\r\n\r\nabcGET /evil HTTP/1.1\r\nhost: a\r\n\r\n",
    POST + b"transfer-encoding: chunked\r\n\r\n0\r\nhost: b\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n",
]


# RFC 9112 3 lets a server split the request line at any run of spaces, and llhttp does; h11 insists on one space. The
# request means the same either way.
SPACES = re.compile(rb"[A-Z]+(?:  +\S+ +| \S+  +)HTTP/")


def agree_with_h11(requests_of: Callable[..., Any], data: bytes) -> None:
    assume(not SPACES.search(data))
    ours, answer = requests_of([data])
    theirs, refused = h11_requests(data)
    we_refused = any(status >= 400 for status in map(int, STATUS.findall(answer)))
    assert ours == theirs[: len(ours)], "we took for a request what h11 did not"
    if not we_refused and b"connection: close" not in answer:  # what comes after a last answer nobody reads
        assert len(ours) == len(theirs)
        assert not refused, "h11 refused what we accepted"


@given(st.lists(MESSAGES, min_size=1, max_size=3).map(b"".join))
@example(SMUGGLED[0])
@example(SMUGGLED[1])
@example(SMUGGLED[2])
@example(SMUGGLED[3])
@example(SMUGGLED[4])
@settings(max_examples=250, deadline=None)
def test_we_never_see_a_request_that_h11_does_not_see(requests_of, data):
    agree_with_h11(requests_of, data)


@given(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=2).map(b"".join), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_request_is_read_as_h11_reads_it(requests_of, data, draws):
    damaged = bytearray(data)
    for _ in range(draws.draw(st.integers(1, 3))):
        at = draws.draw(st.integers(0, len(damaged) - 1))
        kind = draws.draw(st.sampled_from(["change", "drop", "double"]))
        if kind == "change":
            damaged[at] = draws.draw(st.sampled_from(list(b"\r\n \t:;,0aA\0\x7f\xff-/")))
        elif kind == "drop" and len(damaged) > 1:
            del damaged[at]
        else:
            damaged.insert(at, damaged[at])
    agree_with_h11(requests_of, bytes(damaged))


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_no_bytes_crash_the_server(requests_of, data, size):
    requests_of([data[i : i + size] for i in range(0, len(data), size)])
