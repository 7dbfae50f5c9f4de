"""A small document is fetched whole, or told why not."""

import asyncio

import pytest

from penstock.http.get import GetFailed, get
from penstock.http.server import Server


def fetched(handler, *, max_bytes=100, seconds=5.0):
    async def main():
        server = Server(handler, on_crash=lambda error: None)
        await server.start()
        try:
            return await get(f"http://127.0.0.1:{server.port}", "/a?b=c", max_bytes=max_bytes, seconds=seconds)
        finally:
            server.close()

    return asyncio.run(main())


def test_a_document_is_its_body():
    assert fetched(lambda exchange: exchange.respond(200, exchange.path + b"?" + exchange.query)) == b"/a?b=c"


@pytest.mark.parametrize("status", [204, 301, 404, 500])
def test_another_status_is_no_document_and_no_redirect_is_followed(status):
    with pytest.raises(GetFailed, match=f"status {status}"):
        fetched(lambda exchange: exchange.respond(status, b"x", b"location: http://127.0.0.1:1/\r\n"))


def test_a_document_that_is_too_large_is_not_read_to_its_end():
    def endless(exchange):
        exchange.start(200)
        exchange.write(b"x" * 1_000)

    with pytest.raises(GetFailed, match="more than 100 bytes"):
        fetched(endless)


def test_a_server_that_does_not_answer_is_not_waited_for():
    async def silent(exchange):
        await asyncio.Event().wait()

    with pytest.raises(GetFailed, match=r"did not answer within 0\.05 s"):
        fetched(silent, seconds=0.05)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(GetFailed, match="connect"):
        asyncio.run(get("http://127.0.0.1:1", "/", max_bytes=1, seconds=5.0))
