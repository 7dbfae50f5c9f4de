"""TLS on both sides, with certificates made here."""

import asyncio
import ssl

import pytest
import trustme

from penstock.http.client import Pool
from penstock.http.options import ClientOptions, ServerOptions
from penstock.http.server import Exchange
from tests.http.raw import HOST, Caller, serving, until
from tests.http.test_client import Answer

GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(exchange: Exchange) -> None:
    if exchange.path == b"/stream":
        exchange.start(200)
        for _ in range(3):
            exchange.write(b"tick ")
            await asyncio.sleep(0)
        exchange.finish()
    else:
        exchange.respond(200, exchange.body)


async def ask(pool: Pool, path: bytes = b"/", body: bytes = b"hello") -> Answer:
    answer = Answer()
    pool.send(b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (path, pool.host), b"", body, answer)
    return await answer.wait()


def test_our_client_speaks_tls_to_our_server_and_keeps_the_connection(run, server_side, client_side):
    async def main() -> None:
        async with serving(echo, ssl=server_side) as world:
            pool = Pool(f"https://127.0.0.1:{world.server.port}", ssl=client_side)
            assert (await ask(pool)).body == b"hello"
            assert (await ask(pool, b"/stream")).body == b"tick tick tick "
            big = bytes(3_000_000)
            assert (await ask(pool, body=big)).body == big
            assert pool.open == 1
            pool.close()
            await until(lambda: not pool.open)

    run(main())


def test_a_certificate_from_nobody_we_know_is_a_tls_failure(run, server_side):
    async def main() -> None:
        async with serving(echo, ssl=server_side) as world:
            pool = Pool(f"https://127.0.0.1:{world.server.port}")
            answer = await ask(pool)
            assert answer.failure is not None
            assert (answer.failure.kind, answer.failure.sent) == ("tls", False)
            assert "certificate" in answer.failure.detail.lower()
            assert pool.open == 0

    run(main())


def test_a_certificate_for_somebody_else_is_a_tls_failure(run, authority, client_side):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)

    async def main() -> None:
        async with serving(echo, ssl=context) as world:
            answer = await ask(Pool(f"https://127.0.0.1:{world.server.port}", ssl=client_side))
            assert answer.failure is not None
            assert answer.failure.kind == "tls"

    run(main())


def test_tls_to_a_server_that_speaks_none_is_a_failure_with_nothing_sent(run, client_side):
    async def main() -> None:
        async with serving(echo) as world:
            options = ClientOptions(connect_timeout=1.0)
            answer = await ask(Pool(f"https://127.0.0.1:{world.server.port}", ssl=client_side, options=options))
            assert answer.failure is not None
            assert answer.failure.kind in ("tls", "connect")
            assert not answer.failure.sent

    run(main())


def test_a_caller_that_leaves_over_tls_cancels_its_request(run, server_side, client_side):
    events: list[str] = []

    async def handler(exchange: Exchange) -> None:
        events.append("started")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    async def main() -> None:
        async with serving(handler, ssl=server_side) as world:
            caller = await world.call(GET, ssl=client_side)
            await until(lambda: events)
            caller.leave()
            await until(lambda: len(events) == 2)

    run(main())


def test_a_refusal_over_tls_arrives_and_the_connection_is_closed(run, server_side, client_side):
    async def main() -> None:
        async with serving(echo, ServerOptions(head_timeout=0.2), ssl=server_side) as world:
            for data, status in ((b"nonsense\r\n\r\n", 400), (GET[:-2], 408)):
                caller = await world.call(data, ssl=client_side)
                assert (await caller.rest()).startswith(b"HTTP/1.1 %d " % status)

    run(main())


def test_a_caller_that_never_shakes_hands_is_dropped(run, server_side):
    async def main() -> None:
        async with serving(echo, ServerOptions(head_timeout=0.1), ssl=server_side) as world:
            caller = Caller(*await asyncio.open_connection("127.0.0.1", world.server.port))
            assert await caller.rest() == b""
            caller.leave()

    run(main())
