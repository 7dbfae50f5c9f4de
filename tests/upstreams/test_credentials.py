"""Authorization: signatures as botocore makes them, tokens renewed before they end, and nothing that waits."""

import asyncio
import datetime
import json
import subprocess
import sys
import threading
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import google.auth.crypt
import google.auth.jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.clock import ManualClock, SystemClock
from penstock.core.errors import FailureKind, UpstreamError
from penstock.testing.virtual_loop import VirtualLoop, run
from penstock.upstreams.credentials import (
    RETRY_AFTER,
    Held,
    MissingExtra,
    Renewed,
    RenewedBearer,
    SigV4,
    aws_keys,
    bearer,
    fixed_aws_keys,
    google_token,
    key,
    reread,
)

HOST = "bedrock-runtime.us-east-1.amazonaws.com"


class Immediate(VirtualLoop):
    """Does in a turn of the loop what would be done in a thread, so that time stands still meanwhile."""

    def run_in_executor(self, executor, func, *args):
        future = self.create_future()

        def work():
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the future's
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_soon(work)
        return future


def in_virtual_time(main):
    loop = Immediate()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def lines(headers: bytes) -> dict[str, str]:
    assert headers.endswith(b"\r\n")
    return dict(line.split(": ", 1) for line in headers.decode("ascii")[:-2].split("\r\n"))


# --- what does not change


def test_fixed_headers_are_what_each_provider_wants_and_need_nothing_fetched():
    run(lambda loop: bearer("sk-1").prepare())
    bearer("sk-1").close()
    assert bearer("sk-1").headers("/x", b"") == b"authorization: Bearer sk-1\r\n"
    assert key("api-key", "az").headers("/x", b"") == b"api-key: az\r\n"
    assert key("x-goog-api-key", "AIza").headers("/x", b"{}") == b"x-goog-api-key: AIza\r\n"


@pytest.mark.parametrize("secret", ["", "two words", "line\r\nx-evil: 1", "ключ", "tab\t", "\x7f"])
def test_a_secret_that_cannot_stand_in_a_header_is_refused_without_being_told(secret):
    for make in (bearer, lambda secret: key("api-key", secret)):
        with pytest.raises(ValueError, match="printable ASCII") as refused:
            make(secret)
        assert not secret or secret not in str(refused.value)


# --- renewal


def test_a_token_is_renewed_before_it_ends_and_the_old_one_serves_until_then():
    async def main(loop):
        made = []

        def fetch():
            made.append(loop.wall())
            return Held(f"t{len(made)}", loop.wall() + 3600)

        token = RenewedBearer(fetch, loop)
        await token.prepare()
        seen = []
        for _ in range(9):
            seen.append(token.headers("/", b"").removeprefix(b"authorization: Bearer ").strip().decode())
            await asyncio.sleep(1000)
        token.close()
        return seen, [at - made[0] for at in made]

    seen, made = in_virtual_time(main)
    assert seen == ["t1"] * 4 + ["t2"] * 3 + ["t3"] * 2
    assert made[:3] == [0, 3300, 6600]


def test_what_lives_shortly_is_renewed_at_half_its_life():
    async def main(loop):
        fetched = []

        def fetch():
            fetched.append(loop.now())
            return Held("x", loop.wall() + 100)

        held = Renewed(fetch, loop)
        await held.prepare()
        await asyncio.sleep(120)
        held.close()
        await asyncio.sleep(1000)
        return fetched

    assert in_virtual_time(main) == [0, 50, 100]


def test_a_renewal_that_fails_is_tried_again_and_hurts_nobody_before_the_end():
    async def main(loop):
        answers = [
            Held("one", loop.wall() + 3600),
            OSError("10.0.0.1 is away"),
            OSError(),
            Held("two", loop.wall() + 9999),
        ]

        def fetch():
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        held = Renewed(fetch, loop)
        await held.prepare()
        await asyncio.sleep(3300 + RETRY_AFTER + 1)  # two failures
        assert held.current() == "one"
        await asyncio.sleep(RETRY_AFTER)
        assert held.current() == "two" and not answers
        held.close()

    in_virtual_time(main)


def test_what_has_expired_is_an_auth_failure_that_names_no_secret_and_starts_one_renewal():
    async def main(loop):
        tries = 0

        def fetch():
            nonlocal tries
            tries += 1
            if tries == 1:
                return Held("one", loop.wall() + 10)
            raise OSError("https://user:hunter2@sts")

        held = Renewed(fetch, loop)
        await held.prepare()
        await asyncio.sleep(11)
        for _ in range(100):
            with pytest.raises(UpstreamError) as failed:
                held.current()
            await asyncio.sleep(0)
        held.close()
        return failed.value, tries

    failure, tries = in_virtual_time(main)
    assert failure.kind is FailureKind.AUTH
    assert "OSError" in failure.detail and "hunter2" not in str(failure)
    assert tries == 2


