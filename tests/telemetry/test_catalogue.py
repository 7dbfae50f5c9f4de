from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.telemetry.catalogue import CATALOGUE, Kind, render_markdown, with_bounds

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_documentation_is_what_the_table_says() -> None:
    expected = render_markdown()
    assert DOCS.read_text() == expected, "write telemetry.catalogue.render_markdown() to docs/metrics.md"


def test_names_are_unique_and_of_the_form_prometheus_asks_for() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names))
    for metric in CATALOGUE:
        assert re.fullmatch(r"penstock_[a-z][a-z_]*[a-z]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        stem = metric.name.removesuffix("_total")
        assert not metric.unit or stem.endswith("_" + metric.unit), metric.name


def test_histograms_have_ascending_buckets_and_others_none() -> None:
    for metric in CATALOGUE:
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_no_label_has_a_name_that_prometheus_keeps_for_itself() -> None:
    reserved = {"le", "quantile", "job", "instance"}
    for metric in CATALOGUE:
        assert not reserved & set(metric.labels), metric.name


def test_the_threshold_of_an_slo_is_the_bound_of_a_bucket() -> None:
    name = "penstock_time_to_first_token_seconds"
    before = {metric.name: metric for metric in CATALOGUE}
    after = {metric.name: metric for metric in with_bounds({name: (3.0, 0.25)})}
    assert set(after[name].buckets) - set(before[name].buckets) == {3.0}  # 0.25 is one already
    assert list(after[name].buckets) == sorted(after[name].buckets)
    assert all(after[other] is before[other] for other in before if other != name)
    assert with_bounds({}) == CATALOGUE


def test_a_threshold_for_what_is_no_histogram_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="penstock_requests_total"):
        with_bounds({"penstock_requests_total": (1.0,)})


def test_every_metric_has_a_bound_on_its_series() -> None:
    assert all(0 < metric.max_children <= 4_000 for metric in CATALOGUE)
