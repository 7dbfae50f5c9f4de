"""What authorizes a request to a provider: a fixed key, a token that is renewed, or a signature over the request.

`headers` is called for every request, from the event loop, and never waits. What has to be fetched (a role's keys, a
new token) is fetched in a thread: once in `prepare`, and again well before it expires. The clouds' own libraries sign
and find credentials; they are extras, and imported when the first one is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from math import inf
from time import gmtime, strftime
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from penstock.core.clock import Clock
from penstock.core.errors import FailureKind, UpstreamError

RETRY_AFTER: Final = 30.0  # seconds from one failed renewal to the next
MOST_AHEAD: Final = 300.0  # seconds before its end that something is renewed; of what lives shortly, half its life
T = TypeVar("T")


class Authorization(Protocol):
    """`prepare` before the first request, `close` after the last."""

    @property
    def constant(self) -> bytes | None:
        """The header lines, when they are the same for every request."""
        ...

    async def prepare(self) -> None:
        """Fetch what `headers` needs. Raises LookupError with a sentence for the operator."""
        ...

    def headers(self, path: str, body: bytes) -> bytes:
        """Header lines for a POST, each with its line end. `path` is as it goes out, escaped and with its query.

        Raises `UpstreamError` (auth) when there is nothing valid to sign with.
        """
        ...

    def close(self) -> None: ...


class MissingExtra(LookupError):
    """A library of an extra is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f'{module} is not installed. Install it with: pip install "penstock[{extra}]"')


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra(module.partition(".")[0], extra) from None


# --- what does not change --------------------------------------------------------------------------------------------


class Fixed:
    """The same lines for every request: `bearer(secret)`, `key("api-key", secret)`."""

    __slots__ = ("constant",)

    def __init__(self, name: str, value: str) -> None:
        """Raises ValueError, without the value, when it cannot stand in a header."""
        self.constant = _line(name, value) if name else b""

    async def prepare(self) -> None:
        """There is nothing to fetch."""

    def headers(self, path: str, body: bytes) -> bytes:
        return self.constant

    def close(self) -> None:
        """There is nothing to stop."""


def bearer(secret: str) -> Fixed:
    """Bedrock's API keys, Entra tokens of Azure, and everybody with OpenAI's API."""
    return Fixed("authorization", f"Bearer {_word(secret)}")


def nobody() -> Fixed:
    """For upstreams that ask for no key."""
    return Fixed("", "")


def key(header: str, secret: str) -> Fixed:
    """`api-key` is Azure's header, `x-goog-api-key` Google's, `x-api-key` Anthropic's."""
    return Fixed(header, _word(secret))


def _word(secret: str) -> str:
    if not secret or any(not 33 <= ord(char) <= 126 for char in secret):
        raise ValueError("a credential must be printable ASCII without spaces")
    return secret


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("ascii")


# --- what is renewed -------------------------------------------------------------------------------------------------


class Held(msgspec.Struct, Generic[T], frozen=True):
    """Something that is good until `good_until`, Clock.wall() seconds."""

    value: T
    good_until: float = inf
    renew_at: float | None = None  # None: somewhat before its end


