"""Where a caller is: the address of the connection or, from a proxy that we trust, what it says."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from penstock.gateway.exchange import Exchange

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def address_of(exchange: Exchange, proxies: Sequence[Network]) -> Address | None:
    """None when it is not known.

    `X-Forwarded-For` is read from its end, where the nearest proxy has written, and only as far as each who wrote is
    itself one of `proxies`: what stands before that may have been made up by the caller.
    """
    address = _parse(exchange.peer)
    if not proxies or address is None or not _inside(address, proxies):
        return address
    said = b",".join(exchange.values(b"x-forwarded-for"))
    for text in reversed(said.decode("latin-1").split(",") if said else ()):
        address = _parse(text.strip())
        if address is None or not _inside(address, proxies):
            break
    return address


def _inside(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
    """An address, maybe with a port, as some proxies write it; IPv4 within IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
