"""What is right: claims about what a caller saw and what the upstream saw meanwhile. A broken claim raises `Wrong`."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from penstock.testing.faults.told import Told
from penstock.testing.faults.upstream import Seen
from penstock.testing.faults.voices import (
    BACKUP_COST,
    BACKUP_TEXT,
    COST,
    HOST,
    SECRET,
    SERVED,
    TEXT,
    Tokens,
    ToolCall,
)

BACKUP: Final = "wall-backup"  # the public name of the model that others fall back on begins so


class Wrong(Exception):
    """Why a cell is not right, in a few words."""


class Limits(msgspec.Struct, frozen=True):
    """How the gateway was configured, in seconds; `slack` is for a machine that does other things too."""

    first_token: float = 2.0
    idle: float = 2.0
    total: float = 6.0
    slack: float = 2.5


class Case(msgspec.Struct):
    """All that is known of one cell when it is over."""

    dialect: str
    stream: bool
    told: Told
    others: list[Told]  # before it, when the caller asks more than once
    seen: list[Seen]
    stolen: int  # requests that came where a redirect pointed
    addresses: tuple[str, ...]  # host:port of the upstream
    limits: Limits


class Verdict(msgspec.Struct, frozen=True):
    """`says` completes the sentence "The caller gets ..."."""

    says: str
    check: Callable[[Case], None]


def judge(verdict: Verdict, case: Case) -> str | None:
    """None when all is right."""
    try:
        verdict.check(case)
        for told in [*case.others, case.told]:
            _nothing_leaks(case, told)
    except Wrong as wrong:
        return str(wrong)
    return None


def _nothing_leaks(case: Case, told: Told) -> None:
    body = bytes(told.body).decode("utf-8", "replace")
    everything = told.head.decode("latin-1") + body
    for secret, name in ((SECRET, "the upstream's key"), (HOST, "the upstream's host name")):
        if secret in everything:
            raise Wrong(f"leaks {name}")
    if any(address in body for address in case.addresses):
        raise Wrong("leaks the upstream's address")
    if SERVED in body:
        raise Wrong("leaks the upstream's name for the model")
    if told.error is not None and BACKUP in body:
        raise Wrong("leaks the routing table")


# --- claims ---


def _answered(case: Case) -> Told:
    told = case.told
    if told.late:
        raise Wrong(f"no end after {told.took:.0f} s")
    if not told.status:
        raise Wrong("the connection was closed without an answer")
    if told.complaints:
        raise Wrong(told.complaints[0])
    return told


def is_whole(
    case: Case, text: str = TEXT, cost: Tokens | None = COST, reason: str = "stop", *, terminal: bool = True
) -> None:
    """`cost`: None when any will do. `terminal`: whether the dialect's last event must be there."""
    told = _answered(case)
    if told.status != 200:
        raise Wrong(f"HTTP {told.status} {told.error.code or told.error.type if told.error else ''}".rstrip())
    if told.error is not None:
        kind = "an error event" if case.stream else "HTTP 200 with an error"
        raise Wrong(f"{kind} ({told.error.code or told.error.type})")
    if told.cut or (terminal and not told.terminal):
        raise Wrong("no terminal event" if told.text == text else "cut without a word")
    if told.text != text:
        if not told.text:
            raise Wrong("an empty answer, told as whole")
        if text.startswith(told.text):
            raise Wrong("an answer that was cut, told as whole")
        raise Wrong(f"another text ({told.text[:30]!r})")
    if told.finish != reason:
        raise Wrong(f"finish reason {told.finish!r}, not {reason!r}")
    if cost is not None and told.cost != cost:
        raise Wrong(f"usage {_short(told.cost)}, not {_short(cost)}")


def _short(cost: Tokens | None) -> str:
    if cost is None:
        return "missing"
    return f"{cost.prompt}+{cost.completion}" + (f" ({cost.cached} cached)" if cost.cached else "")


def _recovered(case: Case) -> None:
    is_whole(case, BACKUP_TEXT, BACKUP_COST)
    limits = case.limits
    began = case.told.first_text_at or case.told.ended_at or 0.0
    if began - case.told.asked_at > limits.total + limits.slack:
        raise Wrong(f"recovered only after {began - case.told.asked_at:.0f} s")


