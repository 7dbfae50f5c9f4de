"""A provider on this machine: every endpoint of the OpenAI and the Anthropic API, with minimal and valid answers.

`script` says what is answered, `openai_api`, `responses_api` and `anthropic_api` in which words; here it becomes HTTP.
Both APIs are at one address, under /v1, as they differ in everything but /v1/models: there the header
`anthropic-version` decides. Requests that the real providers refuse are refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.conformance import anthropic_api, openai_api
from tests.conformance.reply import Query, Refused, Reply


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a head and its body are two writes: Nagle would hold the second for 40 ms
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        query = Query(
            self.command,
            unquote(address.path.removeprefix("/v1")),
            dict(parse_qsl(address.query)),
            {name.lower(): value for name, value in self.headers.items()},
            _fields(self.headers.get("content-type") or "", body),
        )
        self.server.seen.append(query)
        speaks_anthropic = "anthropic-version" in query.headers or query.path.startswith("/messages")
        api = anthropic_api if speaks_anthropic else openai_api
        try:
            reply = api.reply(query)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # it is not what it should be, somewhere
            reply = api.refusal(Refused(f"The request is malformed: {error!r}"))
        self._write(reply)

    do_GET = do_POST = do_DELETE = _answer

    def _write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("content-type", reply.content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if not reply.events:
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in reply.events:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        if reply.broken_off:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[Query] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that has heard enough is no news; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Upstream:
    """A server that is serving."""

    def __init__(self, server: _Server) -> None:
        self.port: int = server.server_address[1]
        self.seen = server.seen  # the requests so far; tests may clear it

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def upstream() -> Iterator[Upstream]:
    with _Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Upstream(server)
        finally:
            server.shutdown()
            thread.join()


def _fields(content_type: str, body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    if not content_type.startswith("multipart/form-data"):
        fields = json.loads(body)
        assert isinstance(fields, dict)
        return fields
    head = f"content-type: {content_type}\r\n\r\n".encode()
    form = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + body)
    return {
        str(part.get_param("name", header="content-disposition")).removesuffix("[]"): part.get_content()
        if part.get_content_maintype() == "text" and part.get_filename() is None
        else part.get_payload(decode=True)
        for part in form.iter_parts()
    }


if __name__ == "__main__":
    from threading import Event

    with upstream() as running:
        sys.stdout.write(f"{running.address}\n")
        sys.stdout.flush()
        Event().wait()
