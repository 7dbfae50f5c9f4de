"""What is wrong with `admin:`: nobody gets in without a key or a token, and no secret travels in clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.config import addresses
from penstock.config.schema import Config
from penstock.config.units import unix_seconds

Found = tuple[tuple[str, ...], str]


def check(config: Config, named: Callable[[tuple[str, ...]], bool]) -> Iterator[Found]:
    """`named(path)` is whether the file has something at `path`."""
    admin = config.admin
    if admin is None:
        return
    here = ("admin",)
    if not admin.keys and not named(("admin", "keys")) and not named(("admin", "oidc")):
        yield here, "needs `keys` or `oidc`: nobody else gets in (`penstock key create --admin owner` prints a key)"
    seen: dict[str, str] = {}
    for i, key in enumerate(admin.keys):
        path = ("admin", "keys", str(i))
        digest = key.hmac or key.sha256
        if (key.hmac is None) == (key.sha256 is None):
            if key.hmac is not None or not (named((*path, "hmac")) or named((*path, "sha256"))):
                yield path, "needs exactly one of `sha256` and `hmac`, the digest of the key"
        elif key.hmac is not None and config.keys_pepper is None and not named(("keys_pepper",)):
            yield (*path, "hmac"), "cannot be checked without `keys_pepper`, the secret that it was made with"
        for what in (key.id, digest or ""):
            if what and what in seen:
                yield path, f"is there a second time, as `{seen[what]}`"
            seen[what] = key.id
        if key.expires is not None:
            try:
                unix_seconds(key.expires)
            except (ValueError, OverflowError):
                yield (*path, "expires"), f"is not in the calendar: `{key.expires}`"
    if admin.oidc is not None and (wrong := wrong_issuer(admin.oidc.issuer)) is not None:
        yield ("admin", "oidc", "issuer"), wrong


def wrong_issuer(text: str) -> str | None:
    """What to say about it; None when keys may be fetched from there."""
    try:
        address = addresses.parse(text, "")
    except ValueError as error:
        return str(error)
    if address.encrypted or address.origin.startswith(("http://127.", "http://localhost:", "http://[::1]")):
        return None
    return "must be https://: its keys decide who gets in"