def test_a_machine_that_slept_fetches_at_the_next_request():
    async def main(loop):
        clock, tokens = ManualClock(), ["one", "two"]
        held = Renewed(lambda: Held(tokens.pop(0), clock.wall() + 3600), clock)
        await held.prepare()
        clock.advance(10_000)  # and no timer of the loop has run
        with pytest.raises(UpstreamError):
            held.current()
        await asyncio.sleep(0.1)
        assert held.current() == "two"
        held.close()

    in_virtual_time(main)


def test_the_first_fetch_fails_with_a_sentence():
    def refuse():
        raise LookupError("name a profile")

    def break_down():
        raise OSError("no route")

    async def main(loop):
        with pytest.raises(LookupError, match="name a profile"):
            await Renewed(refuse, loop).prepare()
        broken = Renewed(break_down, loop)
        with pytest.raises(LookupError, match="OSError: no route"):
            await broken.prepare()
        with pytest.raises(UpstreamError, match="OSError"):
            broken.current()
        broken.close()

    in_virtual_time(main)


def test_fetching_does_not_hold_up_the_loop():
    """On the real loop, with real threads: the fetch waits for something that only the loop does."""

    async def main():
        let_go = threading.Event()

        def fetch():
            assert let_go.wait(10), "the loop stood still"
            return Held("x")

        held = Renewed(fetch, ManualClock())
        asyncio.get_running_loop().call_soon(let_go.set)
        await held.prepare()
        assert held.current() == "x"
        held.close()

    asyncio.run(main())


def test_closing_while_something_is_fetched_keeps_nothing_of_it():
    async def main(loop):
        held = Renewed(lambda: Held("late", loop.wall() + 100), loop)
        preparing = asyncio.ensure_future(held.prepare())  # noqa: TID251 - awaited below
        await asyncio.sleep(0)
        held.close()
        with pytest.raises(asyncio.CancelledError):
            await preparing
        await asyncio.sleep(1000)
        with pytest.raises(UpstreamError):
            held.current()

    in_virtual_time(main)


def test_a_token_in_a_file_is_read_anew_and_kept_while_it_cannot_be_read():
    async def main(loop):
        file = {"token": "one"}

        def read():
            if "token" not in file:
                raise LookupError("cannot be read")
            return file["token"]

        token = RenewedBearer(reread(read, loop, every=60), loop)
        await token.prepare()
        file["token"] = "two"
        assert b"one" in token.headers("/", b"")
        await asyncio.sleep(61)
        assert b"two" in token.headers("/", b"")
        del file["token"]
        await asyncio.sleep(6000)
        assert b"two" in token.headers("/", b"")
        token.close()

    in_virtual_time(main)


# --- Google


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def key_file(rsa_key):
    pem = rsa_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "kid-1",
            "private_key": pem,
            "client_email": "me@p.iam.gserviceaccount.com",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


def test_a_service_account_signs_its_own_token_for_an_hour(rsa_key, key_file):
    clock = ManualClock(0.4)
    held = google_token(key_file, clock)()
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    verifier = google.auth.crypt.RSAVerifier.from_string(public)
    header, claims, signed, signature = google.auth.jwt._unverified_decode(held.value)
    assert verifier.verify(signed, signature)
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    assert claims == {
        "iss": "me@p.iam.gserviceaccount.com",
        "sub": "me@p.iam.gserviceaccount.com",
        "iat": 1_800_000_000,
        "exp": 1_800_003_600,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
    }
    assert held.good_until == 1_800_003_600


@pytest.mark.parametrize("text", ["", "[]", '{"client_email": "x"}', '{"client_email": "x", "private_key": "hush"}'])
def test_what_is_no_key_of_a_service_account_is_refused_without_its_text(text):
    with pytest.raises(LookupError, match="service account") as refused:
        google_token(text, ManualClock())
    assert "hush" not in str(refused.value)


def test_another_kind_of_google_credential_is_named(key_file):
    user = json.dumps({**json.loads(key_file), "type": "authorized_user"})
    with pytest.raises(LookupError, match="authorized_user"):
        google_token(user, ManualClock())


# --- AWS

EXAMPLE = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


class At:
    """A clock that stands at one moment."""

    def __init__(self, moment: str) -> None:
        self._wall = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self._wall


def signed(signer: SigV4, path: str, body: bytes) -> dict[str, str]:
    async def main(loop):
        await signer.prepare()
        headers = signer.headers(path, body)
        signer.close()
        return lines(headers)

    return in_virtual_time(main)


