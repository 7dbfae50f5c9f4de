"""End users who ask to be forgotten. The ledger knows them by a hash; what they used stays counted, for nobody."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from penstock.control.tenants import Fault, Invalid
from penstock.core.clock import Clock
from penstock.core.keys import USERS, Pepper, user_hash
from penstock.stores.audit import SqlAuditLog
from penstock.stores.costs import Costs, Question
from penstock.stores.feedback import SqlFeedback
from penstock.stores.ledger import Attribute, SqlLedger
from penstock.stores.sql import Database

MAX_USER_BYTES: Final = 1_024
_HASH: Final = re.compile(r"[0-9a-f]{32}")


class Users:
    """Every method may raise `Invalid`, and `forget` `StoreFailed`."""

    def __init__(self, database: Database, *, clock: Clock, pepper: Pepper | None = None) -> None:
        self._ledger, self._costs, self._audit = SqlLedger(database), Costs(database), SqlAuditLog(database)
        self._feedback = SqlFeedback(database)
        self._clock = clock
        self._secret = USERS if pepper is None else pepper.user_secret

    def hash(self, user: str, org: str) -> str:
        """What the ledger has in the place of this user's id."""
        try:
            raw = user.encode()
            org.encode()
        except UnicodeEncodeError:
            raise Invalid(Fault("user", "is no text")) from None
        if not 0 < len(raw) <= MAX_USER_BYTES:
            raise Invalid(Fault("user", f"must have from 1 to {MAX_USER_BYTES:,} bytes"))
        return user_hash(raw, org, self._secret)

    async def forget(self, by: str, hashed: str) -> int:
        """Take user, session and tags out of all rows of the ledger that have this hash. How many there were.

        Rows that still wait in a gateway's spool are not reached: repeat it when they have arrived. The record is
        written before, because one that deletes and dies must have said so; it has a digest of the hash.
        """
        if _HASH.fullmatch(hashed) is None:
            raise Invalid(Fault("user_hash", "must be 32 lower-case hex digits, as in the ledger"))
        found = await self._costs.sums(Question(only=((Attribute.USER, (hashed,)),)))
        target = f"sha256:{hashlib.sha256(hashed.encode()).hexdigest()[:16]}"
        await self._audit.append(
            int(self._clock.wall() * 1e6), by, "user.forget", target, {"rows": found.total.requests}
        )
        await self._feedback.forget_user(hashed)  # first: the ledger says which answers were theirs
        return await self._ledger.forget_user(hashed)
