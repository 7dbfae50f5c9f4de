"""Who is let in, to what, from where and until when; and what the others are told."""

import asyncio
import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.config.spec import DigestSpec, GrantSpec, KeySpec
from penstock.core.errors import Unauthorized
from penstock.core.keys import ENTROPY_BYTES, Pepper, mint
from penstock.core.request import ANYONE, Caller, Endpoint, Priority
from penstock.gateway.auth import identify
from penstock.gateway.keyring import Keyring
from penstock.gateway.prepare import PrepareError
from penstock.testing import virtual_loop
from penstock.testing.exchange import FakeExchange
from penstock.testing.fake_upstream import Script
from tests.worlds import PLAIN, World, spec

SECRET = b"sk-pen-abcdefgh-0123456789"
PEPPER = "a pepper of some length"  # worlds read a reference as the secret itself
NOW = 1_000_000_000.0


def sha256(secret=SECRET):
    return hashlib.sha256(secret).hexdigest()


def peppered(secret=SECRET):
    return Pepper(PEPPER.encode()).digest(secret).hex()


def locked(loop, *keys, **more):
    return World(loop, {"a": Script()}, insecure_dev=False, keys=keys, **more)


def granted(loop, grant, **more):
    return locked(loop, KeySpec("web", sha256(), 0), grants=(grant,), **more)


async def ask(world, secret=SECRET, body=PLAIN, **more):
    headers = ((b"authorization", b"Bearer " + secret), *more.pop("headers", ()))
    exchange = FakeExchange(body, headers=headers, **more)
    await exchange.carry(world.gateway.handle)
    assert secret not in exchange.text
    return exchange


def refusal(exchange):
    return exchange.status, msgspec.json.decode(exchange.text)["error"]["code"]


def test_only_a_known_key_is_let_in_and_a_wrong_one_is_never_repeated():
    async def main(loop):
        world = granted(loop, GrantSpec("acme"))
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
        world = granted(loop, GrantSpec(models=("other",)))
        assert refusal(await ask(world)) == (403, "model_not_allowed")
        listed = await ask(world, method=b"GET", path=b"/v1/models")
        assert msgspec.json.decode(listed.text)["data"] == []

    virtual_loop.run(main)


def at(**instants):
    """A grant whose times are counted from now."""
    return lambda now: GrantSpec(**{name: now + seconds for name, seconds in instants.items()})


@pytest.mark.parametrize(
    ("grant", "answer"),
    [
        (at(revoked=0.0), (401, "revoked_api_key")),
        (at(revoked=0.0, expires=-1.0), (401, "revoked_api_key")),
        (at(revoked=1.0), 200),
        (at(expires=0.0), (401, "expired_api_key")),
        (at(expires=1.0), 200),
        (at(not_before=1.0), (401, "api_key_not_yet_valid")),
        (at(not_before=0.0), 200),
    ],
)
def test_a_key_works_in_its_time_and_not_a_second_longer(grant, answer):
    async def main(loop):
        exchange = await ask(granted(loop, grant(loop.wall())))
        assert (exchange.status if exchange.status == 200 else refusal(exchange)) == answer

    virtual_loop.run(main)


def test_a_key_that_expires_while_the_gateway_runs_is_refused_from_then_on():
    async def main(loop):
        world = granted(loop, at(expires=60.0)(loop.wall()))
        assert (await ask(world)).status == 200
        await asyncio.sleep(61.0)
        exchange = await ask(world)
        assert refusal(exchange) == (401, "expired_api_key")
        assert b"ask for a new one" in exchange.text

    virtual_loop.run(main)


