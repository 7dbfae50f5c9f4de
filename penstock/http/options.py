"""What an operator may set about HTTP itself. Plain values and no asyncio, so that `config` may import them."""

import msgspec


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on what callers may send and how long they may take. Sizes in bytes, spans in seconds.

    Every limit exists because without it one caller could hold memory or a connection for ever.
    """

    max_head_bytes: int = 65_536  # request line and headers together; 431 (414 when it is the address alone)
    max_headers: int = 256  # each one is a Python object, so bytes alone do not bound memory; 431
    max_body_bytes: int = 32 * 1024 * 1024  # after de-chunking; 413
    max_pipelined: int = 16  # requests waiting behind the one being answered; reading stops there
    max_connections: int = 65_536  # one more is answered 503 and closed
    head_timeout: float = 10.0  # from the first byte of a request to the end of its headers; 408
    body_timeout: float = 60.0  # from the end of the headers to the end of the body; 408
    keep_alive_timeout: float = 75.0  # silence between two requests; closed without a word
    write_timeout: float = 30.0  # a caller that takes no byte for so long is dropped
    high_water: int = 65_536  # unsent bytes of one answer before its source is told to pause
    drain_seconds: float = 30.0  # at shutdown, what requests in flight get before they are cancelled


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to talk to one upstream. Sizes in bytes, spans in seconds."""

    connect_timeout: float = 5.0  # address look-up, TCP and TLS together
    keep_alive: float = 60.0  # an idle connection older than this is not used again
    stale_window: float = 1.0  # a reused connection that closes within this, unanswered, was dead before: try a new one
    max_idle: int = 1_024  # idle connections kept; one more is closed
    max_connections: int = 16_384  # open at once; one more fails with `connect`
    max_head_bytes: int = 65_536  # status line and headers of an answer
    max_headers: int = 256


class FetchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be fetched for a caller, who names the URL. Sizes in bytes, spans in seconds."""

    ports: tuple[int, ...] = (80, 443)
    hosts: tuple[str, ...] = ()  # only these; `.example.com` is every name below that one. Empty: any public host
    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000  # of the decoded picture: 150 MB as RGB
    max_redirects: int = 3
    max_concurrent: int = 8  # with max_bytes, this bounds memory; further ones wait
    timeout: float = 10.0  # waiting, names, redirects and bytes together
    max_head_bytes: int = 16_384
