"""Sums of our metrics, in Prometheus' language. Every expression has a value where there were events, even if no bad
one has ever been counted: a series that does not exist yet counts as nothing.
"""

from __future__ import annotations

from typing import Final

from penstock.quality.sli import Match, Part, Sli, Sum, Term

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def duration(seconds: float) -> str:
    """`5m`, `30d`: whole seconds, in the largest unit that needs no other."""
    whole = round(seconds)
    unit, name = next(((unit, name) for unit, name in _UNITS if whole % unit == 0), (1, "s"))
    return f"{whole // unit}{name}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def selector(metric: str, where: tuple[Match, ...] = (), *more: str) -> str:
    matchers = ", ".join([*map(_matcher, where), *more])
    return f"{metric}{{{matchers}}}" if matchers else metric


def _matcher(match: Match) -> str:
    if len(match.values) == 1:
        return f"{match.label}{'!=' if match.but_not else '='}{quoted(match.values[0])}"
    either = "|".join(map(_literal, match.values))
    return f"{match.label}{'!~' if match.but_not else '=~'}{quoted(either)}"


def _literal(text: str) -> str:
    """For a regular expression of RE2: names have no more than these of its signs."""
    return "".join(f"\\{sign}" if sign in "\\.+*?()[]{}|^$" else sign for sign in text)


def series(term: Term) -> str:
    if term.part is Part.COUNT:
        return selector(f"{term.metric}_count", term.where)
    if term.part is Part.BELOW:
        return selector(f"{term.metric}_bucket", term.where, f'le="{float(term.bound)!r}"')  # as the exposition has it
    return selector(term.metric, term.where)


def added(terms: Sum, by: tuple[str, ...], over: str, function: str = "rate") -> str:
    """The sum's rate or increase over a range such as `5m`, by these labels."""
    aggregate = f"sum by ({', '.join(by)})" if by else "sum"
    first, *rest = (f"{aggregate} ({function}({series(term)}[{over}]))" for term in terms)
    said = first
    for term, one in zip(terms[1:], rest, strict=True):
        if (
            term.part is Part.BELOW
        ):  # always there with its count; and a bound that does not exist must not be all of it
            said = f"({said} - {one})"
            continue
        # where one side has never been counted, the other one is the sum
        said = f"({said} - {one} or {said})" if term.minus else f"({said} + {one} or {said} or {one})"
    return said


def share(sli: Sli, by: tuple[str, ...], over: str) -> str:
    """Bad of all events, 0 to 1; nothing where there was no event."""
    return f"({bad(sli, by, over)}) / ({added(sli.events, by, over)} > 0)"


def bad(sli: Sli, by: tuple[str, ...], over: str) -> str:
    """The rate of bad events: 0 where there were events and none bad."""
    said = added(sli.bad, by, over)
    latency = any(term.part is Part.BELOW for term in sli.bad)
    return said if latency else f"{said} or 0 * {added(sli.events, by, over)}"
