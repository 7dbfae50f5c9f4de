"""The words in which costs are asked for: `--by`, `--where`, `--last`, `--from`, `--to`, `--zone`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from functools import reduce
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from penstock.cli.mistake import Mistake

Command = TypeVar("Command", bound=Callable[..., Any])

USUAL_DAYS: Final = 30
WORDS: Final = (
    "org, team, key, user, feature, session, tag:NAME, model, deployment, replica, endpoint, cache, status, error, "
    "usage, price, day, hour"
)
_MONTH: Final = re.compile(r"([0-9]{4})-([0-9]{2})")

_WHERE_IT_IS: Final = (
    click.option(
        "--database",
        envvar="PENSTOCK_DATABASE",
        show_envvar=True,
        help="postgres://user@host/name, or the path of a SQLite file. Without it: `store.database` of the file, or "
        "penstock.db beside it.",
    ),
    click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        default=Path("penstock.yaml"),
        show_default=True,
        help="The configuration file.",
    ),
)
_WHEN: Final = (
    click.option("--last", help=f"Up to now, such as 24h or 30d. Without any time: {USUAL_DAYS}d."),
    click.option("--from", "since", help="The first moment: 2027-01, 2027-01-31, or 2027-01-31T18:00 (of the zone)."),
    click.option("--to", "until", help="The first moment that is no longer counted. Without it: now."),
    click.option("--zone", default="UTC", show_default=True, help="Whose days they are, such as Europe/Berlin."),
)
_WHICH: Final = (
    click.option("--where", multiple=True, metavar="WHAT=VALUE", help="Only these; repeat for more, or for either."),
)


class Asked(NamedTuple):
    """What the options say, not yet read."""

    last: str | None
    since: str | None
    until: str | None
    zone: str
    where: tuple[str, ...]


def database_options(command: Command) -> Command:
    return _with(command, _WHERE_IT_IS)


def range_options(command: Command) -> Command:
    return _with(command, (*_WHEN, *_WHICH))


def _with(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    return reduce(lambda inner, option: option(inner), reversed(tuple(options)), command)


def read_by(words: Iterable[str]) -> tuple[Any, ...]:
    """Attributes of the ledger, each once. Raises `Mistake`."""
    found = [attribute(word.strip()) for text in words for word in text.split(",") if word.strip()]
    if len(set(found)) < len(found):
        raise Mistake("--by names something twice")
    return tuple(found)


def attribute(word: str) -> Any:
    from penstock.cli.cost_table import ATTRIBUTES, plain
    from penstock.config.problems import nearest
    from penstock.stores.ledger import Tag

    kind, colon, name = word.partition(":")
    if kind == "tag" and colon and name:
        return Tag(name)
    if word not in ATTRIBUTES:
        raise Mistake(
            f"the ledger cannot be asked by '{plain(word)}'.{nearest(word, list(ATTRIBUTES))} It knows {WORDS}."
        )
    return ATTRIBUTES[word]


def question(asked: Asked, now: float, by: tuple[Any, ...] = (), most: int = 1) -> Any:
    """A `stores.costs.Question`. Raises `Mistake`."""
    from penstock.stores.costs import Question

    zone = read_zone(asked.zone)
    since, until = _range(asked, zone, int(now * 1e6))
    try:
        return Question(by, since, until, read_where(asked.where, zone), zone, most)
    except ValueError as error:
        raise Mistake(str(error)) from None


def read_where(where: Iterable[str], zone: tzinfo) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
    """Several values of one attribute mean any of them. Raises `Mistake`."""
    only: dict[Any, tuple[Any, ...]] = {}
    for text in where:
        word, equals, value = text.partition("=")
        if not equals:
            raise Mistake("--where is WHAT=VALUE, such as team=search; nothing behind the = means: without one")
        what = attribute(word.strip())
        only[what] = (*only.get(what, ()), *_values(what, value, zone))
    return tuple(only.items())


def read_zone(name: str) -> tzinfo:
    from penstock.config.units import zone

    try:
        return zone(name)
    except ValueError:
        raise Mistake(f"there is no time zone {name!r} on this machine; one is Europe/Berlin") from None


def moment(text: str, zone: tzinfo, option: str) -> int:
    """Microseconds since 1970. A month and a day begin at midnight of the zone, and so does a time without an offset
    belong to it."""
    try:
        month = _MONTH.fullmatch(text)
        at = datetime(int(month[1]), int(month[2]), 1) if month else datetime.fromisoformat(text)  # noqa: DTZ001
        at = at if at.tzinfo else at.replace(tzinfo=zone)
        micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
    except (ValueError, OverflowError):
        raise Mistake(f"{option} is a day such as 2027-01-31, a month or a time: {text[:40]!r}") from None
    return micros


_MICROSECOND: Final = datetime.resolution


def _range(asked: Asked, zone: tzinfo, now: int) -> tuple[int, int]:
    from penstock.config.units import seconds

    if asked.last is not None:
        if asked.since is not None or asked.until is not None:
            raise Mistake("--last is up to now; with --from and --to it has no meaning")
        try:
            return max(0, now - int(seconds(asked.last) * 1e6)), now
        except (ValueError, OverflowError):
            raise Mistake("--last is a duration with its unit, such as 24h or 30d") from None
    if asked.since is None and asked.until is None:
        return now - USUAL_DAYS * 86_400_000_000, now
    since = 0 if asked.since is None else moment(asked.since, zone, "--from")
    until = now if asked.until is None else moment(asked.until, zone, "--to")
    if since > until:
        raise Mistake("the range ends before it begins")
    return max(0, since), max(0, until)


def _values(what: Any, text: str, zone: tzinfo) -> tuple[Any, ...]:
    from penstock.cli.cost_table import word
    from penstock.stores.ledger import Attribute, Tag

    if isinstance(what, Tag) or what is Attribute.ERROR:
        return (text,) if text else ("", None)
    try:
        if what is Attribute.STATUS:
            return (int(text),)
        if what is Attribute.DAY:
            return (datetime.fromisoformat(text).date().isoformat(),)
    except ValueError:
        raise Mistake(f"--where {word(what)}= wants {'a number' if what is Attribute.STATUS else 'a day'}") from None
    return (moment(text, zone, "--where hour=") // 1_000_000,) if what is Attribute.HOUR else (text,)
