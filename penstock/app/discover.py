"""Asks engines which models they have, for a start without a file: `penstock serve http://10.0.0.4:8000`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.app.errors import StartError
from penstock.config import addresses
from penstock.http.client import Pool, TransportError

ANSWER_WITHIN: Final = 5.0  # seconds
MAX_ANSWER: Final = 4 * 1024 * 1024  # bytes
MAX_MODELS: Final = 100  # of one engine


class _Row(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Row]


async def discover(targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The models of every target that is an address, by target. Raises `StartError` when one cannot be asked."""
    found: dict[str, tuple[str, ...]] = {}
    for target in targets:
        address = target if "=" not in target.partition("://")[0] else target.partition("=")[2]
        if "://" in address or address.startswith("unix:"):
            found[target] = await _models(address)
    return found


async def _models(text: str) -> tuple[str, ...]:
    try:
        address = addresses.parse(text)
    except ValueError as error:
        raise StartError(f"`{text}` {error}") from None
    pool = Pool(address.origin)
    answer = _Answer()
    host = pool.host.decode()
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            pool.send(f"GET {address.base_path}/models HTTP/1.1\r\nhost: {host}\r\n".encode(), b"", b"", answer)
            status, body = await answer.whole
        names = tuple(row.id for row in msgspec.json.decode(body, type=_List).data[:MAX_MODELS])
    except TimeoutError:
        raise StartError(f"{text} did not answer within {ANSWER_WITHIN:g} s. Is the engine running there?") from None
    except TransportError as error:
        raise StartError(f"{text} cannot be reached ({error.detail}). Start the engine first.") from None
    except msgspec.DecodeError:
        raise StartError(
            f"{text} answered {address.base_path}/models with status {status} and no list of models. "
            "Is it an OpenAI-compatible server? If it wants a key, write a file: `penstock init`."
        ) from None
    finally:
        pool.abort()
    if not names:
        raise StartError(f"{text} says that it has no models. Load one there first.")
    return names


class _Answer:
    """Receives one small answer whole."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = bytearray()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status

    def on_data(self, data: bytes, ended: bool) -> None:
        self._body += data
        if (ended or len(self._body) > MAX_ANSWER) and not self.whole.done():
            self.whole.set_result((self._status, bytes(self._body)))

    def on_failure(self, failure: TransportError) -> None:
        if not self.whole.done():
            self.whole.set_exception(failure)
