"""`penstock key`: the keys that callers show. A secret is printed once and kept nowhere; the file holds its digest.

Nothing here changes the file: what is to be written there is printed, and the person who owns it writes it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.config_file import load_file
from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.config.schema import Config, Key
    from penstock.core.keys import Pepper

_FILE = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=Path("penstock.yaml"),
    show_default=True,
    help="The file that the key is in.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")


@click.group()
def key() -> None:
    """Make, list, replace and revoke the API keys that callers show."""


@key.command()
@click.option("--id", "key_id", help="What the key is called in logs and metrics. Without it: its public part.")
@click.option("--org", "--tenant", "org", default="", help="The organisation that it belongs to.")
@click.option("--team", default="", help="The team of that organisation.")
@click.option("--model", "models", multiple=True, help="A model it may use; repeat for more. Without it: all.")
@click.option("--endpoint", "endpoints", multiple=True, help="An endpoint it may call; repeat. Without it: all.")
@click.option("--network", "networks", multiple=True, help="Where it may be used, as 10.0.0.0/8; repeat.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["call", "read"]), help="Without it: both.")
@click.option("--not-before", help="A day such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z.")
@click.option("--expires", help="Likewise.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), help="Without it: its team's.")
@click.option(
    "--pepper", help="Where the secret under `keys_pepper` is: env:NAME or file:/path. Its digest is an HMAC."
)
@_JSON
def create(key_id: str | None, pepper: str | None, as_json: bool, **options: str | tuple[str, ...] | None) -> None:
    """Make a new key: print it once, and the line for penstock.yaml that lets it in.

    The key has 256 random bits; only its digest is kept, so nobody can read it out of the configuration. Lost keys are
    replaced, not recovered.

    \b
    Examples
      penstock key create --id web
      penstock key create --id batch --org acme --team research --model chat --model embed
      penstock key create --id ci --expires 2027-01-31 --network 10.0.0.0/8 --pepper env:KEYS_PEPPER
      penstock key create --id ci --json
    """
    from penstock.core.keys import public_part

    secret = _mint()
    entry: dict[str, Any] = {"id": key_id or public_part(secret), **_digest(secret, _pepper(pepper))}
    entry |= {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value}
    _allowed(entry)
    _tell_secret(secret, entry, as_json, "Let it in with this in penstock.yaml:")


@key.command("list")
@click.option("--org", help="Only those of this organisation.")
@click.option("--team", help="Only those of this team.")
@_FILE
@_JSON
def list_(file: Path, org: str | None, team: str | None, as_json: bool) -> None:
    """List the keys of a configuration file, with what is said of each.

    \b
    Examples
      penstock key list
      penstock key list --org acme --json
    """
    import msgspec

    from penstock.config.tenancy import org_of

    chosen = [one for one in _keys(load_file(file)) if org in (None, org_of(one)) and team in (None, one.team)]
    if as_json:
        click.echo(msgspec.json.encode([_public(one) for one in chosen]))
        return
    width = max((len(one.id) for one in chosen), default=0)
    for one in chosen:
        facts = {name: value for name, value in _public(one).items() if name != "id"}
        click.echo(f"{one.id:<{width}}  {_words(facts) or 'all models'}")
    if not chosen:
        click.echo("There are no such keys.", err=True)


@key.command()
@click.argument("key_id")
@_FILE
@_JSON
def show(key_id: str, file: Path, as_json: bool) -> None:
    """Say what a key may do, with what it has from its team and its organisation.

    \b
    Example
      penstock key show web
    """
    import msgspec

    from penstock.config.tenancy import Grants
    from penstock.config.units import instant

    config = load_file(file)
    one = _find(config, key_id)
    facts = {"id": one.id, **msgspec.structs.asdict(Grants(config).of(one))}
    for name in ("not_before", "expires", "revoked"):
        facts[name] = None if facts[name] is None else instant(facts[name])
    facts["digest"] = "hmac" if one.hmac else "sha256"
    facts["previous"] = None if one.previous is None else f"works until {one.previous.until}"
    if as_json:
        click.echo(msgspec.json.encode(facts))
        return
    for name, value in facts.items():
        shown = _EVERYTHING.get(name, "none") if value is None else "none" if value in ("", ()) else _word(value)
        click.echo(f"{name:<11} {shown}")


_EVERYTHING = {"models": "all", "endpoints": "all", "scopes": "all", "networks": "anywhere", "expires": "never"}


@key.command()
@click.argument("key_id")
@click.option("--overlap", default="7d", show_default=True, help="How long the old key goes on working.")
@_FILE
@_JSON
def rotate(key_id: str, overlap: str, file: Path, as_json: bool) -> None:
    """Make a new secret for a key: print it, and the line that replaces the key's in penstock.yaml.

    Both secrets work until the overlap is over, so that callers can change without a gap. `--overlap 0s` ends the old
    one at once.

    \b
    Examples
      penstock key rotate web
      penstock key rotate web --overlap 30d
    """
    from penstock.config.units import instant, seconds
    from penstock.core.clock import SystemClock

    config = load_file(file)
    one = _find(config, key_id)
    try:
        until = instant(SystemClock.wall() + seconds(overlap))
    except (ValueError, OverflowError):
        raise click.UsageError("--overlap is a duration with its unit, such as 12h or 7d") from None
    secret = _mint()
    entry = _written(one)
    old = {name: entry.pop(name) for name in ("sha256", "hmac") if name in entry}
    entry = {
        "id": entry.pop("id"),
        **_digest(secret, _pepper(config.keys_pepper)),
        "previous": old | {"until": until},
    } | {name: value for name, value in entry.items() if name != "previous"}
    _tell_secret(secret, entry, as_json, f"Put this in the place of `{key_id}`; the old key works until {until}:")


@key.command()
@click.argument("key_id")
@_FILE
@_JSON
def revoke(key_id: str, file: Path, as_json: bool) -> None:
    """Print the line that revokes a key. It says since when, and its callers are told that it was revoked.

    To take the whole line out of the file revokes a key too; its callers are then told that it is not known.

    \b
    Example
      penstock key revoke web
    """
    import msgspec

    from penstock.config.units import instant
    from penstock.core.clock import SystemClock

    entry = _written(_find(load_file(file), key_id)) | {"revoked": instant(SystemClock.wall())}
    if as_json:
        click.echo(msgspec.json.encode(entry))
        return
    click.echo(f"Put this in the place of `{key_id}`:\n")
    click.echo(f"keys:\n  - {_flow(entry)}")


def _mint() -> str:
    from penstock.core.keys import ENTROPY_BYTES, mint

    return mint(secrets.token_bytes(ENTROPY_BYTES))


def _pepper(reference: str | None) -> Pepper | None:
    from penstock.app.secrets import Secrets
    from penstock.core.keys import Pepper

    if reference is None:
        return None
    try:
        return Pepper(Secrets(os.environ).read(reference).encode())
    except (LookupError, ValueError) as error:
        raise Mistake(f"the pepper: {error.args[0]}") from None


def _digest(secret: str, pepper: Pepper | None) -> dict[str, str]:
    from penstock.core.keys import digest

    return {"sha256": digest(secret)} if pepper is None else {"hmac": pepper.digest(secret.encode()).hex()}


def _allowed(entry: dict[str, Any]) -> None:
    """Raises `Mistake` with what `penstock check` would say."""
    import msgspec

    from penstock.config.load import ConfigError, load

    models = {name: {"deployments": ["any"]} for name in entry.get("models", ["any"])}
    around = {
        "models": models,
        "deployments": {"any": {"model": "any"}},
        "keys": [entry],
        **({"keys_pepper": "env:ANY"} if "hmac" in entry else {}),
    }
    try:
        load(msgspec.json.encode(around).decode(), "")
    except ConfigError as error:
        raise Mistake(
            "; ".join(f"{one.path.rpartition('keys.0.')[2]} {one.message}" for one in error.problems)
        ) from None


def _keys(config: Config) -> tuple[Key, ...]:
    assert isinstance(config.keys, tuple), "`load` puts the keys of a file in the place of its name"
    return config.keys


def _find(config: Config, key_id: str) -> Key:
    from penstock.config.problems import nearest

    for one in _keys(config):
        if one.id == key_id:
            return one
    raise Mistake(f"there is no key `{key_id}`.{nearest(key_id, [one.id for one in _keys(config)])}")


def _written(one: Key) -> dict[str, Any]:
    """The options that are in the file, in the order of the schema but the id and digest first."""
    import msgspec

    facts = {name: value for name, value in msgspec.to_builtins(one).items() if value not in (None, "")}
    first = {name: facts.pop(name) for name in ("id", "sha256", "hmac", "previous", "org", "team") if name in facts}
    return first | facts


def _public(one: Key) -> dict[str, Any]:
    """Without digests."""
    facts = {name: value for name, value in _written(one).items() if name not in ("sha256", "hmac")}
    if one.previous is not None:
        facts["previous"] = {"until": one.previous.until}
    return facts


def _words(facts: dict[str, Any]) -> str:
    return "; ".join(f"{name} {_word(value)}" for name, value in facts.items())


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return _words(value)
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _tell_secret(secret: str, entry: dict[str, Any], as_json: bool, how: str) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode({"key": secret, **entry}))
        return
    click.echo(f"{secret}\n")
    click.echo(f"Give this key to its owner now; it cannot be shown again. {how}\n")
    click.echo(f"keys:\n  - {_flow(entry)}")


def _flow(entry: dict[str, Any]) -> str:
    """`{ id: "web", ... }`, where every value is quoted as JSON, which YAML reads the same."""
    import msgspec

    def shown(value: Any) -> str:
        return _flow(value) if isinstance(value, dict) else msgspec.json.encode(value).decode()

    return "{ " + ", ".join(f"{name}: {shown(value)}" for name, value in entry.items()) + " }"
