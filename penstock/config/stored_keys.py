"""What the database says of keys that were made at run time, in the words of the file: the options of `schema.Access`,
and the key that was replaced. For organisations and teams, the options alone.

Whoever writes such a text and whoever reads it do it here, so that nothing is stored that a gateway could not hold a
key to. Names of models are not looked up: the file may take a model away and bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from penstock.config.limits import check_own
from penstock.config.options import says
from penstock.config.schema import Access, Config, Key, Organisation, PreviousKey, Team
from penstock.config.spec import GrantSpec
from penstock.config.tenancy import narrowed, wrong_network
from penstock.config.units import instant, unix_seconds
from penstock.stores.keys import StoredKey
from penstock.stores.tenants import StoredTenant

_encoder: Final = msgspec.json.Encoder(order="sorted")


class KeyOptions(Access, frozen=True, gc=False):
    """What a stored key may do."""

    previous: Annotated[PreviousKey | None, says("The key that this one replaces.")] = None
    peppered: Annotated[bool | None, says("Its digest is an HMAC under `keys_pepper`.")] = None


A = TypeVar("A", bound=Access)


def read_options(attributes: str, type: type[A]) -> A:
    """`attributes` is a JSON object; `type` is `KeyOptions` for keys and `Access` for whom they belong to.

    Raises ValueError, with a sentence, for what is not an option or has no meaning.
    """
    try:
        access = msgspec.json.decode(attributes, type=type)
        for path, why in check_own((), access):
            raise ValueError(f"`{'.'.join(path)}` {why}")
        narrowed(GrantSpec(), access)
        if isinstance(access, KeyOptions) and access.previous is not None:
            unix_seconds(access.previous.until)
            if (access.previous.sha256 is None) == (access.previous.hmac is None):
                raise ValueError("`previous` needs exactly one of `sha256` and `hmac`")
    except (ValueError, OverflowError) as error:  # of which msgspec's are
        raise ValueError(f"options: {error}") from None
    for text in access.networks or ():
        if (wrong := wrong_network(text)) is not None:
            raise ValueError(f"options: `networks` {wrong}")
    return access


def write_options(access: Access) -> str:
    """The same options always make the same text. Raises ValueError for what `read_options` would refuse."""
    given = {name: value for name in access.__struct_fields__ if (value := getattr(access, name)) is not None}
    attributes = _encoder.encode(given).decode()
    read_options(attributes, type(access))
    return attributes


def key_of(stored: StoredKey) -> Key:
    """As if it stood in the file. Raises ValueError as `read_options` does."""
    options = read_options(stored.attributes, KeyOptions)
    return Key(
        id=stored.id,
        org=stored.org,
        team=stored.team,
        hmac=stored.digest if options.peppered else None,
        sha256=None if options.peppered else stored.digest,
        previous=options.previous,
        **_access(options, stored.expires_at, stored.revoked_at),
    )


def tenant_access(stored: StoredTenant) -> Access:
    """What its keys may do at most. Raises ValueError as `read_options` does."""
    return Access(**_access(read_options(stored.attributes, Access), None, stored.revoked_at))


def with_tenants(config: Config, tenants: Iterable[StoredTenant]) -> Config:
    """As if these organisations and teams stood in the file, which goes before where it has the same name.

    Raises ValueError as `read_options` does.
    """
    organisations = dict(config.organisations)
    for tenant in sorted(tenants, key=lambda one: (one.org, one.team)):
        access = _fields(tenant_access(tenant))
        around = organisations.get(tenant.org)
        if not tenant.team:
            organisations.setdefault(tenant.org, Organisation(**access))
        elif around is not None and tenant.team not in around.teams:
            teams = {**around.teams, tenant.team: Team(**access)}
            organisations[tenant.org] = msgspec.structs.replace(around, teams=teams)
    return msgspec.structs.replace(config, organisations=organisations)


def _fields(access: Access) -> dict[str, Any]:
    return {name: getattr(access, name) for name in Access.__struct_fields__}


def _access(options: Access, expires_at: float | None, revoked_at: float | None) -> dict[str, Any]:
    """The fields of an `Access`. An organisation's and a team's end is among their options; a key's has a column."""
    fields = _fields(options)
    if expires_at is not None:
        fields["expires"] = instant(expires_at)
    if revoked_at is not None:
        fields["revoked"] = instant(revoked_at)
    return fields
