"""What the server promises to its handler and to callers who behave."""

import asyncio
import contextlib
import socket

import pytest

from penstock.http.options import ServerOptions
from penstock.http.server import Exchange
from tests.http.raw import HOST, STATUS, serving, until

GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body: bytes, path: bytes = b"/", more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n%b" % (path, HOST, more, len(body), body)


def echo(exchange: Exchange) -> None:
    exchange.respond(200, exchange.body)


async def echo_later(exchange: Exchange) -> None:
    await asyncio.sleep(0.001)
    exchange.respond(200, exchange.body)


def test_the_handler_sees_the_request_as_it_was_sent(run):
    seen: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(201, b'{"ok":true}', b"x-id: 7\r\n")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(
                b"PUT /a%20b?c=d?e HTTP/1.1\r\n"
                b"Host: h\r\nX-One: 1 \t\r\nx-two:\t2\r\nX-ONE: 3\r\ncontent-length: 2\r\n\r\nhi"
            )
            assert await caller.answer() == (
                201,
                {b"content-type": b"application/json", b"x-id": b"7", b"content-length": b"11"},
                b'{"ok":true}',
            )
        (exchange,) = seen
        assert (exchange.method, exchange.path, exchange.query) == (b"PUT", b"/a%20b", b"c=d?e")
        assert exchange.headers == [
            (b"host", b"h"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"3"), (b"content-length", b"2"),
        ]  # fmt: skip
        assert exchange.header(b"x-one") == b"1"
        assert exchange.header(b"x-three") is None
        assert exchange.body == b"hi"
        assert exchange.peer == "127.0.0.1"
        assert exchange.started
        assert exchange.finished
        assert not exchange.gone

    run(main())


def test_an_exchange_that_forgot_its_request_can_still_answer_and_the_next_is_whole(run):
    async def handler(exchange: Exchange) -> None:
        body = exchange.body
        exchange.forget()
        assert (exchange.headers, exchange.body, exchange.header(b"host")) == ([], b"", None)
        exchange.start(200)
        await asyncio.sleep(0.001)
        exchange.finish(body)

    async def main() -> None:
        async with serving(handler) as world:
            second = post(b"two")
            caller = await world.call(post(b"one") + second[:20])
            assert (await caller.answer())[2] == b"one"
            caller.send(second[20:])
            assert (await caller.answer())[2] == b"two"
            assert not world.crashes

    run(main())


@pytest.mark.parametrize("handler", [echo, echo_later])
def test_pipelined_requests_are_answered_in_order_on_one_connection(run, handler):
    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(b"".join(post(b"%d" % i) for i in range(500)))
            for i in range(500):
                assert (await caller.answer())[2] == b"%d" % i
            assert world.server.connections == 1

    run(main())


def test_a_large_body_split_over_many_reads_arrives_whole(run):
    body = bytes(range(256)) * 20_000

    async def main() -> None:
        async with serving(echo) as world:
            caller = await world.call(post(body) + post(b"next"))
            assert (await caller.answer())[2] == body
            assert (await caller.answer())[2] == b"next"

    run(main())


def test_a_chunked_body_is_joined_and_its_trailers_are_no_headers(run):
    seen: list[Exchange] = []

    def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(200, exchange.body)

    async def main() -> None:
        async with serving(handler) as world:
            chunked = b"POST / HTTP/1.1\r\n%btransfer-encoding: chunked\r\n\r\n" % HOST
            chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (n, b"z" * n) for n in range(1, 300))
            caller = await world.call(chunked + chunks + b"0\r\nauthorization: Bearer trailer\r\n\r\n" + post(b"next"))
            assert (await caller.answer())[2] == b"z" * (299 * 150)
            assert (await caller.answer())[2] == b"next"
            assert seen[0].header(b"authorization") is None
            assert [name for name, _ in seen[0].headers] == [b"host", b"transfer-encoding"]

    run(main())


