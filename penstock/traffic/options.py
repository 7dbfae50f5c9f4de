"""The `traffic:` block of a scenario and of a load, as people write it. Tokens, seconds, requests per second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from penstock.core.durations import seconds
from penstock.core.request import Priority


class TrafficError(ValueError):
    """What is wrong with a `traffic:` block or a trace, and what was expected; for the person who wrote it."""


class Seconds(float):
    """A span, written with its unit: `500ms`, `30s`, `10m`, `24h`, `14d`."""

    def __str__(self) -> str:
        return f"{float(self):.9g}s"


Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Format = Literal["mooncake", "azure", "servegen"]


class _Options(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower, forbid_unknown_fields=True):
    """A mapping with a `kind:`."""


# How many tokens, or turns


class Lognormal(_Options, frozen=True, kw_only=True):
    """The usual shape of lengths: half are below `median`, 95 of 100 below `p95`."""

    median: Positive
    p95: Positive
    min: Tokens = 1
    max: Tokens = 1_000_000


class Pareto(_Options, frozen=True, kw_only=True):
    """A heavy tail: P(length > x) = (min / x) ** alpha. With `alpha` at most 1 only `max` keeps the mean finite."""

    min: Tokens
    alpha: Positive = 1.5
    max: Tokens = 1_000_000


class Uniform(_Options, frozen=True, kw_only=True):
    min: Tokens
    max: Tokens


class Geometric(_Options, frozen=True, kw_only=True):
    """From 1 up, each step with the same chance of being the last: turns of a conversation."""

    mean: Annotated[float, Meta(ge=1)]
    max: Tokens = 1_000_000


Length = Tokens | Lognormal | Pareto | Uniform | Geometric


class TraceLengths(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompt and output lengths drawn together, with replacement, from the requests of a trace."""

    file: str
    format: Literal["mooncake", "azure"]


class SharedPrefix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """System prompts: each session, or each request that stands alone, begins with one of `prompts`.

    The i-th most popular is taken in proportion to 1 / i ** skew (Zipf); 0: all alike.
    """

    tokens: Tokens
    prompts: Tokens = 1
    skew: NotNegative = 0.0


# How the rate changes


class Diurnal(_Options, frozen=True, kw_only=True):
    """A sine around `mean`, `swing` of it up and down, at its height at `peak_at` of every `period`."""

    mean: Positive
    swing: Annotated[float, Meta(ge=0, le=1)] = 0.5
    peak_at: Seconds = Seconds(14 * 3_600)
    period: Seconds = Seconds(86_400)


class Steps(_Options, frozen=True, kw_only=True):
    """`points`: [when, rate], each rate until the next `when`; the last for ever, or anew every `period`."""

    points: Annotated[tuple[tuple[Seconds, NotNegative], ...], Meta(min_length=1)]
    period: Seconds | None = None


class Ramp(_Options, frozen=True, kw_only=True):
    """As `Steps`, with straight lines from point to point; what lies before the first or after the last is as there."""

    points: Annotated[tuple[tuple[Seconds, NotNegative], ...], Meta(min_length=1)]
    period: Seconds | None = None


Rate = Positive | Diurnal | Steps | Ramp


# When they come


class Constant(_Options, frozen=True, kw_only=True):
    """Evenly spaced."""

    rate: Rate


class Poisson(_Options, frozen=True, kw_only=True):
    rate: Rate


class Gamma(_Options, frozen=True, kw_only=True):
    """Gaps with a coefficient of variation of `cv`: 1 is Poisson, 3 comes in bursts, 0.3 is almost even."""

    rate: Rate
    cv: Positive = 2.0


class Weibull(_Options, frozen=True, kw_only=True):
    """As `Gamma`, with the longer silences of a Weibull distribution."""

    rate: Rate
    cv: Positive = 2.0


class Users(_Options, frozen=True, kw_only=True):
    """A closed loop: each user asks, waits for the answer, thinks, asks again. They start within `ramp`."""

    users: Annotated[int, Meta(ge=1, le=1_000_000)]
    ramp: Seconds = Seconds(0)


class Trace(_Options, frozen=True, kw_only=True):
    """What somebody recorded, from `skip` on. `servegen` has rates only; its `file` may be a folder of clients."""

    file: str
    format: Format
    skip: Seconds = Seconds(0)


