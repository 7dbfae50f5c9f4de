"""The options of a model's `routing:`: which of its deployments answer which requests. What follows is in
`config.routing`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from penstock.config.options import Count, Options, Text, says
from penstock.config.units import Duration
from penstock.pricing.options import Money
from penstock.routing.spec import By, Pii

Fraction = Annotated[
    str,
    Meta(
        pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$",
        examples=["0.5", "0.85"],
        extra={"expected": "a number from 0 to 1, such as 0.85"},
    ),
]
Share = Annotated[
    str,
    Meta(
        pattern=r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$",
        examples=["5%", "0.5%"],
        extra={"expected": "a percentage such as 5% or 0.5%"},
    ),
]
PlaceName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]{1,32}(-[a-z0-9]{1,32}){0,5}$",
        examples=["eu", "us-east-1"],
        extra={"expected": "a place in small letters, from large to small: eu, eu-west-1"},
    ),
]
Condition = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2_000,
        examples=['org == "acme" && prompt_tokens > 8000'],
        extra={"expected": "a condition of at most 2,000 characters"},
    ),
]
Names = Annotated[
    tuple[str, ...], Meta(min_length=1, max_length=64, extra={"expected": "at least one of the model's deployments"})
]
SomeNames = Annotated[tuple[str, ...], Meta(max_length=64)]


class RuleOptions(Options, frozen=True, kw_only=True):
    """What happens to requests of which `when` holds. The first rule with `use`, `model` or `refuse` decides; the
    others add up."""

    when: Annotated[Condition, says('A condition on the request, in a part of CEL: org == "acme" && stream.')]
    name: Annotated[Text | None, says("What the decision calls it. Without it, `rule 1` and so on.")] = None
    use: Annotated[Names | None, says("These deployments, in this order, and no others.")] = None
    model: Annotated[str | None, says("As if the caller had asked for this model; its routing goes on from there.")] = (
        None
    )
    refuse: Annotated[Text | None, says("Nobody answers; the sentence that the caller is told, with status 403.")] = (
        None
    )
    prefer: Annotated[SomeNames, says("These deployments before the others.")] = ()
    avoid: Annotated[SomeNames, says("Not these deployments.")] = ()
    max_attempts: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None, says("In the place of the model's `max_attempts`.")
    ] = None
    first_token: Annotated[Duration | None, says("In the place of the model's `timeouts.first_token`.")] = None
    hedge_after: Annotated[Duration | None, says("In the place of the model's `hedge_after`.")] = None


class ArmOptions(Options, frozen=True, kw_only=True):
    """A part of the requests, and who answers them."""

    deployments: Annotated[Names, says("Best first.")]
    share: Annotated[
        Share | None, says("How much of all. Exactly one arm has none: it gets what the others leave.")
    ] = None


class SplitOptions(Options, frozen=True, kw_only=True):
    """A canary or an experiment. The same user, session or key is always in the same arm, and when a share grows nobody
    leaves it."""

    arms: Annotated[
        dict[str, ArmOptions],
        Meta(min_length=2, max_length=16, extra={"names": Text, "expected": "at least two arms"}),
        says("By name. The first two with a share never take anybody from one another."),
    ]
    by: Annotated[By, says("Whose requests stay together. One without such a thing goes with its key.")] = "user"
    name: Annotated[Text, says("Another name divides everybody anew.")] = "split"


class DifficultyOptions(Options, frozen=True, kw_only=True):
    """Easy requests go to some deployments and hard ones to others. With a cascade only the easy ones enter it."""

    hard: Annotated[Names, says("Who answers what is hard, best first.")]
    easy: Annotated[Names, says("Who answers the rest, best first.")]
    threshold: Annotated[Fraction, says("Above it a request is hard.")] = "0.5"
    classifier: Annotated[
        Text | None,
        says("A file that `penstock route train` wrote, relative to this one. Without it, heuristics decide."),
    ] = None


class HoldOptions(Options, frozen=True, kw_only=True):
    """How much of an answer is looked at before it is shown."""

    first_tokens: Annotated[Count, says("Only the probabilities of so many tokens decide; then the answer flows.")]


class EscalateOptions(Options, frozen=True, kw_only=True):
    """What makes an answer not good enough. Any one is enough."""

    mean_probability: Annotated[Fraction | None, says("The mean probability of its tokens (geometric) is below.")] = (
        None
    )
    min_probability: Annotated[Fraction | None, says("That of its least likely token is below.")] = None
    margin: Annotated[Fraction | None, says("On average the best token was less than this before the second best.")] = (
        None
    )
    strictness: Annotated[
        Fraction,
        says("With `difficulty`: times how hard a request is, added to the probabilities and the margin asked for."),
    ] = "0"
    schema: Annotated[bool, says("It should be JSON, or of a schema, and is not.")] = True
    refusal: Annotated[bool, says("It refuses.")] = False
    judge: Annotated[str | None, says("A model that is asked for a verdict from 0 to 1.")] = None
    judge_at_least: Annotated[Fraction, says("The verdict is below.")] = "0.5"


class CascadeOptions(Options, frozen=True, kw_only=True):
    """A cheap answer first, and a better one where it is not good enough."""

    steps: Annotated[
        Annotated[tuple[str | Names, ...], Meta(min_length=2, max_length=8, extra={"expected": "at least two steps"})],
        says("Deployments, or lists of such that stand in for one another, the cheapest first."),
    ]
    escalate: Annotated[EscalateOptions, says("When an answer is not good enough.")]
    hold: Annotated[
        Literal["all"] | HoldOptions,
        says(
            "`all`: an answer is shown when it is complete and good enough. With `first_tokens` it flows after a few "
            "good tokens, and what comes later is not looked at."
        ),
    ] = "all"


class SensitiveOptions(Options, frozen=True, kw_only=True):
    """Requests that only your own deployments (`engine` and `model`) may see. When none of them is ready such a request
    is refused."""

    pii: Annotated[
        Literal["all"] | Annotated[tuple[Pii, ...], Meta(min_length=1, max_length=8)],
        says("Personal data that makes a request sensitive: email, phone, card, iban, ssn, or `all`."),
    ] = ()
    when: Annotated[Condition | None, says("A condition that makes it so, as in rules.")] = None
    media: Annotated[
        Literal["inside", "anywhere"],
        says("With `pii`, where pictures, audio and files may go, which nobody can look into."),
    ] = "inside"


class CeilingOptions(Options, frozen=True, kw_only=True):
    """What is too dear or too slow for one request. Deployments beyond are left out; with none left it is refused."""

    cost: Annotated[Money | None, says("The most that it may be expected to cost.")] = None
    first_token: Annotated[Duration | None, says("The longest that its first token may be expected to take.")] = None
    unknown: Annotated[Literal["keep", "drop"], says("What becomes of deployments of which nobody knows it.")] = "keep"


class PlacesOptions(Options, frozen=True, kw_only=True):
    """Where answers may be made, by the `location` of deployments. `eu` holds `eu-west-1`."""

    allowed: Annotated[
        Annotated[tuple[PlaceName, ...], Meta(min_length=1, max_length=64)],
        says("Only there, and nowhere that has no location. Without it, anywhere."),
    ] = ()
    preferred: Annotated[
        Annotated[tuple[PlaceName, ...], Meta(min_length=1, max_length=64)], says("There first, best first.")
    ] = ()


class RoutingOptions(Options, frozen=True, kw_only=True):
    """Which deployments answer which requests. Without it, all in their order."""

    rules: Annotated[
        Annotated[tuple[RuleOptions, ...], Meta(max_length=256)], says("Conditions, and what follows from them.")
    ] = ()
    split: Annotated[SplitOptions | None, says("A canary or an experiment, for requests that no rule decides.")] = None
    difficulty: Annotated[DifficultyOptions | None, says("Likewise, by how hard they are.")] = None
    cascade: Annotated[CascadeOptions | None, says("Likewise: cheap first, and better where that is not enough.")] = (
        None
    )
    sensitive: Annotated[SensitiveOptions | None, says("What must stay inside.")] = None
    ceilings: Annotated[CeilingOptions | None, says("What is too dear or too slow.")] = None
    places: Annotated[PlacesOptions | None, says("Where answers may be made.")] = None
    context: Annotated[
        bool, says("Leave out deployments whose `context_window` cannot hold prompt and answer together.")
    ] = True