class Renewed(Generic[T]):
    """Keeps something that expires. `fetch` may block and runs in a thread, never twice at once.

    A renewal that fails is tried again; what is held stays in use to its end.
    """

    __slots__ = ("_clock", "_failed", "_fetch", "_fetching", "_held", "_not_before", "_timer")

    def __init__(self, fetch: Callable[[], Held[T]], clock: Clock) -> None:
        self._fetch, self._clock = fetch, clock
        self._held: Held[T] | None = None
        self._fetching: asyncio.Future[Held[T]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failed = "nothing was fetched yet"
        self._not_before = 0.0  # Clock.wall() seconds: when a renewal that failed may be tried again

    async def prepare(self) -> None:
        """Raises LookupError when the first fetch fails."""
        fetching = self._begin()
        await asyncio.wait([fetching])
        failure = fetching.exception()
        if isinstance(failure, LookupError):
            raise failure
        if failure is not None:
            raise LookupError(f"{type(failure).__name__}: {failure}") from failure

    def current(self) -> T:
        """Raises `UpstreamError` (auth) when it has expired; its renewal is under way then."""
        held, now = self._held, self._clock.wall()
        if held is None or now >= held.good_until:
            if now >= self._not_before:  # no timer has woken: the machine slept, or its clock was set
                self._begin()
            raise UpstreamError(FailureKind.AUTH, f"our credential has expired: {self._failed}")
        return held.value

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._fetching is not None:
            self._fetching.remove_done_callback(self._fetched)
            self._fetching.cancel()
        self._timer = self._fetching = None

    def _begin(self) -> asyncio.Future[Held[T]]:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().run_in_executor(None, self._fetch)
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, fetching: asyncio.Future[Held[T]]) -> None:
        self._fetching = None
        if fetching.cancelled():
            return
        failure, now = fetching.exception(), self._clock.wall()
        if failure is None:
            self._held = fetching.result()
            self._failed, wait = "it was not renewed in time", _renewal(self._held, now) - now
        else:
            self._failed, wait = type(failure).__name__, RETRY_AFTER  # its text may hold what it was to fetch with
            self._not_before = now + RETRY_AFTER
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if wait < inf:
            self._timer = fetching.get_loop().call_later(max(wait, 1.0), self._begin)


def _renewal(held: Held[Any], now: float) -> float:
    if held.renew_at is not None:
        return held.renew_at
    return held.good_until - min(MOST_AHEAD, (held.good_until - now) / 2) if held.good_until < inf else inf


class RenewedBearer:
    """A bearer token that expires: `google_token`, or `reread` for one that somebody else keeps fresh in a file."""

    __slots__ = ("_token",)
    constant = None

    def __init__(self, fetch: Callable[[], Held[str]], clock: Clock) -> None:
        self._token = Renewed(fetch, clock)

    async def prepare(self) -> None:
        await self._token.prepare()

    def headers(self, path: str, body: bytes) -> bytes:
        return b"authorization: Bearer %b\r\n" % self._token.current().encode("ascii")

    def close(self) -> None:
        self._token.close()


def reread(read: Callable[[], str], clock: Clock, every: float = 60.0) -> Callable[[], Held[str]]:
    """A token of which we only know where it stands (Entra's, say, written by a sidecar): read anew `every` so many
    seconds. While it cannot be read, the last one stays in use: whether it is still good, the upstream says."""
    return lambda: Held(_word(read()), renew_at=clock.wall() + every)


# --- Google ----------------------------------------------------------------------------------------------------------

GOOGLE_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_GOOGLE_LIFETIME: Final = 3600.0  # seconds; the longest that Google accepts


class _ServiceAccount(msgspec.Struct):
    """Of the file that Google hands out; google-auth reads the private key itself."""

    client_email: str
    private_key: str
    private_key_id: str = ""
    type: str = "service_account"


def google_token(key_file: str, clock: Clock) -> Callable[[], Held[str]]:
    """Access tokens that a service account signs for itself: nobody has to be asked for them.

    `key_file` is the text of its JSON key. Raises LookupError, without the text, when it is not one. Source: AIP-4111,
    "Self-signed JWT".
    """
    crypt, jwt = _library("google.auth.crypt", "google"), _library("google.auth.jwt", "google")
    try:
        account = msgspec.json.decode(key_file, type=_ServiceAccount)
        if account.type != "service_account":
            raise LookupError(f'the Google key is of type "{account.type[:40]}": a service account is needed')
        signer = crypt.RSASigner.from_string(account.private_key, account.private_key_id or None)
    except (msgspec.MsgspecError, ValueError):
        raise LookupError("the Google key is not the JSON key of a service account") from None

    def fetch() -> Held[str]:
        now = clock.wall()
        claims = {
            "iss": account.client_email,
            "sub": account.client_email,
            "iat": int(now),
            "exp": int(now + _GOOGLE_LIFETIME),
            "scope": GOOGLE_SCOPE,
        }
        return Held(jwt.encode(signer, claims).decode("ascii"), int(now + _GOOGLE_LIFETIME))

    return fetch


