from hypothesis import given
from hypothesis import strategies as st

from penstock.resilience.degrade import LEVEL, NOT_DEGRADED, Standing, decide, together, told, wrong
from penstock.resilience.options import NO_REPLICA, Step

LADDER = (
    Step(0.8, 0.7, 10.0, max_tokens=512),
    Step(0.9, 0.8, 10.0, model="small"),
    Step(NO_REPLICA, NO_REPLICA, cached_for=3600.0),
    Step(NO_REPLICA, NO_REPLICA, answer="We are away."),
)


def names(steps):
    return [step.name for step in steps]


def walk(*path, ladder=LADDER):
    """The names that hold after each (saturation, now)."""
    standing, seen = LEVEL, []
    for saturation, now in path:
        standing, steps = decide(ladder, saturation, standing, now)
        seen.append(names(steps))
    return seen


def test_going_up_happens_at_once_and_over_several_rungs():
    assert walk((0.79, 0.0), (0.8, 1.0), (0.95, 2.0)) == [[], ["max_tokens=512"], ["max_tokens=512", "model=small"]]
    assert walk((2.0, 0.0)) == [["max_tokens=512", "model=small"]]


def test_going_down_takes_a_calm_while_for_each_rung():
    both, one = ["max_tokens=512", "model=small"], ["max_tokens=512"]
    assert walk((1.0, 0.0), (0.5, 1.0), (0.5, 10.9), (0.5, 11.0), (0.5, 20.9), (0.5, 21.0)) == [
        both, both, both, one, one, [],
    ]  # fmt: skip


def test_between_its_two_levels_a_rung_stays_as_it_is():
    one = ["max_tokens=512"]
    assert walk((0.75, 0.0), (0.8, 1.0), (0.75, 2.0), (0.75, 1_000.0)) == [[], one, one, one]


def test_trouble_in_between_starts_the_calm_anew():
    one = ["max_tokens=512"]
    assert walk((0.8, 0.0), (0.1, 1.0), (0.75, 9.0), (0.1, 10.0), (0.1, 19.0), (0.1, 20.0)) == [one] * 5 + [[]]


def test_without_any_replica_every_rung_holds_and_with_the_first_one_back_nobody_speaks_in_its_place():
    everything = ["max_tokens=512", "model=small", "cached", "static"]
    assert walk((NO_REPLICA, 0.0), (0.1, 0.1)) == [everything, everything[:2]]


def test_a_ladder_that_was_shortened_meanwhile_does_no_harm():
    standing, steps = decide(LADDER[:1], 0.75, Standing(4), 0.0)
    assert (standing.rungs, names(steps)) == (1, ["max_tokens=512"])
    assert decide((), NO_REPLICA, Standing(4), 0.0) == (LEVEL, ())


def test_what_holds_is_one_thing_for_the_request_and_is_told_in_words():
    assert together(()) is NOT_DEGRADED
    whole = together((*LADDER, Step(NO_REPLICA, NO_REPLICA, max_tokens=64)))
    assert (whole.max_tokens, whole.model, whole.cached_for, whole.answer) == (64, "small", 3600.0, "We are away.")
    assert (whole.within(1_000), whole.within(10), NOT_DEGRADED.within(1_000)) == (64, 10, 1_000)
    assert told(LADDER[:2]) == "max_tokens=512, model=small"


def test_a_ladder_that_makes_no_sense_says_where():
    assert wrong(LADDER) is None
    assert wrong((LADDER[1], LADDER[0]))[0] == 1
    assert wrong((Step(0.5, 0.6, max_tokens=1),))[0] == 0
    assert wrong((Step(0.5, 0.4),))[0] == 0
    assert wrong((Step(0.5, 0.4, max_tokens=1, model="x"),))[0] == 0


rungs = st.builds(
    lambda at, gap, hold: Step(at, max(0.0, at - gap), hold, max_tokens=1),
    st.floats(0, 2),
    st.floats(0, 1),
    st.floats(0, 30),
)
ladders = st.lists(rungs, max_size=5).map(lambda steps: tuple(sorted(steps, key=lambda step: step.at)))
paths = st.lists(st.tuples(st.one_of(st.floats(0, 3), st.just(NO_REPLICA)), st.floats(0, 20)), max_size=60)


@given(ladders, paths)
def test_whatever_comes_the_rungs_that_must_hold_do_and_they_are_always_the_first_ones(ladder, path):
    standing, now, calm = LEVEL, 0.0, 0.0
    for saturation, dt in path:
        now += dt
        before = standing.rungs
        standing, steps = decide(ladder, saturation, standing, now)
        must = sum(saturation >= step.at for step in ladder)
        assert must <= len(steps) == standing.rungs <= len(ladder)
        assert steps == ladder[: len(steps)]
        assert len(steps) <= max(before, must)
        for given_up in ladder[len(steps) : before]:
            assert saturation < given_up.back or saturation < given_up.at == given_up.back
        calm = calm + dt if must == 0 else 0.0
    quiet = 0.0
    for _ in range(2 * len(ladder) + 2):
        standing, steps = decide(ladder, -1.0, standing, now + quiet)
        quiet += 31.0
    assert steps == ()


@given(ladders, paths)
def test_a_rung_given_up_was_held_for_its_time_of_calm(ladder, path):
    standing, now, calm_from = LEVEL, 0.0, None
    for saturation, dt in path:
        now += dt
        before = standing.rungs
        if before and saturation < ladder[before - 1].back:
            calm_from = now if calm_from is None else calm_from
        else:
            calm_from = None
        standing, _ = decide(ladder, saturation, standing, now)
        if standing.rungs < before and before and ladder[before - 1].hold > 0:
            assert now - calm_from >= ladder[before - 1].hold
        if standing.rungs != before:
            calm_from = now if standing.calm_since is not None else None
