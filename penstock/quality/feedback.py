"""What callers and their behaviour say of an answer: thumbs, a rating, a comment, whether it was used; and, without
anybody being asked, that the same was asked again or that the answer was left.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from penstock.core.errors import BadRequest
from penstock.core.outcome import Outcome

MAX_BODY: Final = 16 * 1024  # bytes
MAX_COMMENT: Final = 2_000  # characters

RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,128}\Z")]


class Signal(StrEnum):
    THUMBS = "thumbs"
    RATING = "rating"
    ACCEPTED = "accepted"
    RETRIED = "retried"
    REQUERY = "requery"  # derived: the same session asked again instead of going on
    ABANDONED = "abandoned"  # derived: the caller left before the end, and the session did not come back


class Verdict(StrEnum):
    GOOD = "good"
    BAD = "bad"
    NEUTRAL = "neutral"


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """About one answer. What is None was not said; later words about the same answer add to it and replace it."""

    request_id: RequestId
    thumbs: Literal["up", "down"] | None = None
    rating: Annotated[int, Meta(ge=1, le=5)] | None = None
    comment: Annotated[str, Meta(max_length=MAX_COMMENT)] | None = None
    accepted: bool | None = None
    retried: bool | None = None

    @property
    def empty(self) -> bool:
        return all(getattr(self, name) is None for name in self.__struct_fields__[1:])

    def after(self, earlier: Feedback) -> Feedback:
        """Both, where they differ this one."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(earlier, **said)

    def verdicts(self) -> dict[Signal, Verdict]:
        found: dict[Signal, Verdict] = {}
        if self.thumbs is not None:
            found[Signal.THUMBS] = Verdict.GOOD if self.thumbs == "up" else Verdict.BAD
        if self.rating is not None:
            found[Signal.RATING] = _OF_RATINGS[self.rating]
        if self.accepted is not None:
            found[Signal.ACCEPTED] = Verdict.GOOD if self.accepted else Verdict.BAD
        if self.retried:
            found[Signal.RETRIED] = Verdict.BAD
        return found


_OF_RATINGS: Final = (Verdict.BAD, Verdict.BAD, Verdict.BAD, Verdict.NEUTRAL, Verdict.GOOD, Verdict.GOOD)
_decode: Final = msgspec.json.Decoder(Feedback).decode
_WORDS: Final = "thumbs (up, down), rating (1 to 5), comment, accepted and retried (true, false)"


def parse(body: bytes) -> Feedback:
    """Raises `BadRequest`, whose text repeats nothing of what was sent."""
    if len(body) > MAX_BODY:
        raise BadRequest(f"Feedback is at most {MAX_BODY // 1024} KiB.")
    try:
        said = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        where = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else None
        about = f" `{where}` is not as it must be." if where in Feedback.__struct_fields__ else ""
        raise BadRequest(
            f"Feedback is a JSON object with request_id and one or more of {_WORDS}, and nothing else.{about}",
            param=where if about else None,
        ) from None
    if said.empty:
        raise BadRequest(f"Feedback needs one or more of {_WORDS}.")
    return said


class Derived(msgspec.Struct, frozen=True):
    """Something that a session's behaviour says of an earlier answer."""

    request_id: str
    model: str
    signal: Signal


class _Last(msgspec.Struct):
    outcome: Outcome
    ended_at: float  # Unix seconds


WITHIN: Final = 60.0  # seconds after an answer in which the same question counts as asked again
GONE_AFTER: Final = 600.0  # seconds without another request after which who left has abandoned
MOST_SESSIONS: Final = 10_000


class Sessions:
    """Watches what sessions do after their answers. Only requests that name a session are looked at, and were sent to
    a replica: without a session, nobody knows who came back.

    That the same was asked again is told from token counts alone: a conversation that goes on has the last answer in
    its prompt, one that asks again has not.
    """

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()  # the one that ended longest ago first

    def __len__(self) -> int:
        return len(self._last)

    def on_outcome(self, outcome: Outcome) -> Derived | None:
        """What this request says of the last answer of its session."""
        if not outcome.session or not outcome.attempts:
            return None
        key = (outcome.tenant or outcome.key_id, outcome.session)
        last = self._last.pop(key, None)
        self._last[key] = _Last(outcome, outcome.received_at + outcome.duration)
        if len(self._last) > self._most:
            self._last.popitem(last=False)
        if last is None or not _again(last, outcome):
            return None
        return Derived(last.outcome.request_id, last.outcome.model, Signal.REQUERY)

    def gone(self, now: float) -> list[Derived]:
        """Answers that were left before their end by sessions that have not come back. `now` in Unix seconds."""
        found: list[Derived] = []
        while self._last:
            key, last = next(iter(self._last.items()))
            if now - last.ended_at < GONE_AFTER:
                break
            del self._last[key]
            if last.outcome.error == "client_left":
                found.append(Derived(last.outcome.request_id, last.outcome.model, Signal.ABANDONED))
        return found


def _again(last: _Last, outcome: Outcome) -> bool:
    before, now = last.outcome, outcome
    if before.endpoint != now.endpoint or before.error not in (None, "client_left"):
        return False  # after a failure everybody asks again: that says nothing of an answer
    if not 0 <= now.received_at - last.ended_at <= WITHIN or not before.usage.prompt_tokens:
        return False
    # a quarter more or less is the same question in other words; with half of the answer in it, it goes on
    more = now.usage.prompt_tokens - before.usage.prompt_tokens
    return abs(more) <= max(8, before.usage.prompt_tokens // 4) and more < max(4, before.usage.completion_tokens // 2)
