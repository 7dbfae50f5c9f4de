"""One receipt goes everywhere it has to: metrics, log, trace, exemplar."""

from __future__ import annotations

import json

from penstock.telemetry.access_log import AccessLog
from penstock.telemetry.content import Content
from penstock.telemetry.export import Kept
from penstock.telemetry.fold import RequestMetrics
from penstock.telemetry.metrics import Registry
from penstock.telemetry.observe import BATCH, Observer
from penstock.telemetry.options import Capture, Exporter, Sampling, TelemetryOptions
from penstock.wire.trace_context import trace_id_of
from tests.telemetry.outcomes import FULL, REFUSED, STREAMED, like

ALL = TelemetryOptions(exporters=(Exporter("x", "http://x"),), sampling=Sampling(ratio=1.0))


class Place:
    """An exporter that keeps what it is offered."""

    def __init__(self) -> None:
        self.offered: list[Kept] = []

    def offer(self, kept: Kept) -> None:
        self.offered.append(kept)


class World:
    def __init__(self, options: TelemetryOptions | None = None, *, key: bytes = b"") -> None:
        self.registry, self.place, self.written = Registry(), Place(), bytearray()
        metrics = RequestMetrics(self.registry)
        metrics.serves(("chat",))
        self.log = AccessLog(self.written.extend)
        self.observer = Observer(self.registry, metrics, self.log)
        if options is not None:
            self.observer.use(options, [self.place], key)  # type: ignore[list-item]  # all that is asked of one

    def lines(self) -> list[dict[str, object]]:
        self.log.flush()
        return [json.loads(line) for line in self.written.splitlines()]

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        return {row.labels: row.value for row in self.registry.snapshot().series[name] if row.value}


def test_without_exporters_a_receipt_is_counted_and_logged_and_no_trace_is_thought_of() -> None:
    world = World()
    world.observer.on_outcome(FULL)
    assert len(world.lines()) == 1
    assert sum(world.counted("penstock_requests_total").values()) == 1
    assert world.counted("penstock_traces_total") == {}


def test_traces_are_decided_about_in_batches_at_every_scrape_and_whenever_it_is_asked_for() -> None:
    world = World(ALL)
    for _ in range(BATCH - 1):
        world.observer.on_outcome(STREAMED)
    assert not world.place.offered
    world.observer.on_outcome(STREAMED)
    assert len(world.place.offered) == BATCH
    world.observer.on_outcome(STREAMED)
    world.observer.look()
    assert len(world.place.offered) == BATCH + 1
    world.observer.on_outcome(like(STREAMED, error="idle_timeout"))
    assert world.counted("penstock_traces_total") == {("ratio",): BATCH + 1, ("error",): 1}


def test_a_trace_that_is_kept_is_shown_where_its_latencies_are_counted() -> None:
    world = World(ALL)
    world.observer.on_outcome(STREAMED)
    (row,) = world.registry.snapshot().series["penstock_time_to_first_token_seconds"]
    (place,) = row.exemplars
    assert row.counts[place] == 1
    assert row.exemplars[place] == (STREAMED.received_at + 2.0005, 0.2, trace_id_of(STREAMED.request_id))


def test_a_trace_that_is_not_kept_is_shown_nowhere() -> None:
    world = World(TelemetryOptions(sampling=Sampling(ratio=0.0)))
    world.observer.on_outcome(STREAMED)
    assert not world.place.offered
    for rows in world.registry.snapshot().series.values():
        assert not any(row.exemplars for row in rows)


def test_a_model_that_would_not_answer_flags_its_trace() -> None:
    world = World(TelemetryOptions(sampling=Sampling(ratio=0.0)))
    world.observer.on_outcome(like(STREAMED, finish_reason="refusal"))
    world.observer.look()
    assert [kept.why for kept in world.place.offered] == ["flagged"]


def worded(text: bytes) -> Content:
    content = Content(b"")
    content.said(b'{"choices":[{"message":{"content":"%b"}}]}' % text)
    return content


def test_what_reads_like_a_refusal_is_counted_flagged_and_forgotten() -> None:
    world = World(TelemetryOptions(sampling=Sampling(ratio=0.0)))
    for outcome, text in (
        (STREAMED, b"I'm sorry, but I can't help with that."),
        (STREAMED, b"Of course."),
        (like(STREAMED, finish_reason="refusal"), b"I cannot help you."),
        (like(STREAMED, error="idle_timeout"), b"I cannot help you."),  # nobody knows how it would have gone on
        (like(STREAMED, attempts=()), b"I cannot help you."),  # we said it
    ):
        world.observer.on_outcome(outcome, worded(text))
    world.observer.on_outcome(STREAMED)
    world.observer.look()
    assert world.counted("penstock_answers_looked_at_total") == {
        ("chat", "words"): 1,
        ("chat", "none"): 1,
        ("chat", "declared"): 1,
    }
    assert world.counted("penstock_refusals_total") == {("chat", "refusal"): 1}
    assert [kept.why for kept in world.place.offered] == ["flagged", "flagged", "error"]
    assert all(kept._content is None for kept in world.place.offered)
    assert b"sorry" not in world.written


def test_hashes_are_on_the_line_and_on_the_span_when_they_are_asked_for() -> None:
    world = World(TelemetryOptions(sampling=Sampling(ratio=1.0), capture=Capture(hashes=True)), key=b"k")
    content = Content(b'{"messages":[{"role":"user","content":"my secret plan"}]}')
    content.said(b'{"choices":[{"message":{"content":"is good"}}]}')
    world.observer.on_outcome(STREAMED, content)
    world.observer.look()
    (line,) = world.lines()
    root = world.place.offered[0].trace({}).spans[0]
    assert (line["prompt_hash"], line["output_hash"]) == (
        root.attributes["prompt_hash"],
        root.attributes["output_hash"],
    )
    assert "input" not in root.attributes
    assert b"secret plan" not in world.written


def test_what_a_caller_wrote_is_made_fit_before_it_is_in_a_trace() -> None:
    world = World(ALL)
    world.observer.on_outcome(like(REFUSED, model="sk-pen-01234567-secretsecret"))
    world.observer.on_outcome(like(FULL, context=("sk-abcdefghijkl",), tags=("password=hunter22",)))
    world.observer.look()
    told = str([kept.trace({}) for kept in world.place.offered]) + str(world.lines())
    assert "secretsecret" not in told
    assert "abcdefghijkl" not in told
    assert "hunter22" not in told


def test_options_can_change_and_what_waited_is_decided_by_the_old_ones() -> None:
    world = World(ALL)
    world.observer.on_outcome(STREAMED)
    world.observer.use(TelemetryOptions(sampling=Sampling(ratio=0.0), log_keys="ecs"), [])
    world.observer.on_outcome(STREAMED)
    world.observer.look()
    assert len(world.place.offered) == 1
    assert "@timestamp" in world.lines()[1]
