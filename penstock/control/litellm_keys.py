"""Keys out of LiteLLM's database: it keeps the SHA-256 of each in hex, which is what we keep: callers go on with the
keys they have.

The rows are those of its table of virtual keys, as its `/key/list?return_full_object=true` answers them, or as a JSON
list or JSON Lines: `token`, `key_alias`, `models`, `expires`, `blocked`, `rpm_limit`, `tpm_limit`,
`max_parallel_requests`, `max_budget` and `budget_duration` (https://docs.litellm.ai/docs/proxy/virtual_keys).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from penstock.config.units import instant
from penstock.control.tenancy import Tenancy
from penstock.control.tenants import Fault, Invalid, Refused

AT_ONCE: Final = 50  # in one transaction
MOST_ROWS: Final = 200_000

_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[^A-Za-z0-9._@-]+")
_ALL: Final = frozenset({"all-team-models", "all-proxy-models"})
# What has a counterpart is taken over by `_limits`; the rest is told.
_LEFT: Final = (
    "team_id",
    "soft_budget",
    "model_max_budget",
    "model_rpm_limit",
    "model_tpm_limit",
    "guardrails",
    "tags",
)
_RATES: Final = {"rpm_limit": "requests", "tpm_limit": "tokens"}
_PERIODS: Final[dict[str | None, str]] = {
    **{None: "total", "": "total", "1d": "day", "24h": "day"},
    **{"7d": "week", "1w": "week", "30d": "month", "1mo": "month"},
}


class Skipped(msgspec.Struct, frozen=True):
    """`row` counts from 1."""

    row: int
    name: str
    why: str


class Imported(msgspec.Struct, frozen=True):
    """`lost` is what a key had there and has not here, by the key's id."""

    ids: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    lost: dict[str, tuple[str, ...]]


def rows_of(text: str) -> list[Any]:
    """Raises `Invalid` for what is neither JSON nor JSON Lines."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        try:
            found = [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
        except (msgspec.DecodeError, UnicodeEncodeError):
            raise Invalid(Fault("", "is neither JSON nor JSON Lines")) from None
    if isinstance(found, dict):
        found = found.get("keys", [found])
    if not isinstance(found, list) or not 0 < len(found) <= MOST_ROWS:
        raise Invalid(Fault("", f"must be a list of from 1 to {MOST_ROWS:,} keys"))
    return found


async def import_keys(tenancy: Tenancy, by: str, rows: Sequence[Any], org: str, team: str, now: float) -> Imported:
    """What cannot be taken is left out, with the reason; 50 keys at a time are taken or none of them. `now` is Unix
    seconds: keys that expired before are left out. Raises `Refused` when others make keys of the same names meanwhile.
    """
    ids: list[str] = []
    seen: set[str] = set()
    skipped: list[Skipped] = []
    lost: dict[str, tuple[str, ...]] = {}
    waiting: list[tuple[str, dict[str, Any]]] = []
    for number, row in enumerate(rows, 1):
        name = _alias(row)
        try:
            sha256, entry, left = _entry(row, org, team, now)
            name = entry["id"]
            if name in seen or sha256 in seen:
                raise Invalid(Fault("", "is the same as one before it"))
            await tenancy.check_import(sha256, entry)
        except Refused as error:
            skipped.append(Skipped(number, name, error.message))
            continue
        seen |= {name, sha256}
        if left:
            lost[name] = left
        waiting.append((sha256, entry))
        if len(waiting) == AT_ONCE:
            await tenancy.import_keys(by, waiting)
            ids += [entry["id"] for _, entry in waiting]
            waiting = []
    await tenancy.import_keys(by, waiting)
    return Imported((*ids, *(entry["id"] for _, entry in waiting)), tuple(skipped), lost)


def _entry(row: Any, org: str, team: str, now: float) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The digest, the key as in our file, and what of it is left. Raises `Invalid` with what is told of the row."""
    if not isinstance(row, Mapping):
        raise Invalid(Fault("", "is not a JSON object"))
    token = row.get("token")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise Invalid(Fault("token", "is not the SHA-256 of a key, 64 hex digits"))
    if row.get("blocked"):
        raise Invalid(Fault("", "was blocked"))
    entry: dict[str, Any] = {"id": _id(row.get("key_alias"), token), "org": org, "team": team}
    models = row.get("models") or []
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise Invalid(Fault("models", "is not a list of names"))
    if models and _ALL.isdisjoint(models):
        entry["models"] = models
    if (expires := _seconds(row.get("expires"))) is not None:
        if expires <= now:
            raise Invalid(Fault("", "has expired"))
        entry["expires"] = instant(expires)
    options, left = _limits(row)
    left += [what for what in _LEFT if row.get(what) and not (what == "team_id" and team)]
    return token, {name: value for name, value in {**entry, **options}.items() if value}, tuple(left)


def _limits(row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Its limits in our words, and the names of those that have none. What was spent there is not known here."""
    limits: dict[str, Any] = {}
    left = []
    for theirs, ours in _RATES.items():
        if (most := row.get(theirs)) is not None:
            if type(most) is int and 0 < most < 10**10:
                limits[ours] = f"{most}/m"
            else:
                left.append(theirs)
    if (most := row.get("max_parallel_requests")) is not None:
        if type(most) is int and 0 < most <= 1_000_000:
            limits["concurrent_requests"] = most
        else:
            left.append("max_parallel_requests")
    options: dict[str, Any] = {"limits": limits}
    if (amount := row.get("max_budget")) is not None:
        period = row.get("budget_duration")
        every = _PERIODS.get(period) if period is None or isinstance(period, str) else None
        if every is not None and type(amount) in (int, float) and 0 < amount < 10**7:
            options["budget"] = {"amount": f"${Decimal(str(amount)):f}", "every": every}
        else:
            left.append("max_budget")
    return options, left


def _alias(row: Any) -> str:
    alias = row.get("key_alias") if isinstance(row, Mapping) else None
    return alias[:64] if isinstance(alias, str) and alias.isprintable() else ""


def _id(alias: Any, token: str) -> str:
    """Its alias, as far as that can be a name of ours; two aliases that would become one are told apart."""
    if not isinstance(alias, str) or not alias:
        return f"litellm-{token[:12]}"
    name = _NAME.sub("-", alias).strip("-._@")[:64]
    if name == alias:
        return name
    return f"{name[:55] or 'key'}-{hashlib.sha256(alias.encode(errors='replace')).hexdigest()[:8]}"


def _seconds(expires: Any) -> float | None:
    if expires is None:
        return None
    try:
        moment = datetime.fromisoformat(expires)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise Invalid(Fault("expires", "is not a time")) from None
