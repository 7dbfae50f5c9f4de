"""The wall's own upstream in the place of a gateway: whoever asks it is told every fault as it is."""

from __future__ import annotations

from penstock.core.clock import SystemClock
from penstock.testing.faults.caller import Gateway
from penstock.testing.faults.run import Mark, run, scripts_of
from penstock.testing.faults.scenarios import DIALECTS, Wall, build, cells
from penstock.testing.faults.upstream import FaultServer, Ports
from penstock.testing.faults.verdicts import Limits

GATEWAY = "nobody"


def the_wall() -> Wall:
    return build(SystemClock(), lambda: 1)


async def marks_without_a_gateway(rows: set[str]) -> dict[str, str | None]:
    """What is wrong with each cell, by row and caller; callers and upstream speak the same dialect."""
    picked = [
        cell
        for cell in cells(the_wall(), DIALECTS, DIALECTS, GATEWAY)
        if cell.scenario.name in rows and cell.dialect == cell.via
    ]
    heard: list[Mark] = []
    async with FaultServer(scripts_of(picked), SystemClock(), Ports()) as upstream:
        gateway = Gateway(f"http://127.0.0.1:{upstream.ports.main}", "any")
        marks = await run(gateway, upstream, picked, SystemClock(), limits=Limits(), at_once=8, on_mark=heard.append)
    assert sorted(map(repr, heard)) == sorted(map(repr, marks))
    return {f"{mark.row} {mark.caller}": mark.wrong for mark in marks}
