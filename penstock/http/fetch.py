"""Pictures fetched for a caller, who names the URL and must reach nothing with it that is not on the public internet.

The surprising rule: a name is looked up once, every one of its addresses must be public, and the connection goes to
one of those very addresses, so no later answer of that name server counts. Redirects are followed by hand, under the
same rules. Errors tell the caller what is wrong with the URL, never what is at the other end.
"""

import asyncio
import re
import socket as sockets
import ssl as tls
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from penstock.core.errors import BadRequest
from penstock.http.client import Call, Pool, TransportError
from penstock.http.options import ClientOptions, FetchOptions
from penstock.http.wheel import Wheel
from penstock.wire.picture import MediaType, picture_of

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name and a port. Raises `OSError` when there are none."""

MAX_URL: Final = 8_192  # characters
MAX_HEADERS: Final = 64

# Blocks that are not public, or lead to some that are not. Sources: the IANA special-purpose address registries, RFC
# 6890. Written out because what `ipaddress` calls global changes between Python's releases.
_PRIVATE_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
            "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
            "168.63.129.16/32",  # a public address on paper: the platform's own services inside Azure
        ),
    )
)  # fmt: skip
_PUBLIC_6: Final = IPv6Network("2000::/3")  # all that is in use; NAT64, mapped, unique local and the like are outside
_PRIVATE_6: Final = tuple(
    map(
        IPv6Network,
        # Protocol assignments with Teredo, documentation, 6to4, AS112, documentation.
        ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # RFC 5214: an IPv4 address follows, and packets go there

_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\\]").search
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?").fullmatch
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*").fullmatch
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class MediaRefused(BadRequest):
    """The caller's URL was not fetched. `detail` is for our own log: it may name addresses."""

    code = "invalid_media_url"

    def __init__(self, message: str, *, param: str | None, detail: str) -> None:
        super().__init__(f"`{param}`: {message}" if param else message, param=param)
        self.detail = detail


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """A picture. `media_type` is what its bytes say."""

    media_type: MediaType
    data: bytes


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach it, and reaching it is reaching nothing of ours."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _PRIVATE_4)
    if address not in _PUBLIC_6 or address.scope_id is not None:
        return False
    return not any(address in block for block in _PRIVATE_6) and int(address) >> 32 & 0xFFFF_FFFF not in _ISATAP


class Fetcher:
    """Fetches pictures, a few at a time. Made once and used from one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        resolve: Resolve | None = None,
        options: FetchOptions | None = None,
        *,
        allows: Callable[[Address], bool] = is_public,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        """`resolve`: instead of the system's own. `allows`: which addresses may be connected to."""
        self._loop = loop
        self._resolve = resolve if resolve is not None else self._look_up
        self._options = options if options is not None else FetchOptions()
        self._allows = allows
        if ssl is None:
            ssl = tls.create_default_context()
            ssl.set_alpn_protocols(["http/1.1"])
        self._ssl = ssl
        self._wheel = Wheel(loop)
        self._slots = asyncio.Semaphore(self._options.max_concurrent)

    async def fetch(self, url: str, *, param: str | None = None) -> Fetched:
        """The picture at `url`. `param` is the field that holds it, for the error. Raises `MediaRefused`."""
        try:
            async with asyncio.timeout(self._options.timeout), self._slots:
                data = await self._follow(url)
            return self._judged(data)
        except _Refused as refused:
            raise MediaRefused(refused.message, param=param, detail=refused.detail) from None
        except TimeoutError:
            message = f"it could not be fetched within {self._options.timeout:g} s"
            raise MediaRefused(message, param=param, detail="timeout") from None

    async def _follow(self, url: str) -> bytes:
        for _ in range(self._options.max_redirects + 1):
            target = _target(url, self._options)
            answer = await self._get(target, await self._address(target))
            if isinstance(answer, bytes):
                return answer
            try:
                url = urljoin(url, answer.location)
            except ValueError:
                raise _Refused("it redirects to something that is not a URL", target.host) from None
            if target.scheme == "https" and not url[:6].lower() == "https:":
                raise _Refused("it redirects from https to something else", target.host)
        raise _Refused(f"it redirects more than {self._options.max_redirects} times", target.host)

    async def _address(self, target: "_Target") -> str:
        """Where to connect. All addresses must be allowed: which of them is taken should not matter."""
        if target.literal is not None:
            addresses = [target.literal]
        else:
            try:
                addresses = [ip_address(answer) for answer in await self._resolve(target.host, target.port)]
            except (OSError, ValueError) as error:
                raise _Refused(_UNREACHABLE, f"{target.host}: {error}") from None
        refused = [str(address) for address in addresses if not self._allows(address)]
        if refused or not addresses:
            raise _Refused(_UNREACHABLE, f"{target.host} is at {', '.join(refused) or 'no address'}")
        return str(addresses[0])

    async def _look_up(self, host: str, port: int) -> list[str]:
        # With the final dot, since search domains would lead to names of ours.
        found = await self._loop.getaddrinfo(f"{host}.", port, type=sockets.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]

    async def _get(self, target: "_Target", address: str) -> "bytes | _Moved":
        options = self._options
        limits = ClientOptions(
            connect_timeout=options.timeout, max_head_bytes=options.max_head_bytes, max_headers=MAX_HEADERS
        )
        ssl = self._ssl if target.scheme == "https" else None
        pool = Pool(target.origin, options=limits, ssl=ssl, loop=self._loop, wheel=self._wheel, address=address)
        answer = _Answer(self._loop, options.max_bytes)
        head = b"GET %b HTTP/1.1\r\nhost: %b\r\n" % (target.path.encode(), pool.host)
        answer.call = pool.send(head, _HEADERS, b"", answer)
        try:
            outcome = await answer.outcome
        finally:
            answer.call.close()
            pool.abort()
        if isinstance(outcome, _Refused):
            raise outcome
        return outcome

    def _judged(self, data: bytes) -> Fetched:
        picture = picture_of(data)
        if picture is None:
            raise _Refused("it is not a PNG, JPEG, WebP or GIF picture", f"{len(data)} bytes")
        if picture.width * picture.height > self._options.max_pixels:
            size = f"{picture.width} x {picture.height}"
            raise _Refused(f"the picture has {size} pixels, more than {self._options.max_pixels}", size)
        return Fetched(picture.media_type, data)


