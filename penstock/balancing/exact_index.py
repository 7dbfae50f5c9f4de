"""The exact index: what engines say that their prefix caches hold, for prompts of which we know the tokens.

An engine names its blocks by digests of its own, salted, and tells which tokens are in them. So each block gets a name
here that depends on its tokens alone, chained like the engine's: `engine's name -> ours` is kept for every block, and
`ours -> who holds it` for those at marks along a prompt, which are close together at its beginning and further apart
behind (as everywhere, what matters is how much is held to about an eighth).

A request comes as text. It is not tokenised on its way: the hashes of its text (`Request.prefix_hashes`) lead to the
tokens of a prompt that began with the same text, once somebody has asked an engine for those (`learn`, beside the
path of requests). How far that prompt's blocks go in each cache is exact; how much of them the two prompts have in
common is known to the step of the text hashes. Where nothing is learned yet, where an engine is not heard, and for
prompts with a salt or an adapter, the approximate index answers as if there were no events.

Limits: one text under different tools or chat template options has different tokens, and the prompt learned last
stands for all of them; of a prompt with pictures what comes before the first one is compared; what a cache holds
elsewhere than on the GPU does not count; of several engines behind one address (data parallel) one gets the request
unseen, so the mean of what they hold is told.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from xxhash import xxh3_64_intdigest

from penstock.balancing.prefix_index import Held, Index, Owners
from penstock.core.fleet import Replica

MAX_BLOCKS: Final = 2_000_000  # of all engines together; 120 bytes each
MAX_PROMPTS: Final = (
    200_000  # text hashes whose tokens are known; 150 bytes each, and 4 kB for a prompt of 8,000 tokens
)
END_BITS: Final = 24  # of a block's name here: where it ends, in tokens from the start of the prompt
END: Final = (1 << END_BITS) - 1
MAX_VOCABULARIES: Final = 256


class EngineCache:
    """One engine's prefix cache. `share`: 1 / the number of engines behind its replica's address."""

    __slots__ = (
        "bit", "block_size", "blocks", "deployment", "heard", "marks", "name", "replica", "root", "share", "vocabulary",
    )  # fmt: skip

    def __init__(self, name: str, replica: str, deployment: str, share: float, bit: int) -> None:
        self.name, self.replica, self.deployment, self.share, self.bit = name, replica, deployment, share, bit
        self.blocks: dict[int, int] = {}  # the engine's name -> ours
        self.marks: set[int] = set()  # our names of those that are looked up
        self.heard = False  # its events come without a gap
        self.block_size = 0  # tokens; 0 until it has told
        self.vocabulary = 0  # a bit, likewise
        self.root = 0  # our name of the empty prompt, likewise


class Prompt:
    """A prompt whose tokens are known: our names of its blocks at the marks, and where these end."""

    __slots__ = ("ends", "marks", "per_token", "vocabulary")

    def __init__(self, vocabulary: int, marks: tuple[int, ...], per_token: float) -> None:
        self.vocabulary, self.marks, self.per_token = vocabulary, marks, per_token
        self.ends = tuple(mark & END for mark in marks)


class Told:
    """What engines said of one prompt, and the guess for those that said nothing of it. Worked out for those that are
    asked for, as `Levels` is: a pool may have thousands.
    """

    __slots__ = ("_by_replica", "_guess", "_said")

    def __init__(self, by_replica: dict[str, list[EngineCache]], guess: Held) -> None:
        self._by_replica, self._guess = by_replica, guess
        self._said: list[Said] = []

    def add(self, said: Said) -> None:
        self._said.append(said)

    def get(self, replica: str, default: int, /) -> int:
        caches = self._by_replica.get(replica)
        if caches is not None:
            held, told = 0, False
            for cache in caches:
                if cache.heard:
                    for said in self._said:
                        if said.vocabulary == cache.vocabulary:
                            told = True
                            held += said.held(cache)
            if told:
                return held or default
        return self._guess.get(replica, default)

    def __getitem__(self, replica: str, /) -> int:
        held = self.get(replica, 0)
        if not held:
            raise KeyError(replica)
        return held

    def keys(self) -> list[str]:
        guessed = self._guess.keys()
        found = {replica: None for replica in guessed if self.get(replica, 0)}
        for said in self._said:
            for cache in said.caches():
                found[cache.replica] = None
        return list(found)


class Said:
    """What the caches of one vocabulary hold of a prompt; no more than `most` of it counts."""

    __slots__ = ("_by_name", "_levels", "_most", "_per_token", "vocabulary")

    def __init__(self, prompt: Prompt, most: int, owners: Owners, by_name: dict[str, EngineCache]) -> None:
        needed = bisect_left(prompt.ends, most / prompt.per_token) + 1
        self._levels = owners.walk(prompt.marks[:needed], prompt.ends[:needed])
        self._by_name, self._most, self._per_token = by_name, most, prompt.per_token
        self.vocabulary = prompt.vocabulary

    def held(self, cache: EngineCache) -> int:
        depth = int(self._levels.get(cache.name, 0) * self._per_token)
        return int(min(depth, self._most) * cache.share)

    def caches(self) -> list[EngineCache]:
        """Those that hold any of it."""
        names = self._levels.keys()
        return [self._by_name[name] for name in names]


class ExactIndex:
    """`guess` answers for whom no events are heard. Blocks are counted since the start, for metrics: `orphans`, whose
    beginning is not known, and `refused`, for which there was no room.
    """

    __slots__ = (
        "_by_replica", "_caches", "_guess", "_heard", "_max_blocks", "_max_prompts", "_n_blocks", "_owners", "_prompts",
        "_vocabularies", "orphans", "refused",
    )  # fmt: skip

    def __init__(self, guess: Index, max_blocks: int = MAX_BLOCKS, max_prompts: int = MAX_PROMPTS) -> None:
        self._guess = guess
        self._max_blocks, self._max_prompts = max_blocks, max_prompts
        self._owners = Owners()  # our names of the blocks at marks -> caches
        self._caches: dict[str, EngineCache] = {}
        self._by_replica: dict[str, list[EngineCache]] = {}
        self._prompts: OrderedDict[int, tuple[Prompt, ...]] = OrderedDict()  # by text hash; the longest unused first
        self._vocabularies: dict[tuple[str, int], int] = {}  # deployment and block size -> a bit
        self._heard = 0  # the vocabularies of the caches that are heard
        self._n_blocks = 0
        self.orphans = 0
        self.refused = 0

    def __len__(self) -> int:
        """Blocks in all caches."""
        return self._n_blocks

    # --- Index ---

    def matched(self, hashes: Sequence[int], tokens: Sequence[int], now: float) -> Held:
        """In the measure of `tokens`, which are estimates: so that what is not held can be told by subtraction."""
        guessed = self._guess.matched(hashes, tokens, now)
        if not self._heard:
            return guessed
        told: Told | None = None
        seen, place = 0, len(hashes)
        while place > 0 and seen != self._heard:
            place -= 1
            for prompt in self._prompts.get(hashes[place], ()):
                if prompt.vocabulary & self._heard & ~seen:
                    seen |= prompt.vocabulary
                    if told is None:
                        told = Told(self._by_replica, guessed)
                    told.add(Said(prompt, tokens[place], self._owners, self._caches))
        return guessed if told is None else told

    def sent(self, hashes: Sequence[int], tokens: Sequence[int], prompt_tokens: int, to: Replica, now: float) -> None:
        self._guess.sent(hashes, tokens, prompt_tokens, to, now)

    def forget(self, replica: str) -> None:
        """It is gone, or was started anew. Whoever hears its events goes on; see `leave`."""
        self._guess.forget(replica)
        for cache in self._by_replica.get(replica, ()):
            self.clear(cache)

    # --- what engines say ---

    def join(self, replica: str, deployment: str, ranks: int = 1, rank: int = 0) -> EngineCache:
        """An engine whose events will come. Replicas of one deployment are taken to read text alike."""
        name = replica if ranks == 1 else f"{replica}#{rank}"
        assert name not in self._caches, f"{name} joined twice"
        cache = self._caches[name] = EngineCache(name, replica, deployment, 1.0 / ranks, self._owners.bit(name))
        self._by_replica.setdefault(replica, []).append(cache)
        return cache

    def leave(self, cache: EngineCache) -> None:
        """No more events will come."""
        self.lost(cache)
        del self._caches[cache.name]
        self._by_replica[cache.replica].remove(cache)
        if not self._by_replica[cache.replica]:
            del self._by_replica[cache.replica]
        self._owners.free(cache.name)

    def hears(self, cache: EngineCache) -> None:
        """From now on its events come without a gap: what it has not told of, it does not hold."""
        cache.heard = True
        self._count_heard()

    def lost(self, cache: EngineCache) -> None:
        """Its events do not come for now, and nobody knows what it holds."""
        cache.heard = False
        self.clear(cache)
        self._count_heard()

    def stored(
        self,
        cache: EngineCache,
        blocks: Sequence[int],
        parent: int | None,
        token_ids: Sequence[int],
        block_size: int,
        extras: Sequence[bytes] = (),
    ) -> None:
        """`blocks` were computed one after another, `parent` before them; `token_ids` are theirs, `block_size` each.

        `extras` tells blocks with the same tokens apart, one for each block or none at all.
        """
        if cache.block_size != block_size and not self._size(cache, block_size):
            self.refused += len(blocks)
            return
        name = cache.root if parent is None else cache.blocks.get(parent, -1)
        if name < 0:
            self.orphans += len(blocks)
            return
        if self._n_blocks + len(blocks) > self._max_blocks:
            self.refused += len(blocks)
            return
        packed = array("I", token_ids).tobytes()
        content, end, width = name >> END_BITS, name & END, block_size * array("I").itemsize
        for place, block in enumerate(blocks):
            words = packed[place * width : (place + 1) * width]
            if extras:
                words += extras[place]
            content = xxh3_64_intdigest(words, content)
            start, end = end, end + block_size
            if end > END:
                self.refused += len(blocks) - place
                return
            if block in cache.blocks:
                self._remove(cache, block)
            name = cache.blocks[block] = content << END_BITS | end
            self._n_blocks += 1
            if is_mark(start, end) and name not in cache.marks:
                cache.marks.add(name)
                self._owners.add(name, cache.bit)

    def removed(self, cache: EngineCache, blocks: Sequence[int]) -> None:
        for block in blocks:
            if block in cache.blocks:
                self._remove(cache, block)

    def clear(self, cache: EngineCache) -> None:
        """It holds nothing."""
        for name in cache.marks:
            self._owners.drop(name, cache.bit)
        self._n_blocks -= len(cache.blocks)
        cache.blocks = {}
        cache.marks = set()

    # --- what prompts are made of ---

    def knows(self, deployment: str, hashes: Sequence[int]) -> bool:
        """Whether asking for the tokens of this text would teach nothing, there, for now."""
        wanted = 0
        for (name, _), vocabulary in self._vocabularies.items():
            if name == deployment:
                wanted |= vocabulary
        if not wanted or not hashes:
            return True
        prompts = self._prompts.get(hashes[-1])
        if prompts is None:
            return False
        for h in hashes:
            if h in self._prompts:
                self._prompts.move_to_end(h)
        for prompt in prompts:
            wanted &= ~prompt.vocabulary
        return not wanted

    def learn(self, deployment: str, hashes: Sequence[int], prompt_tokens: int, token_ids: Sequence[int]) -> bool:
        """A text with these hashes, taken for `prompt_tokens`, is read there as `token_ids`.

        False, and nothing learned, when nobody holds its beginning, though somebody has just computed it: then its
        blocks are made of more than these tokens (a salt, an adapter), and comparing them would mislead.
        """
        learned = False
        if not hashes:
            return learned
        for (name, block_size), vocabulary in self._vocabularies.items():
            if name != deployment:
                continue
            marks = marks_of(token_ids, block_size, root_of(name, block_size))
            if not self._owners.walk(marks[:1], (1,)).keys():
                continue
            learned = True
            prompt = Prompt(vocabulary, marks, prompt_tokens / len(token_ids))
            for h in hashes:
                others = [one for one in self._prompts.pop(h, ()) if one.vocabulary != vocabulary]
                self._prompts[h] = (prompt, *others)
        while len(self._prompts) > self._max_prompts:
            self._prompts.popitem(last=False)
        return learned

    def check(self) -> None:
        """Assert that all parts tell the same story."""
        assert self._n_blocks == sum(len(cache.blocks) for cache in self._caches.values())
        assert len(self._owners) == len(set().union(*(cache.marks for cache in self._caches.values())))
        for cache in self._caches.values():
            names = set(cache.blocks.values())
            assert cache.marks <= names, f"{cache.name} is thought to hold what it does not"
            for name in cache.marks:
                assert is_mark((name & END) - cache.block_size, name & END), f"{cache.name} has a mark where none is"

    def _remove(self, cache: EngineCache, block: int) -> None:
        name = cache.blocks.pop(block)
        self._n_blocks -= 1
        # of two blocks with the same tokens the first to go takes the mark along: better too little than too much
        if name in cache.marks:
            cache.marks.remove(name)
            self._owners.drop(name, cache.bit)

    def _size(self, cache: EngineCache, block_size: int) -> bool:
        """The size of a cache's blocks is told with the first of them, and does not change while it holds any."""
        if cache.blocks:
            return False
        key = (cache.deployment, block_size)
        vocabulary = self._vocabularies.get(key, 0)
        if not vocabulary:
            if len(self._vocabularies) >= MAX_VOCABULARIES:
                return False
            vocabulary = self._vocabularies[key] = 1 << len(self._vocabularies)
        cache.block_size, cache.vocabulary, cache.root = block_size, vocabulary, root_of(cache.deployment, block_size)
        self._count_heard()
        return True

    def _count_heard(self) -> None:
        self._heard = 0
        for cache in self._caches.values():
            if cache.heard:
                self._heard |= cache.vocabulary


def is_mark(start: int, end: int) -> bool:
    """Whether a block with the tokens from `start` to `end` is looked up; about 60 are in a prompt of 32,000 tokens."""
    step = 64 if end <= 1_024 else 256 if end <= 4_096 else 1_024
    return start // step != end // step


def marks_of(token_ids: Sequence[int], block_size: int, root: int) -> tuple[int, ...]:
    """Our names of the blocks of a prompt that are looked up."""
    packed = array("I", token_ids).tobytes()
    content, width = root >> END_BITS, block_size * array("I").itemsize
    marks: list[int] = []
    for start in range(0, min(len(token_ids), END) - block_size + 1, block_size):
        at = start * array("I").itemsize
        content = xxh3_64_intdigest(packed[at : at + width], content)
        if is_mark(start, start + block_size):
            marks.append(content << END_BITS | start + block_size)
    return tuple(marks)


def root_of(deployment: str, block_size: int) -> int:
    """Our name of the empty prompt. The same tokens mean different texts under other vocabularies."""
    return xxh3_64_intdigest(f"{deployment}\0{block_size}".encode()) << END_BITS