def by_botocore(monkeypatch, clock, keys, path, body, host=HOST, region="us-east-1", service="bedrock"):
    """What `add_auth`, botocore's own way, puts on the same request at the same moment."""
    moment = datetime.datetime.fromtimestamp(clock.wall(), datetime.UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    request = botocore.awsrequest.AWSRequest(
        method="POST", url=f"https://{host}{path}", headers={"content-type": "application/json"}, data=body
    )
    botocore.auth.SigV4Auth(botocore.credentials.Credentials(*keys), service, region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items() if name != "content-type"}


def test_amazons_own_example_of_a_post_gives_amazons_own_signature():
    """`post-x-www-form-urlencoded` of the Signature Version 4 test suite."""
    signer = SigV4(
        fixed_aws_keys(*EXAMPLE),
        At("20150830T123600Z"),
        host="example.amazonaws.com",
        region="us-east-1",
        service="service",
        content_type="application/x-www-form-urlencoded",
    )
    assert signed(signer, "/", b"Param1=value1") == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    }


@pytest.mark.parametrize("token", [None, "session/token+="])
@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-3-haiku-20240307-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
        "with space/and~tilde",
    ],
)
def test_a_path_with_escapes_is_signed_as_botocore_signs_it(monkeypatch, model, token):
    clock, path = At("20261121T100000Z"), f"/model/{quote(model, safe='')}/converse"
    signer = SigV4(fixed_aws_keys(*EXAMPLE, token), clock, host=HOST, region="us-east-1")
    expected = by_botocore(monkeypatch, clock, (*EXAMPLE, token), path, b'{"messages":[]}')
    assert signed(signer, path, b'{"messages":[]}') == expected
    assert ("x-amz-security-token" in expected) is (token is not None)


@given(st.binary(max_size=300), st.from_regex(r"(/[a-zA-Z0-9._~%:-]{0,12}){1,4}", fullmatch=True))
def test_any_body_and_path_is_signed_as_botocore_signs_it(body, path):
    clock = At("20261121T100000Z")
    signer = SigV4(fixed_aws_keys(*EXAMPLE), clock, host=HOST, region="eu-west-1")
    with pytest.MonkeyPatch.context() as patch:
        expected = by_botocore(patch, clock, EXAMPLE, path, body, region="eu-west-1")
    assert signed(signer, path, body) == expected


def test_keys_are_found_in_the_environment_before_the_profile(monkeypatch, tmp_path):
    file = tmp_path / "credentials"
    file.write_text("[team]\naws_access_key_id = FROMFILE\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    clock = ManualClock()
    assert aws_keys(clock)().value.access_key == "FROMENV"
    assert aws_keys(clock, "team")().value.access_key == "FROMFILE"
    with pytest.raises(LookupError, match="nobody"):
        aws_keys(clock, "nobody")()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(LookupError, match="AWS_ACCESS_KEY_ID"):
        aws_keys(clock)()


def test_temporary_keys_are_looked_at_each_minute_and_fixed_ones_never_again(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    clock = ManualClock()
    assert aws_keys(clock)().good_until == float("inf")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2999-01-01T00:00:00Z")
    held = aws_keys(clock)()
    assert (held.renew_at - clock.wall(), held.good_until - clock.wall()) == (60, 600)


def test_temporary_keys_that_change_are_signed_with_from_the_next_look_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FIRST")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    soon = datetime.datetime.fromtimestamp(SystemClock().wall() + 720, datetime.UTC)  # botocore asks anew from 900 on
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", soon.isoformat())

    async def main(loop):
        signer = SigV4(aws_keys(loop), loop, host=HOST, region="us-east-1")
        await signer.prepare()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SECOND")
        first = lines(signer.headers("/", b""))
        await asyncio.sleep(61)
        second = lines(signer.headers("/", b""))
        signer.close()
        return first["authorization"], second["authorization"]

    first, second = in_virtual_time(main)
    assert "Credential=FIRST/" in first and "Credential=SECOND/" in second


def test_a_library_that_is_missing_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    monkeypatch.setitem(sys.modules, "google.auth.crypt", None)
    with pytest.raises(MissingExtra, match=r'pip install "penstock\[aws\]"'):
        SigV4(lambda: Held(None), ManualClock(), host=HOST, region="us-east-1")
    with pytest.raises(MissingExtra, match=r'pip install "penstock\[google\]"'):
        google_token("{}", ManualClock())


def test_importing_the_module_loads_no_cloud_library():
    script = (
        "import sys, penstock.upstreams.credentials; print({'botocore', 'google.auth', 'urllib3'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"
