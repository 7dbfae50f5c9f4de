"""Server-sent events: a byte stream cut into whole events, wherever the network cut it.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream". Lines may end in LF, CRLF or CR, and a BOM may come
first; after `feed` every line ends in LF, which means the same to every client.
"""

from __future__ import annotations

from typing import Final

from penstock.core.errors import FailureKind, UpstreamError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # one event may carry an image; more than this is not an event
_BOM: Final = b"\xef\xbb\xbf"


class EventCutter:
    """Feed it reads; it answers with the longest run of whole events so far, ending in a blank line."""

    __slots__ = ("_begun", "_held", "_held_bytes", "_pending_cr")

    def __init__(self) -> None:
        self._held: list[bytes] | None = None  # reads of an event whose blank line has not come
        self._held_bytes = 0
        self._pending_cr = False
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Whole events, or b"". Raises `UpstreamError` (bad payload) for an event over `MAX_EVENT_BYTES`."""
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        if self._pending_cr or b"\r" in data:
            data = self._only_line_feeds(data)
        if not data:
            return b""
        held = self._held
        if held is None:
            if data.endswith(b"\n\n"):
                return data
            end = data.rfind(b"\n\n")
            rest = data[end + 2 :] if end >= 0 else data
            if rest:
                self._held, self._held_bytes = [rest], len(rest)
            return data[: end + 2] if end >= 0 else b""
        # the blank line may be split over two reads
        seam = held[-1][-1:] + data
        self._held_bytes += len(data)
        if self._held_bytes > MAX_EVENT_BYTES:
            raise UpstreamError(FailureKind.BAD_PAYLOAD, f"an event of more than {MAX_EVENT_BYTES} bytes")
        held.append(data)
        if b"\n\n" not in seam:
            return b""
        whole = b"".join(held)
        self._held, self._held_bytes = None, 0
        end = whole.rfind(b"\n\n") + 2
        if end != len(whole):
            self._held, self._held_bytes = [whole[end:]], len(whole) - end
        return whole[:end]

    @property
    def holds_data(self) -> bool:
        """The stream stopped inside an event."""
        return self._held is not None and any(part.strip() for part in self._held)

    def rest(self) -> bytes:
        """What was left without its blank line when the stream ended; by the standard it is no event."""
        held, self._held = self._held, None
        return b"".join(held) if held else b""

    def _only_line_feeds(self, data: bytes) -> bytes:
        if self._pending_cr:
            data = b"\r" + data
        self._pending_cr = data.endswith(b"\r")
        if self._pending_cr:  # may be half of a CRLF
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def data_of(event: bytes) -> bytes:
    """The payload of one event (without its blank line): its `data` lines joined; b"" when it has none (a comment)."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines)
