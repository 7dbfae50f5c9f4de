"""A caller who names a URL reaches the public internet with it and nothing else, and learns nothing about us."""

import asyncio
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from penstock.http.fetch import MAX_URL, Fetched, Fetcher, MediaRefused, is_public
from penstock.http.options import FetchOptions
from penstock.wire.picture import picture_of
from tests.http.raw import upstream

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x02\x00\x00\x00\x03\x08\x02\x00\x00\x00" + bytes(20)
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(PNG), PNG)
PARAM = "messages[0].content[0].image_url.url"
Answers = Callable[[bytes], bytes]


class Site:
    """A server on loopback, a name server that knows only it, and the fetcher that may reach it."""

    def __init__(self, origin: str, heads: list[bytes], ssl: ssl.SSLContext | None) -> None:
        self.heads = heads
        self.port = int(origin.rpartition(":")[2])
        self.asked: list[str] = []
        self.addresses: dict[str, list[str]] = {}
        self.ssl = ssl

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name on 10.1.2.3")
        return self.addresses.get(host, ["127.0.0.1"])

    def fetcher(self, **options: Any) -> Fetcher:
        allows = options.pop("allows", lambda address: address.is_loopback or is_public(address))
        settings = FetchOptions(**{"ports": (self.port, 80), "timeout": 5.0, **options})
        return Fetcher(asyncio.get_running_loop(), self.resolve, settings, allows=allows, ssl=self.ssl)

    async def fetch(self, url: str = "http://pictures.example/a.png", **options: Any) -> Fetched:
        """`url` without a port gets the site's."""
        if url.count(":") == 1:
            scheme, slashes, rest = url.partition("://")
            host, slash, path = rest.partition("/")
            url = f"{scheme}{slashes}{host}:{self.port}{slash}{path}"
        return await self.fetcher(**options).fetch(url, param=PARAM)


@asynccontextmanager
async def site(answer: bytes | Answers = OK, client: ssl.SSLContext | None = None, **listen: Any):
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer if isinstance(answer, bytes) else answer(heads[-1]))
        await writer.drain()
        await reader.read()

    async with upstream(serve, **listen) as origin:
        yield Site(origin, heads, client)


async def refusal_of(fetching: Any) -> MediaRefused:
    with pytest.raises(MediaRefused) as refused:
        await fetching
    error = refused.value
    assert (error.status, error.param) == (400, PARAM)
    assert error.message.startswith(f"`{PARAM}`: ")
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|::|errno|refused by|Errno", error.message), error.message
    return error