def test_a_stream_sends_its_head_with_the_first_chunk_and_its_end_with_the_last(run):
    async def handler(exchange: Exchange) -> None:
        exchange.start(200, b"x-a: b\r\n")
        await asyncio.sleep(0.001)
        exchange.write(b"one")
        exchange.write(b"")
        exchange.write(b"two")
        exchange.finish(b"three")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            status, headers, body = await caller.answer()
            assert (status, body) == (200, b"onetwothree")
            assert headers == {
                b"content-type": b"text/event-stream; charset=utf-8",
                b"x-a": b"b",
                b"transfer-encoding": b"chunked",
            }

    run(main())


def test_the_head_is_held_back_until_there_is_something_to_send(run):
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        await go.wait()
        exchange.write(b"data")
        exchange.finish()

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(caller.reader.read(1), 0.02)
            go.set()
            assert (await caller.answer())[2] == b"data"

    run(main())


def test_an_empty_stream_is_a_complete_answer(run):
    def handler(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.finish()

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET + GET)
            assert (await caller.answer())[2] == b""
            assert (await caller.answer())[2] == b""

    run(main())


def test_head_gets_the_headers_of_get_and_no_body(run):
    def handler(exchange: Exchange) -> None:
        if exchange.path == b"/stream":
            exchange.start(200)
            exchange.write(b"data")
            exchange.finish(b"more")
        else:
            exchange.respond(200, b"body")

    async def main() -> None:
        async with serving(handler) as world:
            head = b"HEAD %b HTTP/1.1\r\n" + HOST + b"\r\n"
            caller = await world.call(head % b"/" + head % b"/stream" + GET)
            assert (await caller.head())[1][b"content-length"] == b"4"
            assert (await caller.head())[0] == 200
            assert (await caller.answer())[2] == b"body"

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_no_length_either(run, status):
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(status, b"", b"x: y\r\n")) as world:
            caller = await world.call(GET + GET)
            assert await caller.head() == (status, {b"x": b"y"})
            assert await caller.head() == (status, {b"x": b"y"})

    run(main())


def test_http_1_0_gets_no_chunks_and_its_connection_is_closed(run):
    def handler(exchange: Exchange) -> None:
        if exchange.path == b"/stream":
            exchange.start(200)
            exchange.write(b"one ")
            exchange.finish(b"two")
        else:
            exchange.respond(200, b"whole")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            answer = await caller.rest()
            assert answer.endswith(b"connection: close\r\n\r\none two")
            assert b"chunked" not in answer
            caller = await world.call(b"GET / HTTP/1.0\r\n\r\n")
            assert (await caller.rest()).endswith(b"content-length: 5\r\nconnection: close\r\n\r\nwhole")

    run(main())


def test_connection_close_is_obeyed_and_what_follows_is_not_served(run):
    async def main() -> None:
        async with serving(echo_later) as world:
            caller = await world.call(post(b"last", more=b"connection: close\r\n") + post(b"never"))
            answer = await caller.rest()
            assert answer.endswith(b"connection: close\r\n\r\nlast")
            assert len(STATUS.findall(answer)) == 1

    run(main())


def test_100_continue_is_said_when_the_body_is_waited_for(run):
    async def main() -> None:
        async with serving(echo) as world:
            expecting = b"POST / HTTP/1.1\r\n%bexpect: 100-continue\r\ncontent-length: 4\r\n\r\n" % HOST
            caller = await world.call(expecting)
            assert await caller.head() == (100, {})
            caller.send(b"body")
            assert (await caller.answer())[2] == b"body"
            caller.send(expecting + b"body")  # in no need of it
            assert (await caller.answer())[0] == 200

    run(main())


def test_100_continue_waits_for_its_turn(run):
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        if exchange.method == b"GET":
            await go.wait()
        exchange.respond(200, exchange.body)

    async def main() -> None:
        async with serving(handler) as world:
            expecting = b"POST / HTTP/1.1\r\n%bexpect: 100-continue\r\ncontent-length: 4\r\n\r\n" % HOST
            caller = await world.call(GET + expecting)
            await until(lambda: world.server.tasks)
            go.set()
            assert (await caller.answer())[0] == 200
            assert await caller.head() == (100, {})
            caller.send(b"body")
            assert (await caller.answer())[2] == b"body"

    run(main())