def test_a_replaced_key_and_its_successor_both_work_until_the_overlap_is_over():
    async def main(loop):
        old, new = SECRET, mint(bytes(ENTROPY_BYTES)).encode()
        key = KeySpec("web", peppered(new), 0, True, DigestSpec(sha256(old), False, loop.wall() + 60.0))
        world = locked(loop, key, grants=(GrantSpec("acme", "search"),), keys_pepper=PEPPER)
        for secret in (old, new):
            assert (await ask(world, secret)).status == 200
            assert (world.outcomes[-1].key_id, world.outcomes[-1].tenant) == ("web", "acme")
        await asyncio.sleep(60.0)
        exchange = await ask(world, old)
        assert refusal(exchange) == (401, "expired_api_key")
        assert b"replaced by a newer one" in exchange.text
        assert (await ask(world, new)).status == 200

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("10.1.2.3", (), 200),
        ("::ffff:10.1.2.3", (), 200),
        ("11.0.0.1", (), 403),
        ("", (), 403),
        ("11.0.0.1", (b"10.1.2.3",), 403),  # whoever calls can write what they like
        ("192.0.2.1", (b"10.1.2.3",), 200),
        ("192.0.2.1", (b"10.1.2.3, 11.0.0.1",), 403),
        ("192.0.2.1", (b"11.0.0.1, 10.1.2.3:4711, 192.0.2.2",), 200),
        ("192.0.2.1", (b"10.1.2.3", b"11.0.0.1"), 403),  # a second line is later than the first
        ("192.0.2.1", (b"10.1.2.3, unknown",), 403),
        ("192.0.2.1", (b"[2001:db8::1]:443",), 200),
        ("192.0.2.1", (), 403),
    ],
)
def test_a_key_works_only_in_its_networks_as_the_connection_or_a_trusted_proxy_says(peer, forwarded, status):
    async def main(loop):
        grant = GrantSpec(networks=("10.0.0.0/8", "2001:db8::/32"))
        world = granted(loop, grant, trusted_proxies=("192.0.2.0/24",))
        exchange = await ask(world, peer=peer, headers=tuple((b"x-forwarded-for", line) for line in forwarded))
        assert exchange.status == status
        assert status == 200 or refusal(exchange) == (403, "network_not_allowed")

    virtual_loop.run(main)


def test_a_key_reaches_only_its_endpoints_whatever_the_dialect():
    async def main(loop):
        world = granted(loop, GrantSpec(endpoints=(Endpoint.EMBEDDING,)))
        exchange = await ask(world)
        assert refusal(exchange) == (403, "route_not_allowed")
        assert b"chat.completions" in exchange.text
        told = msgspec.json.decode((await ask(world, path=b"/v1/messages")).text)
        assert (told["type"], told["error"]["details"]["error_code"]) == ("error", "route_not_allowed")
        background = await ask(world, body=b'{"model":"chat","input":"x","background":true}', path=b"/v1/responses")
        assert refusal(background) == (403, "route_not_allowed")
        stored = await ask(world, method=b"GET", path=b"/v1/responses/resp_1")
        assert refusal(stored) == (403, "route_not_allowed")
        assert (await ask(world, method=b"GET", path=b"/v1/models")).status == 200

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        (b"POST", b"/v1/chat/completions", "call"),
        (b"DELETE", b"/v1/responses/resp_1", "call"),
        (b"GET", b"/v1/responses/resp_1", "read"),
        (b"GET", b"/v1/models", "read"),
    ],
)
def test_to_call_and_to_read_are_two_scopes(method, path, scope):
    async def main(loop):
        for has, other in (("call", "read"), ("read", "call")):
            exchange = await ask(granted(loop, GrantSpec(scopes=(has,))), method=method, path=path)
            if has == scope:
                assert exchange.status in (200, 404)
            else:
                assert refusal(exchange) == (403, "scope_not_allowed")
                assert f"`{other}`".encode() in exchange.text

    virtual_loop.run(main)


def test_a_mistyped_key_is_told_from_one_that_is_not_known():
    async def main(loop):
        world = locked(loop, KeySpec("web", sha256()))
        key = mint(bytes(range(ENTROPY_BYTES))).encode()
        for secret, word in (
            (key, b"not known here"),
            (key[:-1], b"checksum"),
            (key[:-1] + b"~", b"checksum"),
            (b"sk-litellm", b"not known here"),
            ("sk-pen-é".encode(), b"checksum"),
        ):
            exchange = await ask(world, secret)
            assert refusal(exchange) == (401, "invalid_api_key")
            assert word in exchange.text

    virtual_loop.run(main)


