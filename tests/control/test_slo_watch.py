"""The watch finds from our own numbers what Prometheus would find, and a restart costs no budget."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.control.readings import Reader
from penstock.control.slo import TICK, SloWatch
from penstock.core.outcome import Outcome, UsageSource
from penstock.core.plan import Attempt
from penstock.core.request import Usage
from penstock.quality.alerts import RULES, Rule
from penstock.quality.sli import HISTOGRAMS, Indicator, sli_of
from penstock.quality.slo import DAY, HOUR, Queries, Slo
from penstock.telemetry.catalogue import CATALOGUE, Metric, with_bounds
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry

T = 1_800_000_000.0
BOUNDS = with_bounds({HISTOGRAMS[Indicator.TTFT]: [3.0], HISTOGRAMS[Indicator.E2E]: [4.0]})

AVAILABLE = Slo("available", 0.999)
FAST = Slo("fast", 0.99, Indicator.E2E, 4.0, ("chat",))


def outcome(**changed: Any) -> Outcome:
    whole = Outcome(
        T, "r", "chat.completions", "acme", "web", "chat", True, 200, None, (Attempt(0, "a/0", "ok", 0.0, 0.1, 1.0),),
        Usage(10, 20), UsageSource.PROVIDER, "stop", 0.1, 1.0, 1,
    )  # fmt: skip
    return msgspec.structs.replace(whole, **changed)


GOOD = outcome()
FAILED = outcome(status=502, error="upstream_error", finish_reason=None, first_token_after=None)
SPOILT = outcome(status=400, error="invalid_request", attempts=(), finish_reason=None, first_token_after=None)
LEFT = outcome(status=499, error="client_left", finish_reason=None)
SLOW = outcome(duration=5.0, first_token_after=3.5)


class House:
    """A gateway's metrics and a watch of them, in virtual time."""

    def __init__(
        self,
        slos: tuple[Slo, ...] = (AVAILABLE, FAST),
        rules: tuple[Rule, ...] = RULES,
        catalogue: tuple[Metric, ...] = BOUNDS,
        kept: bytes = b"",
        now: float = T,
    ) -> None:
        self.registry = Registry(catalogue)
        self.requests = RequestMetrics(self.registry)
        self.requests.serves(["chat"])
        self.watch = SloWatch(catalogue, slos, rules, kept=kept)
        self.now = now
        self.told: list[tuple[str, str, bool]] = []

    def run(self, seconds: float, *outcomes: Outcome, times: int = 1) -> House:
        """That many of these in every tick, for so long."""
        for _ in range(round(seconds / TICK)):
            for one in outcomes:
                for _ in range(times):
                    self.requests.on_outcome(one)
            self.now += TICK
            for alert in self.watch.observe(self.registry.snapshot(), self.now):
                self.told.append((alert.name, alert.severity, alert.ended is None))
        return self

    def left(self, slo: str) -> float | None:
        return next(status.left for status in self.watch.status() if status.slo.name == slo)


def test_what_callers_spoil_or_leave_is_no_event_of_availability():
    house = House().run(60, GOOD, SPOILT, LEFT)
    (available, _) = house.watch.status()
    assert (available.seen.bad, available.seen.events) == (0, 6)
    house.run(60, FAILED)
    assert house.watch.status()[0].seen.bad == 6


def test_a_latency_is_counted_exactly_at_its_threshold():
    house = House().run(10, outcome(duration=4.0), outcome(duration=4.0001))
    assert house.watch.status()[1].seen.bad == 1
    assert house.watch.status()[1].seen.events == 2


def test_a_threshold_that_is_no_bound_is_not_guessed():
    (_, fast) = House(catalogue=CATALOGUE).run(10, SLOW).watch.status()
    assert fast.left is None
    assert "no bucket that ends at 4" in fast.blind


def test_a_budget_that_burns_fast_is_told_at_once_and_resolved_when_it_is_over():
    house = House((AVAILABLE,), ()).run(600, GOOD, times=20)
    assert house.told == []
    house.run(300, FAILED, GOOD, times=20)
    assert ("SloBudgetBurning", "page", True) in house.told
    left = house.left("available")
    assert left is not None and left < 0
    house.told.clear()
    house.run(400, GOOD, times=20)  # the five minutes have passed, but not the thirty of the next window
    assert house.told == []
    house.run(1500, GOOD, times=20)
    assert ("SloBudgetBurning", "page", False) in house.told


def test_a_few_failures_of_a_few_requests_wake_nobody():
    house = House((AVAILABLE,), ()).run(600, GOOD)  # 60 of them: enough, but none is bad
    quiet = House((AVAILABLE,), ()).run(40, FAILED, times=10)  # 40 of 40: not enough to say something
    assert house.told == quiet.told == []


def test_counters_that_begin_anew_are_not_taken_for_less_than_nothing():
    house = House().run(60, GOOD, FAILED)
    house.registry = Registry(BOUNDS)  # a worker's numbers, all of them, begin at 0
    house.requests = RequestMetrics(house.registry)
    house.run(60, GOOD)
    assert (house.watch.status()[0].seen.bad, house.watch.status()[0].seen.events) == (6, 18)


def test_a_restart_costs_no_budget():
    before = House().run(600, GOOD, FAILED)
    after = House(kept=before.watch.keep(), now=before.now).run(10, GOOD)
    assert after.watch.status()[0].seen.bad == 60
    assert after.watch.status()[0].seen.events == 121
    assert House(kept=b"not what was kept").run(10, GOOD).left("available") == 1.0


