"""`penstock key`: makes keys. The secret is printed once and kept nowhere; the configuration holds its digest."""

from __future__ import annotations

import secrets

import click


@click.group()
def key() -> None:
    """Make the API keys that callers show."""


@key.command()
@click.option("--id", "key_id", help="What the key is called in logs and metrics. Without it: its public part.")
@click.option("--tenant", default="", help="Whom it belongs to; usage is counted per tenant.")
@click.option("--model", "models", multiple=True, help="A model it may use; repeat for more. Without it: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def create(key_id: str | None, tenant: str, models: tuple[str, ...], as_json: bool) -> None:
    """Make a new key: print it once, and the line for penstock.yaml that lets it in.

    The key has 256 random bits; only its SHA-256 is kept, so nobody can read it out of the configuration. Lost keys are
    replaced, not recovered.

    \b
    Examples
      penstock key create --id web
      penstock key create --id batch --tenant research --model chat --model embed
      penstock key create --id ci --json
    """
    import msgspec

    from penstock.config.schema import Key
    from penstock.core.keys import ENTROPY_BYTES, digest, mint, public_part

    secret = mint(secrets.token_bytes(ENTROPY_BYTES))
    entry: dict[str, object] = {"id": key_id or public_part(secret), "sha256": digest(secret)}
    if tenant:
        entry["tenant"] = tenant
    if models:
        entry["models"] = list(models)
    try:
        msgspec.convert(entry, Key)
    except msgspec.ValidationError:
        raise click.UsageError(
            "an id or tenant is at most 64 letters, digits, dots, dashes and underscores, and begins with a letter "
            "or digit"
        ) from None
    if as_json:
        click.echo(msgspec.json.encode({"key": secret, **entry}))
        return
    click.echo(f"{secret}\n")
    click.echo("Give this key to its owner now; it cannot be shown again. Let it in with this in penstock.yaml:\n")
    click.echo(f"keys:\n  - {_flow(entry)}")


def _flow(entry: dict[str, object]) -> str:
    """`{ id: web, ... }`, where every value is quoted as JSON, which YAML reads the same."""
    import msgspec

    return "{ " + ", ".join(f"{name}: {msgspec.json.encode(value).decode()}" for name, value in entry.items()) + " }"
