"""Tokens of an OpenID provider: let in when its signature, its times and its claims say so, and for no other reason."""

import asyncio
import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from penstock.config.load import load
from penstock.console.identify import ProviderAway, TokenRefused
from penstock.console.oidc import MAX_DOCUMENT, ProviderTokens
from penstock.core.clock import ManualClock
from penstock.http.server import Server
from tests.console.conftest import FILE, Console

RSA = rsa.generate_private_key(65_537, 2_048)
OTHER = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(key, kid, **fields):
    kinds = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    kind = next((kind for of, kind in kinds.items() if isinstance(key, of)), jwt.algorithms.OKPAlgorithm)
    algorithm = {"RSAAlgorithm": "RS256", "ECAlgorithm": "ES256", "OKPAlgorithm": "EdDSA"}[kind.__name__]
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": algorithm} | fields


class Provider:
    """Publishes what it is told to, on loopback."""

    def __init__(self):
        self.keys = [jwk(RSA, "rsa"), jwk(EC, "ec"), jwk(ED, "ed")]
        self.about = {}
        self.status = 200
        self.asked = []

    async def start(self):
        self.server = Server(self.answer, on_crash=self.crashed)
        await self.server.start()
        self.issuer = f"http://127.0.0.1:{self.server.port}/realm"

    def crashed(self, error):
        raise error

    def answer(self, exchange):
        self.asked.append(exchange.path.decode())
        if exchange.path.endswith(b"/openid-configuration"):
            body = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys?v=1", **self.about}
        else:
            body = {"keys": self.keys}
        exchange.respond(self.status, json.dumps(body).encode(), b"location: http://127.0.0.1:1/\r\n")


class Setting:
    def __init__(self, loop, provider):
        self.loop, self.provider, self.clock, self.told = loop, provider, ManualClock(), []
        options = load(
            FILE.replace("  keys:\n    - { id: owner", f"""\
  oidc:
    issuer: {provider.issuer}
    audience: penstock
    claim: realm_access.roles
    roles: {{ platform: owner, finance: billing, everybody: viewer }}
  keys:
    - {{ id: owner""", 1),
            "",
        )  # fmt: skip
        self.config = options
        self.tokens = ProviderTokens(options.admin.oidc, clock=self.clock, tell=self.told.append)

    def token(self, key=RSA, algorithm="RS256", kid="rsa", headers=None, **claims):
        now = int(time.time())  # noqa: TID251 - PyJWT looks at the system's clock
        said = {
            "iss": self.provider.issuer, "aud": "penstock", "sub": "ann", "exp": now + 600,
            "realm_access": {"roles": ["platform"]},
        } | claims  # fmt: skip
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, key, algorithm, {"kid": kid} | (headers or {}))

    def principal(self, token):
        return self.loop.run(self.tokens.principal(token))

    def refused(self, token, match):
        with pytest.raises(TokenRefused, match=match) as refused:
            self.principal(token)
        assert token[:20] not in str(refused.value)


@pytest.fixture
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def setting(loop):
    provider = Provider()
    loop.run(provider.start())
    yield Setting(loop, provider)
    loop.run(provider.server.drain(0))


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")])
def test_who_has_a_token_of_the_provider_is_let_in(setting, key, algorithm, kid):
    principal = setting.principal(setting.token(key, algorithm, kid))
    assert (principal.name, principal.role, principal.org) == ("oidc:ann", "owner", "")
    assert setting.provider.asked == ["/realm/.well-known/openid-configuration", "/realm/keys"]


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (["everybody"], "viewer"),
        (["everybody", "finance", 5, None], "billing"),
        (["everybody", "platform"], "owner"),
        ("finance", "billing"),
    ],
)
def test_of_several_roles_the_most_powerful_holds(setting, roles, role):
    assert setting.principal(setting.token(realm_access={"roles": roles})).role == role


