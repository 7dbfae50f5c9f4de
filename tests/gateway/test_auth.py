import hashlib

import msgspec

from penstock.config.spec import KeySpec
from penstock.gateway.prepare import _callers
from penstock.testing import virtual_loop
from penstock.testing.fake_upstream import Script
from tests.worlds import PLAIN, World

SECRET = b"sk-pen-abcdefgh-0123456789"


def locked(loop, **key):
    world = World(loop, {"a": Script()})
    keys = (KeySpec("web", hashlib.sha256(SECRET).hexdigest(), "acme", **key),)
    spec = msgspec.structs.replace(world.gateway.plane.spec, insecure_dev=False, keys=keys)
    world.gateway.plane = msgspec.structs.replace(world.gateway.plane, spec=spec, callers=_callers(spec))
    return world


def test_only_a_known_key_is_let_in_and_a_wrong_one_is_never_repeated():
    async def main(loop):
        world = locked(loop)
        for sent, status in (
            (b"Bearer " + SECRET, 200),
            (b"bearer " + SECRET, 200),
            (b"Bearer " + SECRET + b"x", 401),
            (b"Bearer ", 401),
            (b"Basic " + SECRET, 401),
            (SECRET, 401),
        ):
            exchange = await world.ask(PLAIN, headers=((b"authorization", sent),))
            assert exchange.status == status, sent
            assert SECRET not in exchange.text
        exchange = await world.ask(PLAIN)
        assert exchange.status == 401
        assert b"www-authenticate: Bearer" in exchange.headers
        assert world.outcomes[0].key_id == "web"
        assert world.outcomes[0].tenant == "acme"

    virtual_loop.run(main)


def test_a_key_sees_and_uses_only_its_own_models():
    async def main(loop):
        world = locked(loop, models=("other",))
        headers = ((b"authorization", b"Bearer " + SECRET),)
        exchange = await world.ask(PLAIN, headers=headers)
        assert exchange.status == 403
        assert msgspec.json.decode(exchange.text)["error"]["code"] == "model_not_allowed"

    virtual_loop.run(main)
