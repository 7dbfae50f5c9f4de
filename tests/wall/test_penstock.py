"""Penstock against the wall: real processes, real sockets, every fault; a gateway of its own for each heading."""

import asyncio

import pytest

from penstock.core.clock import SystemClock
from penstock.testing.faults import configs
from penstock.testing.faults.caller import Gateway
from penstock.testing.faults.run import run, scripts_of
from penstock.testing.faults.scenarios import DIALECTS, build, cells
from penstock.testing.faults.serving import penstock_serving
from penstock.testing.faults.upstream import FaultServer, Ports
from penstock.testing.faults.verdicts import Limits
from tests.wall.direct import the_wall

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]


@pytest.mark.parametrize("heading", the_wall())
def test_every_caller_is_told_the_truth(heading):
    """Up to ten seconds: silence is one of the faults, and to tell it from slowness takes seconds."""
    assert asyncio.run(wrong_cells(heading)) == []


async def wrong_cells(heading):
    clock = SystemClock()
    wall = build(clock, lambda: upstream.ports.thief)
    picked = cells({heading: wall[heading]}, DIALECTS, DIALECTS, "Penstock")
    async with FaultServer(scripts_of(picked), clock, Ports()) as upstream:
        with penstock_serving(picked, upstream.ports) as url:
            gateway = Gateway(url, configs.KEY)
            marks = await run(gateway, upstream, picked, clock, limits=Limits(), at_once=16, on_mark=lambda mark: None)
    return [f"{mark.row} ({mark.caller} via {mark.via}): {mark.wrong}" for mark in marks if mark.wrong is not None]
