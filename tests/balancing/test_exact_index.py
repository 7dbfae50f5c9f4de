"""What engines say that they hold, for prompts whose tokens are known."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.balancing.exact_index import EngineCache, ExactIndex, is_mark, marks_of, root_of
from penstock.balancing.predicted import Predicted
from penstock.balancing.prefix_index import Index, PrefixIndex
from penstock.core.fleet import Replica
from penstock.core.request import PREFIX_TOKENS

SIZE = 16
POOL = "pool"


def tokens(text: str, n: int) -> list[int]:
    """`n` tokens that begin as any other prompt of this text."""
    rng = Random(text)
    return [rng.randrange(50_000) for _ in range(n)]


def hashes(text: str, n: int) -> list[int]:
    """Text hashes of a prompt of `n` tokens, as long as their tokens are as long as they are taken to be."""
    return [hash((text, at)) & (2**64 - 1) for at in PREFIX_TOKENS if at <= n]


def store(index: ExactIndex, cache: EngineCache, ids: list[int], salt: int = 0, size: int = SIZE) -> list[int]:
    """All whole blocks of a prompt, under names that this engine alone would give them."""
    n_blocks = len(ids) // size
    names = [hash((salt, tuple(ids[: (at + 1) * size]))) & (2**64 - 1) for at in range(n_blocks)]
    index.stored(cache, names, None, ids[: n_blocks * size], size)
    return names


def heard(index: ExactIndex, name: str = "pool/0", deployment: str = POOL) -> EngineCache:
    cache = index.join(name, deployment)
    index.hears(cache)
    return cache


def found(index: Index, text: list[int], now: float = 0.0) -> dict[str, int]:
    held = index.matched(text, PREFIX_TOKENS, now)
    return {name: held[name] for name in list(held.keys())}


def test_a_prompt_that_an_engine_told_of_is_found_in_full_once_its_tokens_are_known():
    index = ExactIndex(PrefixIndex())
    store(index, heard(index), tokens("a", 2_048))
    assert found(index, hashes("a", 2_048)) == {}
    index.learn(POOL, hashes("a", 2_048), 2_048, tokens("a", 2_048))
    assert found(index, hashes("a", 2_048)) == {"pool/0": 2_048}
    index.check()


def test_names_that_differ_from_engine_to_engine_make_no_difference():
    index = ExactIndex(PrefixIndex())
    for number in range(3):
        store(index, heard(index, f"pool/{number}"), tokens("a", 1_024), salt=number)
    index.learn(POOL, hashes("a", 1_024), 1_024, tokens("a", 1_024))
    assert found(index, hashes("a", 1_024)) == {f"pool/{number}": 1_024 for number in range(3)}


def test_a_prompt_that_begins_as_a_known_one_is_credited_with_what_they_share():
    index = ExactIndex(PrefixIndex())
    store(index, heard(index), tokens("system", 1_024) + tokens("question", 1_024))
    index.learn(POOL, [*hashes("system", 1024), 1, 2, 3, 4], 2_048, tokens("system", 1_024) + tokens("question", 1_024))
    assert found(index, [*hashes("system", 1_024), 77, 78]) == {"pool/0": 1_024}


def test_who_holds_another_continuation_of_the_same_beginning_is_credited_with_the_beginning():
    index = ExactIndex(PrefixIndex())
    first, second = heard(index, "pool/0"), heard(index, "pool/1")
    shared = tokens("system", 1_024)
    store(index, first, shared + tokens("one", 1_024))
    store(index, second, shared + tokens("two", 1_024))
    text = hashes("system", 1_024)
    index.learn(POOL, [*text, 1, 2, 3, 4], 2_048, shared + tokens("one", 1_024))
    assert found(index, [*text, 1, 2, 3, 4]) == {"pool/0": 2_048, "pool/1": 1_024}


def test_blocks_that_were_removed_at_the_end_shorten_what_is_held():
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    names = store(index, cache, tokens("a", 1_024))
    index.learn(POOL, hashes("a", 1_024), 1_024, tokens("a", 1_024))
    index.removed(cache, names[32:])
    assert found(index, hashes("a", 1_024)) == {"pool/0": 512}
    index.removed(cache, [*names, 5, 6])
    assert found(index, hashes("a", 1_024)) == {}
    index.check()


def test_a_hole_ends_what_is_held():
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    names = store(index, cache, tokens("a", 1_024))
    index.learn(POOL, hashes("a", 1_024), 1_024, tokens("a", 1_024))
    index.removed(cache, [names[19]])  # its end is a mark: 320 tokens
    assert found(index, hashes("a", 1_024)) == {"pool/0": 256}


def test_a_cleared_cache_holds_nothing_and_its_neighbours_keep_theirs():
    index = ExactIndex(PrefixIndex())
    first, second = heard(index, "pool/0"), heard(index, "pool/1")
    for cache in (first, second):
        store(index, cache, tokens("a", 512))
    index.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    index.clear(first)
    assert found(index, hashes("a", 512)) == {"pool/1": 512}
    index.check()


def test_blocks_that_go_on_from_a_known_block_are_part_of_its_prompt_and_orphans_are_counted():
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    names = store(index, cache, tokens("a", 512))
    more = tokens("more", 512)
    index.stored(cache, [900 + at for at in range(32)], names[-1], more, SIZE)
    index.stored(cache, [2_000, 2_001], 31_337, tokens("lost", 32), SIZE)
    assert index.orphans == 2
    index.learn(POOL, [1, 2, 3, 4], 1_024, tokens("a", 512) + more)
    assert found(index, [1, 2, 3, 4]) == {"pool/0": 1_024}


def test_salted_blocks_are_not_taken_for_unsalted_ones():
    index = ExactIndex(PrefixIndex())
    first, second = heard(index, "pool/0"), heard(index, "pool/1")
    index.stored(first, list(range(32)), None, tokens("a", 512), SIZE, [b"salt", *[b""] * 31])
    store(index, second, tokens("a", 512))
    index.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    assert found(index, hashes("a", 512)) == {"pool/1": 512}


def test_tokens_that_are_in_nobodys_blocks_are_not_learned_and_the_guess_stands():
    """An adapter's blocks are made of the same tokens, and are others."""
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    index.stored(cache, list(range(32)), None, tokens("a", 512), SIZE, [b"adapter"] * 32)
    index.sent(hashes("a", 512), PREFIX_TOKENS, 512, Replica("pool/0", POOL), 0.0)
    assert not index.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    assert not index.knows(POOL, hashes("a", 512))
    assert found(index, hashes("a", 512)) == {"pool/0": 512}


