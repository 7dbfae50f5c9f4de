"""Asks a gateway for every cell of the wall and judges what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from penstock.core.clock import Clock
from penstock.testing.faults import scripts
from penstock.testing.faults.caller import Ask, Gateway, ask
from penstock.testing.faults.scenarios import Cell
from penstock.testing.faults.upstream import FaultServer, Script, Seen
from penstock.testing.faults.verdicts import Case, Limits, judge

TIME_TO_NOTICE: Final = 3.0  # seconds for an upstream to see that it was left


class Mark(msgspec.Struct, frozen=True):
    """One cell's result; `wrong` is None when it is right."""

    row: str
    caller: str
    via: str
    wrong: str | None
    seconds: float = 0.0


def scripts_of(cells: Iterable[Cell]) -> dict[str, Script]:
    """What the upstream is to play, by model."""
    return {"backup": scripts.backup} | {cell.name: cell.script for cell in cells}


async def run(
    gateway: Gateway,
    upstream: FaultServer,
    cells: Sequence[Cell],
    clock: Clock,
    *,
    limits: Limits,
    at_once: int,
    on_mark: Callable[[Mark], None],
) -> list[Mark]:
    """All cells, `at_once` at a time; the marks in the order of the cells. `on_mark` hears of each when it is there."""
    room = asyncio.Semaphore(at_once)

    async def one(cell: Cell) -> Mark:
        async with room:
            began = clock.now()
            mark = Mark(cell.scenario.name, cell.caller, cell.via, await _wrong(gateway, upstream, cell, clock, limits))
            mark = msgspec.structs.replace(mark, seconds=round(clock.now() - began, 2))
            on_mark(mark)
            return mark

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(cell)) for cell in cells]
    return [task.result() for task in tasks]


async def _wrong(gateway: Gateway, upstream: FaultServer, cell: Cell, clock: Clock, limits: Limits) -> str | None:
    what = Ask(cell.dialect, cell.stream, cell.name)
    what = msgspec.structs.replace(what, **cell.scenario.ask)
    told = [await ask(gateway, what, clock) for _ in range(cell.scenario.times)]
    if cell.scenario.leaves:
        await _until_noticed(upstream.of(cell.name))
    ports = upstream.ports
    case = Case(
        dialect=cell.dialect,
        stream=cell.stream,
        told=told[-1],
        others=told[:-1],
        seen=upstream.of(cell.name),
        stolen=upstream.stolen.count(cell.name),
        addresses=tuple(
            f"{host}:{port}" for host in ("127.0.0.1", "localhost") for port in (ports.main, ports.tls, ports.refused)
        ),
        limits=limits,
    )
    return judge(cell.scenario.right, case)


async def _until_noticed(seen: list[Seen]) -> None:
    try:
        async with asyncio.timeout(TIME_TO_NOTICE):
            for one in seen:
                await one.over.wait()
    except TimeoutError:
        return  # that is for the verdict to say
