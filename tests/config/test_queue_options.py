"""The `queue` block: what reaches the plane, what is refused, and what a person is told."""

from __future__ import annotations

import pytest

from penstock.balancing.queue_options import DEFAULT, ClassOptions
from penstock.config.compile import compile_plane
from penstock.config.diff import diff
from penstock.config.load import load
from penstock.config.problems import ConfigError
from penstock.config.queue import told
from penstock.config.spec import PlaneSpec
from penstock.core.request import Priority

HEAD = "models: { chat: { deployments: [it] } }\ndeployments: { it: { engine: http://a:1 } }\n"


def plane(queue: str = "") -> PlaneSpec:
    return compile_plane(load(HEAD + queue, "f"), 1, {})


def test_without_a_block_the_queue_has_its_defaults():
    assert plane().queue == DEFAULT


def test_every_option_reaches_the_plane_in_the_queues_own_units():
    queue = plane("""\
queue:
  order: fcfs
  threshold: 2048
  quantum: 500ms
  weights: { acme: 3 }
  classes:
    critical: { slots: 2, share: 12.5%, depth: 7, timeout: 2m, promote_after: 10s, preempts: false }
""").queue
    assert (queue.order, queue.threshold, queue.quantum, queue.weights) == ("fcfs", 2048, 0.5, {"acme": 3.0})
    assert queue.critical == ClassOptions(
        slots=2, share=0.125, depth=7, timeout=120.0, promote_after=10.0, preempts=False
    )


def test_what_is_not_given_is_as_it_was_for_that_priority():
    queue = plane("queue: { classes: { low: { depth: 3 }, normal: { promote_after: off } } }").queue
    assert (queue.low.depth, queue.low.timeout, queue.low.promote_after) == (3, 300.0, 120.0)
    assert queue.normal.promote_after is None and queue.critical == DEFAULT.critical


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        ("quantum: 0s", "queue.quantum must be longer than 0s"),
        ("classes: { low: { preempts: true } }", "queue.classes.low.preempts has no meaning"),
        ("classes: { low: { timeout: 2h } }", "queue.classes.low.timeout must be longer than 0s and at most 1h"),
        ("classes: { low: { promote_after: 0s } }", "queue.classes.low.promote_after must be longer than 0s; `off`"),
        ("classes: { low: { share: 70% }, high: { share: 40% } }", "queue.classes have shares that are 110% together"),
        ("classes: { low: { share: 101% } }", "queue.classes.low.share must be a percentage of at most 100%"),
        ("classes: { urgent: { depth: 1 } }", "must be `critical` or `high` or `low` or `normal`, not `urgent`"),
        ("weights: { acme: 0 }", "queue.weights.acme must be a whole number from 1 to 1,000"),
    ],
)
def test_what_makes_no_sense_is_told_where_it_stands(queue, told):
    with pytest.raises(ConfigError) as raised:
        plane(f"queue: {{ {queue} }}")
    assert told in str(raised.value)


def test_the_queue_is_told_in_plain_words():
    rows = dict(told(plane("queue: { weights: { acme: 3 }, classes: { high: { slots: 2, share: 10% } } }").queue))
    assert "first who waited longest for the work it is" in rows["all"] and rows["all"].endswith("acme counts 3 times")
    assert rows["high"] == (
        "at most 1,024 wait, each 30 s; room is kept for 2 and 10% of all that replicas run; "
        "stops lower ones before their first token"
    )
    assert set(rows) == {"all", *Priority}


def test_a_changed_queue_is_told_as_a_difference():
    [line] = diff(plane(), plane("queue: { classes: { high: { depth: 5 } } }"))
    assert line.startswith("~ queue, high: at most 1,024 wait") and " -> at most 5 wait" in line
