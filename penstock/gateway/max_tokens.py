"""A model's policy on how long answers may be. What a caller has said is refused or left as it is, never changed."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import structs

from penstock.config.spec import MaxTokens
from penstock.core.errors import BadRequest
from penstock.core.request import Endpoint, Request

CAPS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_NAMES: Final = {
    Endpoint.COMPLETION: "max_tokens",
    Endpoint.MESSAGES: "max_tokens",
    Endpoint.RESPONSES: "max_output_tokens",
}


def is_capped(request: Request) -> bool:
    """Its caller has said how long the answer may be."""
    fields = request.fields
    return any(name in fields and fields[name] != b"null" for name in CAPS)


def at_most(most: int, chat_name: str, request: Request) -> Request | None:
    """The request with `most` tokens for its answer; None where it asks for no more, or its answer has no maximum.
    `chat_name` as for `held_to`."""
    fields = request.fields
    said: list[str] = [one for one in CAPS if one in fields and fields[one] != b"null"]
    name = chat_name if request.endpoint is Endpoint.CHAT else _NAMES.get(request.endpoint)
    # who thinks before the answer has a budget for that, which would not fit any more
    if name is None or (said and request.max_tokens <= most) or "thinking" in fields:
        return None
    text = msgspec.Raw(b"%d" % most)
    return structs.replace(request, fields=fields | dict.fromkeys(said or [name], text), max_tokens=most)


def held_to(policy: MaxTokens, chat_name: str, request: Request) -> tuple[Request, bytes]:
    """The request under `policy`, and the header line that tells its caller of what was put into it, or nothing.

    `chat_name` is what upstreams call the maximum in chat completions. Raises `BadRequest` for more than is allowed.
    """
    name = chat_name if request.endpoint is Endpoint.CHAT else _NAMES.get(request.endpoint)
    if name is None:
        return request, b""
    if is_capped(request):
        if policy.most is not None and request.max_tokens > policy.most:
            said = next(one for one in CAPS if one in request.fields)
            raise BadRequest(
                f"`{said}` is {request.max_tokens}; answers of the model {request.model!r} have at most {policy.most} "
                "tokens here",
                param=said,
            )
        return request, b""
    if policy.default is None:
        return request, b""
    text = b"%d" % policy.default
    fields = request.fields | {name: msgspec.Raw(text)}
    return structs.replace(request, fields=fields, max_tokens=policy.default), b"x-penstock-max-tokens: %b\r\n" % text
