"""The fault upstream does what a script says, byte by byte, and writes down what the other side did."""

import asyncio
import contextlib

import pytest

from penstock.core.clock import SystemClock
from penstock.testing.faults import scripts
from penstock.testing.faults.upstream import FaultServer, Ports, Reply, Seen

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
BODY = b'{"model":"internal-row","stream":true}'
ASK = REQUEST % (len(BODY), BODY)


@contextlib.asynccontextmanager
async def playing(script):
    async with FaultServer({"row": script}, SystemClock(), Ports()) as upstream:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.ports.main)
        try:
            writer.write(ASK)
            yield upstream, reader, writer
        finally:
            writer.close()


def test_a_reset_is_a_reset_and_an_end_is_an_end():
    async def story():
        async with playing(scripts.reset_before_head) as (_, reader, _writer):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        async with playing(scripts.eof_before_head) as (_, reader, _writer):
            assert await reader.read() == b""

    asyncio.run(story())


def test_it_notices_at_once_who_leaves_while_it_says_nothing():
    async def story():
        async with playing(scripts.stall_after_head) as (upstream, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            seen = upstream.of("row")[0]
            writer.close()
            await seen.over.wait()
            assert seen.gone_at is not None
            assert seen.gone_at - seen.at < 1.0

    asyncio.run(story())


def test_a_script_that_ended_is_not_taken_for_one_that_was_left():
    async def story():
        async with playing(scripts.healthy) as (upstream, reader, _):
            await reader.readuntil(b"0\r\n\r\n")
            seen = upstream.of("row")[0]
            await seen.over.wait()
            assert (seen.gone_at, seen.stream, seen.reused) == (None, True, False)

    asyncio.run(story())


def test_a_second_request_on_a_connection_says_so():
    async def story():
        async with playing(scripts.healthy) as (upstream, reader, writer):
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(ASK)
            await reader.readuntil(b"0\r\n\r\n")
            assert [(seen.reused, seen.n_before) for seen in upstream.of("row")] == [(False, 0), (True, 1)]

    asyncio.run(story())


def test_every_byte_that_a_script_writes_arrives_as_it_is():
    async def script(reply: Reply, voice: object, seen: Seen) -> None:
        await reply.raw(b"HTTP/1.1 200 OK\r\ncontent-le")
        await reply.raw(b"ngth: 1\r\n\r\n\x00")
        reply.close()

    async def story():
        async with playing(script) as (_, reader, _writer):
            assert await reader.read() == b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\x00"

    asyncio.run(story())


def test_nobody_listens_where_connections_are_to_be_refused():
    async def story():
        async with FaultServer({}, SystemClock(), Ports()) as upstream:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", upstream.ports.refused)

    asyncio.run(story())
