from hypothesis import given
from hypothesis import strategies as st

from penstock.balancing.predicted import PREDICTED_FOR, Predicted
from penstock.balancing.prefix_index import PrefixIndex
from penstock.core.fleet import Replica

TOKENS = tuple(range(100, 2_000, 100))


def replica(name="a", room=0):
    return Replica(name, "d", kv_tokens=room)


def sent(index, hashes, to, now=0.0, prompt=0):
    index.sent(hashes, TOKENS, prompt, to, now)


def held(index, hashes, now=0.0):
    return dict(index.matched(hashes, TOKENS, now))


def chain(*turns):
    """Hashes of a prompt that begins with these turns: each stands for all before it."""
    return tuple(hash(turns[: n + 1]) for n in range(len(turns)))


prompts = st.lists(st.integers(0, 2), max_size=6).map(lambda turns: chain(*turns))
steps = st.lists(st.tuples(prompts, st.sampled_from("abc"), st.booleans()), max_size=40)


@given(steps, prompts)
def test_the_index_knows_exactly_what_was_sent_while_there_is_room(steps, asked):
    index, model = PrefixIndex(), {}
    for hashes, name, forget in steps:
        if forget:
            index.forget(name)
            model.pop(name, None)
        else:
            sent(index, hashes, replica(name))
            model.setdefault(name, set()).update(hashes)

    def depth(known):
        return next((i for i, h in enumerate(asked) if h not in known), len(asked))

    assert held(index, asked) == {name: TOKENS[depth(m) - 1] for name, m in model.items() if depth(m)}
    assert len(index) == len(set().union(*model.values()))


@given(steps, st.integers(1, 12))
def test_no_replica_is_taken_to_hold_more_than_it_has_room_for(steps, blocks):
    index, last = PrefixIndex(), {}
    for hashes, name, _ in steps:
        sent(index, hashes, replica(name, blocks * 100))
        last[name] = hashes
        assert len(index) <= 3 * blocks
    for name, hashes in last.items():
        assert held(index, hashes).get(name, 0) == min(len(hashes), blocks) * 100, "its last prompt, from the start"


@given(steps, st.integers(1, 12))
def test_what_is_left_of_a_prompt_begins_at_its_start(steps, blocks):
    index, prompts = PrefixIndex(), []
    for hashes, name, _ in steps:
        sent(index, hashes, replica(name, blocks * 100))
        prompts.append(hashes)
    reachable = {h for p in prompts for name in "abc" for h in p[: held(index, p).get(name, 0) // 100]}
    assert len(index) == len(reachable), "a block whose beginning is gone would take room for nothing"


def test_tails_leave_before_heads():
    index, engine = PrefixIndex(), replica(room=400)
    sent(index, chain("system", "one", "more"), engine)
    sent(index, chain("system", "two"), engine)
    assert held(index, chain("system", "one", "more")) == {"a": 300}
    sent(index, chain("system", "three"), engine)
    assert held(index, chain("system", "one", "more")) == {"a": 200}


def test_a_block_is_held_only_with_all_that_comes_before_it():
    index, engine = PrefixIndex(), replica()
    sent(index, (1, 2, 3), engine)
    assert held(index, (9, 2, 3)) == {}
    assert held(index, (1, 9, 3)) == {"a": 100}


def test_what_is_left_of_a_prompt_behind_its_last_hash_takes_room_as_well():
    index, engine = PrefixIndex(), replica(room=1_000)
    sent(index, (1, 2), engine, prompt=290)
    sent(index, (3, 4), engine, prompt=760)
    assert held(index, (1, 2)) == {"a": 100}, "290 and 760 are more than 1,000: the end of the first had to go"
    sent(index, (5,), engine, prompt=5_000)
    assert held(index, (5,)) == {}, "longer than the whole cache"
    assert len(index) == 0


def test_room_that_became_less_is_kept_to():
    index, engine = PrefixIndex(), replica(room=1_000)
    sent(index, tuple(range(10)), engine)
    engine.kv_tokens = 300
    sent(index, (77,), engine)
    assert held(index, tuple(range(10))) == {"a": 200}


def test_many_replicas_come_and_go_and_their_places_are_used_again():
    index = PrefixIndex()
    for n in range(500):
        sent(index, (1, 2), replica(f"r{n}"))
        if n >= 3:
            index.forget(f"r{n - 3}")
    assert held(index, (1, 2)) == {"r497": 200, "r498": 200, "r499": 200}
    assert index._owners._owners[1] < 2**4


def test_those_that_hold_most_are_named_first():
    index = PrefixIndex()
    sent(index, (1,), replica("a"))
    sent(index, (1, 2, 3), replica("b"))
    sent(index, (1, 2), replica("c"))
    assert index.matched((1, 2, 3, 4), TOKENS, 0.0).most(2) == ["b", "c"]


class Nothing:
    """An index that no events have reached yet; counts what it is told."""

    def __init__(self):
        self.told, self.knows = [], {}

    def matched(self, hashes, tokens, now):
        return self.knows

    def sent(self, hashes, tokens, prompt_tokens, to, now):
        self.told.append(to.name)

    def forget(self, replica):
        self.knows.pop(replica, None)


def test_a_prompt_is_predicted_to_be_cached_for_two_seconds():
    index = Predicted(Nothing())
    sent(index, (1, 2, 3), replica(), now=5.0)
    assert held(index, (1, 2, 9), now=5.0 + PREDICTED_FOR - 0.01) == {"a": 200}
    assert held(index, (1, 2, 9), now=5.0 + PREDICTED_FOR) == {}
    assert len(index) == 0


def test_the_better_of_prediction_and_knowledge_counts():
    base = Nothing()
    base.knows = {"a": 100, "b": 300}
    index = Predicted(base)
    sent(index, (1, 2), replica("a"))
    assert held(index, (1, 2, 3)) == {"a": 200, "b": 300}
    index.forget("a")
    assert held(index, (1, 2, 3)) == {"b": 300}
    assert base.told == ["a"]


@given(st.lists(st.tuples(prompts, st.sampled_from("ab"), st.floats(0, 3), st.booleans()), max_size=30), prompts)
def test_predictions_are_those_of_the_last_two_seconds(steps, asked):
    index, model, now = Predicted(Nothing()), [], 0.0
    for hashes, name, later, forget in steps:
        now += later
        if forget:
            index.forget(name)
            model = [one for one in model if one[1] != name]
        else:
            sent(index, hashes, replica(name), now)
            model.append((set(hashes), name, now + PREDICTED_FOR))
    expected = {}
    for name in "ab":
        known = set().union(*[hashes for hashes, who, until in model if who == name and until > now])
        depth = next((i for i, h in enumerate(asked) if h not in known), len(asked))
        if depth:
            expected[name] = TOKENS[depth - 1]
    assert held(index, asked, now) == expected
