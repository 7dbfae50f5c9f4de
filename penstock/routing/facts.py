"""What routing knows of a request: plain values, of which only those are looked up that something asks for.

Bodies are read in any dialect and without trust: what cannot be read is "" or 0, never an error, except that text which
could not be read counts as `opaque`, because nobody can say that nothing private is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

import msgspec

from penstock.core.request import Attribution, Request
from penstock.routing.language import language_of

SECRET_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token"}
)
MAX_HEADER: Final = 256  # characters of a header that are looked at
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Facts(msgspec.Struct, frozen=True, gc=False):
    """Everything a rule may ask about, under the name that it has there. `language` is a code of ISO 639-1 or "",
    `weekday` 1 (Monday) to 7, `difficulty` 0 to 1, `pii` the kinds of personal data that were found."""

    model: str = ""
    endpoint: str = ""
    org: str = ""
    team: str = ""
    key: str = ""
    user: str = ""  # hashed
    feature: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    priority: str = "normal"
    stream: bool = False
    prompt_tokens: int = 0
    max_tokens: int = 0
    turns: int = 0
    tools: int = 0
    images: int = 0
    json: bool = False  # the answer must be JSON
    opaque: bool = False  # pictures, audio or files, or a body that could not be read
    language: str = ""
    difficulty: float = 0.0
    pii: tuple[str, ...] = ()
    hour: int = 0
    weekday: int = 1
    headers: Mapping[str, str] = _NO_HEADERS


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A body, as far as somebody asked. `words` is what was said in the conversation, `last` its last turn, and
    `everything` every text anywhere in the body."""

    words: str = ""
    last: str = ""
    everything: str = ""
    turns: int = 0
    images: int = 0
    opaque: bool = False


OF_WORDS: Final = frozenset({"language", "difficulty", "turns", "images", "opaque", "pii"})
"""Facts for which the conversation has to be read."""
_CONVERSATION: Final = ("instructions", "system", "messages", "input", "prompt", "query", "documents")
_MEDIA: Final = frozenset(
    {"image_url", "input_image", "image", "input_audio", "audio", "file", "input_file", "document", "video"}
)
_PICTURES: Final = frozenset({"image_url", "input_image", "image"})
_NO_WORDS: Final = frozenset(
    {"type", "role", "id", "data", "url", "image_url", "file_data", "file_id", "tool_call_id", "call_id", "media_type"}
)
_NOT_THE_CALLERS: Final = frozenset({"model", "stream", "stream_options"})
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode = msgspec.json.Decoder().decode
_list_of_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


def facts_of(
    request: Request,
    said: Attribution,
    header: Callable[[bytes], bytes | None],
    wall: float,
    zone: tzinfo,
    needs: frozenset[str],
    headers: Iterable[str] = (),
    reading: Reading | None = None,
) -> Facts:
    """`needs` are the names of facts that may be asked for; others have their defaults, where they would cost
    something. `wall` is Unix seconds, `zone` whose hours are meant. Difficulty and personal data are the router's to
    add: they depend on its options.
    """
    caller, fields = request.caller, request.fields
    hour, weekday = 0, 1
    if "hour" in needs or "weekday" in needs:
        there = datetime.fromtimestamp(wall, zone)
        hour, weekday = there.hour, there.isoweekday()
    if reading is None:
        reading = read(request) if needs & OF_WORDS else Reading()
    return Facts(
        model=request.model,
        endpoint=str(request.endpoint),
        org=caller.org,
        team=caller.team,
        key=caller.key_id,
        user=said.user_hash,
        feature=said.feature,
        session=said.session,
        tags=said.tags,
        priority=str(caller.priority),
        stream=request.stream,
        prompt_tokens=request.prompt_tokens,
        max_tokens=request.max_tokens,
        turns=reading.turns,
        tools=_n_tools(fields) if "tools" in needs else 0,
        images=reading.images,
        json=_wants_json(fields) if "json" in needs else False,
        opaque=reading.opaque,
        language=language_of(reading.words) if "language" in needs else "",
        hour=hour,
        weekday=weekday,
        headers={name: _shown(header(name.encode())) for name in headers} if headers else _NO_HEADERS,
    )


def read(request: Request, *, everything: bool = False) -> Reading:
    """The request's texts. Never raises."""
    reading = reading_of(request.fields, everything=everything)
    return msgspec.structs.replace(reading, opaque=True) if request.form else reading


def reading_of(fields: Mapping[str, msgspec.Raw], *, everything: bool = False) -> Reading:
    """The texts of a body. Never raises."""
    words: list[str] = []
    last: list[str] = []
    rest: list[str] = []
    turns = images = 0
    opaque = False
    for name in _CONVERSATION:
        raw = fields.get(name)
        if raw is None:
            continue
        try:
            value = _decode(raw)
        except _UNREADABLE:
            opaque = True
            continue
        found: list[str] = []
        pictures, media = _texts(value, found, _NO_WORDS)
        images += pictures
        opaque = opaque or media
        words += found
        if name in ("messages", "input", "prompt", "query"):
            turns += _turns(value)
            last = []
            _texts(value[-1] if isinstance(value, list) and value else value, last, _NO_WORDS)
    if everything:
        for name, raw in fields.items():
            if name in _NOT_THE_CALLERS or name in _CONVERSATION:
                continue
            try:
                _texts(_decode(raw), rest, frozenset())
            except _UNREADABLE:
                opaque = True
    said = "\n".join(words)
    return Reading(
        words=said,
        last="\n".join(last),
        everything="\n".join((said, *rest)) if everything else "",
        turns=turns,
        images=images,
        opaque=opaque,
    )


def _texts(value: Any, into: list[str], without: frozenset[str]) -> tuple[int, bool]:
    """Adds the texts in `value`, in their order; how many pictures there are, and whether there is other media. Depth
    costs no stack."""
    images, media = 0, False
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            into.append(one)
        elif isinstance(one, list):
            left += reversed(one)
        elif isinstance(one, dict):
            sort = one.get("type")
            if isinstance(sort, str) and sort in _MEDIA:
                images += sort in _PICTURES
                media = True
            left += [inner for name, inner in reversed(one.items()) if name not in without or isinstance(inner, dict)]
    return images, media


def _turns(value: Any) -> int:
    """Turns of the user."""
    if not isinstance(value, list):
        return 1
    return sum(1 for turn in value if isinstance(turn, dict) and turn.get("role") == "user")


def _n_tools(fields: Mapping[str, msgspec.Raw]) -> int:
    raw = fields.get("tools") or fields.get("functions")
    if raw is None:
        return 0
    try:
        return len(_list_of_raw(raw))
    except _UNREADABLE:
        return 0


def _wants_json(fields: Mapping[str, msgspec.Raw]) -> bool:
    """OpenAI's `response_format`, the Responses API's `text.format`, Anthropic's `output_format`."""
    for name in ("response_format", "output_format", "text"):
        raw = fields.get(name)
        if raw is None:
            continue
        try:
            value = _decode(raw)
        except _UNREADABLE:
            continue
        if isinstance(value, dict) and name == "text":
            value = value.get("format")
        if isinstance(value, dict) and value.get("type") in ("json_object", "json_schema"):
            return True
    return False


def _shown(value: bytes | None) -> str:
    return "" if value is None else value[:MAX_HEADER].decode("latin-1")
