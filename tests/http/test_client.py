"""What the pool promises to its receivers, against upstreams that behave and upstreams that do not."""

import asyncio
import gzip
import socket

import pytest

from penstock.http.client import Pool, TransportError
from penstock.http.options import ClientOptions
from tests.http.raw import request_of, until, upstream

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
POST = b"POST /p HTTP/1.1\r\nhost: up\r\n"


class Answer:
    """A receiver that writes down what it hears, and checks the order of it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        self.failure: TransportError | None = None
        self.ended = False
        self.over = asyncio.Event()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert not self.status
        assert not self.over.is_set()
        self.status, self.headers = status, headers

    def on_data(self, data: bytes, ended: bool) -> None:
        assert self.status
        assert not self.over.is_set()
        assert data or ended
        self.parts.append(data)
        if ended:
            self.ended = True
            self.over.set()

    def on_failure(self, failure: TransportError) -> None:
        assert not self.over.is_set()
        self.failure = failure
        self.over.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    async def wait(self) -> "Answer":
        await self.over.wait()
        return self


async def ask(pool: Pool, body: bytes = b"hi") -> Answer:
    answer = Answer()
    pool.send(POST, b"", body, answer)
    assert not answer.over.is_set(), "callbacks never run inside send"
    return await answer.wait()


def always(data: bytes, close: bool = False):
    """An upstream that answers every request alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(data)
            await writer.drain()
            if close:
                return

    return serve


async def ended(pool: Pool) -> None:
    pool.abort()
    await until(lambda: not pool.open)


def test_a_request_is_sent_in_one_write_with_its_length(run):
    requests: list[tuple[bytes, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await request_of(reader))
        writer.write(OK)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            answer = Answer()
            pool.send(POST, b"x-id: 7\r\n", b'{"a":1}', answer)
            await answer.wait()
            assert requests == [
                (b'POST /p HTTP/1.1\r\nhost: up\r\nx-id: 7\r\ncontent-length: 7\r\n\r\n', b'{"a":1}')
            ]  # fmt: skip
            assert (answer.status, answer.body) == (200, b"ok")
            assert answer.headers == [(b"content-length", b"2")]
            assert pool.host == origin.removeprefix("http://").encode()
            await ended(pool)

    run(main())


def test_a_get_has_no_length(run):
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await request_of(reader))[0])
        writer.write(OK)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool, answer = Pool(origin), Answer()
            pool.send(b"GET /g HTTP/1.1\r\nhost: up\r\n", b"", b"", answer)
            await answer.wait()
            assert heads == [b"GET /g HTTP/1.1\r\nhost: up\r\n\r\n"]
            await ended(pool)

    run(main())


def test_a_large_body_arrives_whole(run):
    sizes: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sizes.append(len((await request_of(reader))[1]))
        writer.write(OK)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            assert (await ask(pool, b"x" * 5_000_000)).status == 200
            assert sizes == [5_000_000]
            await ended(pool)

    run(main())


def test_a_connection_is_used_again_and_the_freshest_first(run):
    connections = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        await always(OK)(reader, writer)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            for _ in range(5):
                assert (await ask(pool)).body == b"ok"
            assert connections == [1]
            assert (pool.idle, pool.open) == (1, 1)
            await asyncio.gather(*(ask(pool) for _ in range(3)))
            assert connections == [3]
            assert (pool.idle, pool.open) == (3, 3)
            await ended(pool)

    run(main())


def test_a_receiver_may_send_the_next_request_from_its_last_callback(run):
    async def main() -> None:
        async with upstream(always(OK)) as origin:
            pool = Pool(origin)
            last = Answer()

            class First(Answer):
                def on_data(self, data: bytes, ended: bool) -> None:
                    super().on_data(data, ended)
                    pool.send(POST, b"", b"", last)

            pool.send(POST, b"", b"", First())
            await last.wait()
            assert pool.open == 1
            await ended(pool)

    run(main())


def test_a_stream_arrives_as_it_is_sent_with_one_callback_per_read(run):
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n")
        await go.wait()
        writer.write(b"5\r\nthree\r\n0\r\nx-trailer: z\r\n\r\n")

    async def main() -> None:
        async with upstream(serve) as origin:
            pool, answer = Pool(origin), Answer()
            pool.send(POST, b"", b"", answer)
            await until(lambda: answer.parts)
            assert answer.parts == [b"onetwo"]
            assert not answer.ended
            go.set()
            await answer.wait()
            assert answer.parts == [b"onetwo", b"three"]
            assert [name for name, _ in answer.headers] == [b"transfer-encoding"]
            await ended(pool)

    run(main())


