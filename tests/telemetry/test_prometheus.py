"""`prometheus_client`'s parsers are the second opinion on our text."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from penstock.telemetry.catalogue import CATALOGUE, Kind, Metric
from penstock.telemetry.metrics import Registry, Snapshot
from penstock.telemetry.prometheus import Exposition, Format, negotiate

SMALL = (
    Metric("hits_total", Kind.COUNTER, "", ("who", "what"), 'Hits; a "quote", a back\\slash\nand a second line.'),
    Metric("wait_seconds", Kind.HISTOGRAM, "seconds", ("who",), "Wait.", (0.1, 1.0, 10.0)),
    Metric("level", Kind.GAUGE, "", (), "Level."),
)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def expected(snapshot: Snapshot, catalogue: tuple[Metric, ...]) -> Samples:
    samples: Samples = {}
    for metric in catalogue:
        for series in snapshot.series[metric.name]:
            labels = tuple(sorted(zip(metric.labels, series.labels, strict=True)))
            if metric.kind is not Kind.HISTOGRAM:
                samples[metric.name, labels] = series.value
                continue
            bounds = [*(repr(float(bound)) for bound in metric.buckets), "+Inf"]
            for bound, count in zip(bounds, accumulate(series.counts), strict=True):
                samples[metric.name + "_bucket", tuple(sorted([*labels, ("le", bound)]))] = count
            samples[metric.name + "_sum", labels] = series.value
            samples[metric.name + "_count", labels] = sum(series.counts)
    return samples


def parsed(text: bytes, form: Format) -> Samples:
    parse = parse_openmetrics if form is Format.OPENMETRICS else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


LABEL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "\\n", '\\"', "%", "%s", "%%d", "}", ",", '="', "é", "\r", "\t"]
)


@pytest.mark.parametrize("form", Format)
@given(
    hits=st.lists(st.tuples(LABEL, LABEL, st.integers(0, 2**53)), max_size=6),
    waits=st.lists(st.tuples(LABEL, st.floats(0, 1e6)), max_size=20),
    level=st.floats(allow_nan=False),
)
def test_another_parser_reads_back_what_was_counted(
    form: Format, hits: list[tuple[str, str, int]], waits: list[tuple[str, float]], level: float
) -> None:
    registry = Registry(SMALL)
    for who, what, amount in hits:
        registry.counter("hits_total").labels(who, what).inc(amount)
    for who, seconds in waits:
        registry.histogram("wait_seconds").labels(who).observe(seconds)
    registry.gauge("level").labels().set(level)
    snapshot = registry.snapshot()
    text = Exposition(SMALL).render(snapshot, form)
    assert parsed(text, form) == expected(snapshot, SMALL)


@pytest.mark.parametrize("form", Format)
def test_help_type_and_unit_are_read_back(form: Format) -> None:
    registry = Registry(SMALL)
    registry.counter("hits_total").labels("a", "b").inc()
    registry.histogram("wait_seconds").labels("a").observe(0.2)
    text = Exposition(SMALL).render(registry.snapshot(), form).decode()
    parse = parse_openmetrics if form is Format.OPENMETRICS else parse_text
    families = {family.name: family for family in parse(text)}
    assert families["hits"].documentation == SMALL[0].meaning
    assert families["hits"].type == "counter"
    assert families["wait_seconds"].type == "histogram"
    assert families["wait_seconds"].unit == ("seconds" if form is Format.OPENMETRICS else "")


def test_openmetrics_ends_with_eof_and_the_older_format_does_not_know_it() -> None:
    registry = Registry(SMALL)
    registry.gauge("level").labels().set(1)
    exposition, snapshot = Exposition(SMALL), registry.snapshot()
    assert exposition.render(snapshot, Format.OPENMETRICS).endswith(b"\n# EOF\n")
    assert b"EOF" not in exposition.render(snapshot, Format.TEXT)


def test_nothing_at_all_is_still_a_valid_answer() -> None:
    empty = Registry(SMALL).snapshot()
    assert Exposition(SMALL).render(empty, Format.TEXT) == b""
    assert Exposition(SMALL).render(empty, Format.OPENMETRICS) == b"# EOF\n"


def test_values_that_are_no_numbers_are_written_as_prometheus_writes_them() -> None:
    registry = Registry(SMALL)
    for value, written in ((math.nan, b"NaN"), (math.inf, b"+Inf"), (-math.inf, b"-Inf")):
        registry.gauge("level").labels().set(value)
        assert b"\nlevel " + written + b"\n" in Exposition(SMALL).render(registry.snapshot())


def test_a_label_with_half_a_surrogate_pair_does_not_break_the_scrape() -> None:
    registry = Registry(SMALL)
    registry.counter("hits_total").labels("\ud800", "b").inc()
    assert b'who="?"' in Exposition(SMALL).render(registry.snapshot())


def test_templates_of_series_that_are_gone_are_forgotten() -> None:
    metric = Metric("ready", Kind.GAUGE, "", ("replica",), "Ready.")
    registry, exposition = Registry((metric,)), Exposition((metric,))
    for generation in range(50):
        names = [f"{generation}-{i}" for i in range(20)]
        registry.read_gauge("ready", lambda names=names: [((name,), 1.0) for name in names])  # type: ignore[misc]
        exposition.render(registry.snapshot())
        assert len(exposition._templates["ready"]) <= 2 * 20 + 16 + 20


@pytest.mark.parametrize("form", Format)
def test_the_whole_catalogue_is_valid_with_every_metric_in_use(form: Format) -> None:
    registry = Registry()
    for metric in CATALOGUE:
        values = [f"{label} 1" for label in metric.labels]
        if metric.kind is Kind.COUNTER:
            registry.counter(metric.name).labels(*values).inc()
        elif metric.kind is Kind.GAUGE:
            registry.gauge(metric.name).labels(*values).set(1)
        else:
            registry.histogram(metric.name).labels(*values).observe(0.3)
    snapshot = registry.snapshot()
    assert parsed(Exposition().render(snapshot, form), form) == expected(snapshot, CATALOGUE)


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2, Format.OPENMETRICS),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.5", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;q=nonsense", Format.TEXT),
        ("Application/OpenMetrics-Text; Q=1", Format.OPENMETRICS),
        (";;,,=", Format.TEXT),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


def test_in_openmetrics_a_bucket_names_the_trace_of_one_of_its_requests() -> None:
    registry = Registry(SMALL)
    for who, value in (("a", 0.05), ("a", 5.0), ("b", 50.0)):
        child = registry.histogram("wait_seconds").labels(who)
        child.observe(value)
        child.show(value, f"{who}{value}", 1_800_000_000.25)
    text = Exposition(SMALL).render(registry.snapshot(), Format.OPENMETRICS)
    found = {
        (sample.labels["who"], sample.labels["le"]): (
            sample.exemplar.labels["trace_id"],
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in parse_openmetrics(text.decode())
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {
        ("a", "0.1"): ("a0.05", 0.05, 1_800_000_000.25),
        ("a", "10.0"): ("a5.0", 5.0, 1_800_000_000.25),
        ("b", "+Inf"): ("b50.0", 50.0, 1_800_000_000.25),
    }


def test_the_older_format_has_no_exemplars_and_is_otherwise_the_same() -> None:
    registry = Registry(SMALL)
    child = registry.histogram("wait_seconds").labels("a")
    child.observe(0.05)
    without = Exposition(SMALL).render(registry.snapshot())
    child.show(0.05, "f" * 32, 1.0)
    assert Exposition(SMALL).render(registry.snapshot()) == without
    assert parsed(Exposition(SMALL).render(registry.snapshot(), Format.OPENMETRICS), Format.OPENMETRICS)[
        "wait_seconds_count", (("who", "a"),)
    ]