def test_a_claim_whose_name_has_dots_goes_before_a_path(setting):
    claims = {"realm_access.roles": ["finance"]}
    assert setting.principal(setting.token(**claims)).role == "billing"


@pytest.mark.parametrize("roles", [[], ["nobody"], {}, None, 5, [["platform"]], "platform everybody", True])
def test_who_has_no_role_here_is_not_let_in(setting, roles):
    setting.refused(setting.token(realm_access={"roles": roles}), "gives no role")
    setting.refused(setting.token(realm_access=roles), "gives no role")


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": 1_700_000_000}, "has expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iat": 4_000_000_000}, "not valid yet"),
        ({"aud": "somebody-else"}, "meant for somebody else"),
        ({"aud": ["a", "b"]}, "meant for somebody else"),
        ({"iss": "https://elsewhere.example"}, "of another issuer"),
        ({"exp": None}, "lacks one of"),
        ({"sub": None}, "lacks one of"),
        ({"aud": None}, "lacks one of"),
        ({"iss": None}, "lacks one of"),
        ({"sub": "a\nb"}, "`sub` is no name"),
        ({"sub": "x" * 201}, "`sub` is no name"),
        ({"sub": ""}, "`sub` is no name"),
        ({"exp": "soon"}, "not valid"),
    ],
)
def test_a_token_whose_claims_are_wrong_is_refused(setting, claims, told):
    setting.refused(setting.token(**claims), told)


def unsigned(token, **header):
    """The same claims under another header and no signature."""
    _, claims, _ = token.split(".")
    head = base64.urlsafe_b64encode(json.dumps({"typ": "JWT", **header}).encode()).rstrip(b"=").decode()
    return f"{head}.{claims}."


def test_a_token_that_is_not_signed_by_the_provider_is_refused(setting):
    good = setting.token()
    head, claims, signature = good.split(".")
    other = setting.token(realm_access={"roles": ["everybody"]}).split(".")
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(jwt.InvalidKeyError):
        jwt.encode({}, public, "HS256")  # so it is forged by hand
    forged = [
        setting.token(OTHER),  # somebody else's key under a known name
        setting.token(EC, "ES256", "rsa"),  # a known key under the name of another
        f"{head}.{claims}.{other[2]}",
        f"{head}.{other[1]}.{signature}",
        f"{head}.{claims}.",
        f"{head}.{claims}",
        unsigned(good, alg="none", kid="rsa"),
        unsigned(good, alg="None", kid="rsa"),
        unsigned(good, kid="rsa"),
        unsigned(good, alg="RS256", kid="rsa"),
        setting.token("a secret that is long enough for it", "HS256"),
        setting.token(RSA, "RS256", "rsa", {"alg": "PS256"}) + "x",
        "..",
        "a.b.c",
        good + ".x",
        "\ud800.b.c",
        good[:40],
        base64.urlsafe_b64encode(b"[" * 9_000).decode() + ".e30.x",
        unsigned(good, alg="RS256", kid=["rsa"]),
        unsigned(good, alg=["RS256"], kid="rsa"),
    ]
    for token in forged:
        setting.refused(token, "token")
    assert setting.principal(good).role == "owner"
    assert setting.told == []


def test_the_keys_of_a_token_are_never_taken_from_the_token(setting):
    token = setting.token(OTHER, kid="mine", headers={"jwk": jwk(OTHER, "mine"), "jku": "http://127.0.0.1:1/keys"})
    setting.refused(token, "does not publish")


def test_a_token_that_is_too_long_is_not_looked_at(setting):
    setting.refused(setting.token(x="y" * 20_000), "too long")
    assert setting.provider.asked == []


def test_a_new_key_is_fetched_when_it_is_first_seen_but_not_for_every_name_somebody_makes_up(setting):
    setting.principal(setting.token())
    setting.provider.keys = [jwk(OTHER, "next")]
    setting.refused(setting.token(OTHER, kid="next"), "does not publish")
    setting.clock.advance(61)
    assert setting.principal(setting.token(OTHER, kid="next")).name == "oidc:ann"
    setting.refused(setting.token(), "does not publish")
    n_asked = len(setting.provider.asked)
    for n in range(20):
        setting.refused(setting.token(kid=f"made-up-{n}"), "does not publish")
    assert len(setting.provider.asked) == n_asked