def test_a_compressed_answer_passes_untouched(run):
    packed = gzip.compress(b"hello" * 100)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)

    async def main() -> None:
        async with upstream(always(head + packed)) as origin:
            pool = Pool(origin)
            answer = await ask(pool)
            assert answer.body == packed
            assert (b"content-encoding", b"gzip") in answer.headers
            await ended(pool)

    run(main())


@pytest.mark.parametrize(
    "informational",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
    ],
)
def test_informational_answers_are_skipped(run, informational):
    async def main() -> None:
        async with upstream(always(informational + OK)) as origin:
            pool = Pool(origin)
            for _ in range(2):
                answer = await ask(pool)
                assert (answer.status, answer.body, answer.headers) == (200, b"ok", [(b"content-length", b"2")])
            assert pool.open == 1
            await ended(pool)

    run(main())


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_an_answer_without_a_length_ends_with_its_connection(run, head):
    async def main() -> None:
        async with upstream(always(head + b"all of it", close=True)) as origin:
            pool = Pool(origin)
            answer = await ask(pool)
            assert (answer.status, answer.body) == (200, b"all of it")
            await until(lambda: not pool.open)

    run(main())


def test_connection_close_is_obeyed(run):
    async def main() -> None:
        async with upstream(always(OK[:17] + b"connection: close\r\n" + OK[17:])) as origin:
            pool = Pool(origin)
            assert (await ask(pool)).body == b"ok"
            assert pool.idle == 0
            await until(lambda: not pool.open)

    run(main())


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_leaves_the_connection_usable(run, status):
    async def main() -> None:
        async with upstream(always(b"HTTP/1.1 %b\r\n\r\n" % status)) as origin:
            pool = Pool(origin)
            for _ in range(3):
                answer = await ask(pool)
                assert answer.ended
                assert answer.body == b""
            assert pool.open == 1
            await ended(pool)

    run(main())