def test_an_h2c_upgrade_is_ignored_and_its_body_read(run):
    async def main() -> None:
        async with serving(echo) as world:
            upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
            caller = await world.call(post(b"body", more=upgrade))
            assert (await caller.answer())[2] == b"body"
            caller = await world.call(b"GET / HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")
            assert (await caller.answer())[0] == 200

    run(main())


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://a.example/p?q", b"/p", b"q"),
        (b"http://a.example", b"/", b""),
        (b"HTTPS://a.example?q", b"/", b"q"),
        (b"/p?", b"/p", b""),
    ],
)
def test_an_absolute_address_is_reduced_to_its_path(run, target, path, query):
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, exchange.path + b" " + exchange.query)) as world:
            caller = await world.call(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, HOST))
            assert (await caller.answer())[2] == path + b" " + query

    run(main())


def test_a_crash_is_answered_500_without_a_word_about_it_and_reported(run):
    async def later(exchange: Exchange) -> None:
        await asyncio.sleep(0)
        raise ValueError("secret")

    def handler(exchange: Exchange):
        if exchange.path == b"/now":
            raise ValueError("secret")
        return later(exchange)

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(b"GET /now HTTP/1.1\r\n" + HOST + b"\r\n" + GET)
            for _ in range(2):
                status, _, body = await caller.answer()
                assert status == 500
                assert b"secret" not in body
            assert [str(crash) for crash in world.crashes] == ["secret", "secret"]

    run(main())


def test_a_crash_in_mid_answer_cuts_it_visibly(run):
    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"part")
        raise ValueError("broken")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            answer = await caller.rest()
            assert answer.endswith(b"4\r\npart\r\n")
            assert len(world.crashes) == 1

    run(main())


def test_an_aborted_answer_has_no_end(run):
    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"part")
        await asyncio.sleep(0)
        exchange.abort()
        exchange.abort()

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET + GET)
            assert (await caller.rest()).endswith(b"4\r\npart\r\n")
            assert not world.crashes

    run(main())


@pytest.mark.parametrize("returns", ["at once", "later"])
def test_a_handler_that_forgets_to_answer_is_a_crash(run, returns):
    async def later() -> None:
        await asyncio.sleep(0)

    def handler(exchange: Exchange):
        return later() if returns == "later" else None

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            assert (await caller.answer())[0] == 500
            assert "without an answer" in str(world.crashes[0])

    run(main())


def test_a_second_answer_is_a_mistake_of_the_handler(run):
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"once")
        for again in (
            lambda: exchange.respond(200, b"twice"),
            lambda: exchange.start(200),
            lambda: exchange.write(b"x"),
            lambda: exchange.finish(b"x"),
        ):
            with pytest.raises(RuntimeError):
                again()

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            assert (await caller.answer())[2] == b"once"
            assert not world.crashes

    run(main())


@pytest.mark.parametrize("how", ["reset", "end", "half"])
@pytest.mark.parametrize("before", ["nothing", "a chunk", "pipelined requests", "a pipelined body"])
def test_a_caller_that_leaves_cancels_its_request_at_once(run, how, before):
    endings: list[str] = []
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        exchanges.append(exchange)
        try:
            if before == "a chunk":
                exchange.start(200)
                exchange.write(b"x")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            exchange.write(b"ignored") if exchange.started else exchange.respond(500, b"ignored")
            endings.append("cancelled")
            raise
        finally:
            endings.append("released")

    more = {"pipelined requests": GET * 50, "a pipelined body": post(b"x" * 1_000_000)[:-1]}.get(before, b"")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET + more)
            await until(lambda: exchanges)
            if before == "a chunk":
                await caller.head()
            if how == "reset":
                caller.leave()
            elif how == "end":
                caller.writer.close()
            else:
                caller.writer.write_eof()
            await until(lambda: not world.server.connections)
            await until(lambda: not world.server.tasks)
            assert endings == ["cancelled", "released"]
            assert exchanges[0].gone
            assert len(exchanges) == 1
            assert not world.crashes

    run(main())