def test_a_picture_is_fetched_by_name_from_the_address_that_was_checked(run):
    async def main() -> None:
        async with site() as world:
            fetched = await world.fetch("http://Pictures.Example./ä/a b.png?q=ü#part".replace(" ", "%20"))
            assert fetched == Fetched("image/png", PNG), "the type is that of the bytes, not of the header"
            assert world.asked == ["pictures.example"]
            assert world.heads == [
                b"GET /%%C3%%A4/a%%20b.png?q=%%C3%%BC HTTP/1.1\r\nhost: pictures.example:%d\r\nuser-agent: penstock\r\n"
                b"accept: image/*\r\naccept-encoding: identity\r\nconnection: close\r\n\r\n" % world.port
            ]

    run(main())


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://pictures.example/a", "only http"),
        ("file:///etc/passwd", "only http"),
        ("gopher://pictures.example/_x", "only http"),
        ("//pictures.example/a", "only http"),
        ("/etc/passwd", "only http"),
        ("", "only http"),
        ("http://user:password@pictures.example/a", "credentials"),
        ("http://pictures.example@127.0.0.1/a", "credentials"),
        ("http://@pictures.example/a", "credentials"),
        ("http://pictures.example:22/a", "port 22"),
        ("http://pictures.example:0/a", "port 0"),
        ("http://pictures.example:99999/a", "not a URL"),
        ("http://pictures.example:x/a", "not a URL"),
        ("http://[::1/a", "not a URL"),
        ("http:///a", "not a name"),
        ("http://a..example/", "not a name"),
        ("http://pictures.example../", "not a name"),
        ("http://pict%75res.example/", "not a name"),
        ("http://" + "a" * 64 + ".example/", "not a name"),
        ("http://" + "a." * 130 + "example/", "not a name"),
        ("http://pictures.example\\@127.0.0.1/", "not a URL"),
        ("http://pictures.example\t/", "not a URL"),
        (" http://pictures.example/", "not a URL"),
        ("http://pictures.example/\r\nx: y", "not a URL"),
        ("http://pictures.example/" + "a" * MAX_URL, "not a URL"),
        ("http://0x7f000001/", "usually written"),
        ("http://2130706433/", "usually written"),
        ("http://017700000001/", "usually written"),
        ("http://0x7f.1/", "usually written"),
        ("http://0x/", "usually written"),
        ("http://127.1/", "usually written"),
        ("http://127.0.0.01/", "usually written"),
        ("http://8.8.8.8.8/", "usually written"),
        ("http://[fe80::1%25eth0]/", "could not be fetched"),
        ("http://１２７.1/", "usually written"),
    ],
)
def test_a_url_that_is_not_plain_is_refused_before_any_name_is_looked_up(run, url, word):
    async def main() -> None:
        async with site() as world:
            error = await refusal_of(world.fetcher(allows=is_public).fetch(url, param=PARAM))
            assert word in error.message
            assert not world.asked
            assert not world.heads

    run(main())


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1.", "10.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "[fd00:ec2::254]", "①②⑦.0.0.1"),
        *("１２７。０。０。１", "168.63.129.16", "100.100.100.200", "[::127.0.0.1]", "[2002:7f00:1::1]"),
    ],
)
def test_an_address_of_ours_in_the_url_is_refused_however_it_is_written(run, host):
    async def main() -> None:
        async with site() as world:
            error = await refusal_of(world.fetcher(allows=is_public).fetch(f"http://{host}:{world.port}/", param=PARAM))
            assert error.message.endswith("it could not be fetched")
            assert not world.asked
            assert not world.heads

    run(main())


NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1"),
    *("192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::127.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::8.8.8.8"),
    *("64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:0:7f00:1::1", "2001:2::1", "2001:10::1"),
    *("2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "4000::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2600::5efe:7f00:1"),
    *("2600::200:5efe:a00:1", "2606:4700::1111%eth0"),
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_unicast_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "192.0.1.1", "2606:4700::1111", "2a00::1"],
)
def test_an_address_of_the_public_internet_is_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_whatever_python_calls_private_is_not_public_either(rng):
    for _ in range(3_000):
        four, six = ipaddress.IPv4Address(rng.getrandbits(32)), ipaddress.IPv6Address(rng.getrandbits(128))
        for address in (four, six, ipaddress.IPv6Address(0x2000 << 112 | int(six) >> 4)):
            if is_public(address):
                assert address.is_global
                assert not address.is_multicast


@pytest.mark.parametrize(
    "answers", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "::ffff:10.0.0.1"], [], ["not an address"]]
)
def test_a_name_with_one_address_that_is_not_public_is_refused_whole(run, answers):
    async def main() -> None:
        async with site() as world:
            world.addresses["pictures.example"] = answers
            error = await refusal_of(world.fetch())
            assert error.message.endswith("it could not be fetched")
            assert not world.heads

    run(main())


def test_a_name_that_changes_its_address_between_check_and_use_gains_nothing(run):
    async def main() -> None:
        async with site() as world:
            answers = [["127.0.0.1"], ["169.254.169.254"]]

            async def resolve(host: str, port: int) -> list[str]:
                return answers.pop(0)

            world.resolve = resolve  # type: ignore[method-assign]  # a name server of its own
            assert (await world.fetch()).data == PNG
            assert answers == [["169.254.169.254"]], "it was asked once, and the first answer was dialled"

    run(main())