def test_what_is_kept_of_another_promise_is_not_taken_for_this_one():
    kept = House((AVAILABLE,)).run(60, FAILED).watch.keep()
    other = Slo("available", 0.999, Indicator.ERRORS)
    assert House((other,), kept=kept).run(10, GOOD).left("available") == 1.0


def test_a_reload_keeps_what_was_seen_and_counts_what_is_new_from_now_on():
    house = House((AVAILABLE,), ()).run(60, FAILED)
    stricter = msgspec.structs.replace(AVAILABLE, objective=0.9999)
    house.watch.follow((stricter, FAST), RULES)
    house.run(10, outcome(cost_nanos=5))
    assert [status.seen.events for status in house.watch.status()] == [7, 1]
    assert [name for name, _, began in house.told if began and name != "SloBudgetBurning"] == []


def test_queries_of_others_are_left_to_prometheus():
    foreign = Slo("theirs", 0.99, None, queries=Queries("rate(x[{{.window}}])"))
    (status,) = House((foreign,)).run(10, GOOD).watch.status()
    assert "Prometheus" in status.blind


@pytest.mark.parametrize(
    ("name", "wrong", "labels"),
    [
        ("TtftHigh", SLOW, {"model": "chat"}),
        ("RefusalsHigh", outcome(finish_reason="content_filter"), {"model": "chat"}),
        ("RefusalsHigh", outcome(status=400, error="content_policy_violation", finish_reason=None), {"model": "chat"}),
        ("AnswersAtTokenCap", outcome(finish_reason="length"), {"model": "chat"}),
    ],
)
def test_shares_are_told_when_they_hold_long_enough(name: str, wrong: Outcome, labels: dict[str, str]):
    rule = next(rule for rule in RULES if rule.name == name)
    house = House((), (rule,)).run(600, GOOD, times=10)
    assert house.told == []
    house.run(rule.holds_for, GOOD, wrong, times=5)
    assert house.told == []  # half of them are bad, but not yet for long enough
    house.run(90, GOOD, wrong, times=5)
    assert house.told == [(name, rule.severity, True)]
    assert dict(house.watch.active[0].labels) == labels
    house.run(700, GOOD, times=10)
    assert house.told[-1] == (name, rule.severity, False)


def test_gauges_are_looked_at_by_series_or_by_group():
    rules = tuple(rule for rule in RULES if rule.name in ("NoReplicaReady", "ReplicaNotReady"))
    house = House((), rules)
    ready = {"a/0": 0.0, "a/1": 1.0}
    house.registry.read_gauge("penstock_replica_ready", lambda: [(("a", name), up) for name, up in ready.items()])
    house.run(200)
    assert house.told == [("ReplicaNotReady", "ticket", True)]
    ready["a/1"] = 0.0
    house.run(200)
    assert {name for name, _, _ in house.told} == {"ReplicaNotReady", "NoReplicaReady"}
    assert len(house.watch.active) == 3


def test_a_counter_that_should_not_grow_is_told_when_it_does_even_if_it_was_not_there():
    rule = next(rule for rule in RULES if rule.name == "RequestsUnpriced")
    house = House((), (rule,)).run(60, outcome(cost_nanos=5))
    assert house.told == []
    house.run(10, GOOD)
    assert house.told == [("RequestsUnpriced", "ticket", True)]
    house.run(700, outcome(cost_nanos=5))
    assert house.told[-1] == ("RequestsUnpriced", "ticket", False)


def test_it_is_all_in_the_metrics():
    house = House().run(600, GOOD, FAILED)
    shown = Registry(BOUNDS)
    house.watch.show(shown)
    series = shown.snapshot().series
    assert {row.labels: row.value for row in series["penstock_slo_objective_ratio"]} == {
        ("available",): 0.999,
        ("fast",): 0.99,
    }
    assert {row.labels for row in series["penstock_slo_burn_rate"]} >= {("available", "5m"), ("fast", "3d")}
    active = {row.labels: row.value for row in series["penstock_alerts_active"]}
    assert active["SloBudgetBurning", "page"] == 1
    assert active["TtftHigh", "page"] == 0


def test_a_month_of_one_slo_fits_into_a_hundred_kilobytes():
    house = House((AVAILABLE,)).run(60, GOOD)
    assert len(house.watch.keep()) < 100_000


def test_every_indicator_can_be_read_from_our_own_numbers():
    house = House().run(10, GOOD, FAILED, SPOILT, SLOW)
    reader, snapshot = Reader(with_bounds({metric: [2.0] for metric in HISTOGRAMS.values()})), house.registry.snapshot()
    for indicator in set(Indicator) - set(HISTOGRAMS):
        sli = sli_of(indicator)
        bad = reader.added(sli.bad, (), snapshot).get((), 0.0)
        events = reader.added(sli.events, (), snapshot).get((), 0.0)
        assert 0 <= bad <= events, indicator


def test_a_period_is_remembered_and_no_longer():
    house = House((msgspec.structs.replace(AVAILABLE, period=DAY),), ()).run(10, FAILED, times=100)
    house.now += 12 * HOUR
    assert house.run(10, GOOD).watch.status()[0].seen.bad == 100
    house.now += 13 * HOUR
    assert house.run(10, GOOD).watch.status()[0].seen.bad == 0
