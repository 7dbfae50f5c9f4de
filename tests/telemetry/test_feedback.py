"""What is said of answers is counted by model; what sessions do is a hint and breaks no promise."""

from __future__ import annotations

import msgspec

from penstock.quality.feedback import GONE_AFTER, Signal, Verdict
from penstock.telemetry.feedback import FeedbackMetrics
from penstock.telemetry.metrics import Registry
from tests.telemetry.outcomes import STREAMED

T = STREAMED.received_at


def test_words_and_signs_are_counted_apart():
    now, registry = [T], Registry()
    counted = FeedbackMetrics(registry, lambda: now[0])
    counted.count("chat", Signal.THUMBS, Verdict.BAD)
    counted.count("", Signal.RATING, Verdict.GOOD)
    asked = msgspec.structs.replace(STREAMED, session="s", request_id="a")
    counted.on_outcome(asked)
    counted.on_outcome(msgspec.structs.replace(asked, received_at=T + 20, request_id="b", error="client_left"))
    now[0] = T + 30 + GONE_AFTER
    counted.look()
    counted.look()
    rows = registry.snapshot().series["penstock_feedback_total"]
    assert {row.labels: row.value for row in rows} == {
        ("chat", "thumbs", "bad"): 1,
        ("unknown", "rating", "good"): 1,
        ("chat", "requery", "neutral"): 1,
        ("chat", "abandoned", "neutral"): 1,
    }
