"""What must hold for any bytes: no exception but the documented ones, the same outcome however they were cut, and
agreement with a second opinion where there is one. No fuzzer in here: any test may call these.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from penstock.core.errors import BadRequest, UpstreamError
from penstock.core.request import ANYONE, Endpoint, Request
from penstock.http import fetch
from penstock.http.options import FetchOptions
from penstock.wire import anthropic, converse, gemini, openai_chat, openai_hub, openai_more, responses
from penstock.wire.canonical import Ask, Asked, Losses
from penstock.wire.converse_answer import ConverseReader
from penstock.wire.converse_answer import failure_of as converse_failure_of
from penstock.wire.dialects import CALLERS
from penstock.wire.eventstream import MessageCutter
from penstock.wire.gemini_answer import ArrayCutter, GeminiReader
from penstock.wire.gemini_answer import failure_of as gemini_failure_of
from penstock.wire.media import remote_media, with_inlined
from penstock.wire.picture import picture_of
from penstock.wire.prompts import decode_fields
from penstock.wire.readings import Passing, Reading, Translated, checked
from penstock.wire.sse import EventCutter, data_of

Target = Callable[[bytes], None]
NAME = b"claude-sonnet-4-5"
SERVED = msgspec.Raw(b'"served"')


def pieces(data: bytes, how: int) -> Iterator[bytes]:
    """`data` cut into pieces, differently for each `how`."""
    at = 0
    while at < len(data):
        size = 1 + (how * (at + 7) >> 3) % (1 + how)
        yield data[at : at + size]
        at += size


def _how(data: bytes) -> tuple[int, bytes]:
    """The first byte says how; the rest is the input."""
    return (data[0], data[1:]) if data else (0, b"")


def _ended(reading: Reading, cuts: Iterator[bytes]) -> tuple[Any, ...]:
    """What comes of a stream: its bytes and all that the receipt needs, or how it failed."""
    told = []
    try:
        told = [out for cut in cuts if (out := reading.feed(cut)[0])]
        told.append(reading.ended())
    except UpstreamError as error:
        return (error.kind, error.said)  # how much was told before depends on the cuts, as it must
    # Blank lines more than one are nothing to any client, and where they go depends on the cuts.
    out = re.sub(b"\n{3,}", b"\n\n", b"".join(told))
    return (out, reading.finish_reason, reading.billed(_request(Endpoint.CHAT)), reading.done)


def _request(endpoint: Endpoint, fields: dict[str, msgspec.Raw] | None = None) -> Request:
    return Request("r", endpoint, ANYONE, "m", True, True, 7, 9, (), fields or {}, 0.0)


# --- streams ---------------------------------------------------------------------------------------------------------


def sse(data: bytes) -> None:
    """Cutting into events, against the algorithm of the standard, line by line."""
    how, data = _how(data)
    if data[:3] != b"\xef\xbb\xbf" and data[:1] == b"\xef":
        return  # half a BOM, or a stray byte of one: no event begins like this
    first = data[:3]  # a BOM in two pieces is no BOM that anybody sends
    whole, cut = _cut([data]), _cut([first, *pieces(data[3:], how)])
    assert whole == cut, "where it was cut matters"
    assert whole[0] == _by_the_standard(data), "other events than the standard has"


def _cut(parts: list[bytes]) -> tuple[list[bytes], bool, bytes]:
    """The payloads of the events, whether one has begun, and all that came out."""
    cutter = EventCutter()
    out = b"".join(map(cutter.feed, parts))
    assert out == b"" or out.endswith(b"\n\n")
    payloads = [payload for event in out.split(b"\n\n") if (payload := data_of(event.strip(b"\n")))]
    # One blank line more than needed may still wait, or not: it is no event, and the next one brings it along.
    return payloads, cutter.holds_data, out + cutter.rest()


def _by_the_standard(data: bytes) -> list[bytes]:
    """WHATWG HTML 9.2.6, as literally as it goes; a last CR waits for what follows it."""
    data = data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\r")
    lines = re.split(b"\r\n|\r|\n", data)
    events, payload = [], []
    for line in lines[:-1]:
        if not line:
            if b"".join(payload) or len(payload) > 1:
                events.append(b"\n".join(payload))
            payload = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            payload.append(value[1:] if value[:1] == b" " else value)
    return events


METERS: list[Callable[[], Any]] = [openai_chat.Meter, anthropic.MessagesMeter, responses.ResponsesMeter]


def same_dialect(data: bytes) -> None:
    """A stream that is passed on: what the caller gets does not depend on the network, nor does the receipt."""
    how, data = _how(data)
    meter, strip = METERS[how % 3], bool(how & 4)
    whole = _ended(Passing(meter(), strip), iter([data] if data else []))
    assert whole == _ended(Passing(meter(), strip), pieces(data, how)), "where it was cut matters"


def same_dialect_plain(data: bytes) -> None:
    """A plain answer that is passed on, and an error answer."""
    how, data = _how(data)
    with suppress(UpstreamError):
        METERS[how % 3]().answer(data)
    for failure_of in (openai_chat.failure_of, anthropic.failure_of, gemini_failure_of, converse_failure_of):
        for status in (400, 401, 404, 429, 500, 529):
            assert isinstance(failure_of(status, data), UpstreamError)


ASK = Ask(model="m", messages=())
READERS: list[Callable[[], Any]] = [
    lambda: openai_hub.ChatReader(ASK, id="r"),
    lambda: anthropic.MessagesReader(anthropic.tool_names(ASK)),
    lambda: GeminiReader(ASK, id="r"),
]


def _asked(endpoint: Endpoint) -> Asked:
    return Asked(id="r", model="m", created=1, include_usage=True, prompt_tokens=7, ask=ASK)


def translated(data: bytes) -> None:
    """A stream in another dialect: likewise, and every event for the caller is one."""
    how, data = _how(data)
    endpoint = list(CALLERS)[how // 3 % 3]

    def reading() -> Translated:
        return Translated(READERS[how % 3](), CALLERS[endpoint].writer(_asked(endpoint)))

    whole = _ended(reading(), iter([data] if data else []))
    assert whole == _ended(reading(), pieces(data, how)), "where it was cut matters"
    if isinstance(whole[0], bytes):
        for event in whole[0].split(b"\n\n"):
            payload = data_of(event)
            if payload and payload != b"[DONE]":
                json.loads(payload)


def translated_plain(data: bytes) -> None:
    how, data = _how(data)
    endpoint = list(CALLERS)[how // 4 % 3]
    readers = [*READERS, lambda: ConverseReader(ASK, served=NAME.decode())]
    try:
        deltas = readers[how % 4]().whole(checked(data))
    except UpstreamError:
        return
    json.loads(CALLERS[endpoint].writer(_asked(endpoint)).whole(deltas))


def event_stream(data: bytes) -> None:
    """AWS's framing, by any cut, and against botocore where that is installed."""
    how, data = _how(data)

    def cut(parts: Iterator[bytes]) -> tuple[Any, ...]:
        cutter = MessageCutter()
        try:
            messages = [message for part in parts for message in cutter.feed(part)]
        except UpstreamError as error:
            return (error.kind,)
        return (messages, cutter.holds_data)

    whole = cut(iter([data]))
    assert whole == cut(pieces(data, how)), "where it was cut matters"
    if len(whole) == 2:
        _as_botocore_reads_it(data, whole[0])
        reader = ConverseReader(ASK, served=NAME.decode())
        with suppress(UpstreamError):
            for message in whole[0]:
                reader.message(message)


