"""The options that say how hard to try, when a replica is left out, who is refused first and what is given up. What
follows is in `config.resilience`; why each default is what it is, in docs/resilience.md.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from penstock.config.options import Count, Options, Text, says
from penstock.config.units import DURATION_PATTERN, Duration

AUTO = "auto"
NO_REPLICA = "no_replica"

HedgeAfter = Annotated[
    str,
    Meta(
        pattern=rf"^auto$|{DURATION_PATTERN}",
        examples=["auto", "2s"],
        extra={"expected": "`auto`, or a duration with its unit, such as 500ms"},
    ),
]
Percent = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,3})?%$",
        examples=["60%", "85%"],
        extra={"expected": "a percentage such as 85%"},
    ),
]
Times = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,3})?x$",
        examples=["3x", "2.5x"],
        extra={"expected": "a number of times, such as 3x"},
    ),
]
When = Annotated[
    str,
    Meta(
        pattern=r"^(no_replica|[0-9]{1,3}(\.[0-9]{1,3})?%)$",
        examples=["85%", "no_replica"],
        extra={"expected": "a saturation such as 85%, or `no_replica`"},
    ),
]
Words = Annotated[
    str, Meta(min_length=1, max_length=4096, extra={"expected": "a text of at most 4,096 characters on one line"})
]


class OutlierOptions(Options, frozen=True):
    """When a replica is left out because it does worse than its like. Never the last one that answers."""

    in_a_row: Annotated[Count, says("Bad answers (failed, stalled, empty) in a row.")] = 5
    failure_share: Annotated[Percent, says("Bad answers of all, and clearly more than the others have.")] = "30%"
    slow: Annotated[
        Times, says("As long to the first token as was predicted, beside what the others take relative to that.")
    ] = "3x"
    eject_for: Annotated[Duration, says("The first time; twice as long the second time, and so on.")] = "30s"
    longest: Annotated[Duration, says("Never for longer than this.")] = "5m"
    most: Annotated[Percent, says("Of the replicas at once; one may always be left out.")] = "10%"
    ramp: Annotated[Duration, says("How long a new or recovered replica takes to come to its full share.")] = "1m"


class ConcurrencyOptions(Options, frozen=True):
    """How many requests one replica gets at once, where that is found out from how long first tokens take."""

    start: Annotated[Count, says("To begin with.")] = 20
    least: Annotated[Count, says("Never fewer.")] = 1
    most: Annotated[Count, says("Never more.")] = 1_000


class DegradeOptions(Options, frozen=True):
    """One step down, taken when a model is overloaded: one of four things, of which the caller is told in a header."""

    when: Annotated[
        When, says("From this saturation on (100%: newcomers wait as long as they may), or when nobody can answer.")
    ]
    until: Annotated[Percent | None, says("Until it is below this. Without it, ten points less than `when`.")] = None
    hold: Annotated[Duration, says("And that for so long.")] = "10s"
    max_tokens: Annotated[Count | None, says("No answer is longer.")] = None
    model: Annotated[Text | None, says("Another of the models answers.")] = None
    cached: Annotated[
        Duration | None, says("An answer to the same question that is not older is given again: not yet.")
    ] = None
    answer: Annotated[Words | None, says("This text is the answer.")] = None


class ShedOptions(Options, frozen=True):
    """From which saturation on some requests of a priority are refused. `critical` ones never are."""

    low: Annotated[Percent, says("Of priority `low`.")] = "60%"
    normal: Annotated[Percent, says("Of priority `normal`.")] = "85%"
    high: Annotated[Percent, says("Of priority `high`.")] = "100%"
    target: Annotated[
        Duration | None,
        says("The wait that is 100%. Without it, the `timeouts.first_token` of the model: who is refused would fail."),
    ] = None