def test_a_coroutine_that_was_returned_always_begins(run):
    """What a handler takes before it returns its coroutine, the coroutine gives back: so it must run, even too late."""
    events: list[str] = []

    async def give_back() -> None:
        try:
            await asyncio.sleep(0)
            events.append("went on")
        finally:
            events.append("given back")

    async def main() -> None:
        def handler(exchange: Exchange):
            events.append("taken")
            for connection in world.server.open_connections:
                connection.drop()
            return give_back()

        async with serving(handler) as world:
            await world.call(GET)
            await until(lambda: events)
            await until(lambda: not world.server.connections)
            await until(lambda: not world.server.tasks)
            assert events == ["taken", "given back"]

    run(main())


def test_a_caller_that_leaves_after_its_answer_cancels_nothing(run):
    settled = []
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, b"done")
        await go.wait()
        settled.append(exchange.gone)

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            await caller.answer()
            caller.leave()
            await until(lambda: not world.server.connections)
            go.set()
            await until(lambda: settled)
            assert settled == [False]

    run(main())


class Source:
    """A relay's source: writes when it may."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.paused = False
        self.pauses = 0
        self.written = 0

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False

    def left(self) -> None:
        raise AssertionError("a handler is running, and is cancelled")

    async def run(self, total: int) -> None:
        self.exchange.start(200)
        while self.written < total:
            if self.paused:
                await asyncio.sleep(0.001)
            else:
                self.exchange.write(b"x" * 10_000)
                self.written += 10_000
                await asyncio.sleep(0)
        self.exchange.finish()


class Flowing:
    """An answer that goes on by itself: the handler has begun it and returned."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.calls: list[str] = []

    async def handler(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.start(200)
        exchange.write(b"one ")
        exchange.flow = self

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def left(self) -> None:
        assert self.exchange is not None
        assert self.exchange.flow is None, "nothing can come from here any more"
        self.calls.append("left")


def test_an_answer_goes_on_by_itself_after_its_handler_has_returned(run):
    flowing = Flowing()

    async def main() -> None:
        async with serving(flowing.handler) as world:
            caller = await world.call(GET + GET)
            await caller.head()
            assert await caller.chunk() == b"one "
            assert not world.server.tasks, "it costs no task"
            first = flowing.exchange
            first.write(b"two ")
            assert await caller.chunk() == b"two "
            first.finish(b"end")
            assert await caller.chunk() == b"end"
            assert await caller.chunk() == b""
            await until(lambda: flowing.exchange is not first)
            flowing.exchange.finish()
            assert (await caller.answer())[2] == b"one "
            assert flowing.calls == []

    run(main())


def test_an_answer_that_goes_on_by_itself_is_told_once_that_its_caller_left(run):
    flowing = Flowing()

    async def main() -> None:
        async with serving(flowing.handler) as world:
            caller = await world.call(GET)
            await caller.head()
            caller.leave()
            await until(lambda: flowing.calls)
            flowing.exchange.write(b"to nobody")
            flowing.exchange.finish()
            await until(lambda: not world.server.connections)
        assert flowing.calls == ["left"]

    run(main())


def test_an_answer_that_goes_on_by_itself_is_cut_off_when_the_drain_ends(run):
    flowing = Flowing()

    async def main() -> None:
        async with serving(flowing.handler) as world:
            caller = await world.call(GET)
            await caller.head()
            await world.server.drain(0.01)
            assert flowing.calls == ["left"]
            assert not (await caller.rest()).endswith(b"0\r\n\r\n")

    run(main())


def test_a_slow_reader_pauses_the_source_and_the_buffer_stays_small(run):
    sources: list[Source] = []

    async def handler(exchange: Exchange) -> None:
        source = exchange.flow = Source(exchange)
        sources.append(source)
        await source.run(20_000_000)

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            await until(lambda: sources and sources[0].paused)
            stuck_at = sources[0].written
            assert stuck_at < 15_000_000
            (connection,) = world.server.open_connections
            assert connection._transport.get_write_buffer_size() < 200_000
            _, _, body = await caller.answer()
            assert len(body) == 20_000_000
            assert sources[0].pauses
            assert not sources[0].paused

    run(main())


def test_drain_waits_for_a_slow_reader(run):
    written = [0]

    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        for _ in range(2_000):
            exchange.write(b"x" * 10_000)
            written[0] += 10_000
            await exchange.drain()
        exchange.finish()

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            await until(lambda: world.server.open_connections)
            (connection,) = world.server.open_connections
            await until(lambda: connection._write_paused)
            assert written[0] < 20_000_000
            assert len((await caller.answer())[2]) == 20_000_000

    run(main())


def test_a_caller_that_takes_nothing_is_dropped(run):
    endings: list[str] = []

    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        try:
            while True:
                exchange.write(b"x" * 100_000)
                await exchange.drain()
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise

    async def main() -> None:
        async with serving(handler, ServerOptions(write_timeout=0.1)) as world:
            await world.call(GET)
            await until(lambda: endings)
            await until(lambda: not world.server.connections)

    run(main())


def test_reading_stops_while_too_much_waits_and_goes_on_after(run):
    go = asyncio.Event()
    served: list[bytes] = []

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        served.append(exchange.body)
        exchange.respond(200, b"")

    async def main() -> None:
        async with serving(handler, ServerOptions(max_pipelined=4)) as world:
            caller = await world.call(b"".join(post(b"%d" % i) for i in range(2_000)))
            await until(lambda: world.server.open_connections)
            (connection,) = world.server.open_connections
            await until(lambda: connection._read_paused)
            assert len(connection._pending) <= 80  # one slice of tiny requests beyond the limit
            go.set()
            for _ in range(2_000):
                assert (await caller.answer())[0] == 200
            assert served == [b"%d" % i for i in range(2_000)]

    run(main())


def test_a_pipelined_body_is_not_read_into_memory_before_its_turn(run):
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        exchange.respond(200, b"%d" % len(exchange.body))

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET + post(b"x" * 20_000_000))
            await until(lambda: world.server.open_connections)
            (connection,) = world.server.open_connections
            await until(lambda: connection._read_paused)
            assert sum(map(len, connection._parts)) < 1_000_000
            go.set()
            assert (await caller.answer())[2] == b"0"
            assert (await caller.answer())[2] == b"20000000"

    run(main())


