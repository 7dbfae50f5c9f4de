"""Stories about continuous batching: one behaviour each, steps made by hand."""

from __future__ import annotations

import pytest

from penstock.batching.options import BatchingOptions
from penstock.batching.scheduler import QueueFull, Scheduler, Step, TooLong
from penstock.batching.sequence import Sequence, State, new_sequence


def scheduler(n_blocks: int = 64, **options: int | bool) -> Scheduler:
    sizes = {"block_size": 4, "max_seqs": 4, "max_batched_tokens": 16, "max_waiting": 8, **options}
    return Scheduler(BatchingOptions(n_blocks=n_blocks, **sizes))  # type: ignore[arg-type]  # sizes are ints or bools


def added(machine: Scheduler, id: str, prompt: list[int], max_tokens: int = 4, salt: bytes = b"") -> Sequence:
    sequence = new_sequence(id, prompt, max_tokens, salt)
    machine.add(sequence)
    return sequence


def advance(machine: Scheduler) -> Step:
    """One step with a model that always says 7; whoever has enough tokens ends."""
    step = machine.plan()
    machine.commit(step, [7] * step.n_samples)
    for chunk in step.chunks:
        if chunk.sequence.generated >= chunk.sequence.max_tokens:
            machine.end(chunk.sequence)
    machine.check()
    return step


def shape(step: Step) -> list[tuple[str, int, int, bool]]:
    return [(chunk.sequence.id, chunk.start, chunk.length, chunk.samples) for chunk in step.chunks]


def test_a_short_prompt_is_prefilled_in_one_step_and_then_decoded_token_by_token():
    machine = scheduler()
    a = added(machine, "a", [1, 2, 3, 4, 5], max_tokens=2)
    assert shape(advance(machine)) == [("a", 0, 5, True)]
    assert shape(advance(machine)) == [("a", 5, 1, True)]
    assert a.state is State.ENDED
    assert a.tokens == [1, 2, 3, 4, 5, 7, 7]
    assert machine.stats().kv_used == 0.0


def test_a_long_prompt_is_prefilled_in_chunks_beside_the_decodes():
    machine = scheduler()
    added(machine, "a", [1, 2], max_tokens=9)
    advance(machine)
    added(machine, "b", list(range(40)))
    assert shape(advance(machine)) == [("a", 2, 1, True), ("b", 0, 15, False)]
    assert shape(advance(machine)) == [("a", 3, 1, True), ("b", 15, 15, False)]
    assert shape(advance(machine)) == [("a", 4, 1, True), ("b", 30, 10, True)]
    assert shape(advance(machine)) == [("a", 5, 1, True), ("b", 40, 1, True)]


def test_a_waiting_sequence_joins_the_running_batch_as_soon_as_one_ends():
    machine = scheduler(max_seqs=1)
    added(machine, "a", [1, 2], max_tokens=2)
    added(machine, "b", [3, 4], max_tokens=2)
    assert [shape(advance(machine))[0][0] for _ in range(4)] == ["a", "a", "b", "b"]
    assert not machine.has_work


def test_a_known_prefix_is_not_computed_again():
    machine = scheduler()
    first = added(machine, "a", [1, 2, 3, 4, 5, 6, 7, 8, 9], max_tokens=1)
    advance(machine)
    again = added(machine, "b", [1, 2, 3, 4, 5, 6, 7, 8, 10, 11], max_tokens=1)
    assert shape(advance(machine)) == [("b", 8, 2, True)]
    assert (first.cached, again.cached) == (0, 8)
    assert machine.stats().prefix_hit_tokens == 8
    assert machine.stats().prompt_tokens == 19


def test_the_last_token_of_a_fully_known_prompt_is_computed_for_its_logits():
    machine = scheduler()
    for name in ("a", "b"):
        added(machine, name, [1, 2, 3, 4, 5, 6, 7, 8], max_tokens=1)
        step = advance(machine)
    assert shape(step) == [("b", 4, 4, True)]


def test_generated_tokens_are_a_prefix_for_the_next_turn():
    machine = scheduler()
    turn = added(machine, "a", [1, 2, 3], max_tokens=6)
    while machine.has_work:
        advance(machine)
    follow_up = added(machine, "b", [*turn.tokens, 9], max_tokens=1)
    advance(machine)
    assert follow_up.cached == 8


def test_tenants_with_different_salts_never_share_a_prefix():
    machine = scheduler()
    added(machine, "a", list(range(12)), max_tokens=1, salt=b"tenant-1")
    advance(machine)
    other = added(machine, "b", list(range(12)), max_tokens=1, salt=b"tenant-2")
    advance(machine)
    same = added(machine, "c", list(range(12)), max_tokens=1, salt=b"tenant-1")
    advance(machine)
    assert (other.cached, same.cached) == (0, 8)


