"""What callers said of answers, kept beside the ledger, which knows whose answers they were.

A row of the ledger may come seconds after its answer, so feedback about an id that is not known yet is taken on trust,
a bounded number of times; that it is the caller's own is seen when the row is there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

import msgspec

from penstock.core.request import Caller
from penstock.quality.feedback import Feedback
from penstock.stores.sql import Database, Statement

MOST_UNKNOWN: Final = 1_000  # of one owner
MOST_IN_MEMORY: Final = 10_000
AT_ONCE: Final = 5_000  # rows deleted in one transaction


class Taken(msgspec.Struct, frozen=True):
    """`model` is "" while nobody knows the request."""

    before: Feedback | None
    after: Feedback
    model: str


class NotTheirs(Exception):
    """The request is somebody else's, or there are too many that nobody knows."""


class FeedbackStore(Protocol):
    async def put(self, caller: Caller, said: Feedback, now_micros: int) -> Taken:
        """Add this to what was said. The same again changes nothing. Raises `NotTheirs`, and `StoreFailed`."""
        ...

    async def let_go(self, before_micros: int) -> int:
        """Delete what was said before this. How many rows. Raises `StoreFailed`."""
        ...


def owner_of(caller: Caller) -> str:
    """Everybody in an organisation speaks about the same answers; a key without one, about its own."""
    return f"org:{caller.org}" if caller.org else f"key:{caller.key_id}"


_THEIRS: Final = "ledger.org = feedback.org and (feedback.org <> '' or ledger.key_id = feedback.key_id)"
_SAID: Final = "thumbs, rating, comment, accepted, retried"
_KEEP: Final = ", ".join(f"{name} = coalesce(excluded.{name}, feedback.{name})" for name in _SAID.split(", "))


class SqlFeedback:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, caller: Caller, said: Feedback, now_micros: int) -> Taken:
        owner = owner_of(caller)
        model = await self._model_of(caller, said.request_id)
        rows = await self._database.read(
            f"select {_SAID} from feedback where request_id = $1 and owner = $2", (said.request_id, owner)
        )
        before = _feedback(said.request_id, rows[0]) if rows else None
        if before is None and not model:
            await self._hold_unknown(owner)
        after = said if before is None else said.after(before)
        if after != before:
            accepted, retried = _number(said.accepted), _number(said.retried)
            await self._database.write(
                [
                    Statement(
                        f"insert into feedback (request_id, owner, org, key_id, model, {_SAID}, at_micros,"
                        " changed_micros) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)"
                        f" on conflict (request_id, owner) do update set {_KEEP}, changed_micros = $11,"
                        " model = case when feedback.model = '' then excluded.model else feedback.model end",
                        (
                            said.request_id, owner, caller.org, caller.key_id, model, said.thumbs, said.rating,
                            said.comment, accepted, retried, now_micros,
                        ),
                    )
                ]
            )  # fmt: skip
        return Taken(before, after, model)

    async def of(self, org: str, since_micros: int, until_micros: int, most: int = 1_000) -> list[tuple[str, Feedback]]:
        """Model and words, of requests that the ledger knows as this organisation's; the oldest first."""
        await self._find_models("org = $1", org)
        rows = await self._database.read(
            f"select model, request_id, {_SAID} from feedback where org = $1 and model <> '' and at_micros >= $2"
            " and at_micros < $3 order by at_micros, request_id limit $4",
            (org, since_micros, until_micros, most),
        )
        return [(row[0], _feedback(row[1], row[2:])) for row in rows]

    async def forget_user(self, user_hash: str) -> int:
        """Take the comments off this user's answers. Before the ledger forgets whose they were. How many rows."""
        sql = (
            "update feedback set comment = null where comment is not null"
            " and request_id in (select request_id from ledger where user_hash = $1)"
        )
        return sum(await self._database.write([Statement(sql, (user_hash,))]))

    async def let_go(self, before_micros: int) -> int:
        sql = (
            "delete from feedback where (request_id, owner) in"
            " (select request_id, owner from feedback where at_micros < $1 limit $2)"
        )
        gone = 0
        while n := sum(await self._database.write([Statement(sql, (before_micros, AT_ONCE))])):
            gone += n
        return gone

    async def _model_of(self, caller: Caller, request_id: str) -> str:
        """ "" where the ledger does not know it (yet). Raises `NotTheirs`."""
        rows = await self._database.read("select org, key_id, model from ledger where request_id = $1", (request_id,))
        if not rows:
            return ""
        org, key_id, model = rows[0]
        if org != caller.org or (not org and key_id != caller.key_id):
            raise NotTheirs
        return str(model)

    async def _hold_unknown(self, owner: str) -> None:
        """Raises `NotTheirs` where there are too many."""
        count = "select count(*) from feedback where owner = $1 and model = ''"
        if (await self._database.read(count, (owner,)))[0][0] >= MOST_UNKNOWN:
            await self._find_models("owner = $1", owner)
            if (await self._database.read(count, (owner,)))[0][0] >= MOST_UNKNOWN:
                raise NotTheirs

    async def _find_models(self, where: str, whose: str) -> None:
        """Of requests that have arrived in the ledger since."""
        sql = (
            "update feedback set model = (select model from ledger where ledger.request_id = feedback.request_id)"
            f" where {where} and model = '' and exists"
            f" (select 1 from ledger where ledger.request_id = feedback.request_id and {_THEIRS})"
        )
        await self._database.write([Statement(sql, (whose,))])


class MemoryFeedback:
    """For a gateway without a database: so that the same is not counted twice. Nobody knows whose requests they are."""

    def __init__(self, most: int = MOST_IN_MEMORY) -> None:
        self._most = most
        self._said: OrderedDict[tuple[str, str], Feedback] = OrderedDict()

    async def put(self, caller: Caller, said: Feedback, now_micros: int) -> Taken:
        key = (owner_of(caller), said.request_id)
        before = self._said.pop(key, None)
        self._said[key] = after = said if before is None else said.after(before)
        if len(self._said) > self._most:
            self._said.popitem(last=False)
        return Taken(before, after, "")

    async def let_go(self, before_micros: int) -> int:
        return 0  # it forgets by itself


def _feedback(request_id: str, row: tuple[object, ...]) -> Feedback:
    thumbs, rating, comment, accepted, retried = row
    return msgspec.convert(
        {
            "request_id": request_id,
            "thumbs": thumbs,
            "rating": rating,
            "comment": comment,
            "accepted": None if accepted is None else bool(accepted),
            "retried": None if retried is None else bool(retried),
        },
        Feedback,
    )


def _number(said: bool | None) -> int | None:
    return None if said is None else int(said)


_: type[FeedbackStore] = SqlFeedback
__: type[FeedbackStore] = MemoryFeedback
