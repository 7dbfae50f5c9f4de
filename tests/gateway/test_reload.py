"""Preparing and swapping planes."""

import asyncio

import msgspec
import pytest

from penstock.config.spec import DeploymentSpec
from penstock.gateway.prepare import PrepareError
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import DONE, Script
from tests.worlds import World, spec


def test_a_hundred_swaps_lose_no_request_in_flight():
    async def main(loop):
        scripts = {name: Script(ttft=0.3, tokens=20, tpot=0.05) for name in "abcd"}
        world = World(loop, scripts)
        asked = [asyncio.ensure_future(world.ask()) for _ in range(50)]  # noqa: TID251  gathered below
        for turn in range(100):
            members = sorted(scripts)[: 2 + turn % 3]
            new = msgspec.structs.replace(spec({"main": members}), version=turn + 2)
            plane, swapped = world.preparer.prepare(new, world.gateway.plane)
            world.gateway.plane = plane
            swapped()
            await asyncio.sleep(0.02)
            asked.append(asyncio.ensure_future(world.ask()))  # noqa: TID251  gathered below
        exchanges = await asyncio.gather(*asked)
        assert all(exchange.text.endswith(DONE) for exchange in exchanges)
        assert all(outcome.error is None for outcome in world.outcomes)
        assert len({outcome.plane_version for outcome in world.outcomes}) > 50
        world.check_nothing_is_held()

    virtual_loop.run(main)


def test_a_replica_that_stays_keeps_its_counts_breaker_and_connections():
    async def main(loop):
        world = World(loop, {"a": Script(), "b": Script()})
        before = world.gateway.plane
        plane, swapped = world.preparer.prepare(spec({"main": ["a", "b"]}), before)
        world.gateway.plane = plane
        swapped()
        assert plane.upstreams["a"] is before.upstreams["a"]
        assert plane.breakers["a"] is before.breakers["a"]
        assert plane.pools["main"][0] is before.pools["main"][0]
        assert not world.transports["a"].closed

    virtual_loop.run(main)


def test_a_replica_that_goes_is_closed_only_after_the_swap():
    async def main(loop):
        world = World(loop, {"a": Script(), "b": Script()})
        plane, swapped = world.preparer.prepare(spec({"main": ["a"]}), world.gateway.plane)
        assert not world.transports["b"].closed
        world.gateway.plane = plane
        swapped()
        assert world.transports["b"].closed

    virtual_loop.run(main)


def test_a_spec_that_cannot_be_made_live_changes_nothing():
    async def main(loop):
        world = World(loop, {"a": Script()})
        bad = spec({"main": ["a"]})
        broken = DeploymentSpec("paid", None, (), credential="a secret\r\nwith: a header")
        bad = msgspec.structs.replace(bad, deployments=(*bad.deployments, broken))
        world.preparer.prepare(bad, world.gateway.plane)  # a deployment without replicas starts nothing
        replicas = spec({"paid": ["a"]}).deployments[0].replicas
        bad = msgspec.structs.replace(
            bad, deployments=(DeploymentSpec("main", None, replicas, credential="a secret\r\nwith: a header"),)
        )
        with pytest.raises(PrepareError, match=r"deployments\.main"):
            world.preparer.prepare(bad, world.gateway.plane)
        assert (await world.ask()).status == 200

    virtual_loop.run(main)
