"""Readiness follows what replicas answer, on virtual time."""

import asyncio

import msgspec

from penstock.control.prober import FAILURES, Prober
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import Script
from tests.worlds import World


def probed(spec):
    deployments = [
        msgspec.structs.replace(
            d, replicas=tuple(msgspec.structs.replace(r, health_path="/health") for r in d.replicas)
        )
        for d in spec.deployments
    ]
    return msgspec.structs.replace(spec, deployments=tuple(deployments), probe_interval=1.0)


def watch(scripts, story):
    async def main(loop):
        world = World(loop, scripts)
        plane, swapped = world.preparer.prepare(probed(world.gateway.plane.spec), None)
        world.gateway.plane = plane
        swapped()
        replicas = {r.name: r for r in plane.replicas()}
        assert not any(r.ready for r in replicas.values()), "nothing is known at the start"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Prober(world.gateway, loop).run())
            await story(world, replicas)
            task.cancel()
        assert all(call.closed or call.finished for call in world.calls)

    virtual_loop.run(main)


def test_a_replica_that_answers_is_ready_and_one_that_does_not_is_not():
    scripts = {
        "up": Script(),
        "odd": Script(status=404),
        "sick": Script(status=503),
        "down": Script(fault="connect"),
        "silent": Script(ttft=60.0),
    }

    async def story(world, replicas):
        await asyncio.sleep(0.2)
        assert {name: r.ready for name, r in replicas.items()} == {
            "up": True,
            "odd": True,  # it does not know the path, but it is there
            "sick": False,
            "down": False,
            "silent": False,
        }

    watch(scripts, story)


def test_one_missed_check_is_forgiven_and_two_are_not_and_an_answer_brings_it_back():
    async def story(world, replicas):
        await asyncio.sleep(0.1)
        assert replicas["a"].ready
        world.transports["a"].script = Script(fault="connect")
        await asyncio.sleep(1.0)
        assert replicas["a"].ready
        await asyncio.sleep(1.0 * (FAILURES - 1))
        assert not replicas["a"].ready
        world.transports["a"].script = Script()
        await asyncio.sleep(1.1)
        assert replicas["a"].ready

    watch({"a": Script()}, story)


def test_a_replica_that_a_reload_brings_is_trusted_until_it_was_asked():
    async def story(world, replicas):
        await asyncio.sleep(0.1)
        gateway = world.gateway
        spec = gateway.plane.spec
        moved = msgspec.structs.replace(
            spec.deployments[0],
            replicas=tuple(msgspec.structs.replace(r, origin=r.origin + ":81") for r in spec.deployments[0].replicas),
        )
        world.transports["a"].script = Script(fault="connect")
        plane, swapped = world.preparer.prepare(msgspec.structs.replace(spec, deployments=(moved,)), gateway.plane)
        gateway.plane = plane
        swapped()
        (replica,) = plane.replicas()
        assert replica is not replicas["a"]
        assert replica.ready
        await asyncio.sleep(0.3)
        assert not replica.ready

    watch({"a": Script()}, story)


def test_an_engine_that_says_how_busy_it_is_is_believed_and_one_that_does_not_is_asked_less_often():
    page = b"vllm:num_requests_waiting 3\nvllm:kv_cache_usage_perc 0.5\n" + (
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1\n'
    )
    asked = {"busy": 0, "mute": 0}

    async def main(loop):
        world = World(loop, {name: Script() for name in asked})
        spec = probed(world.gateway.plane.spec)
        deployments = [
            msgspec.structs.replace(
                d, replicas=tuple(msgspec.structs.replace(r, metrics_path="/metrics") for r in d.replicas)
            )
            for d in spec.deployments
        ]
        spec = msgspec.structs.replace(spec, deployments=tuple(deployments), report_interval=5.0)
        plane, swapped = world.preparer.prepare(spec, None)
        world.gateway.plane = plane
        swapped()
        replicas = {replica.name: replica for replica in plane.replicas()}
        for name, transport in plane.transports.items():
            answer = (200, page) if name == "busy" else (404, b"no")
            asked_by = counting(transport, asked, name, *answer)
            plane.transports[name] = asked_by
        prober = Prober(world.gateway, loop)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(prober.run())
            await asyncio.sleep(1.0)
            busy = replicas["busy"]
            assert (busy.waiting, busy.kv_used, busy.kv_tokens) == (3, 0.5, 1600)
            assert list(prober.reports) == ["busy"]
            await asyncio.sleep(50.0)
            assert asked == {"busy": 11, "mute": 1}
            task.cancel()

    virtual_loop.run(main)


class counting:
    """A transport that answers looks at the metrics by itself and counts them."""

    def __init__(self, transport, asked, name, status, page):
        self._transport, self._asked, self._name = transport, asked, name
        self._status, self._page, self.host = status, page, transport.host

    def send(self, prefix, extra, body, receiver):
        if b"GET /metrics " not in prefix:
            return self._transport.send(prefix, extra, body, receiver)
        self._asked[self._name] += 1
        loop = asyncio.get_running_loop()
        loop.call_soon(receiver.on_head, self._status, [])
        loop.call_soon(receiver.on_data, self._page[:10], False)
        loop.call_soon(receiver.on_data, self._page[10:], True)
        return Nothing()

    def close(self):
        self._transport.close()


class Nothing:
    def close(self): ...