def test_a_refused_caller_reaches_no_upstream():
    async def main(loop):
        for grant in (GrantSpec(revoked=0.0), GrantSpec(networks=()), GrantSpec(scopes=()), GrantSpec(endpoints=())):
            world = granted(loop, grant)
            assert (await ask(world)).status in (401, 403)
            assert world.calls == []
            world.check_nothing_is_held()

    virtual_loop.run(main)


def test_a_refusal_of_a_known_key_says_whose_it_was_and_that_of_an_unknown_one_nobodys():
    async def main(loop):
        world = granted(loop, GrantSpec("acme", revoked=0.0))
        for secret, whose in ((SECRET, "web"), (b"other", None)):
            exchange = FakeExchange(b"", headers=((b"x-api-key", secret),))
            with pytest.raises(Unauthorized) as refused:
                identify(world.gateway.plane, exchange, Endpoint.CHAT)
            assert (refused.value.caller and refused.value.caller.key_id) == whose

    virtual_loop.run(main)


# --- the keyring ---


def keyring(*keys, pepper=PEPPER, grants=()):
    return Keyring(spec({}, keys=keys, grants=grants), None if pepper is None else Pepper(pepper.encode()))


def test_the_caller_carries_whose_it_is():
    grant = GrantSpec("acme", "search", ("chat",), priority=Priority.LOW)
    known = keyring(KeySpec("web", peppered(), 0, peppered=True), grants=(grant,)).find(SECRET)
    assert known.caller == Caller("web", "acme", frozenset({"chat"}), "search", Priority.LOW)
    assert known.caller.tenant == "acme"
    assert known.terms is None
    assert ANYONE.org == ""


def test_a_digest_of_one_kind_is_not_taken_for_the_other():
    assert keyring(KeySpec("web", peppered()), pepper=None).find(SECRET) is None
    assert keyring(KeySpec("web", sha256(), peppered=True), pepper="another pepper, long").find(SECRET) is None


def test_another_pepper_revokes_every_key_at_once():
    key = KeySpec("web", peppered(), peppered=True)
    assert keyring(key).find(SECRET) is not None
    assert keyring(key, pepper="another pepper, long").find(SECRET) is None


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.binary(max_size=40), st.booleans()), unique_by=lambda one: one[0], max_size=8), st.binary()
)
def test_exactly_the_keys_that_were_given_are_found(given, stranger):
    ring = keyring(
        *(KeySpec(str(i), peppered(key) if hmac else sha256(key), peppered=hmac) for i, (key, hmac) in enumerate(given))
    )
    assert len(ring) == len(given)
    for i, (key, _) in enumerate(given):
        assert ring.find(key).caller.key_id == str(i)
        assert ring.find(key + b"x") is None or any(key + b"x" == other for other, _ in given)
    assert (ring.find(stranger) is not None) == any(stranger == key for key, _ in given)


def test_keys_that_are_alike_share_what_they_are_held_to():
    ring = keyring(
        *(KeySpec(str(n), sha256(b"%d" % n), 0) for n in range(2)), grants=(GrantSpec(models=("chat",), expires=NOW),)
    )
    one, other = ring.find(b"0"), ring.find(b"1")
    assert one.terms is other.terms
    assert one.caller.models is other.caller.models


def test_a_reload_that_says_the_same_about_keys_keeps_the_keyring():
    async def main(loop):
        world = locked(loop, KeySpec("web", peppered(), peppered=True), keys_pepper=PEPPER)
        plane = world.gateway.plane

        def again(**more):
            prepared, _ = world.preparer.prepare(msgspec.structs.replace(plane.spec, **more), plane)
            return prepared.keyring is plane.keyring

        assert again(version=2)
        assert not again(keys=(*plane.spec.keys, KeySpec("more", sha256(b"more"))))
        assert not again(keys_pepper="another pepper, long")
        assert not again(trusted_proxies=("10.0.0.0/8",))

    virtual_loop.run(main)


def test_a_pepper_that_could_be_guessed_is_refused_without_being_told():
    async def main(loop):
        with pytest.raises(PrepareError, match="keys_pepper: a pepper has at least 16 characters") as refused:
            locked(loop, KeySpec("web", peppered(), peppered=True), keys_pepper="hunter2")
        assert "hunter2" not in str(refused.value)

    virtual_loop.run(main)