# --- AWS -------------------------------------------------------------------------------------------------------------

_GOOD_FOR: Final = 600.0  # seconds; botocore hands out no temporary keys that end sooner
_LOOK_EVERY: Final = 60.0  # seconds; whether that is due, botocore knows


def aws_keys(clock: Clock, profile: str | None = None) -> Callable[[], Held[Any]]:
    """Keys from where every AWS tool looks for them, in its order: environment, profile (with its roles and single
    sign-on), web identity, container, instance. The value is botocore's frozen credentials."""
    session = _library("botocore.session", "aws").Session(profile=profile)  # remembers where it found them
    refreshable = _library("botocore.credentials", "aws").RefreshableCredentials
    exceptions = _library("botocore.exceptions", "aws")

    def fetch() -> Held[Any]:
        try:
            credentials = session.get_credentials()
            keys = None if credentials is None else credentials.get_frozen_credentials()
        except exceptions.BotoCoreError as error:
            raise LookupError(f"no AWS credentials: {error}") from None
        if keys is None:
            raise LookupError(
                "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or give this "
                "machine a role"
            )
        if not isinstance(credentials, refreshable):
            return Held(keys)
        now = clock.wall()
        return Held(keys, now + _GOOD_FOR, now + _LOOK_EVERY)

    return fetch


def fixed_aws_keys(access_key: str, secret_key: str, token: str | None = None) -> Callable[[], Held[Any]]:
    """Keys from the configuration."""
    keys = _library("botocore.credentials", "aws").Credentials(
        _word(access_key), _word(secret_key), None if token is None else _word(token)
    )
    return lambda: Held(keys.get_frozen_credentials())


class SigV4:
    """Signs requests to one host and region with AWS's signature version 4, as botocore computes it.

    Costs about 60 us of CPU: botocore keeps headers as an email message and reads the URL six times.
    """

    __slots__ = ("_auth", "_clock", "_content_type", "_keys", "_origin", "_region", "_request", "_service")
    constant = None

    def __init__(
        self,
        fetch: Callable[[], Held[Any]],
        clock: Clock,
        *,
        host: str,
        region: str,
        service: str = "bedrock",
        content_type: str = "application/json",
    ) -> None:
        """`host` and `content_type` are signed: they must go out as they are given here."""
        self._auth = _library("botocore.auth", "aws").SigV4Auth
        self._request = _library("botocore.awsrequest", "aws").AWSRequest
        self._keys, self._clock = Renewed(fetch, clock), clock
        self._origin, self._region, self._service = f"https://{host}", region, service
        self._content_type = content_type

    async def prepare(self) -> None:
        await self._keys.prepare()

    def headers(self, path: str, body: bytes) -> bytes:
        keys = self._keys.current()
        moment = strftime("%Y%m%dT%H%M%SZ", gmtime(self._clock.wall()))
        signed = {"content-type": self._content_type, "x-amz-date": moment}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        request = self._request(method="POST", url=self._origin + path, headers=signed, data=body)
        request.context["timestamp"] = moment
        signer = self._auth(keys, self._service, self._region)
        signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        names = signer.signed_headers(signer.headers_to_sign(request))
        lines = _line(
            "authorization",
            f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}",
        )
        lines += _line("x-amz-date", moment)
        return lines + _line("x-amz-security-token", keys.token) if keys.token else lines

    def close(self) -> None:
        self._keys.close()


_: tuple[type[Authorization], ...] = (Fixed, RenewedBearer, SigV4)