def test_a_prefix_that_matches_later_but_not_at_the_beginning_is_no_hit():
    machine = scheduler()
    added(machine, "a", [1, 2, 3, 4, 5, 6, 7, 8, 9], max_tokens=1)
    advance(machine)
    shifted = added(machine, "b", [9, 9, 9, 9, 5, 6, 7, 8, 9], max_tokens=1)
    advance(machine)
    assert shifted.cached == 0


def test_without_the_prefix_cache_everything_is_computed():
    machine = scheduler(prefix_cache=False)
    for name in ("a", "b"):
        sequence = added(machine, name, list(range(12)), max_tokens=1)
        advance(machine)
    assert sequence.cached == 0
    assert machine.stats().computed_tokens == 24


def test_forgotten_prefixes_are_computed_again():
    machine = scheduler()
    added(machine, "a", list(range(12)), max_tokens=1)
    advance(machine)
    assert machine.forget_prefixes() == 3
    sequence = added(machine, "b", list(range(12)), max_tokens=1)
    advance(machine)
    assert sequence.cached == 0


def test_the_youngest_is_preempted_when_blocks_run_out_and_finishes_later_with_its_tokens_kept():
    machine = scheduler(n_blocks=4)
    old = added(machine, "old", [1, 2, 3, 4, 5, 6, 7], max_tokens=6)
    young = added(machine, "young", [11, 12, 13, 14, 15, 16, 17], max_tokens=6)
    advance(machine)
    advance(machine)
    step = advance(machine)
    assert [s.id for s in step.preempted] == ["young"]
    assert shape(step) == [("old", 8, 1, True)]
    assert young.tokens == [11, 12, 13, 14, 15, 16, 17, 7, 7]
    assert young.preemptions == 1
    while machine.has_work:
        advance(machine)
    assert old.generated == young.generated == 6
    assert machine.stats().preemptions == 1


def test_a_preempted_sequence_goes_before_those_who_have_not_started():
    machine = scheduler(n_blocks=4, max_seqs=2)
    added(machine, "old", [1, 2, 3, 4, 5, 6, 7], max_tokens=6)
    added(machine, "young", [11, 12, 13, 14, 15, 16, 17], max_tokens=6)
    added(machine, "late", [21], max_tokens=9)
    ended: list[str] = []
    while machine.has_work:
        ended += [c.sequence.id for c in advance(machine).chunks if c.sequence.state is State.ENDED]
    assert ended == ["old", "young", "late"]


def test_one_more_than_may_wait_is_refused_by_name():
    machine = scheduler(max_waiting=1)
    added(machine, "a", [1])
    with pytest.raises(QueueFull, match="max_waiting"):
        added(machine, "b", [1])
    assert machine.n_waiting == 1


def test_a_sequence_that_could_never_finish_is_refused():
    machine = scheduler(n_blocks=2)
    with pytest.raises(TooLong) as refusal:
        added(machine, "a", [1, 2, 3, 4, 5], max_tokens=5)
    assert (refusal.value.needed, refusal.value.capacity) == (9, 8)
    added(machine, "b", [1, 2, 3, 4, 5], max_tokens=4)
    while machine.has_work:
        advance(machine)


@pytest.mark.parametrize("steps_before", [0, 1, 2])
def test_an_aborted_sequence_gives_everything_back_at_once(steps_before: int):
    machine = scheduler()
    sequence = added(machine, "a", list(range(20)), max_tokens=4)
    for _ in range(steps_before):
        advance(machine)
    machine.end(sequence)
    machine.end(sequence)
    machine.check()
    assert machine.stats().kv_used == 0.0
    assert not machine.has_work


def test_what_was_computed_for_a_sequence_that_ended_meanwhile_is_ignored():
    machine = scheduler()
    gone = added(machine, "gone", [1, 2, 3, 4, 5], max_tokens=4)
    stays = added(machine, "stays", [6, 7], max_tokens=4)
    step = machine.plan()
    machine.end(gone)
    machine.commit(step, [50, 60])
    machine.check()
    assert gone.tokens == [1, 2, 3, 4, 5]
    assert stays.tokens == [6, 7, 60]


def test_options_that_could_starve_a_decode_are_refused():
    with pytest.raises(ValueError, match="max_batched_tokens"):
        BatchingOptions(n_blocks=4, max_seqs=8, max_batched_tokens=4)