def _as_botocore_reads_it(data: bytes, messages: list[Any]) -> None:
    try:
        from botocore.eventstream import EventStreamBuffer
    except ImportError:
        return
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    theirs = [(dict(message.headers), message.payload) for message in buffer]
    assert [(message.headers, message.payload) for message in messages] == theirs


def array(data: bytes) -> None:
    """Gemini's stream without alt=sse: one array, in pieces."""
    how, data = _how(data)
    cutter, again = ArrayCutter(), ArrayCutter()
    whole = cutter.feed(data)
    assert whole == [element for part in pieces(data, how) for element in again.feed(part)]
    assert cutter.holds_data == again.holds_data
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, list) and all(isinstance(element, dict) for element in value):
            assert [json.loads(element) for element in whole] == value


# --- requests --------------------------------------------------------------------------------------------------------

PARSERS: list[tuple[Any, Any, tuple[Endpoint, ...]]] = [
    (openai_chat.parse, openai_chat.upstream_body, (Endpoint.CHAT, Endpoint.COMPLETION)),
    (anthropic.parse, anthropic.upstream_body, (Endpoint.MESSAGES, Endpoint.COUNT_TOKENS)),
    (responses.parse, responses.upstream_body, (Endpoint.RESPONSES, Endpoint.INPUT_TOKENS)),
    (openai_more.parse, openai_more.upstream_body, (Endpoint.EMBEDDING, Endpoint.RERANK, Endpoint.MODERATION)),
]


