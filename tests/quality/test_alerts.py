"""Alerts begin when something holds for long enough, end when it is over, and are told once each."""

from __future__ import annotations

import json

import pytest

from penstock.quality import alerts as module
from penstock.quality.alerts import RULES, Alarms, Alert, Finding, Foreign, finding_of, threshold
from penstock.quality.notices import (
    BELIEVED_FOR,
    PUSH_EVERY,
    Notices,
    Target,
    alertmanager_body,
    slack_body,
    webhook_body,
)
from penstock.quality.rules import expression, metrics_of
from penstock.telemetry.catalogue import CATALOGUE

T = 1_800_000_000.0


def finding(name: str = "BreakerOpen", holds_for: float = 60.0, value: float = 2.0, **labels: str) -> Finding:
    return Finding(name, "page", tuple(labels.items()), f"{name} is so.", "Look.", value, holds_for)


def alert(name: str = "BreakerOpen", ended: float | None = None, **labels: str) -> Alert:
    return Alert(name, "page", tuple(labels.items()), f"{name} <is> so & so.", "Look.", 2.0, T, ended)


def test_what_holds_for_long_enough_begins_once_and_ends_once():
    alarms = Alarms()
    assert alarms.step([finding(replica="a/0")], T) == []
    assert alarms.step([finding(replica="a/0")], T + 59) == []
    (began,) = alarms.step([finding(replica="a/0")], T + 60)
    assert (began.since, began.ended) == (T, None)
    assert alarms.step([finding(replica="a/0")], T + 70) == []
    (ended,) = alarms.step([], T + 80)
    assert ended.ended == T + 80
    assert ended.id == began.id
    assert alarms.active == ()


def test_what_stops_in_between_begins_to_hold_anew():
    alarms = Alarms()
    for now, found in ((T, [finding()]), (T + 30, []), (T + 40, [finding()]), (T + 99, [finding()])):
        assert alarms.step(found, now) == []
    assert len(alarms.step([finding()], T + 100)) == 1


def test_there_are_never_more_alerts_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_ACTIVE", 3)
    alarms = Alarms()
    alarms.step([finding(holds_for=0.0, replica=f"a/{n}") for n in range(5)], T)
    assert len(alarms.active) == 3
    assert alarms.untold == 2


def test_every_shipped_alert_is_about_metrics_that_exist_with_labels_that_exist():
    known = {metric.name: metric for metric in CATALOGUE}
    assert metrics_of(RULES) <= set(known)
    for rule in RULES:
        condition = rule.condition
        for metric in metrics_of([rule]):
            assert set(getattr(condition, "by", ())) <= set(known[metric].labels), rule.name


def test_every_shipped_alert_has_a_sentence_for_people_and_a_name_of_its_own():
    assert len({rule.name for rule in RULES}) == len(RULES)
    labels = dict.fromkeys(("model", "replica", "deployment", "exporter", "why", "budget", "percent"), "x")
    for rule in RULES:
        if not isinstance(rule.condition, Foreign):
            said = finding_of(rule, tuple(labels.items()), 1.0).says
            assert "{" not in said
            assert said.endswith(".")
        assert expression(rule.condition)


def test_thresholds_are_said_as_people_say_them():
    by_name = {rule.name: threshold(rule) for rule in RULES}
    assert by_name["TtftHigh"]["bound"] == "3 s"
    assert by_name["RefusalsHigh"]["over"] == "10%"
    assert by_name["GpuMemoryHigh"]["over"] == "92%"
    assert by_name["LedgerBehind"]["over"] == "300 s"


def test_a_webhook_is_told_that_it_began_again_after_a_while_and_that_it_is_over():
    notices = Notices(Target("webhook", "env:HOOK", repeat=3600.0))
    events = []
    for later in (0, 10, 3599, 3600, 3610):
        events += [(later, json.loads(one.body)["event"]) for one in notices.step([alert()], T + later)]
    events += [(3620, json.loads(one.body)["event"]) for one in notices.step([], T + 3620)]
    assert events == [(0, "alert_active"), (3600, "alert_active"), (3620, "alert_resolved")]
    assert notices.step([], T + 3630) == []


def test_alertmanager_is_told_every_minute_because_it_takes_silence_for_an_end():
    notices = Notices(Target("alertmanager", "http://127.0.0.1:9093"))
    pushed = [later for later in range(0, 300, 10) if notices.step([alert()], T + later)]
    assert pushed == [0, 60, 120, 180, 240]
    assert PUSH_EVERY * 2 < BELIEVED_FOR


def test_only_alerts_of_the_wanted_severity_are_told():
    notices = Notices(Target("slack", "env:HOOK", severity="ticket"))
    assert notices.step([alert()], T) == []


def test_what_slack_takes_for_markup_is_escaped_and_the_colour_says_how_bad_it_is():
    said = json.loads(slack_body([alert(model="<!channel>")]))
    assert said["text"] == "[PAGE] BreakerOpen: BreakerOpen &lt;is&gt; so &amp; so."
    assert said["attachments"][0]["color"] == "danger"
    assert json.loads(slack_body([alert(ended=T)]))["attachments"][0]["color"] == "good"


def test_a_resolved_alert_has_the_id_of_the_one_that_began():
    began, ended = (json.loads(webhook_body(alert(ended=at, replica="a/0"))) for at in (None, T + 60))
    assert began["id"] == ended["id"] == "BreakerOpen|replica=a/0"
    assert (began["since"], ended["ended"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:01:00.000Z")


def test_a_label_of_ours_cannot_take_the_place_of_an_alertmanager_label():
    (said,) = json.loads(alertmanager_body([alert(alertname="x", severity="none")], T))
    assert said["labels"]["alertname"] == "BreakerOpen"
    assert said["labels"]["severity"] == "page"