def test_what_is_wrong_behind_a_name_cannot_be_told_apart(run):
    """Unknown, private or closed: one text, or a caller could map our network."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()[1]
        async with site(b"SSH-2.0-OpenSSH\r\n") as world:
            world.addresses["private.example"] = ["10.0.0.1"]
            urls = [f"http://{host}.example:{world.port}/" for host in ("unknown", "private", "not-http")]
            urls += [f"http://closed.example:{closed}/"]
            fetcher = world.fetcher(ports=(world.port, closed))
            errors = [await refusal_of(fetcher.fetch(url, param=PARAM)) for url in urls]
            assert {error.message for error in errors} == {f"`{PARAM}`: it could not be fetched"}
            assert "private.example is at 10.0.0.1" in errors[1].detail, "our own log says why"

    run(main())


def test_the_host_list_is_exact_or_by_suffix(run):
    async def main() -> None:
        async with site() as world:
            hosts = ("pictures.example", ".cdn.example")
            for good in ("pictures.example", "PICTURES.example.", "a.cdn.example"):
                assert (await world.fetch(f"http://{good}/", hosts=hosts)).data == PNG
            for bad in ("cdn.example", "evilcdn.example", "pictures.example.evil.example", "127.0.0.1"):
                assert "may fetch from" in (await refusal_of(world.fetch(f"http://{bad}/", hosts=hosts))).message

    run(main())


def test_a_name_in_another_alphabet_is_looked_up_and_asked_for_in_ascii(run):
    async def main() -> None:
        async with site() as world:
            await world.fetch("http://Bücher.example/")
            assert world.asked == ["xn--bcher-kva.example"]
            assert b"host: xn--bcher-kva.example:" in world.heads[0]

    run(main())


def redirecting(to: Callable[[int], str], times: int) -> Answers:
    n = 0

    def answer(head: bytes) -> bytes:
        nonlocal n
        n += 1
        if n > times:
            return OK
        return b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % to(n).encode()

    return answer


def test_redirects_are_followed_three_times_and_every_name_is_checked(run):
    async def main() -> None:
        async with site(redirecting(lambda n: f"/{n}", 3)) as world:
            assert (await world.fetch()).data == PNG
            assert [head.split(b" ")[1] for head in world.heads] == [b"/a.png", b"/1", b"/2", b"/3"]
            assert len(world.asked) == 4
        async with site(redirecting(lambda n: f"/{n}", 4)) as world:
            assert "redirects more than 3" in (await refusal_of(world.fetch())).message

    run(main())


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("http://169.254.169.254/latest/meta-data", "could not be fetched"),
        ("http://inside.example/", "could not be fetched"),
        ("http://2130706433/", "usually written"),
        ("file:///etc/passwd", "only http"),
        ("http://pictures.example:6379/", "port 6379"),
        ("http://a:b@pictures.example/", "credentials"),
        ("http://[", "not a URL"),
        ("http://bad host/", "not a URL"),
    ],
)
def test_a_redirect_leads_nowhere_a_url_may_not(run, location, word):
    async def main() -> None:
        async with site(redirecting(lambda n: location, 1)) as world:
            world.addresses["inside.example"] = ["10.0.0.1"]
            error = await refusal_of(world.fetch(ports=(world.port, 80)))
            assert word in error.message
            assert len(world.heads) == 1

    run(main())


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 206 Partial Content\r\ncontent-length: 0\r\n\r\n", "status 206"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "status 304"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n", "compressed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n" + bytes(4096), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + PNG + bytes(4096), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999999999\r\n\r\n", "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 65 + b"\r\n", "could not be fetched"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "not a PNG"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "not a PNG"),
    ],
)
def test_an_answer_that_is_not_a_small_plain_picture_is_refused(run, answer, word):
    async def main() -> None:
        async with site(answer) as world:
            assert word in (await refusal_of(world.fetch(max_bytes=1000))).message

    run(main())


def test_a_picture_whose_connection_ends_early_is_no_picture(run):
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK[:-1])

        async with upstream(serve) as origin:
            assert "could not" in (await refusal_of(Site(origin, [], None).fetch())).message

    run(main())


def test_a_small_file_that_would_be_a_huge_picture_is_refused(run):
    bomb = PNG[:16] + b"\x00\x00\xff\xff\x00\x00\xff\xff" + PNG[24:]
    assert picture_of(bomb) is not None

    async def main() -> None:
        async with site(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(bomb), bomb)) as world:
            assert "65535 x 65535 pixels" in (await refusal_of(world.fetch())).message
            assert (await world.fetch(max_pixels=65535 * 65535)).data == bomb

    run(main())


def test_a_server_that_sends_byte_by_byte_does_not_outlast_the_time_limit(run):
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

        async with upstream(serve) as origin:
            error = await refusal_of(Site(origin, [], None).fetch(timeout=0.1))
            assert "within 0.1 s" in error.message

    run(main())


def test_no_more_than_so_many_are_fetched_at_once_and_waiting_counts_as_time(run):
    async def main() -> None:
        release = asyncio.Event()
        open_now = most = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal open_now, most
            await reader.readuntil(b"\r\n\r\n")
            open_now += 1
            most = max(most, open_now)
            await release.wait()
            open_now -= 1
            writer.write(OK)
            await reader.read()

        async with upstream(serve) as origin:
            world = Site(origin, [], None)
            fetcher = world.fetcher(max_concurrent=2)
            url = f"http://pictures.example:{world.port}/"
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetcher.fetch(url)) for _ in range(5)]
                while open_now < 2:  # noqa: ASYNC110  the server's own count
                    await asyncio.sleep(0.001)
                release.set()
            assert [task.result().data for task in tasks] == [PNG] * 5
            assert most == 2
            release.clear()
            fetcher = world.fetcher(max_concurrent=1, timeout=0.05)
            results = await asyncio.gather(*(fetcher.fetch(url) for _ in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [MediaRefused] * 3
            release.set()

    run(main())


def test_a_cancelled_fetch_lets_go_of_its_connection(run):
    async def main() -> None:
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            task.cancel()
            await reader.read()
            gone.set()

        async with upstream(serve) as origin:
            task = asyncio.get_running_loop().create_task(Site(origin, [], None).fetch())  # awaited below
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()

    run(main())


@pytest.mark.parametrize(("certified", "works"), [("pictures.example", True), ("other.example", False)])
def test_tls_is_with_the_name_though_the_connection_is_to_an_address(run, certified, works):
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(certified).configure_cert(server)
    authority.configure_trust(client)
    names: list[str] = []
    server.sni_callback = lambda sock, name, context: names.append(name)

    async def main() -> None:
        async with site(client=client, ssl=server) as world:
            if works:
                assert (await world.fetch("https://pictures.example./a")).data == PNG
                assert b"host: pictures.example:" in world.heads[0]
            else:
                assert "could not" in (await refusal_of(world.fetch("https://pictures.example/a"))).message
                assert not world.heads
            assert names == ["pictures.example"]

    run(main())


def test_a_redirect_from_https_to_http_is_refused(run):
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("pictures.example").configure_cert(server)
    authority.configure_trust(client)

    async def main() -> None:
        async with site(redirecting(lambda n: "http://pictures.example/", 1), client, ssl=server) as world:
            assert "from https" in (await refusal_of(world.fetch("https://pictures.example/a"))).message

    run(main())


def test_by_default_the_system_is_asked_for_the_absolute_name(monkeypatch):
    """Without the final dot, search domains would turn `api.example` into a name inside our cluster."""
    asked = []

    def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> Any:
        asked.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main() -> None:
        fetching = Fetcher(asyncio.get_running_loop()).fetch("https://localhost/", param=PARAM)
        assert (await refusal_of(fetching)).detail == "localhost is at 127.0.0.1"

    asyncio.run(main())
    assert asked == [("localhost.", 443)]


def test_an_error_says_nothing_of_the_url_itself(run):
    """Signed URLs hold secrets, and errors are logged."""

    async def main() -> None:
        async with site(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n") as world:
            error = await refusal_of(world.fetch("http://pictures.example/a?signature=hush"))
            assert "hush" not in json.dumps([error.message, error.detail])

    run(main())
