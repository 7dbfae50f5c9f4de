"""Who is told of an alert, when, and in which words. Each is told once that it began and once that it is over; while it
lasts, again every few hours. Alertmanager is told every minute, since it takes silence for an end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from penstock.quality.alerts import Alert
from penstock.quality.slo import Severity

Kind: TypeAlias = Literal["webhook", "slack", "alertmanager"]

ALERTMANAGER_PATH: Final = "/api/v2/alerts"
PUSH_EVERY: Final = 60.0  # seconds
BELIEVED_FOR: Final = 300.0  # seconds that Alertmanager holds an alert to be active without news
_SLACK_MOST: Final = 20  # alerts in one message


class Target(msgspec.Struct, frozen=True):
    """`address` is one, or a reference to one that is a secret. `severity` None: all alerts."""

    kind: Kind
    address: str
    severity: Severity | None = None
    repeat: float = 4 * 3600.0  # seconds

    def wants(self, alert: Alert) -> bool:
        return self.severity is None or alert.severity == self.severity


class Notice(msgspec.Struct, frozen=True):
    """`path` comes behind the target's address. `text` is what is told where it does not arrive."""

    target: Target
    body: bytes
    text: str
    path: str = ""


class Notices:
    """For one target: what it is told."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._told: dict[tuple[str, str], tuple[Alert, float]] = {}  # by id and severity: when it was told last
        self._pushed_at = float("-inf")

    def step(self, active: Iterable[Alert], now: float) -> list[Notice]:
        """Given all alerts that are active at `now`, Unix seconds."""
        wanted = {(alert.id, alert.severity): alert for alert in active if self.target.wants(alert)}
        ended = [
            msgspec.structs.replace(alert, ended=now) for key, (alert, _) in self._told.items() if key not in wanted
        ]
        due = [
            alert
            for key, alert in wanted.items()
            if key not in self._told or now - self._told[key][1] >= self.target.repeat
        ]
        if self.target.kind == "alertmanager" and (wanted and now - self._pushed_at >= PUSH_EVERY):
            due = list(wanted.values())
        if not due and not ended:
            return []
        for alert in ended:
            del self._told[alert.id, alert.severity]
        for alert in due:
            self._told[alert.id, alert.severity] = alert, now
        self._pushed_at = now
        return self._notices([*due, *ended], now)

    def _notices(self, alerts: list[Alert], now: float) -> list[Notice]:
        text = " ".join(alert.says for alert in alerts[:3])
        if self.target.kind == "alertmanager":
            return [Notice(self.target, alertmanager_body(alerts, now), text, ALERTMANAGER_PATH)]
        if self.target.kind == "slack":
            return [
                Notice(self.target, slack_body(alerts[i : i + _SLACK_MOST]), text)
                for i in range(0, len(alerts), _SLACK_MOST)
            ]
        return [Notice(self.target, webhook_body(alert), alert.says) for alert in alerts]


def webhook_body(alert: Alert) -> bytes:
    """One alert as JSON. `id` is the same when it is told again, and when it ends."""
    said: dict[str, Any] = {
        "event": "alert_active" if alert.ended is None else "alert_resolved",
        "id": alert.id,
        "text": _line(alert),
        "alert": alert.name,
        "severity": alert.severity,
        "labels": dict(alert.labels),
        "summary": alert.says,
        "description": alert.do,
        "value": alert.value,
        "since": _instant(alert.since),
    }
    if alert.ended is not None:
        said["ended"] = _instant(alert.ended)
    return msgspec.json.encode(said)


def slack_body(alerts: list[Alert]) -> bytes:
    """A message for an incoming webhook of Slack, and of those that take the same: Mattermost, Rocket.Chat, Discord's
    `/slack`. `text` alone is all of it; what is special in Slack's markup is escaped, as its documentation asks for."""
    lines = "\n".join(_escaped(_line(alert)) for alert in alerts)
    colour = "good" if all(alert.ended is not None for alert in alerts) else "danger"
    if colour == "danger" and all(alert.severity == "ticket" for alert in alerts):
        colour = "warning"
    details = [
        {
            "color": colour,
            "fields": [
                {"title": _escaped(alert.name), "value": _escaped(alert.do), "short": False} for alert in alerts
            ],
        }
    ]
    return msgspec.json.encode({"text": lines, "attachments": details})


def alertmanager_body(alerts: list[Alert], now: float) -> bytes:
    """What `POST /api/v2/alerts` takes (prometheus/alertmanager, api/v2/openapi.yaml)."""
    return msgspec.json.encode(
        [
            {
                "labels": {
                    **dict(alert.labels),
                    "alertname": alert.name,
                    "severity": alert.severity,
                    "source": "penstock",
                },
                "annotations": {"summary": alert.says, "description": alert.do},
                "startsAt": _instant(alert.since),
                "endsAt": _instant(now + BELIEVED_FOR if alert.ended is None else alert.ended),
            }
            for alert in alerts
        ]
    )


def _line(alert: Alert) -> str:
    state = alert.severity.upper() if alert.ended is None else "RESOLVED"
    return f"[{state}] {alert.name}: {alert.says}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _instant(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
