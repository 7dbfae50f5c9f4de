"""Receipts for tests of what the console shows, and what hostile callers may have written into them."""

from itertools import count

from penstock.console.reports import OpenRequest, OpenSeen
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import Attempt
from penstock.core.request import Usage
from penstock.stores.outcomes import Kept

_numbers = count(1)
HOSTILE = (
    "<script>alert(1)</script>", "'; drop table outcomes; --", '"}\r\nset-cookie: a=b\r\n\r\n', "\x00\x1b[2J\x7f",
    "..%2f..", "=cmd|' /C calc'!A0", "\u202egnp.exe", "𝕊" * 400, "%s%n{0}", "",
)  # fmt: skip


def outcome(at=1_800_000_000.0, *, id=None, error=None, ttft=0.2, took=1.0, **fields):
    """One that was answered by `local/0`; `error` is a code."""
    attempts = (Attempt(0, "local/0", "ok" if error is None else "server_error", 0.01, ttft, took),)
    usual = {
        "endpoint": "chat.completions", "tenant": "acme", "key_id": "web", "model": "chat", "stream": True,
        "status": 200 if error is None else 502, "attempts": attempts, "usage": Usage(10, 20),
        "usage_source": UsageSource.PROVIDER, "finish_reason": "stop" if error is None else None,
        "plane_version": 1, "deployment": "local", "cost_nanos": 1_000,
    }  # fmt: skip
    return Outcome(
        received_at=at,
        request_id=id or f"req_{next(_numbers):030d}",
        error=error,
        first_token_after=ttft,
        duration=took,
        **(usual | fields),
    )


def kept(at=1_800_000_000.0, why="ratio", **fields):
    return Kept(outcome(at, **fields), why)


def open_request(id, at=0.0, **fields):
    usual = {
        "endpoint": "chat.completions", "model": "chat", "org": "acme", "team": "", "key_id": "web",
        "priority": "normal", "stage": "streaming", "replica": "a/0", "ttft": 0.2, "tokens": 3,
    }  # fmt: skip
    return OpenRequest(id=id, at=at, **(usual | fields))


class InFlight:
    """Each with its requests; None: one that says nothing."""

    def __init__(self, *workers):
        self.workers, self.cancelled, self.late = workers, [], False

    async def look(self, only, most):
        def seen(requests):
            fit = [one for one in requests if all(getattr(one, name, "") == value for name, value in only.items())]
            return OpenSeen(tuple(fit[:most]), len(fit))

        return [None if requests is None else seen(requests) for requests in self.workers]

    async def cancel(self, id):
        self.cancelled.append(id)
        return not self.late