def test_deployments_that_share_a_text_do_not_share_its_tokens():
    index = ExactIndex(PrefixIndex())
    store(index, heard(index, "llama/0", "llama"), tokens("a", 512))
    store(index, heard(index, "qwen/0", "qwen"), tokens("b", 512))
    index.learn("llama", [1, 2], 512, tokens("a", 512))
    assert index.knows("llama", [1, 2]) and not index.knows("qwen", [1, 2])
    index.learn("qwen", [1, 2], 512, tokens("b", 512))
    assert index.knows("qwen", [1, 2])
    assert found(index, [1, 2]) == {"llama/0": 512, "qwen/0": 512}


def test_the_guess_answers_for_text_that_is_not_known_and_for_engines_that_are_not_heard():
    index = ExactIndex(PrefixIndex())
    text, far = hashes("a", 512), hashes("b", 512)
    for name in ("pool/0", "other/0"):
        index.sent(text, PREFIX_TOKENS, 512, Replica(name, name.partition("/")[0]), 0.0)
        index.sent(far, PREFIX_TOKENS, 512, Replica(name, name.partition("/")[0]), 0.0)
    cache = heard(index)
    store(index, cache, tokens("a", 512))
    assert index.learn(POOL, text, 512, tokens("a", 512))
    index.clear(cache)
    assert found(index, text) == {"other/0": 512}, "pool/0 has told that it holds it not"
    assert found(index, far) == {"pool/0": 512, "other/0": 512}
    index.lost(cache)
    assert found(index, text) == {"pool/0": 512, "other/0": 512}


def test_what_was_sent_a_moment_ago_counts_before_its_engine_has_told():
    exact = ExactIndex(PrefixIndex())
    index = Predicted(exact)
    cache = heard(exact)
    store(exact, cache, tokens("a", 512))
    exact.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    exact.clear(cache)
    index.sent(hashes("a", 512), PREFIX_TOKENS, 512, Replica("pool/0", POOL), 0.0)
    assert found(index, hashes("a", 512), 1.0) == {"pool/0": 512}
    assert found(index, hashes("a", 512), 3.0) == {}, "two seconds later it has told, and holds it not"


def test_what_is_held_is_told_in_the_measure_of_the_estimate():
    """Code has fewer characters to a token: what was taken for 1,024 tokens are 1,536, and half of those are held."""
    index = ExactIndex(PrefixIndex())
    store(index, heard(index), tokens("code", 1_536)[:768])
    index.learn(POOL, hashes("code", 1_024), 1_024, tokens("code", 1_536))
    assert found(index, hashes("code", 1_024)) == {"pool/0": 512}


def test_of_two_engines_behind_one_address_the_mean_is_told():
    index = ExactIndex(PrefixIndex())
    first, second = index.join("pool/0", POOL, 2, 0), index.join("pool/0", POOL, 2, 1)
    for cache in (first, second):
        index.hears(cache)
    store(index, first, tokens("a", 512))
    store(index, second, tokens("b", 512))
    index.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    assert found(index, hashes("a", 512)) == {"pool/0": 256}


def test_blocks_beyond_the_room_for_them_are_refused_and_counted():
    index = ExactIndex(PrefixIndex(), max_blocks=40)
    cache = heard(index)
    store(index, cache, tokens("a", 512))
    store(index, cache, tokens("b", 512))
    assert len(index) == 32 and index.refused == 32
    index.check()