def request(data: bytes) -> None:
    """A request, read and passed on: refused, or the same but for what we say in its place."""
    how, data = _how(data)
    parse, upstream_body, endpoints = PARSERS[how % 4]
    try:
        parsed = parse(data, id="r", endpoint=endpoints[how // 4 % len(endpoints)], caller=ANYONE, now=0.0)
    except BadRequest:
        return
    body = msgspec.json.decode(upstream_body(parsed, SERVED), type=dict[str, msgspec.Raw])
    assert body.pop("model") == SERVED
    for name, value in parsed.fields.items():
        if name not in ("model", "stream_options"):
            assert body.get(name) == value, f"{name} was changed"


WRITERS: list[Callable[[Ask, Losses], bytes]] = [
    lambda ask, losses: openai_hub.write_request(ask, served="m", losses=losses),
    lambda ask, losses: openai_hub.write_request(ask, served="m", losses=losses, extensions=True),
    lambda ask, losses: openai_hub.write_request(ask, served="m", losses=losses, reasoning_models=True),
    lambda ask, losses: anthropic.write_request(ask, served=NAME.decode(), losses=losses),
    lambda ask, losses: gemini.write_request(ask, served="gemini-2.5-pro", losses=losses),
    lambda ask, losses: converse.write_request(ask, served="amazon.nova-pro-v1:0", losses=losses),
    lambda ask, losses: converse.write_request(ask, served="anthropic." + NAME.decode(), losses=losses),
]


def request_translated(data: bytes) -> None:
    """A request in another dialect: refused by name, or JSON; and where everything may be lost, refused for bad form
    alone.
    """
    how, data = _how(data)
    endpoint = list(CALLERS)[how % 3]
    caller = CALLERS[endpoint]
    try:
        fields = decode_fields(data)
        ask = caller.read_request(fields)
    except BadRequest:
        return
    for write in WRITERS:
        for lose in ((), ("*",)):
            with suppress(BadRequest):
                body = json.loads(write(ask, Losses(lose, caller.names)))
                assert isinstance(body, dict)


def form(data: bytes) -> None:
    """A multipart form: refused, or its parts."""
    how, data = _how(data)
    kind = b"multipart/form-data; boundary=x" if how else data[:40]
    with suppress(BadRequest):
        parts = openai_more.form_parts(data, kind)
        assert all(part in data for _, part, _ in parts)


def media(data: bytes) -> None:
    """Nothing that points outside is overlooked, and what was put in its place points nowhere."""
    how, data = _how(data)
    endpoint = list(Endpoint)[how % len(Endpoint)]
    try:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    try:
        references = remote_media(fields, endpoint)
    except BadRequest:
        return
    for name in ("messages",) if endpoint in (Endpoint.CHAT, Endpoint.MESSAGES) else ():
        with suppress(ValueError, RecursionError):
            value = json.loads(bytes(fields.get(name, msgspec.Raw(b"null"))))
            assert _obvious(value) <= {reference.url for reference in references}, "a URL was overlooked"
    new = with_inlined(fields, endpoint, dict.fromkeys(references, ("image/png", b"png")))
    assert not remote_media(new, endpoint)
    assert list(new) == list(fields)
    for name, value in fields.items():
        assert references or new[name] == value


def _obvious(messages: Any) -> set[str]:
    """What a plain engine would fetch: `image_url` in the parts of messages, and Anthropic's sources."""
    urls: set[str] = set()
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            for name in ("image_url", "video_url", "source") if isinstance(part, dict) else ():
                value = part.get(name)
                url = value.get("url") if isinstance(value, dict) else value if name != "source" else None
                if isinstance(url, str) and not url.startswith("data:"):
                    urls.add(url)
    return urls


def picture(data: bytes) -> None:
    found = picture_of(data)
    assert found is None or (found.width > 0 and found.height > 0)


def url(data: bytes) -> None:
    """What the C library would take for an address is taken for that very one, or refused."""
    with suppress(UnicodeDecodeError):
        try:
            target = fetch._target(data.decode(), FetchOptions(ports=(80, 443, 8080)))
        except fetch._Refused:
            return
        assert target.host.isascii()
        assert target.scheme in ("http", "https")
        assert not re.search(r"[\x00-\x20\x7f]", target.path + target.origin)
        assert target.path.isascii()
        try:
            number = socket.inet_ntoa(socket.inet_aton(target.host))
        except OSError:
            return
        assert str(target.literal) == number, "an address in disguise"


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(sse, same_dialect, same_dialect_plain, translated, translated_plain, event_stream, array),
        *(request, request_translated, form, media, picture, url),
    )
}
