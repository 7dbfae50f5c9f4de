import msgspec

from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import Script
from tests.worlds import World


def get(world, path, method=b"GET"):
    exchange = FakeExchange(b"", method=method, path=path)
    assert world.gateway.handle(exchange) is None
    return exchange


def test_models_are_listed_and_shown_one_by_one():
    async def main(loop):
        world = World(loop, {"a": Script()})
        assert [m["id"] for m in msgspec.json.decode(get(world, b"/v1/models").text)["data"]] == ["chat"]
        assert msgspec.json.decode(get(world, b"/v1/models/chat").text)["id"] == "chat"
        missing = get(world, b"/v1/models/gone")
        assert (missing.status, msgspec.json.decode(missing.text)["error"]["code"]) == (404, "model_not_found")

    virtual_loop.run(main)


def test_ready_means_a_replica_for_every_model_and_alive_means_alive():
    async def main(loop):
        world = World(loop, {"a": Script()})
        assert get(world, b"/readyz").status == 200
        world.gateway.plane.pools["main"][0].ready = False
        ready = get(world, b"/readyz")
        assert ready.status == 503
        assert msgspec.json.decode(ready.text)["models_without_a_replica"] == ["chat"]
        assert get(world, b"/healthz").status == 200

    virtual_loop.run(main)


def test_a_wrong_path_or_method_is_told_what_would_be_right():
    async def main(loop):
        world = World(loop, {"a": Script()})
        assert get(world, b"/v1/chat/completions").status == 405
        assert get(world, b"/v1/models", b"DELETE").status == 405
        assert get(world, b"/wp-admin").status == 404

    virtual_loop.run(main)
