"""Pictures that a request only points at, fetched by us and put into it, because no engine may be made to fetch what a
caller names. Where the configuration does not allow it, such a request is refused.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from msgspec import structs

from penstock.core.errors import BadRequest
from penstock.core.request import Request
from penstock.wire.media import Reference, with_inlined

MAX_PICTURES: Final = 16  # fetched for one request: with the limit of each, this bounds its memory


class Picture(Protocol):
    @property
    def media_type(self) -> str: ...

    @property
    def data(self) -> bytes: ...


class Fetcher(Protocol):
    """`http.fetch.Fetcher`, or a fake."""

    async def fetch(self, url: str, *, param: str | None = None) -> Picture:
        """Raises `BadRequest` for a URL that may not be fetched, or does not lead to a picture."""
        ...


class RemoteMediaRefused(BadRequest):
    code = "remote_media_refused"


async def inlined(request: Request, remote: list[Reference], fetcher: Fetcher | None) -> Request:
    """The request with the pictures that `remote` points at. Raises `BadRequest` naming the part at fault."""
    first = remote[0]
    if fetcher is None:
        raise RemoteMediaRefused(
            f"`{first.param}` is a URL, and this gateway does not fetch. Send the picture itself, as a data: URL.",
            param=first.param,
        )
    by_url = {reference.url: reference for reference in remote}
    if len(by_url) > MAX_PICTURES:
        raise RemoteMediaRefused(f"more than {MAX_PICTURES} pictures to fetch for one request", param=first.param)
    for reference in remote:
        if reference.kind != "image":
            raise RemoteMediaRefused(
                f"`{reference.param}` is a URL of {reference.kind}; only pictures are fetched. Send it inline.",
                param=reference.param,
            )
    async with asyncio.TaskGroup() as group:
        fetches = {url: group.create_task(_fetch(fetcher, reference)) for url, reference in by_url.items()}
    pictures = {url: task.result() for url, task in fetches.items()}
    for found in pictures.values():
        if isinstance(found, BadRequest):
            raise found
    media = {
        reference: (picture.media_type, picture.data)
        for reference in remote
        if not isinstance(picture := pictures[reference.url], BadRequest)
    }
    return structs.replace(request, fields=with_inlined(request.fields, request.endpoint, media))


async def _fetch(fetcher: Fetcher, reference: Reference) -> Picture | BadRequest:
    try:
        return await fetcher.fetch(reference.url, param=reference.param)
    except BadRequest as error:  # as a value: a task group would wrap it
        return error
