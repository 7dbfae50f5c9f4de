"""`penstock slo status`: reads what a gateway says of its service levels, from its metrics."""

from __future__ import annotations

import http.client
from collections import defaultdict
from typing import Final
from urllib.parse import urlsplit

import msgspec

from penstock.cli.cost_table import plain
from penstock.cli.mistake import Failure, Mistake
from penstock.cli.scrape import Page

SECONDS: Final = 10.0
MOST: Final = 64 * 1024 * 1024  # bytes


class Level(msgspec.Struct, frozen=True):
    """`left` of the error budget and `burns` by window are of that SLO alone; None: nothing has happened yet."""

    slo: str
    objective: float
    left: float | None
    burns: dict[str, float]


class Found(msgspec.Struct, frozen=True):
    levels: tuple[Level, ...]
    alerts: tuple[tuple[str, int], ...]  # name and severity; how many


def read(url: str) -> Found:
    """Raises `Mistake` for an address that is none, `Failure` when nobody answers there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Mistake("--url is an address such as http://127.0.0.1:8080")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/metrics")
        answer = connection.getresponse()
        text = answer.read(MOST).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{parts.scheme}://{parts.netloc} cannot be asked: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Failure(f"{parts.scheme}://{parts.netloc}/metrics answers with status {answer.status}")
    return _found(text)


def _found(text: str) -> Found:
    try:
        gauge = Page(text).gauge
    except ValueError as error:
        raise Failure(f"what is there is no gateway of Penstock's: {error}") from None
    left = gauge("penstock_slo_error_budget_left_ratio")
    burns: dict[str, dict[str, float]] = defaultdict(dict)
    for (slo, window), burnt in gauge("penstock_slo_burn_rate").items():
        burns[slo][window] = burnt
    levels = [
        Level(slo, objective, left.get((slo,)), burns[slo])
        for (slo,), objective in gauge("penstock_slo_objective_ratio").items()
    ]
    active = gauge("penstock_alerts_active").items()
    return Found(tuple(levels), tuple((f"{alert} ({severity})", int(n)) for (alert, severity), n in active))


_WINDOWS: Final = ("5m", "1h", "6h", "1d", "3d")


def as_words(found: Found) -> list[str]:
    """For a terminal."""
    if not found.levels:
        return ["Nothing is promised there: `slos:` of its configuration is empty.", *_alerts(found)]
    width = max(3, *(len(level.slo) for level in found.levels))
    head = f"{'SLO':{width}}  {'objective':>9}  {'budget left':>11}  " + "  ".join(f"{name:>6}" for name in _WINDOWS)
    lines = [head]
    for level in found.levels:
        left = "-" if level.left is None else f"{level.left:.1%}"
        rates = "  ".join(f"{level.burns[name]:6.2f}" if name in level.burns else f"{'-':>6}" for name in _WINDOWS)
        lines.append(f"{plain(level.slo):{width}}  {level.objective * 100:>8g}%  {left:>11}  {rates}")
    return [*lines, "", "Burn rates: 1 uses the budget up just at the end of the period.", *_alerts(found)]


def _alerts(found: Found) -> list[str]:
    active = [f"{name}, {n} times" if n > 1 else name for name, n in found.alerts if n]
    return [f"Active: {'; '.join(map(plain, active))}." if active else "No alert is active."]


def told_json(found: Found) -> str:
    said = msgspec.to_builtins(found)
    said["alerts"] = dict(found.alerts)
    return msgspec.json.format(msgspec.json.encode(said), indent=2).decode()