def test_an_answer_to_head_has_no_body_whatever_it_says(run):
    async def main() -> None:
        async with upstream(always(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")) as origin:
            pool, answer = Pool(origin), Answer()
            pool.send(b"HEAD / HTTP/1.1\r\nhost: up\r\n", b"", b"", answer)
            await answer.wait()
            assert answer.ended
            assert answer.status == 200
            await ended(pool)

    run(main())


BROKEN = {
    "nothing": ("eof", b""),
    "half a head": ("eof", b"HTTP/1.1 200 OK\r\ncontent-le"),
    "half a body": ("eof", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
    "chunks without an end": ("eof", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"),
    "half a chunk": ("eof", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\none"),
    "only 100": ("eof", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "garbage": ("protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/2": ("protocol", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"),
    "both lengths": (
        "protocol",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": ("protocol", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde"),
    "a bad length": ("protocol", b"HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nabc"),
    "a bad chunk size": ("protocol", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    "a bare LF": ("protocol", b"HTTP/1.1 200 OK\ncontent-length: 0\n\n"),
    "NUL in a header": ("protocol", b"HTTP/1.1 200 OK\r\nx: \0\r\ncontent-length: 0\r\n\r\n"),
    "an upgrade": ("protocol", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
    "a head too large": ("protocol", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n"),
    "an endless head": ("protocol", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000),
    "too many headers": ("protocol", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"content-length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_one_failure_of_the_right_kind(run, name):
    kind, data = BROKEN[name]

    async def main() -> None:
        async with upstream(always(data, close=True)) as origin:
            pool = Pool(origin)
            answer = await ask(pool)
            assert answer.failure is not None
            assert answer.failure.kind == kind, answer.failure
            assert answer.failure.sent
            assert not answer.ended
            assert bool(answer.status) == (kind == "eof" and b"200 OK\r\n" in data and data.count(b"\r\n\r\n") > 0) or (
                "chunk size" in name
            )
            await until(lambda: not pool.open)

    run(main())


def test_a_reset_is_told_from_an_end(run):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.01)
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def main() -> None:
        async with upstream(serve) as origin:
            answer = await ask(Pool(origin))
            assert answer.body == b"half"
            assert answer.failure is not None
            assert answer.failure.kind == "reset"

    run(main())


def test_every_split_of_an_answer_is_the_same_answer(run):
    data = b"HTTP/1.1 200 OK\r\nX-A: b\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await request_of(reader)
            at = int(body)
            for piece in [data[:at], data[at:]] if at else [data[i : i + 1] for i in range(len(data))]:
                writer.write(piece)
                await asyncio.sleep(0)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            for i in range(len(data)):
                answer = await ask(pool, b"%d" % i)
                assert (answer.status, answer.body) == (200, b"one two")
                assert answer.headers == [(b"x-a", b"b"), (b"transfer-encoding", b"chunked")]
            assert pool.open == 1
            await ended(pool)

    run(main())


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"HTTP/1.1 2", b"x", b"\r\nHTTP/1"]
)
def test_an_answer_nobody_asked_for_is_never_taken_for_the_next(run, extra):
    async def main() -> None:
        async with upstream(always(OK + extra)) as origin:
            pool = Pool(origin)
            for _ in range(3):
                answer = await ask(pool)
                assert answer.body == b"ok", answer.failure
            await ended(pool)

    run(main())


@pytest.mark.parametrize(
    "late", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"HTTP/1.1 408 Timeout\r\n\r\n", b"\r\n"]
)
def test_bytes_on_an_idle_connection_close_it(run, late):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)
        await asyncio.sleep(0.01)
        writer.write(late)
        await reader.read()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            assert (await ask(pool)).body == b"ok"
            await until(lambda: not pool.open)
            assert pool.idle == 0
            assert (await ask(pool)).body == b"ok"
            await ended(pool)

    run(main())


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_stale_connection_is_replaced_without_a_word(run, how):
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await request_of(reader)
        writer.write(OK)
        if len(connections) == 1:
            await request_of(reader)  # the second request crosses our goodbye
            if how == "reset":
                writer.transport.abort()
            return
        await reader.read()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            assert (await ask(pool)).body == b"ok"
            answer = await ask(pool)
            assert answer.body == b"ok", answer.failure
            assert len(connections) == 2
            await ended(pool)

    run(main())


def test_a_fresh_connection_that_closes_unanswered_is_a_failure(run):
    connections = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        await request_of(reader)

    async def main() -> None:
        async with upstream(serve) as origin:
            answer = await ask(Pool(origin))
            assert answer.failure is not None
            assert answer.failure.kind == "eof"
            assert connections == [1]

    run(main())


@pytest.mark.parametrize(("first_bytes", "delay"), [(b"HTTP/1.1 200", 0.0), (b"", 0.1)])
def test_a_request_that_was_received_is_not_sent_again(run, first_bytes, delay):
    requests = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            requests[0] += 1
            if requests[0] == 2:
                writer.write(first_bytes)
                await asyncio.sleep(delay)
                return
            writer.write(OK)

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin, options=ClientOptions(stale_window=0.05))
            await ask(pool)
            answer = await ask(pool)
            assert answer.failure is not None
            assert answer.failure.kind == "eof"
            assert requests == [2]
            await ended(pool)

    run(main())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_refused_connection_is_a_failure_with_nothing_sent(run):
    async def main() -> None:
        pool = Pool(f"http://127.0.0.1:{free_port()}")
        answer = await ask(pool)
        assert answer.failure is not None
        assert (answer.failure.kind, answer.failure.sent) == ("connect", False)
        assert pool.open == 0

    run(main())


def test_an_unknown_name_is_a_dns_failure(run):
    async def main() -> None:
        answer = await ask(Pool("http://no-such-host.invalid"))
        assert answer.failure is not None
        assert (answer.failure.kind, answer.failure.sent) == ("dns", False)
        assert "no-such-host.invalid" in answer.failure.detail

    run(main())


def test_a_connection_that_takes_too_long_is_given_up(run):
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen(0)
            origin = f"http://127.0.0.1:{sock.getsockname()[1]}"
            fillers = []
            for _ in range(4):  # a full backlog does not answer
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(sock.getsockname())
                fillers.append(filler)
            pool = Pool(origin, options=ClientOptions(connect_timeout=0.1))
            answer = await ask(pool)
            assert answer.failure is not None
            assert (answer.failure.kind, answer.failure.sent) == ("connect_timeout", False)
            assert pool.open == 0
            for filler in fillers:
                filler.close()

    run(main())


def test_a_full_pool_refuses_and_recovers(run):
    async def main() -> None:
        async with upstream(always(OK)) as origin:
            pool = Pool(origin, options=ClientOptions(max_connections=2))
            answers = await asyncio.gather(*(ask(pool) for _ in range(3)))
            assert sorted(answer.status for answer in answers) == [0, 200, 200]
            (failure,) = [answer.failure for answer in answers if answer.failure]
            assert (failure.kind, failure.sent) == ("connect", False)
            assert (await ask(pool)).status == 200
            await ended(pool)

    run(main())


def test_idle_connections_grow_old_and_surplus_ones_are_not_kept(run):
    async def main() -> None:
        async with upstream(always(OK)) as origin:
            pool = Pool(origin, options=ClientOptions(keep_alive=0.1, max_idle=2))
            await asyncio.gather(*(ask(pool) for _ in range(4)))
            assert pool.idle == 2
            await until(lambda: not pool.open)
            assert pool.idle == 0
            assert (await ask(pool)).status == 200
            await ended(pool)

    run(main())


@pytest.mark.parametrize("when", ["at once", "connected", "sent", "after the head", "in the body", "after the end"])
def test_after_close_no_callback_comes_and_the_connection_is_not_used_again(run, when):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await request_of(reader)
            asked.set()
            if when == "sent":
                await reader.read()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            await asyncio.sleep(0.005)
            writer.write(b"half ")
            await asyncio.sleep(0.005)
            if when == "after the end":
                writer.write(b"whole")
            await reader.read()
        finally:
            gone.set()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool, answer = Pool(origin), Answer()
            call = pool.send(POST, b"", b"body", answer)
            if when == "connected":
                await until(lambda: pool.connections)
            elif when == "sent":
                await asked.wait()
            elif when == "after the head":
                await until(lambda: answer.status)
            elif when == "in the body":
                await until(lambda: answer.parts)
            elif when == "after the end":
                await answer.wait()
            answer.over.set()  # from here, every callback is an error
            call.close()
            call.close()
            call.pause()
            call.resume()
            assert pool.idle == (1 if when == "after the end" else 0)
            pool.close()  # a connection that was ready in this very moment is kept, unused
            await until(lambda: not pool.open)
            if asked.is_set():
                await gone.wait()

    run(main())


def test_a_receiver_may_close_its_call_from_any_callback(run):
    async def main() -> None:
        async with upstream(always(OK)) as origin:
            pool = Pool(origin)

            class Impatient(Answer):
                def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
                    super().on_head(status, headers)
                    call.close()
                    self.over.set()

            answer = Impatient()
            call = pool.send(POST, b"", b"", answer)
            await answer.wait()
            assert not answer.parts
            await until(lambda: not pool.open)

    run(main())


def test_a_paused_call_reads_no_more_until_it_is_resumed(run):
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 30000000\r\n\r\n")
        for _ in range(300):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent[0] += 100_000
        await reader.read()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool, answer = Pool(origin), Answer()
            call = pool.send(POST, b"", b"", answer)
            call.pause()  # before there is a connection, even
            await until(lambda: sent[0])
            await asyncio.sleep(0.05)
            assert not answer.status
            call.resume()
            await until(lambda: answer.parts)
            call.pause()
            parts = len(answer.parts)
            await asyncio.sleep(0.05)
            assert len(answer.parts) <= parts + 1
            assert sent[0] < 30_000_000
            call.resume()
            await answer.wait()
            assert len(answer.body) == 30_000_000
            await ended(pool)

    run(main())


def test_a_closed_pool_finishes_what_is_on_its_way_and_takes_nothing_more(run):
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        await go.wait()
        writer.write(OK)
        await reader.read()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool, answer = Pool(origin), Answer()
            pool.send(POST, b"", b"", answer)
            await until(lambda: pool.connections)
            pool.close()
            refused = await ask(pool)
            assert refused.failure is not None
            assert (refused.failure.kind, refused.failure.sent) == ("connect", False)
            go.set()
            assert (await answer.wait()).body == b"ok"
            await until(lambda: not pool.open)

    run(main())


def test_an_aborted_pool_fails_what_is_on_its_way(run):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with upstream(serve) as origin:
            pool = Pool(origin)
            sent, unsent = Answer(), Answer()
            pool.send(POST, b"", b"", sent)
            await until(lambda: pool.connections)
            pool.send(POST, b"", b"", unsent)
            await asyncio.sleep(0)
            pool.abort()
            assert (await sent.wait()).failure is not None
            assert (await unsent.wait()).failure is not None
            assert unsent.failure is not None
            assert unsent.failure.kind == "connect"
            await until(lambda: not pool.open)

    run(main())


def test_a_unix_socket_is_an_origin_too(run, tmp_path):
    async def main() -> None:
        path = str(tmp_path / "socket")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(OK)
            await reader.read()
            writer.close()

        listener = await asyncio.start_unix_server(serve, path)
        pool = Pool(f"unix:{path}")
        assert (await ask(pool)).body == b"ok"
        await ended(pool)
        listener.close()
        missing = await ask(Pool(f"unix:{path}.not"))
        assert missing.failure is not None
        assert missing.failure.kind == "connect"

    run(main())


@pytest.mark.parametrize("origin", ["127.0.0.1:80", "ftp://a", "http://", "unix:", "http://a:b"])
def test_what_is_no_origin_is_refused_when_the_pool_is_made(run, origin):
    async def main() -> None:
        with pytest.raises(ValueError, match=r".+"):
            Pool(origin)

    run(main())


def test_small_writes_are_not_held_back_by_nagle(run):
    async def main() -> None:
        async with upstream(always(OK)) as origin:
            pool = Pool(origin)
            await ask(pool)
            (connection,) = pool.connections
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await ended(pool)

    run(main())