def _either(first: Callable[[Case], None], second: Callable[[Case], None]) -> Callable[[Case], None]:
    def check(case: Case) -> None:
        try:
            first(case)
        except Wrong as wrong:
            try:
                second(case)
            except Wrong:
                raise wrong from None

    return check


def _cut_honestly(case: Case) -> None:
    """A stream that broke after its first token: what came is real, and its end says that it is not all. A gateway
    that saw the break before it had passed anything on may say so at once.
    """
    told = _answered(case)
    if told.status != 200:
        refusal(500, 502, 503, 504)(case)
        return
    if told.error is None:
        raise Wrong("an answer that was cut, told as whole" if told.terminal else "cut without a word")
    if told.terminal:
        raise Wrong("an error, and a terminal event beside it")
    if not TEXT.startswith(told.text):
        raise Wrong("made-up text before the error")
    if told.took > case.limits.total + case.limits.slack:
        raise Wrong(f"told only after {told.took:.0f} s")


def refusal(
    *statuses: int,
    openai: tuple[str, ...] = (),
    anthropic: tuple[str, ...] = (),
    never: tuple[str, ...] = (),
    retry_after: tuple[float, float] | None = None,
    asked_once: bool = False,
    within: float | None = None,
) -> Callable[[Case], None]:
    """An error answer. `openai`: codes, one of them; `anthropic`: types, one of them; `never`: codes that accuse the
    caller of what is not theirs. `retry_after`: seconds, from and to. `within`: seconds, instead of the total limit.
    """

    def check(case: Case) -> None:
        told = _answered(case)
        if told.status not in statuses:
            if told.status == 200 and told.error is None:
                raise Wrong("an empty answer, told as whole" if not told.text else "an answer")
            raise Wrong(f"HTTP {told.status}")
        error = told.error
        if error is None:
            raise Wrong(f"HTTP {told.status} without an error")
        if case.dialect == "openai" and openai and error.code not in openai:
            raise Wrong(f"code {error.code!r}, not {openai[0]!r}")
        if case.dialect == "anthropic" and anthropic and error.type not in anthropic:
            raise Wrong(f"type {error.type!r}, not {anthropic[0]!r}")
        if error.code in never or error.type in never:
            raise Wrong(f"accuses the caller of {error.code or error.type!r}")
        if retry_after is not None:
            _check_retry_after(told, retry_after)
        if asked_once and len(case.seen) > 1:
            raise Wrong(f"asked the upstream {len(case.seen)} times for what cannot get better")
        if told.took > (case.limits.total if within is None else within) + case.limits.slack:
            raise Wrong(f"told only after {told.took:.0f} s")

    return check


def _check_retry_after(told: Told, bounds: tuple[float, float]) -> None:
    """Whole seconds, or a date: RFC 9110, 10.2.3."""
    header = told.header("retry-after")
    if header is None:
        raise Wrong("Retry-After is lost")
    if not header.isdigit():
        try:
            parsedate_to_datetime(header)
        except ValueError:
            raise Wrong(f"Retry-After is {header!r}") from None
        return
    seconds = int(header)
    if not bounds[0] <= seconds <= bounds[1]:
        raise Wrong(f"Retry-After is {seconds}, not {bounds[0]:g} to {bounds[1]:g}")


def _left(case: Case) -> None:
    """The caller has gone: so must the request be."""
    if not case.seen:
        raise Wrong("the upstream was never asked")
    left_at = case.told.ended_at or 0.0
    for seen in case.seen:
        if seen.gone_at is None:
            raise Wrong("the upstream goes on for nobody")
        if seen.gone_at - left_at > case.limits.slack:
            raise Wrong(f"the upstream is let go only after {seen.gone_at - left_at:.1f} s")


def _in_time(case: Case) -> None:
    refusal(504, 408, anthropic=("timeout_error", "api_error"), within=DEADLINE)(case)
    _left(case)


DEADLINE: Final = 1.0


def _told_less(case: Case) -> None:
    _in_time(case)
    header = case.seen[0].headers.get("x-request-timeout")
    if header is None:
        raise Wrong("the upstream is not told")
    if not 0 < float(header) <= DEADLINE:
        raise Wrong(f"the upstream is told {header}")


