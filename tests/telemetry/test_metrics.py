from __future__ import annotations

from math import ceil
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.telemetry.catalogue import OTHER, Kind, Merge, Metric
from penstock.telemetry.metrics import OVERFLOW, Histogram, Registry, Snapshot, lasting, merge, quantile

CATALOGUE = (
    Metric("hits_total", Kind.COUNTER, "", ("who",), "Hits.", max_children=3),
    Metric("wait_seconds", Kind.HISTOGRAM, "seconds", ("who",), "Wait.", (0.1, 1.0, 10.0)),
    Metric("open", Kind.GAUGE, "", (), "Open."),
    Metric("oldest", Kind.GAUGE, "", (), "Oldest.", merge=Merge.MIN),
    Metric("worst", Kind.GAUGE, "", (), "Worst.", merge=Merge.MAX),
    Metric("theirs_total", Kind.COUNTER, "", ("who",), "Somebody else's.", merge=Merge.MAX),
    Metric(OVERFLOW, Kind.COUNTER, "", ("metric",), "Overflow."),
)


def values(snapshot: Snapshot, name: str) -> dict[tuple[str, ...], float]:
    return {series.labels: series.value for series in snapshot.series[name]}


def test_a_value_equal_to_a_bound_is_in_that_bucket_and_one_above_all_bounds_in_the_last() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in (0.0, 0.1, 0.100001, 1.0, 10.0, 10.1):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 1]
    assert histogram.sum == pytest.approx(21.300001)


def test_the_same_labels_give_the_same_child() -> None:
    family = Registry(CATALOGUE).counter("hits_total")
    assert family.labels("a") is family.labels("a")
    assert family.labels("a") is not family.labels("b")


def test_a_full_family_counts_the_rest_as_other_and_says_how_often() -> None:
    registry = Registry(CATALOGUE)
    for name in ("a", "b", "c", "d", "e", "a", "d"):
        registry.counter("hits_total").labels(name).inc()
    snapshot = registry.snapshot()
    assert values(snapshot, "hits_total") == {("a",): 2, ("b",): 1, ("c",): 1, (OTHER,): 3}
    assert values(snapshot, OVERFLOW) == {("hits_total",): 3}


@given(st.lists(st.text(max_size=3), max_size=60))
def test_a_family_never_has_more_children_than_it_may_and_one_other(names: list[str]) -> None:
    registry = Registry(CATALOGUE)
    for name in names:
        registry.counter("hits_total").labels(name).inc()
    counted = values(registry.snapshot(), "hits_total")
    assert len(counted) <= 4
    assert sum(counted.values()) == len(names)


def test_a_metric_that_is_not_in_the_catalogue_cannot_be_made() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        Registry().counter("nowhere")


def test_a_metric_cannot_be_used_as_another_kind() -> None:
    with pytest.raises(KeyError):
        Registry(CATALOGUE).gauge("hits_total")


def test_a_wrong_number_of_labels_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="hits_total takes the labels"):
        Registry(CATALOGUE).counter("hits_total").labels("a", "b")


def test_a_gauge_is_read_at_every_snapshot_and_what_it_no_longer_names_is_gone() -> None:
    metric = Metric("ready", Kind.GAUGE, "", ("replica",), "Ready.")
    registry = Registry((metric,))
    replicas = {"a": 1.0, "b": 0.0}
    registry.read_gauge("ready", lambda: [((name,), value) for name, value in replicas.items()])
    assert values(registry.snapshot(), "ready") == {("a",): 1.0, ("b",): 0.0}
    del replicas["a"]
    assert values(registry.snapshot(), "ready") == {("b",): 0.0}


def test_gauges_of_several_workers_become_a_sum_a_minimum_or_a_maximum_as_the_catalogue_says() -> None:
    snapshots = []
    for value in (3, 1, 2):
        registry = Registry(CATALOGUE)
        for name in ("open", "oldest", "worst"):
            registry.gauge(name).labels().set(value)
        snapshots.append(registry.snapshot())
    merged = merge(snapshots, CATALOGUE)
    assert [merged.series[name][0].value for name in ("open", "oldest", "worst")] == [6, 1, 3]