_HEADERS: Final = b"user-agent: penstock\r\naccept: image/*\r\naccept-encoding: identity\r\nconnection: close\r\n"
# One text for a name that does not exist, an address that is private and a port that is closed: anything finer would
# let a caller map our network.
_UNREACHABLE: Final = "it could not be fetched"


class _Refused(Exception):
    """`message` is for the caller, `detail` for us."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.message, self.detail = message, detail


class _Moved(msgspec.Struct, frozen=True):
    location: str


class _Target(msgspec.Struct, frozen=True):
    """Where a URL leads. `host` is ASCII in lower case, without a final dot; `literal` is set when it is an address."""

    scheme: str
    host: str
    port: int
    path: str
    origin: str
    literal: Address | None


def _target(url: str, options: FetchOptions) -> _Target:
    """Take a URL apart, once: what is checked is what is connected to. Raises `_Refused`."""
    if len(url) > MAX_URL or _UNFIT(url):
        raise _Refused("it is not a URL, or one of more than 8192 characters", f"{len(url)} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise _Refused("it is not a URL", str(error)) from None
    if parts.scheme not in _PORTS:
        raise _Refused("only http:// and https:// URLs can be fetched", parts.scheme)
    if "@" in parts.netloc:
        raise _Refused("credentials in a URL are not accepted", host)
    if port is None:
        port = _PORTS[parts.scheme]
    if port not in options.ports:
        raise _Refused(f"port {port} is not one of {', '.join(map(str, options.ports))}", host)
    literal: Address | None
    if "[" in parts.netloc:
        literal = _literal(host)
        host = str(literal)
        shown = f"[{host}]"
    else:
        host = shown = _name(host)
        literal = _literal(host) if _NUMBER(host.rpartition(".")[2]) else None
    if options.hosts and not any(
        host == allowed or (allowed.startswith(".") and host.endswith(allowed)) for allowed in options.hosts
    ):
        raise _Refused("its host is not one that this server may fetch from", host)
    if port != _PORTS[parts.scheme]:
        shown += f":{port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]|^`{}")
    return _Target(parts.scheme, host, port, path, f"{parts.scheme}://{shown}", literal)


def _literal(host: str) -> Address:
    """An address as it is usually written. What the C library would take besides (0x7f.1, 017700000001, 2130706433) has
    no honest use.
    """
    try:
        address = ip_address(host)
    except ValueError:
        raise _Refused("its host is not an address as it is usually written", host) from None
    return address


def _name(host: str) -> str:
    """A host name as it is looked up. Raises `_Refused`."""
    try:
        name = (host if host.isascii() else host.encode("idna").decode("ascii")).lower().removesuffix(".")
    except UnicodeError as error:
        raise _Refused("its host is not a name", f"{host}: {error}") from None
    if len(name) > 253 or not all(map(_LABEL, name.split("."))):
        raise _Refused("its host is not a name", host)
    return name


class _Answer:
    """What comes back, up to a limit."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        self.outcome: asyncio.Future[bytes | _Moved | _Refused] = loop.create_future()
        self.call: Call | None = None
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._n_bytes = 0

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        values = dict(headers)
        if status in _REDIRECTS and values.get(b"location"):
            self._end(_Moved(values[b"location"].decode("utf-8", "replace")))
        elif status != 200:
            self._end(_Refused(f"its server answered with status {status}", f"status {status}"))
        elif values.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            self._end(_Refused("its server sent it compressed, unasked", repr(values[b"content-encoding"])))
        elif values.get(b"content-length", b"").isdigit() and int(values[b"content-length"]) > self._max_bytes:
            self._refuse_size()

    def on_data(self, data: bytes, ended: bool) -> None:
        self._parts.append(data)
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            self._refuse_size()
        elif ended:
            self._end(b"".join(self._parts))

    def on_failure(self, failure: TransportError) -> None:
        self._end(_Refused(_UNREACHABLE, str(failure)))

    def _refuse_size(self) -> None:
        self._end(_Refused(f"it has more than {self._max_bytes} bytes", "too large"))

    def _end(self, outcome: "bytes | _Moved | _Refused") -> None:
        """Nothing more is wanted, and none of it should be read."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)
        assert self.call is not None, "nothing is answered before it was sent"
        self.call.close()
