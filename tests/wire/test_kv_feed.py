"""Which batches a subscriber applies, skips, holds and asks for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.kv_feed import Do, Feed


def test_batches_in_their_order_are_applied():
    feed = Feed(replays=False)
    assert not feed.connected()
    assert [feed.live(number, number) for number in range(3)] == [Do.APPLY] * 3


def test_whoever_joins_late_starts_with_the_batch_that_comes():
    feed = Feed(replays=False)
    feed.connected()
    assert [feed.live(number, number) for number in (700, 701)] == [Do.APPLY] * 2


def test_a_gap_that_nobody_repeats_means_to_forget():
    feed = Feed(replays=False)
    feed.connected()
    assert [feed.live(number, number) for number in (0, 1, 5, 6)] == [Do.APPLY, Do.APPLY, Do.FORGET, Do.APPLY]


def test_a_gap_is_asked_for_from_the_first_that_is_missing_and_what_comes_meanwhile_is_held():
    feed = Feed(replays=True)
    assert feed.connected()
    feed.repeated()
    assert feed.live(0, 0.0) is Do.APPLY
    assert feed.live(3, 3.0) is Do.REPEAT
    assert feed.next == 1
    assert feed.live(4, 4.0) is Do.HOLD
    assert [feed.repeat(number, number) for number in (1, 2, 3)] == [Do.APPLY] * 3
    feed.repeated()
    assert [feed.live_again(number, number) for number in (3, 4)] == [Do.SKIP, Do.APPLY]
    assert feed.live(5, 5.0) is Do.APPLY


def test_a_gap_older_than_what_is_kept_means_to_forget_and_to_go_on_with_what_is_there():
    feed = Feed(replays=True)
    feed.connected()
    feed.repeated()
    feed.live(0, 0.0)
    assert feed.live(9, 9.0) is Do.REPEAT
    assert [feed.repeat(number, number) for number in (7, 8, 9)] == [Do.FORGET, Do.APPLY, Do.APPLY]


def test_a_repeat_that_never_comes_means_to_forget():
    feed = Feed(replays=True)
    feed.connected()
    feed.repeated()
    feed.live(0, 0.0)
    assert feed.live(4, 4.0) is Do.REPEAT
    feed.repeated()
    assert feed.live_again(4, 4.0) is Do.FORGET
    assert feed.live(5, 5.0) is Do.APPLY


def test_batches_that_were_repeated_before_they_came_are_skipped():
    feed = Feed(replays=True)
    assert feed.connected()
    assert [feed.repeat(number, number) for number in (0, 1, 2)] == [Do.APPLY] * 3
    feed.repeated()
    assert [feed.live(number, number) for number in (1, 2, 3)] == [Do.SKIP, Do.SKIP, Do.APPLY]


def test_a_number_that_went_back_is_a_publisher_started_anew():
    feed = Feed(replays=False)
    feed.connected()
    feed.live(4, 4.0)
    assert feed.live(0, 5.0) is Do.FORGET
    again = Feed(replays=True)
    again.connected()
    again.repeated()
    again.live(0, 0.0)
    assert again.live(0, 5.0) is Do.RESTART
    assert again.next == 0


def test_a_publisher_started_anew_is_known_by_its_clock_when_nothing_had_come_live_before():
    feed = Feed(replays=True)
    feed.connected()
    assert [feed.repeat(number, 100.0 + number) for number in range(50)] == [Do.APPLY] * 50
    feed.repeated()
    assert feed.live(0, 200.0) is Do.RESTART


steps = st.lists(st.sampled_from(["publish", "lose", "restart", "repeat", "reconnect"]), max_size=60)


@given(steps, st.booleans(), st.integers(1, 8))
def test_a_subscriber_knows_only_what_was_published_since_the_last_restart_and_all_that_could_be_had(
    said: list[str], replays: bool, keeps: int
):
    """`known` are the batches that were applied since everything was forgotten last.

    A restart breaks the connection, which is told; or, behind a relay, shows in the first batch that comes after it.
    """
    feed, ts, held = Feed(replays=replays), 0.0, []
    published: list[tuple[int, float]] = []
    known: list[tuple[int, float]] = []
    asked = feed.connected()

    def do(what: Do, batch: tuple[int, float]) -> None:
        nonlocal asked, known
        if what in (Do.FORGET, Do.RESTART):
            known = []
        if what in (Do.APPLY, Do.FORGET):
            known.append(batch)
        if what in (Do.HOLD, Do.REPEAT, Do.RESTART):
            if what is Do.RESTART:
                held.clear()
            held.append(batch)
            asked = asked or what is not Do.HOLD

    def repeat() -> None:
        nonlocal asked, held
        if asked:
            for number, at in published[-keeps:]:
                if number >= feed.next:
                    do(feed.repeat(number, at), (number, at))
            feed.repeated()
            asked = False
            held, later = [], held
            for batch in later:
                do(feed.live_again(*batch), batch)

    for what in said:
        ts += 1.0
        if what == "lose" and not published:
            what = "publish"
        if what == "restart":
            published = []
        elif what == "reconnect":
            known, held = [], []
            asked = feed.connected()
        elif what == "repeat":
            repeat()
        else:
            batch = len(published), ts
            published.append(batch)
            if what == "publish":
                do(feed.live(*batch), batch)
                assert held or not known or known[-1] == batch or not replays
                if not held:
                    assert set(known) <= set(published)
                    assert known == published[len(published) - len(known) :], "what is known has no gap"
    ts += 1.0
    published.append((len(published), ts))
    do(feed.live(*published[-1]), published[-1])
    repeat()
    assert known and known[-1] == published[-1]
    assert known == published[len(published) - len(known) :]
    if replays:
        assert len(known) >= min(keeps, len(published))
