"""What is sent to the admin API. Options are those of the configuration file and are held to its rules, which say more
than these types: here they are described for the document.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock.config.schema import Access, KeyId
from penstock.config.units import Duration


class NewOrganisation(Access, frozen=True, kw_only=True):
    org: KeyId


class NewTeam(Access, frozen=True, kw_only=True):
    team: KeyId


class KeyWanted(Access, frozen=True, kw_only=True):
    """Without an `id`, a key is called by its public part."""

    id: KeyId | None = None
    org: str = ""
    team: str = ""


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    overlap: Annotated[Duration, Meta(description="How long the old key goes on working. At most 366d.")] = "7d"


class LitellmKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`keys` are rows of LiteLLM's table of virtual keys: `token`, `key_alias`, `models`, `expires`, `blocked`."""

    keys: Annotated[tuple[Any, ...], Meta(max_length=5_000)]
    org: str = ""
    team: str = ""


class ForgetUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hash that the ledger has, or the id that callers send and the organisation of their keys."""

    user_hash: str | None = None
    user: str | None = None
    org: str = ""


class ConfigText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: Annotated[str, Meta(description="A configuration file. It cannot name other files.")]