Arrivals = Constant | Poisson | Gamma | Weibull | Users | Trace


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of requests; `traffic:` is one of these, or a list that are mixed.

    With `turns`, each arrival begins a session. A turn's prompt is all that was said before and the `prompt_tokens` of
    its own; it comes `think` after the answer before it. `requests` counts every turn.
    """

    arrivals: Arrivals
    prompt_tokens: Length = 512
    output_tokens: Length = 128
    lengths: TraceLengths | None = None  # instead of the two above
    shared_prefix: SharedPrefix | None = None
    turns: Length = 1
    think: Seconds = Seconds(0)  # mean, between the turns of a session and between the sessions of a user
    think_cv: NotNegative = 1.0  # gamma distributed; 0: always the mean
    context_tokens: Annotated[int, Meta(ge=16, le=8_000_000)] = 131_072  # a session ends before it would need more
    block_tokens: Annotated[int, Meta(ge=16, le=65_536)] = 512  # of one prefix hash; traces with hashes have 512
    tenant: str = ""
    model: str = ""
    priority: Priority = Priority.NORMAL
    start: Seconds = Seconds(0)
    duration: Seconds | None = None  # nothing comes later than this after `start`
    requests: Tokens | None = None
    speed: Positive = 1.0  # arrivals (not thinking) so many times faster

    def __post_init__(self) -> None:
        _check(self)


def read(tree: object) -> tuple[Workload, ...]:
    """From what YAML or JSON has for `traffic:`. Raises `TrafficError`."""
    entries = tree if isinstance(tree, list) else [tree]
    if not entries:
        raise TrafficError("traffic: is empty; write one workload, or a list of them")
    return tuple(
        _read(entry, f"traffic[{i}]" if isinstance(tree, list) else "traffic") for i, entry in enumerate(entries)
    )


def _read(tree: object, name: str) -> Workload:
    if isinstance(tree, Mapping) and isinstance(tree.get("lengths"), Mapping):
        clash = sorted({"prompt_tokens", "output_tokens"} & tree.keys())
        if clash:
            raise TrafficError(f"{name}.{clash[0]}: has no meaning beside `lengths`, which gives both")
    try:
        return msgspec.convert(tree, Workload, dec_hook=_decode)
    except msgspec.ValidationError as error:
        message, _, where = str(error).rpartition(" - at `$")
        path = where.rstrip("`")
        told = message or str(error)
        raise TrafficError(f"{name}{path if message else ''}: {told}{_hint(told, path)}") from None


_KINDS: Final = {"arrivals": Arrivals, "rate": Rate}
_UNKNOWN: Final = re.compile(r"unknown field `(.+)`")


def _hint(told: str, path: str) -> str:
    """What could have been meant: the kinds there are, or the nearest name of an option."""
    parent, _, last = path.rpartition(".")
    if last == "kind":
        kinds = get_args(_KINDS.get(parent.rpartition(".")[2], Length))
        names = [kind.__name__.lower() for kind in kinds if isinstance(kind, type)]
        return f", expected one of {', '.join(names)}"
    if (found := _UNKNOWN.search(told)) is not None:
        near = get_close_matches(found[1], _NAMES, n=1)
        return f". Did you mean `{near[0]}`?" if near else ""
    return ""


_STRUCTS: Final[tuple[type[msgspec.Struct], ...]] = (
    *_Options.__subclasses__(),
    TraceLengths,
    SharedPrefix,
    Workload,
)
_NAMES: Final = sorted({field for options in _STRUCTS for field in options.__struct_fields__})


def written(value: object) -> str:
    """For msgspec's `enc_hook`: durations as `read` takes them."""
    if isinstance(value, Seconds):
        return str(value)
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    if kind is Seconds:
        try:
            return Seconds(seconds(value))
        except (TypeError, ValueError):
            raise ValueError(f"Expected a duration with its unit such as 30s, 500ms or 10m, got `{value}`") from None
    raise NotImplementedError(kind)


def _check(workload: Workload) -> None:
    """What types do not say. Raises `ValueError`, which msgspec gives its path."""
    for length in (workload.prompt_tokens, workload.output_tokens, workload.turns):
        if isinstance(length, Lognormal) and length.p95 < length.median:
            raise ValueError("Expected a lognormal `p95` that is not below its `median`")
        if isinstance(length, Lognormal | Pareto | Uniform) and length.max < length.min:
            raise ValueError("Expected `max` to be at least `min`")
    if workload.shared_prefix is not None and workload.shared_prefix.tokens > workload.context_tokens - 2:
        raise ValueError("`shared_prefix` leaves no room in `context_tokens`")
    arrivals = workload.arrivals
    if isinstance(arrivals, Users):
        if workload.speed != 1.0:
            raise ValueError("`speed` has no meaning for users, who wait for answers; take more of them")
        return
    if isinstance(arrivals, Trace):
        if arrivals.format != "servegen" and workload.turns != 1:
            raise ValueError("a trace of requests has its own conversations; leave `turns` out")
        if arrivals.format != "servegen" and (workload.shared_prefix is not None or workload.lengths is not None):
            raise ValueError("a trace of requests has its own lengths and prefixes; leave out what says others")
        return
    rate = arrivals.rate
    if isinstance(rate, Steps | Ramp):
        times = [when for when, _ in rate.points]
        if times != sorted(set(times)):
            raise ValueError("the times of `points` must rise")
        if rate.period is not None and rate.period <= times[-1]:
            raise ValueError("`period` must be longer than its `points`")
        if not any(value for _, value in rate.points):
            raise ValueError("a `rate` that is always 0 brings no request")
    elif isinstance(rate, Diurnal) and rate.period <= 0:
        raise ValueError("`period` must be longer than 0s")