def test_a_worker_that_ended_still_counts_but_has_no_gauges() -> None:
    registry = Registry(CATALOGUE)
    registry.counter("hits_total").labels("a").inc(5)
    registry.gauge("open").labels().set(7)
    merged = merge([lasting(registry.snapshot(), CATALOGUE), Registry(CATALOGUE).snapshot()], CATALOGUE)
    assert values(merged, "hits_total") == {("a",): 5}
    assert merged.series["open"] == ()


def test_a_counter_of_somebody_else_is_that_of_one_worker_and_gone_with_it() -> None:
    snapshots = []
    for value in (5, 7):
        registry = Registry(CATALOGUE)
        registry.read_counter("theirs_total", lambda value=value: [(("engine",), value)])
        snapshots.append(registry.snapshot())
    assert values(merge(snapshots, CATALOGUE), "theirs_total") == {("engine",): 7}
    assert "theirs_total" not in lasting(snapshots[0], CATALOGUE).series
    assert "hits_total" in lasting(snapshots[0], CATALOGUE).series


def test_of_several_workers_the_last_exemplar_of_a_bucket_is_shown() -> None:
    snapshots = []
    for at, trace_id in ((2.0, "b"), (3.0, "c"), (1.0, "a")):
        registry = Registry(CATALOGUE)
        histogram = registry.histogram("wait_seconds").labels("x")
        histogram.observe(0.5)
        histogram.show(0.5, trace_id, at)
        snapshots.append(registry.snapshot())
    snapshots.append(Registry(CATALOGUE).snapshot())
    (row,) = merge(snapshots, CATALOGUE).series["wait_seconds"]
    assert row.counts == (0, 3, 0, 0)
    assert row.exemplars == {1: (3.0, 0.5, "c")}


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_within_the_bucket_in_which_it_is(observed: list[float], q: float) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in observed:
        histogram.observe(value)
    found = quantile(histogram.bounds, histogram.counts, q)
    assert found is not None
    exact = sorted(observed)[max(0, ceil(q * len(observed)) - 1)]
    assert found <= next((bound for bound in histogram.bounds if exact <= bound), 10.0)
    assert found >= max((bound for bound in (0.0, *histogram.bounds) if bound < exact), default=0.0)


def test_nothing_seen_has_no_quantile() -> None:
    assert quantile((1.0,), (0, 0), 0.5) is None


EVENTS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 2**20).map(lambda n: n / 1024)), max_size=60
)  # dyadic: their sums are exact, so any order must give the same


@given(EVENTS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_merged_workers_equal_one_that_saw_everything(
    events: list[tuple[str, float]], n_workers: int, rng: Random
) -> None:
    catalogue = tuple(msgspec.structs.replace(metric, max_children=100) for metric in CATALOGUE)
    whole, workers = Registry(catalogue), [Registry(catalogue) for _ in range(n_workers)]
    for at, (who, value) in enumerate(events):
        for registry in (whole, rng.choice(workers)):
            registry.counter("hits_total").labels(who).inc()
            registry.histogram("wait_seconds").labels(who).observe(value)
            registry.histogram("wait_seconds").labels(who).show(value, f"trace {at}", at)
    merged = merge([worker.snapshot() for worker in workers], catalogue)
    assert merged == merge([whole.snapshot()], catalogue)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_workers_changes_nothing(sums: list[float], rng: Random) -> None:
    snapshots = []
    for value in sums:
        registry = Registry(CATALOGUE)
        registry.histogram("wait_seconds").labels(rng.choice("ab")).observe(value)
        snapshots.append(registry.snapshot())
    merged = merge(snapshots, CATALOGUE)
    rng.shuffle(snapshots)
    assert merge(snapshots, CATALOGUE) == merged


def test_a_snapshot_survives_the_trip_between_processes() -> None:
    registry = Registry(CATALOGUE)
    registry.counter("hits_total").labels("a").inc()
    registry.histogram("wait_seconds").labels("a").observe(0.25)
    snapshot = registry.snapshot()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


def test_a_snapshot_does_not_change_afterwards() -> None:
    registry = Registry(CATALOGUE)
    histogram = registry.histogram("wait_seconds").labels("a")
    histogram.observe(0.25)
    snapshot = registry.snapshot()
    histogram.observe(0.25)
    assert snapshot.series["wait_seconds"][0].counts == (0, 1, 0, 0)