def test_known_texts_beyond_the_room_for_them_leave_the_longest_unused_first():
    index = ExactIndex(PrefixIndex(), max_prompts=4)
    cache = heard(index)
    for text in "abc":
        store(index, cache, tokens(text, 512))
    index.learn(POOL, [1, 2], 512, tokens("a", 512))
    index.learn(POOL, [3, 4], 512, tokens("b", 512))
    assert index.knows(POOL, [1, 2]) and index.knows(POOL, [3, 4])
    assert index.knows(POOL, [1, 2])
    index.learn(POOL, [5, 6], 512, tokens("c", 512))
    assert index.knows(POOL, [1, 2]) and not index.knows(POOL, [3, 4])


def test_the_size_of_blocks_may_change_only_when_the_cache_is_empty():
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    store(index, cache, tokens("a", 512))
    store(index, cache, tokens("b", 512), size=32)
    assert len(index) == 32 and index.refused == 16
    index.clear(cache)
    store(index, cache, tokens("b", 512), size=32)
    index.learn(POOL, hashes("b", 512), 512, tokens("b", 512))
    assert found(index, hashes("b", 512)) == {"pool/0": 512}
    index.check()


def test_a_replica_that_left_leaves_nothing():
    index = ExactIndex(PrefixIndex())
    cache = heard(index)
    store(index, cache, tokens("a", 512))
    index.learn(POOL, hashes("a", 512), 512, tokens("a", 512))
    index.leave(cache)
    index.check()
    assert len(index) == 0 and found(index, hashes("a", 512)) == {}
    store(index, heard(index), tokens("a", 512))
    assert found(index, hashes("a", 512)) == {"pool/0": 512}


@pytest.mark.parametrize("size", [1, 16, 48, 64, 528, 2_048])
def test_marks_are_few_however_large_the_blocks_and_never_far_apart(size: int):
    ends = [end for end in range(size, 33_000, size) if is_mark(end - size, end)]
    assert len(ends) <= 80
    for before, end in zip([0, *ends], ends, strict=False):
        assert end - before <= max(64 + size, before // 3 + size)


@given(
    st.lists(st.integers(0, 3), max_size=200), st.lists(st.integers(0, 3), max_size=200), st.sampled_from([1, 4, 16])
)
def test_two_prompts_have_as_many_marks_in_common_as_whole_blocks(one: list[int], two: list[int], size: int):
    root = root_of(POOL, size)
    shared = 0
    while shared < min(len(one), len(two)) and one[shared] == two[shared]:
        shared += 1
    in_common = set(marks_of(one, size, root)) & set(marks_of(two, size, root))
    whole = shared // size * size
    assert len(in_common) == sum(is_mark(end - size, end) for end in range(size, whole + 1, size))


class TwoEngines(RuleBasedStateMachine):
    """Engines store, remove and clear as they like; a plain list of prompts says what each of them holds."""

    @initialize()
    def begin(self) -> None:
        self.index = ExactIndex(PrefixIndex(), max_blocks=400)
        self.caches = [heard(self.index, f"pool/{number}") for number in range(2)]
        self.held: list[dict[int, tuple[int, ...]]] = [{}, {}]

    @rule(engine=st.integers(0, 1), text=st.sampled_from("abc"), n=st.integers(1, 12), fork=st.integers(0, 12))
    def store(self, engine: int, text: str, n: int, fork: int) -> None:
        ids = (tokens(text, fork * 64) + tokens(text + "'", 1_000))[: n * 64]
        before = len(self.index)
        names = store(self.index, self.caches[engine], ids, salt=engine, size=64)
        if len(self.index) > before or all(name in self.held[engine] for name in names):
            self.held[engine].update((name, tuple(ids[: (at + 1) * 64])) for at, name in enumerate(names))

    @rule(engine=st.integers(0, 1), seed=st.integers(0, 99), n=st.integers(1, 8))
    def remove(self, engine: int, seed: int, n: int) -> None:
        names = sorted(self.held[engine])
        gone = [names[(seed * 7 + at) % len(names)] for at in range(n)] if names else [seed]
        self.index.removed(self.caches[engine], gone)
        for name in gone:
            self.held[engine].pop(name, None)

    @rule(engine=st.integers(0, 1))
    def clear(self, engine: int) -> None:
        self.index.clear(self.caches[engine])
        self.held[engine].clear()

    @precondition(lambda self: any(self.held))
    @rule(text=st.sampled_from("abc"))
    def ask(self, text: str) -> None:
        ids = tokens(text, 768)
        self.index.learn(POOL, hashes(text, 768), 768, ids)
        known = found(self.index, hashes(text, 768))
        for engine, held in enumerate(self.held):
            prefixes, depth = set(held.values()), 0
            while depth < 768 and tuple(ids[: depth + 64]) in prefixes:
                depth += 64
            assert known.get(f"pool/{engine}", 0) == depth

    @invariant()
    def parts_agree(self) -> None:
        self.index.check()
        assert len(self.index) == sum(len(held) for held in self.held)


TestTwoEngines = TwoEngines.TestCase
TestTwoEngines.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
