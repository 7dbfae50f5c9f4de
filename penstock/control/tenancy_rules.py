"""Whether an organisation, a team or a key may be as somebody wants it: they are put into a small configuration file
and that is read, so that the rules and the words are those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.config.load import load
from penstock.config.problems import ConfigError
from penstock.config.schema import Access, Config, Key, KeyId, Organisation
from penstock.config.stores import is_reference
from penstock.control.tenants import Fault, Invalid, Words, options, written

MAX_BYTES: Final = 24 * 1024  # of one organisation, team or key: two of them are in a record of the audit log
MOST_FAULTS: Final = 20
NAME: Final = "a name of at most 64 letters, digits, dots, dashes and underscores"

_UNSEEN: Final = "0" * 64  # a digest, for the reader of the file
_SECTIONS: Final = ("limits", "budgets")  # what options may name, beside models
_REVOKED: Final = {"revoked": "is not set by hand: there is a verb for it"}
_NOT_OF_TENANTS: Final = {**_REVOKED, "teams": "are made one by one"}
_NOT_OF_KEYS: Final = {
    **_REVOKED,
    "sha256": "is not taken: the key is made here",
    "hmac": "is not taken: the key is made here",
    "previous": "is not taken: there is a verb for it",
    "tenant": "is the old name of `org`",
}


class Rules:
    """Of one configuration file."""

    def __init__(self, config: Config) -> None:
        around: Words = {
            "models": {name: {"deployments": ["any"]} for name in config.models},
            "deployments": {"any": {"model": "any"}},
        }
        for section in _SECTIONS:
            if given := getattr(config, section, None):
                around[section] = {name: _given(one) for name, one in msgspec.to_builtins(given).items()}
        self._around = around

    def key(self, entry: Mapping[str, Any], around: Organisation | None) -> Key:
        """`entry` as in the file, without a digest; `around` with the one team that matters. Raises `Invalid`."""
        _check(entry, _NOT_OF_KEYS)
        document: Words = {"keys": [{**entry, "sha256": _UNSEEN}]}
        if around is not None:
            document["organisations"] = {entry["org"]: _organisation(around)}
        (key,) = self._read(document, "keys.0").keys  # type: ignore[misc]  # `load` puts keys in the place of a file
        return key

    def organisation(self, name: str, entry: Mapping[str, Any]) -> Access:
        _check(entry, _NOT_OF_TENANTS)
        config = self._read({"organisations": {name: dict(entry)}}, f"organisations.{name}")
        return Access(**options(config.organisations[name]))

    def team(self, org: str, around: Organisation | None, name: str, entry: Mapping[str, Any]) -> Access:
        _check(entry, _NOT_OF_TENANTS)
        within = {} if around is None else written(around)
        document = {"organisations": {org: {**within, "teams": {name: dict(entry)}}}}
        config = self._read(document, f"organisations.{org}.teams.{name}")
        return Access(**options(config.organisations[org].teams[name]))

    def _read(self, document: Words, prefix: str) -> Config:
        text = msgspec.json.encode({**self._around, **document}).decode()
        try:
            return load(text, "")
        except ConfigError as error:
            told = error.problems[:MOST_FAULTS]
            raise Invalid(*(Fault(_within(problem.path, prefix), problem.message) for problem in told)) from None


def check_name(at: str, name: object) -> str:
    """Of an organisation, a team or a key. Raises `Invalid`."""
    try:
        return msgspec.convert(name, KeyId)
    except msgspec.ValidationError:
        raise Invalid(Fault(at, f"must be {NAME}")) from None


def _check(entry: Mapping[str, Any], forbidden: Mapping[str, str]) -> None:
    """What the reader of the file would not mind, or choke on."""
    faults = [Fault(name, why) for name, why in forbidden.items() if name in entry]
    if any(not name.isidentifier() for name in entry):
        faults.append(Fault("", "has something whose name cannot be that of an option"))
    budget = entry.get("budget")
    if isinstance(budget, Mapping) and isinstance(hook := budget.get("webhook"), str) and is_reference(hook):
        # the gateway would read that for whoever asks
        faults.append(Fault("budget.webhook", "is the address itself here: references are for the file"))
    if faults:
        raise Invalid(*faults)
    try:
        size = len(msgspec.json.encode(entry))
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise Invalid(Fault("", "holds something that cannot be stored")) from None
    if size > MAX_BYTES:
        raise Invalid(Fault("", f"is larger than {MAX_BYTES:,} bytes"))


def _organisation(around: Organisation) -> Words:
    return {**written(around), "teams": {name: written(team) for name, team in around.teams.items()}}


def _given(one: Any) -> Any:
    return {name: value for name, value in one.items() if value is not None} if isinstance(one, dict) else one


def _within(path: str, prefix: str) -> str:
    return path[len(prefix) :].removeprefix(".") if path.startswith(prefix) else path