def test_keys_are_looked_at_again_after_an_hour_and_used_on_when_their_provider_is_away(setting):
    setting.principal(setting.token())
    setting.clock.advance(3_601)
    setting.provider.status = 500
    assert setting.principal(setting.token()).name == "oidc:ann"
    assert len(setting.told) == 1 and "status 500" in setting.told[0]
    setting.clock.advance(61)
    setting.provider.status, setting.provider.keys = 200, []
    setting.refused(setting.token(), "does not publish")


def test_a_key_without_a_name_is_used_where_it_is_the_only_one(setting):
    setting.provider.keys = [jwk(RSA, None)]
    assert setting.principal(unnamed(setting)).name == "oidc:ann"


def unnamed(setting):
    token = setting.token()
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, RSA, "RS256")


def test_of_several_keys_none_is_guessed(setting):
    setting.refused(unnamed(setting), "does not publish")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda provider: provider.about.update(issuer="https://elsewhere.example"), "that of another issuer"),
        (lambda provider: provider.about.update(jwks_uri=None), "does not say where its keys are"),
        (lambda provider: provider.about.update(jwks_uri="http://10.0.0.1/keys"), "must be https://"),
        (lambda provider: provider.about.update(jwks_uri="file:///etc/passwd"), "must be an address"),
        (lambda provider: provider.about.update(jwks_uri=provider.issuer + "/k?a b"), "cannot be asked"),
        (lambda provider: provider.about.update(x="y" * MAX_DOCUMENT), "more than"),
        (lambda provider: setattr(provider, "status", 302), "status 302"),
        (lambda provider: setattr(provider, "keys", None), "not a list"),
        (lambda provider: setattr(provider, "keys", [jwk(RSA, str(n)) for n in range(65)]), "at most 64"),
        (lambda provider: setattr(provider, "keys", [jwk(RSA, "rsa", n="!")]), "could not be fetched"),
    ],
)
def test_a_provider_that_says_something_odd_lets_nobody_in_and_the_operator_is_told(setting, change, told):
    change(setting.provider)
    with pytest.raises(ProviderAway):
        setting.principal(setting.token())
    assert len(setting.told) == 1 and told in setting.told[0]


def test_keys_for_encryption_and_shared_secrets_are_no_keys_for_signatures(setting):
    secret = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(b"s" * 32).decode()}
    setting.provider.keys = [jwk(RSA, "enc", use="enc"), secret]
    setting.refused(setting.token(kid="enc"), "does not publish")
    setting.refused(setting.token("s" * 32, "HS256", "oct"), "not signed in a way")


def test_the_admin_api_lets_tokens_in_beside_keys(setting, tmp_path):
    from penstock.stores.migrate import migrate
    from penstock.stores.sqlite_database import SqliteDatabase

    database = SqliteDatabase(tmp_path / "books.db")
    setting.loop.run(migrate(database, now=0.0))
    console = Console(setting.loop, database)
    console.config = setting.config
    assert console.ask("GET", "/me").json["name"] == "key:owner"
    assert console.ask("GET", "/me", key=setting.token()).json["name"] == "oidc:ann"
    assert console.ask("POST", "/keys", {"id": "web"}, key=setting.token()).status == 201
    assert console.ask("GET", "/audit").json["items"][0]["actor"] == "oidc:ann"
    reply = console.ask("GET", "/me", key=setting.token(OTHER))
    assert (reply.status, reply.json["error"]["message"]) == (401, "the token is not valid")
    setting.provider.status = 500
    away = Console(setting.loop, database)
    away.config = setting.config
    assert away.ask("GET", "/me", key=setting.token()).status == 503
    setting.loop.run(database.close())