def _as_it_is_made(case: Case) -> None:
    is_whole(case)
    ended = case.seen[-1].ended_at
    if ended is None or case.told.first_text_at is None or ended - case.told.first_text_at < 0.5:
        raise Wrong("the first token came with the last")


def calls(*wanted: ToolCall) -> Callable[[Case], None]:
    def check(case: Case) -> None:
        is_whole(case, text="", reason="tool_calls")
        try:
            told = [(call.name, json.loads(call.arguments or "{}")) for call in case.told.calls]
        except ValueError:
            raise Wrong("tool calls whose arguments are no JSON") from None
        if told != [(call.name, json.loads(call.arguments or "{}")) for call in wanted]:
            raise Wrong(f"other tool calls ({', '.join(name for name, _ in told) or 'none'})")

    return check


def all_of_them(case: Case) -> None:
    bad = [told for told in [*case.others, case.told] if told.status != 200 or told.error is not None]
    if bad:
        raise Wrong(f"{len(bad)} of {len(case.others) + 1} failed (HTTP {bad[0].status})")
    is_whole(case)


def _unasked_usage(case: Case) -> None:
    is_whole(case, cost=None)
    if b'"choices":[]' in bytes(case.told.body).replace(b" ", b""):
        raise Wrong("a usage event that nobody asked for")


def _first_event_counts(case: Case) -> None:
    is_whole(case)
    if case.told.first_cost is None or not case.told.first_cost.prompt:
        raise Wrong("message_start says that the prompt has 0 tokens")


def _not_stolen(check: Callable[[Case], None]) -> Callable[[Case], None]:
    def both(case: Case) -> None:
        if case.stolen:
            raise Wrong("the prompt was sent on to another host")
        check(case)

    return both


def _headers_are_ours(case: Case) -> None:
    is_whole(case)
    head = case.told.head.decode("latin-1")
    if any(address in head for address in case.addresses):
        raise Wrong("a header names the upstream's address")
    if SERVED in head:
        raise Wrong("a header names the upstream's model")


WHOLE: Final = Verdict("the whole answer", is_whole)
WHOLE_UNCOUNTED: Final = Verdict("the whole answer", lambda case: is_whole(case, cost=None))
RECOVERED: Final = Verdict("the other deployment's answer", _recovered)
RECOVERED_OR_WHOLE: Final = Verdict("a whole answer, from either", _either(is_whole, _recovered))
CUT_HONESTLY: Final = Verdict("what had come, then an error event", _cut_honestly)
CUT_OR_WHOLE: Final = Verdict("the whole answer, or an error event", _either(is_whole, _cut_honestly))
NOT_STOLEN: Final = Verdict("the other deployment's answer; nothing goes to another host", _not_stolen(_recovered))
RECOVERED_OR_TOLD: Final = Verdict(
    "the other deployment's answer, or a 5xx in time", _either(_recovered, refusal(408, 500, 502, 503, 504))
)
TOLD: Final = Verdict("a 5xx, or an error event", _either(refusal(500, 502, 503, 504, 529), _cut_honestly))
TOLD_TIMEOUT: Final = Verdict(
    "a 504 in time, or an error event", _either(refusal(408, 500, 502, 503, 504), _cut_honestly)
)
ALL_SAID: Final = Verdict(
    "all that came, or an error event", _either(lambda case: is_whole(case, terminal=False), _cut_honestly)
)
LEFT: Final = Verdict("nothing more; the upstream is let go", _left)
IN_TIME: Final = Verdict("a 504 when the deadline is over; the upstream is let go", _in_time)
TOLD_LESS: Final = Verdict("the same; the upstream is told how much time is left", _told_less)
AS_IT_IS_MADE: Final = Verdict("the first token long before the last", _as_it_is_made)
UNASKED_USAGE: Final = Verdict("the whole answer, and no usage event", _unasked_usage)
FIRST_EVENT_COUNTS: Final = Verdict("the count of the prompt in `message_start`", _first_event_counts)
HEADERS_ARE_OURS: Final = Verdict("no header with the upstream's address or name for the model", _headers_are_ours)
