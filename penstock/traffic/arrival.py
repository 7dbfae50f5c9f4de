"""A request that is to come: how large, and what of its prompt others have too. No text: see `loadtest.prompts`."""

from __future__ import annotations

import msgspec

from penstock.core.request import Priority


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """Made by `traffic.source.Source`.

    The prompt, from its start: `shared_tokens` that every prompt with the same `shared` begins with, then the
    conversation so far, then `new_tokens` of this turn. `output_tokens` is how many the answer is to have.
    `prefix_hashes[i]` stands for the first `prefix_tokens[i]` tokens: two prompts that have the same hash begin alike,
    that far. The last one covers the whole prompt, be its block full or not.
    """

    number: int  # from 0, in the order in which the source gave them out
    at: float  # seconds from the beginning; when it is meant to be sent
    prompt_tokens: int
    output_tokens: int
    prefix_hashes: tuple[int, ...] = ()
    prefix_tokens: tuple[int, ...] = ()
    tenant: str = ""
    session: str = ""  # "" for what stands alone
    turn: int = 0  # of the session
    model: str = ""  # "" for the only one, or the first
    priority: Priority = Priority.NORMAL
    shared: int = -1  # which shared beginning, of all workloads; -1: none
    shared_tokens: int = 0
    new_tokens: int = 0
