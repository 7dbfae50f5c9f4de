"""Who is in which arm: exact shares, always the same, and nobody leaves an arm that grows."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.facts import Facts
from penstock.routing.spec import ArmSpec, SplitSpec
from penstock.routing.split import Split, place

USERS = [Facts(org="acme", user=f"u{i}", key="k") for i in range(20_000)]


def canary(share: float, by: str = "user", name: str = "s") -> Split:
    return Split(SplitSpec(name, by, (ArmSpec("stable", ("a",)), ArmSpec("canary", ("b",), share))))


def test_the_stages_of_a_canary_only_ever_add_people():
    before: set[str] = set()
    for share in (0.01, 0.05, 0.25, 0.5, 1.0):
        inside = {facts.user for facts in USERS if canary(share).arm(facts, 0.0).name == "canary"}
        assert before <= inside
        # five standard deviations of a binomial
        assert abs(len(inside) - share * len(USERS)) <= 5 * (len(USERS) * share * (1 - share)) ** 0.5
        before = inside
    assert len(before) == len(USERS)


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1, exclude_max=True))
def test_neither_of_two_growing_arms_takes_anybody_from_the_other(one, other, more, where):
    def at(first: float, second: float) -> str:
        arms = (ArmSpec("rest", ("a",)), ArmSpec("one", ("b",), first), ArmSpec("other", ("c",), second))
        return Split(SplitSpec("s", "user", arms)).at(where).name

    before, after = at(one, other), at(min(0.5, one + more), other)
    assert before == after or (before, after) == ("rest", "one")
    after = at(one, min(0.5, other + more))
    assert before == after or (before, after) == ("rest", "other")


def test_four_arms_have_exactly_their_shares_of_the_line():
    shares = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.15}
    arms = (ArmSpec("rest", ("x",)), *(ArmSpec(name, ("x",), share) for name, share in shares.items()))
    split = Split(SplitSpec("s", "user", arms))
    found = [split.at((i + 0.5) / 1_000).name for i in range(1_000)]
    assert {name: found.count(name) for name in shares} == {"a": 100, "b": 200, "c": 300, "d": 150}


def test_another_name_divides_everybody_anew():
    first = {facts.user for facts in USERS if canary(0.5).arm(facts, 0.0).name == "canary"}
    second = {facts.user for facts in USERS if canary(0.5, name="t").arm(facts, 0.0).name == "canary"}
    assert abs(len(first & second) - len(USERS) / 4) < 5 * (len(USERS) * 3 / 16) ** 0.5


def test_users_of_two_organisations_are_two_users():
    names = [(place("s", ("user", "a", f"u{i}")), place("s", ("user", "b", f"u{i}"))) for i in range(100)]
    assert all(one != other for one, other in names)


def test_a_request_without_a_session_goes_with_its_key_and_without_a_key_by_lot():
    split = canary(0.5, by="session")
    keys = [Facts(key=f"k{i}") for i in range(50)]
    assert [split.arm(facts, 0.0).name for facts in keys] == [split.arm(facts, 0.9).name for facts in keys]
    assert {split.arm(Facts(), 0.1).name, split.arm(Facts(), 0.9).name} == {"canary", "stable"}


def test_by_request_the_lot_decides_whoever_asks():
    rng, split = Random(4), canary(0.25, by="request")
    found = [split.arm(USERS[0], rng.random()).name for _ in range(4_000)]
    assert abs(found.count("canary") - 1_000) < 5 * 750**0.5
