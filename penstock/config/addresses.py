"""Addresses of upstreams: `http://10.0.0.4:8000/v1`, `https://host`, `unix:/run/vllm.sock`. Strict: requests and
keys are sent there.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

_HOST: Final = re.compile(r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])$")
_PATH: Final = re.compile(r"^(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$")


class Address(msgspec.Struct, frozen=True):
    """`origin` without a path; `base_path` begins with `/` or is ""."""

    origin: str
    base_path: str

    @property
    def encrypted(self) -> bool:
        return self.origin.startswith("https://")


def parse(text: str, default_path: str = "/v1") -> Address:
    """`default_path` is meant when there is no path. Raises `ValueError` saying what is wrong, without the text."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or any(ord(character) < 33 for character in path):
            raise ValueError("must name a socket by its whole path, such as unix:/run/vllm.sock")
        return Address(text, default_path)
    if not text.isascii() or any(ord(character) < 33 for character in text):
        raise ValueError("must be an address in ASCII without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be an address such as http://10.0.0.4:8000/v1") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be an address with its scheme, such as http://10.0.0.4:8000/v1")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: use `key: env:NAME`")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.removesuffix(":")
    path = parts.path.rstrip("/")
    if _HOST.match(host) is None or port == 0:
        raise ValueError("must be an address such as http://10.0.0.4:8000/v1")
    if _PATH.match(path) is None:
        raise ValueError("has a path that cannot be sent as it is")
    netloc = host.lower() if port is None else f"{host.lower()}:{port}"
    return Address(f"{parts.scheme}://{netloc}", path or default_path)
