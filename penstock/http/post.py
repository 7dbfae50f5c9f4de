"""One small JSON document by POST, to an address that somebody has configured. Its answer is a status."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from penstock.http.get import GetFailed, ask

MAX_ANSWER: Final = 64 * 1024  # bytes; more counts as not taken
_TAKEN: Final = range(200, 300)


class PostFailed(Exception):
    """Why it was not taken; never with the address, which may be a secret."""


async def post(url: str, body: bytes, *, seconds: float) -> None:
    """Raises `PostFailed` for everything but a status of 2xx within the time."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        await ask(origin, b"POST", path, body, max_bytes=MAX_ANSWER, seconds=seconds, fine=_TAKEN)
    except GetFailed as failed:
        raise PostFailed(str(failed).replace(origin, "it")) from None
    except ValueError:  # no origin, or not ASCII
        raise PostFailed("its address is not of the form https://host/path") from None
