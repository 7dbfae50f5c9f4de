"""What is in flight in one worker. Nothing is kept for this while requests run: it is found out when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from penstock.console.reports import OpenRequest, OpenSeen
from penstock.core.clock import Clock
from penstock.core.request import UNATTRIBUTED
from penstock.gateway.call import Call

MOST_OPEN: Final = 100  # that anybody is told of

FILTERS: Final = {
    "model": "",
    "org": "",
    "team": "",
    "key_id": "",
    "deployment": "",
    "replica": "",
    "feature": "",
    "session": "",
}
"""By name, what open requests are narrowed to."""


def open_requests(calls: Iterable[Call], clock: Clock, only: Mapping[str, str], most: int) -> OpenSeen:
    """The first of them that are as `only` says (`FILTERS`, or "id"), `most` at most, and how many there are."""
    now, wall = clock.now(), clock.wall()
    found: list[OpenRequest] = []
    n = 0
    for call in calls:
        if not _is(call, only):
            continue
        n += 1
        if len(found) < most:
            found.append(_told(call, now, wall))
    return OpenSeen(tuple(found), n)


def _is(call: Call, only: Mapping[str, str]) -> bool:
    for name, value in only.items():
        match name:
            case "id":
                there = call.id
            case "org":
                there = call.caller.tenant
            case "team":
                there = call.caller.team
            case "key_id":
                there = call.caller.key_id
            case "model":
                there = "" if call.request is None else call.request.model
            case "deployment":
                there = _replica(call).rpartition("/")[0]
            case "replica":
                there = _replica(call)
            case _:
                said = UNATTRIBUTED if call.bill is None else call.bill.attribution
                there = said.feature if name == "feature" else said.session
        if there != value:
            return False
    return True


def _told(call: Call, now: float, wall: float) -> OpenRequest:
    request, first, last = call.request, call.began_at, call.last
    return OpenRequest(
        id=call.id,
        at=wall - (now - call.received_at),
        endpoint=call.endpoint,
        model="" if request is None else request.model,
        org=call.caller.tenant,
        team=call.caller.team,
        key_id=call.caller.key_id,
        priority=call.caller.priority,
        stage=_stage(call),
        replica=_replica(call),
        ttft=None if first is None else first - call.received_at,
        tokens=0 if last is None else last.stream.usage()[0].completion_tokens,
    )


def _stage(call: Call) -> str:
    if call.drain is not None:
        return "drained"
    if call.answer is not None:
        return "streaming"
    if call.tries is None:
        return "admission"
    return "sent" if call.tries.live else "queued"


def _replica(call: Call) -> str:
    if call.last is not None:
        return call.last.replica.name
    live = () if call.tries is None else call.tries.live
    return live[-1].replica.name if live else ""