def test_a_caller_that_trickles_its_head_is_shown_the_door(run):
    async def main() -> None:
        async with serving(echo, ServerOptions(head_timeout=0.1)) as world:
            caller = await world.call()
            trickle = asyncio.ensure_future(drip(caller, b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"y" * 1_000))  # noqa: TID251 - cancelled below
            answer = await caller.rest()
            assert answer.startswith(b"HTTP/1.1 408 ")
            trickle.cancel()
            await asyncio.gather(trickle, return_exceptions=True)

    run(main())


async def drip(caller, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for i in range(len(data)):
            caller.send(data[i : i + 1])
            await asyncio.sleep(0.005)


def test_an_idle_connection_is_closed_without_a_word(run):
    async def main() -> None:
        async with serving(echo, ServerOptions(keep_alive_timeout=0.1)) as world:
            silent = await world.call()
            used = await world.call(GET)
            assert (await used.answer())[0] == 200
            blank = await world.call(b"\r\n\r\n")
            assert await silent.rest() == b""
            assert await used.rest() == b""
            assert await blank.rest() == b""

    run(main())


@pytest.mark.parametrize("before", ["a full queue", "a full write buffer", "both"])
def test_a_connection_that_was_busy_is_idle_again_and_closed(run, before):
    size = 10 if before == "a full queue" else 5_000_000

    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(0)
        exchange.respond(200, b"x" * size)

    async def main() -> None:
        limits = ServerOptions(keep_alive_timeout=0.1, max_pipelined=2)
        async with serving(handler, limits) as world:
            n = 1 if before == "a full write buffer" else 200 if before == "a full queue" else 5
            caller = await world.call(GET * n)
            for _ in range(n):
                assert len((await caller.answer())[2]) == size
            assert await caller.rest() == b""
            await until(lambda: not world.server.connections)

    run(main())


def test_a_long_answer_is_not_cut_by_any_limit_on_requests(run):
    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        for _ in range(8):
            exchange.write(b"x")
            await asyncio.sleep(0.1)
        exchange.finish()

    async def main() -> None:
        limits = ServerOptions(head_timeout=0.1, body_timeout=0.1, keep_alive_timeout=0.1, write_timeout=0.1)
        async with serving(handler, limits) as world:
            caller = await world.call(GET)
            assert (await caller.answer())[2] == b"x" * 8

    run(main())


def test_one_connection_too_many_is_told_so(run):
    async def main() -> None:
        async with serving(echo, ServerOptions(max_connections=2)) as world:
            callers = [await world.call(GET) for _ in range(2)]
            for caller in callers:
                assert (await caller.answer())[0] == 200
            refused = await world.call(GET)
            assert (await refused.rest()).startswith(b"HTTP/1.1 503 ")
            callers[0].leave()
            refused.leave()
            await until(lambda: world.server.connections == 1)
            caller = await world.call(GET)
            assert (await caller.answer())[0] == 200

    run(main())


def test_draining_lets_requests_in_flight_end_and_closes_the_rest(run):
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.start(200)
        exchange.write(b"one")
        await go.wait()
        exchange.finish(b"two")

    async def main() -> None:
        async with serving(handler) as world:
            idle = await world.call()
            busy = await world.call(GET)
            await busy.head()
            await until(lambda: world.server.connections == 2)
            port = world.server.port
            async with asyncio.TaskGroup() as group:
                draining = group.create_task(world.server.drain(10))
                assert await idle.rest() == b""
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                assert not draining.done()
                go.set()
                assert await busy.chunk() == b"one"
                assert await busy.chunk() == b"two"
                assert await busy.rest() == b"0\r\n\r\n"

    run(main())


def test_an_answer_given_while_draining_says_that_it_is_the_last(run):
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        exchange.respond(200, b"bye")

    async def main() -> None:
        async with serving(handler) as world:
            caller = await world.call(GET)
            await until(lambda: world.server.tasks)
            async with asyncio.TaskGroup() as group:
                group.create_task(world.server.drain(10))
                await asyncio.sleep(0)
                go.set()
                assert (await caller.rest()).endswith(b"connection: close\r\n\r\nbye")

    run(main())


def test_what_is_still_running_when_the_drain_ends_is_cancelled(run):
    endings: list[str] = []

    async def handler(exchange: Exchange) -> None:
        if exchange.path == b"/stream":
            exchange.start(200)
            exchange.write(b"part")
        try:
            await asyncio.Event().wait()
        finally:
            endings.append("released")

    async def main() -> None:
        async with serving(handler) as world:
            stream = await world.call(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n")
            waiting = await world.call(GET)
            await until(lambda: len(world.server.tasks) == 2)
            await stream.head()
            await world.server.drain(0.01)
            assert endings == ["released", "released"]
            assert await stream.rest() == b"4\r\npart\r\n"
            assert (await waiting.rest()).startswith(b"HTTP/1.1 503 ")

    run(main())


def test_small_writes_are_not_held_back_by_nagle(run):
    async def main() -> None:
        async with serving(echo) as world:
            caller = await world.call(GET)
            await caller.answer()
            (connection,) = world.server.open_connections
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(main())


def test_a_unix_socket_serves_too(run, tmp_path):
    async def main() -> None:
        async with serving(lambda exchange: exchange.respond(200, exchange.peer.encode())) as world:
            path = str(tmp_path / "socket")
            await world.server.start_unix(path)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(GET)
            assert b"content-length: 0\r\n" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            assert len(world.server.ports) == 1

    run(main())
