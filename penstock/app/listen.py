"""The address to serve at: may it be used without keys, and is it free? Both are asked before anything is started."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final

from penstock.app.errors import StartError

BACKLOG: Final = 4_096
# `localhost` is ::1 too in many a file of hosts, also where the machine has no IPv6
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def tls_context(certificate: str, key: str, section: str = "server") -> ssl.SSLContext:
    """What TLS is spoken with: 1.2 or newer, and HTTP/1.1 only. Raises `StartError` for files that do not serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # a password is never asked for: nobody is at the terminal of a server
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except FileNotFoundError:
        raise StartError(f"{section}.tls: there is no {certificate}, or no {key}.") from None
    except OSError as error:  # of which an SSLError is one
        what = "the two do not belong together" if "MISMATCH" in str(error) else "they must be PEM, and readable"
        raise StartError(f"{section}.tls: {certificate} and {key} cannot be used: {what}.") from None
    return context


def loopback(host: str) -> bool:
    """Whether only this machine can reach it. A name other than `localhost` is taken for one that others can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def development_mode(host: str, *, n_keys: int, insecure_dev: bool, asked_without_file: bool) -> bool:
    """Whether to ask nobody for a key. Raises `StartError` where that would let others in."""
    if n_keys:
        if insecure_dev:
            raise StartError(
                "--insecure-dev asks for no keys, and there are some, in the configuration or in its database. "
                "Leave out one of the two: --insecure-dev, or the keys."
            )
        return False
    make_one = "Make a key with `penstock key create`"
    if not loopback(host):
        raise StartError(
            f"{host} can be reached from other machines, and there are no keys: anybody could use your models. "
            f"{make_one}, or listen on this machine only: --host 127.0.0.1 --insecure-dev."
        )
    if not insecure_dev and not asked_without_file:
        raise StartError(
            f"The configuration has no keys. {make_one}; or say that this is for development on this machine: "
            "--insecure-dev."
        )
    return True


def bind(host: str, port: int, *, shared: bool = False, section: str = "server") -> list[socket.socket]:
    """Sockets bound and not yet listening, one per address of `host`, all with the same port (0: the system chooses).

    `shared` lets other sockets of ours be bound beside them (SO_REUSEPORT); whether somebody else has the port is found
    out first. `section` is where the configuration names the address. Raises `StartError`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise StartError(f"There is no host {host!r}. Use an address of this machine, such as 127.0.0.1.") from None
    addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in addresses:
        try:
            if shared and port:
                _bind(family, str(address), port, shared=False).close()
            sockets.append(_bind(family, str(address), port, shared=shared))
            port = port or sockets[0].getsockname()[1]
        except OSError as error:
            if error.errno in _ABSENT:
                absent = error
                continue
            for bound in sockets:
                bound.close()
            raise StartError(_told(error, host, port, section)) from None
    if not sockets:
        assert absent is not None, "a host has at least one address"
        raise StartError(_told(absent, host, port, section))
    return sockets


def bind_beside(addresses: Sequence[tuple[int, str]], port: int) -> list[socket.socket]:
    """For one more worker: sockets at addresses that another process of ours holds with `shared`. Raises `OSError`."""
    return [_bind(socket.AddressFamily(family), address, port, shared=True) for family, address in addresses]


def _bind(family: socket.AddressFamily, address: str, port: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
        if not shared:
            bound.listen(BACKLOG)  # two may bind with SO_REUSEADDR, only one may listen: this is what finds the other
    except BaseException:
        bound.close()
        raise
    return bound


def _told(error: OSError, host: str, port: int, section: str) -> str:
    if error.errno == errno.EADDRINUSE:
        option = f"--port {port + 1 if port < 65535 else 8080}, or " if section == "server" else ""
        return (
            f"Port {port} on {host} is taken by another program. Stop that one (`ss -ltnp 'sport = :{port}'` shows "
            f"it), or take another: {option}{section}.port in the configuration."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"This user may not listen on port {port}. Ports below 1024 need privileges; take one above: --port 8080."
        )
    if error.errno in _ABSENT:
        return f"{host} is not an address of this machine. Use 127.0.0.1, or 0.0.0.0 for all addresses (with keys)."
    return f"Cannot listen on {host} port {port}: {error.strerror}"
