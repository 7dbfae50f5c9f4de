"""A load on a scripted server, in virtual time."""

from __future__ import annotations

from random import Random
from typing import Any

from penstock.loadtest.prompts import Fit, Prompts
from penstock.loadtest.run import Load, LoadOptions, Run
from penstock.loadtest.target import Target
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import FakeTransport, Script
from penstock.traffic.options import read
from penstock.traffic.source import Source


def target(script: Script, **options: Any) -> tuple[Target, FakeTransport]:
    transport = FakeTransport("server", script, [])
    return Target(transport, "/v1/chat/completions", "tiny", **options), transport


def loaded(
    tree: Any, script: Script, *, options: LoadOptions | None = None, stop_at: float | None = None, **of_target: Any
) -> tuple[Run, FakeTransport]:
    """Everything that was measured, and what the server was sent."""

    async def main(loop: virtual_loop.VirtualLoop) -> tuple[Run, FakeTransport]:
        asked, transport = target(script, **of_target)
        source = Source(read(tree), lambda name: [], Random(1))
        load = Load(source, asked, Prompts(1, Fit()), options or LoadOptions(), loop.time)
        if stop_at is not None:
            loop.call_later(stop_at, load.stop)
        return await load.run(), transport

    return virtual_loop.run(main)
