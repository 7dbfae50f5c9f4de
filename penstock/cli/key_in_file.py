"""Keys that are declared in the configuration file: nothing here changes it. What is to be written there is printed,
and the person who owns it writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli.mistake import Mistake
from penstock.cli.tenancy import read_pepper, tell_json

if TYPE_CHECKING:
    from penstock.config.schema import Config, Key
    from penstock.core.keys import Pepper


def create(entry: dict[str, Any], pepper: str | None, as_json: bool) -> None:
    """`entry` without an id, or with one, and without a digest."""
    from penstock.core.keys import public_part

    secret = _mint()
    entry = {"id": entry.pop("id", None) or public_part(secret), **_digest(secret, read_pepper(pepper)), **entry}
    _allowed({"keys": [entry]}, "keys.0.", entry)
    _tell_secret(secret, entry, as_json, "Let it in with this in penstock.yaml:", "keys:\n  - {}")


def create_for_admin(entry: dict[str, Any], pepper: str | None, as_json: bool) -> None:
    """`entry` has the `role`."""
    from penstock.core.keys import public_part

    secret = _mint()
    entry = {"id": entry.pop("id", None) or public_part(secret), **_digest(secret, read_pepper(pepper)), **entry}
    _allowed({"admin": {"keys": [entry]}}, "admin.keys.0.", entry)
    _tell_secret(
        secret, entry, as_json, "Let it into the admin API with this in penstock.yaml:", "admin:\n  keys:\n    - {}"
    )


def rotate(one: Key, config: Config, until: str, as_json: bool) -> None:
    """The old key works until that moment; "" for no more."""
    secret = _mint()
    entry = _written(one)
    old = {name: entry.pop(name) for name in ("sha256", "hmac") if name in entry}
    entry.pop("previous", None)
    entry = {
        "id": entry.pop("id"),
        **_digest(secret, read_pepper(config.keys_pepper)),
        **({"previous": old | {"until": until}} if until else {}),
        **entry,
    }
    works = f"the old key works until {until}" if until else "the old key works no more"
    _tell_secret(secret, entry, as_json, f"Put this in the place of `{one.id}`; {works}:", "keys:\n  - {}")


def revoke(one: Key, at: str, as_json: bool) -> None:
    entry = _written(one) | {"revoked": at}
    if as_json:
        tell_json(entry)
        return
    click.echo(f"Put this in the place of `{one.id}`:\n")
    click.echo(f"keys:\n  - {_flow(entry)}")


def _mint() -> str:
    import secrets

    from penstock.core.keys import ENTROPY_BYTES, mint

    return mint(secrets.token_bytes(ENTROPY_BYTES))


def _digest(secret: str, pepper: Pepper | None) -> dict[str, str]:
    from penstock.core.keys import digest

    return {"sha256": digest(secret)} if pepper is None else {"hmac": pepper.digest(secret.encode()).hex()}


def _allowed(section: dict[str, Any], prefix: str, entry: dict[str, Any]) -> None:
    """Raises `Mistake` with what `penstock check` would say."""
    import msgspec

    from penstock.config.load import ConfigError, load

    around = {
        "models": {name: {"deployments": ["any"]} for name in entry.get("models", ["any"])},
        "deployments": {"any": {"model": "any"}},
        **({"keys_pepper": "env:ANY"} if "hmac" in entry else {}),
        **section,
    }
    try:
        load(msgspec.json.encode(around).decode(), "")
    except ConfigError as error:
        raise Mistake("; ".join(f"{one.path.rpartition(prefix)[2]} {one.message}" for one in error.problems)) from None


def _written(one: Key) -> dict[str, Any]:
    """The options that are in the file, in the order of the schema but the id and digest first."""
    import msgspec

    facts = {name: value for name, value in msgspec.to_builtins(one).items() if value not in (None, "")}
    first = {name: facts.pop(name) for name in ("id", "sha256", "hmac", "previous", "org", "team") if name in facts}
    return first | facts


def _tell_secret(secret: str, entry: dict[str, Any], as_json: bool, how: str, place: str) -> None:
    if as_json:
        tell_json({"key": secret, **entry})
        return
    click.echo(f"{secret}\n")
    click.echo(f"Give this key to its owner now; it cannot be shown again. {how}\n")
    click.echo(place.replace("{}", _flow(entry)))


def _flow(entry: dict[str, Any]) -> str:
    """`{ id: "web", ... }`, where every value is quoted as JSON, which YAML reads the same."""
    import msgspec

    def shown(value: Any) -> str:
        return _flow(value) if isinstance(value, dict) else msgspec.json.encode(value).decode()

    return "{ " + ", ".join(f"{name}: {shown(value)}" for name, value in entry.items()) + " }"
