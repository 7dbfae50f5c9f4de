"""One workload on its way: when its sessions begin, and what their requests look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from math import inf
from operator import itemgetter
from random import Random
from typing import Final

from penstock.traffic.arrival import Arrival
from penstock.traffic.arrival_times import along, arrival_times
from penstock.traffic.content import Content, Pairs, Turn
from penstock.traffic.options import Format, Trace, TrafficError, Users, Workload
from penstock.traffic.traces import MOONCAKE_BLOCK, Recorded, azure, mooncake, servegen

OpenTrace = Callable[[str], Sequence[tuple[str, Iterable[str]]]]
"""The lines of a trace, by what the options call it: one (name, lines) for a file, several for a folder."""

# The 64 bits of a hash: which workload, whether the block is of a shared beginning, which session or beginning, whether
# the block is only begun, where in the prompt.
_OF_WORKLOAD: Final = 1 << 48
_SHARED: Final = 1 << 47
_OF_SESSION: Final = 1 << 20
_BEGUN: Final = 1 << 19
_MOST_SESSIONS: Final = 1 << 27


class Session:
    """What was drawn for one, and how far it is. Owned by the flow that made it."""

    __slots__ = ("base", "flow", "history", "ids", "name", "shared", "tenant", "turn", "turns", "user")

    def __init__(self, flow: Flow, number: int, tenant: str, turns: tuple[Turn, ...]) -> None:
        self.flow = flow
        self.tenant = tenant
        self.turns = turns
        self.base = number % _MOST_SESSIONS * _OF_SESSION  # of the hashes of its blocks
        self.name = ""
        self.turn = 0  # the next to be asked, or the one that is
        self.history = 0  # tokens of earlier turns, questions and answers, without the shared beginning
        self.shared = -1
        self.ids: tuple[int, ...] = ()  # hashes that a trace gave
        self.user: Content | None = None  # draws the next session of the same user

    @property
    def goes_on(self) -> bool:
        """Whether anything follows from the answer to this turn."""
        return self.user is not None or self.turn + 1 < len(self.turns)

    def next_turn(self) -> bool:
        """Go on after an answer; False at the end."""
        turn = self.turns[self.turn]
        self.history += turn.new_tokens + turn.output_tokens
        self.turn += 1
        return self.turn < len(self.turns)


class Flow:
    """Draws the sessions of one workload and counts its requests. `index` is its place among those that are mixed."""

    def __init__(self, index: int, workload: Workload, open_trace: OpenTrace, rng: Random) -> None:
        self.workload = workload
        self.until = workload.start + workload.duration if workload.duration is not None else inf
        self._left = workload.requests if workload.requests is not None else -1
        self._index = index
        self._salt = index * _OF_WORKLOAD
        self._open = open_trace
        self._n_sessions = 0
        # one stream of numbers each, so that longer prompts do not mean other times
        self._times_rng = Random(rng.getrandbits(64))
        self._users_seed = rng.getrandbits(64)
        self._pairs: Pairs | None = None
        if workload.lengths is not None:
            recorded = self._recorded(workload.lengths.file, workload.lengths.format)
            self._pairs = [(r.prompt_tokens, r.output_tokens) for r in recorded]
        self._content = Content(workload, self._pairs, Random(rng.getrandbits(64)))

    @property
    def spent(self) -> bool:
        """Whether as many requests as were wanted have been given out."""
        return self._left == 0

    def begins(self) -> Iterator[tuple[float, Session]]:
        """When sessions begin that wait for no answer, in seconds, rising. Raises `TrafficError` for a bad trace."""
        workload = self.workload
        if isinstance(workload.arrivals, Users):
            begins = self._users(workload.arrivals)
        elif isinstance(workload.arrivals, Trace):
            begins = self._traced(workload.arrivals)
        else:
            times = arrival_times(workload.arrivals, self._times_rng)
            begins = ((at, self.session(self._content)) for at in times)
        for at, session in begins:
            when = workload.start + at / workload.speed
            if self.spent or when > self.until:
                return
            yield when, session

    def session(self, content: Content, tenant: str | None = None) -> Session:
        """A new one, drawn from `content`."""
        session = self._begin(content.turns(), self.workload.tenant if tenant is None else tenant)
        session.shared = content.shared()
        if len(session.turns) > 1:
            session.name = f"{self._index}-{self._n_sessions}"
        return session

    def of_user(self, content: Content) -> Session:
        """A new one of a user, whose own `content` it comes from: users take turns as the answers end."""
        session = self.session(content)
        session.user = content
        return session

    def arrival(self, session: Session, number: int, at: float) -> Arrival:
        """The present turn of a session as a request. Counts it."""
        self._left -= 1
        workload = self.workload
        prefix = workload.shared_prefix
        shared_tokens = prefix.tokens if prefix is not None and session.shared >= 0 else 0
        turn = session.turns[session.turn]
        prompt = shared_tokens + session.history + turn.new_tokens
        if session.ids:
            block, hashes = MOONCAKE_BLOCK, session.ids
        else:
            block = workload.block_tokens
            hashes = self._hashes(session, prompt, shared_tokens)
        return Arrival(
            number=number,
            at=at,
            prompt_tokens=prompt,
            output_tokens=turn.output_tokens,
            prefix_hashes=hashes,
            prefix_tokens=(*range(block, prompt, block), prompt),
            tenant=session.tenant,
            session=session.name,
            turn=session.turn,
            model=workload.model,
            priority=workload.priority,
            shared=self._index * _MOST_SESSIONS + session.shared if shared_tokens else -1,
            shared_tokens=shared_tokens,
            new_tokens=turn.new_tokens,
        )

    def _hashes(self, session: Session, prompt: int, shared_tokens: int) -> tuple[int, ...]:
        block = self.workload.block_tokens
        full, begun = divmod(prompt, block)
        alike = shared_tokens // block
        of_session = self._salt + session.base
        of_shared = self._salt + _SHARED + session.shared * _OF_SESSION
        hashes = (*range(of_shared, of_shared + alike), *range(of_session + alike, of_session + full))
        return (*hashes, of_session + _BEGUN + session.turn) if begun else hashes

    def _begin(self, turns: tuple[Turn, ...], tenant: str) -> Session:
        session = Session(self, self._n_sessions, tenant, turns)
        self._n_sessions += 1
        return session

    def _users(self, users: Users) -> Iterator[tuple[float, Session]]:
        for user in range(users.users):
            content = Content(self.workload, self._pairs, Random(self._users_seed + user))
            yield users.ramp * user / users.users, self.of_user(content)

    def _traced(self, trace: Trace) -> Iterator[tuple[float, Session]]:
        if trace.format == "servegen":
            yield from self._clients(trace)
            return
        salt = self._salt
        for recorded in self._recorded(trace.file, trace.format):
            if recorded.at < trace.skip:
                continue
            turn = Turn(recorded.prompt_tokens, recorded.output_tokens, 0.0)
            session = self._begin((turn,), self.workload.tenant)
            session.ids = tuple([salt + block for block in recorded.blocks]) if salt else recorded.blocks
            yield recorded.at - trace.skip, session

    def _clients(self, trace: Trace) -> Iterator[tuple[float, Session]]:
        """A tenant for each client of a folder."""
        files = self._open(trace.file)
        times = []
        for i, (name, lines) in enumerate(files):
            tenant = f"{self.workload.tenant or 'client'}-{i}" if len(files) > 1 else self.workload.tenant
            rng = Random(self._times_rng.getrandbits(64))
            pieces = (piece for piece in servegen(lines, name, rng) if piece[0].end > trace.skip)
            times.append(_for_tenant(along(pieces), tenant))
        for at, tenant in merge(*times, key=itemgetter(0)):
            if at >= trace.skip:
                yield at - trace.skip, self.session(self._content, tenant)

    def _recorded(self, file: str, format: Format) -> Iterator[Recorded]:
        opened = self._open(file)
        if len(opened) != 1:
            raise TrafficError(f"{file}: is a folder of {len(opened)} files; a {format} trace is one file")
        name, lines = opened[0]
        return mooncake(lines, name) if format == "mooncake" else azure(lines, name)


def _for_tenant(times: Iterator[float], tenant: str) -> Iterator[tuple[float, str]]:
    return ((at, tenant) for at in times)
