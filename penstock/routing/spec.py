"""What a model's `routing:` section comes to: plain data, every default decided. `router.Router` makes it live."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

By: TypeAlias = Literal["user", "session", "key", "team", "org", "request"]
Pii: TypeAlias = Literal["email", "phone", "card", "iban", "ssn"]

EVERY_PII: tuple[Pii, ...] = ("email", "phone", "card", "iban", "ssn")


class PlanChanges(msgspec.Struct, frozen=True, gc=False):
    """What of the model's plan is otherwise for this request; None: nothing. Seconds."""

    max_attempts: int | None = None
    first_token_timeout: float | None = None
    hedge_after: float | None = None


UNCHANGED = PlanChanges()


class RuleSpec(msgspec.Struct, frozen=True):
    """If `when` holds. `use`, `model` and `refuse` decide, and later rules are not asked; the others add up."""

    name: str
    when: str  # an `Expression`
    use: tuple[str, ...] = ()  # these deployments, in this order, and no others
    model: str | None = None  # as if this one had been asked for
    refuse: str | None = None  # the sentence that the caller is told
    prefer: tuple[str, ...] = ()  # before the others
    avoid: tuple[str, ...] = ()  # never these
    changes: PlanChanges = UNCHANGED


class ArmSpec(msgspec.Struct, frozen=True, gc=False):
    name: str
    deployments: tuple[str, ...]
    share: float | None = None  # 0..1; None: what the others leave


class SplitSpec(msgspec.Struct, frozen=True):
    """`name` is part of the hash: another experiment divides people anew."""

    name: str
    by: By
    arms: tuple[ArmSpec, ...]  # exactly one without a share


class DifficultySpec(msgspec.Struct, frozen=True):
    """Requests that are harder than `threshold` go to `hard`, others to `easy`."""

    easy: tuple[str, ...]
    hard: tuple[str, ...]
    threshold: float = 0.5
    classifier: str = ""  # the text of a file that `penstock route train` wrote; "": heuristics


class Escalation(msgspec.Struct, frozen=True, gc=False):
    """When an answer is not good enough. Probabilities 0..1; None: not looked at."""

    mean_probability: float | None = None  # geometric mean over the answer's tokens, below which it is not
    min_probability: float | None = None  # of the least likely token
    margin: float | None = None  # mean of the best token's probability minus the second's
    strictness: float = 0.0  # how much more of each is asked for, times the request's difficulty
    schema: bool = True  # what should be JSON, or of a schema, is not
    refusal: bool = False  # it refuses
    judge: str | None = None  # a model that is asked for a verdict
    judge_at_least: float = 0.5  # its verdict, 0..1

    def for_difficulty(self, difficulty: float) -> Escalation:
        """With what is asked for of a request that is so difficult."""
        more = self.strictness * difficulty
        if more == 0:
            return self
        asked = {name: getattr(self, name) for name in ("mean_probability", "min_probability", "margin")}
        raised = {name: min(1.0, value + more) for name, value in asked.items() if value is not None}
        return msgspec.structs.replace(self, strictness=0.0, **raised)


class CascadeSpec(msgspec.Struct, frozen=True):
    """Deployments of each step, the cheapest first. `hold` is what is kept from the caller until it is good enough: the
    first so many tokens, or None for the whole answer."""

    steps: tuple[tuple[str, ...], ...]
    escalation: Escalation
    hold: int | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether upstreams have to be asked for the probabilities of their tokens, the second best's included."""
        return (self.escalation.mean_probability, self.escalation.min_probability, self.escalation.margin) != (
            None,
        ) * 3


class SensitiveSpec(msgspec.Struct, frozen=True):
    """What must stay inside: requests with such data in them, and those of which `when` holds."""

    pii: tuple[Pii, ...] = ()
    when: str | None = None
    media: bool = True  # with `pii`: so must what nobody can look into


class CeilingSpec(msgspec.Struct, frozen=True, gc=False):
    """Deployments beyond are left out. `unknown`: so are those of which nobody knows it."""

    cost: int | None = None  # nano-dollars, predicted
    first_token: float | None = None  # seconds, predicted
    unknown: bool = False


class PlacesSpec(msgspec.Struct, frozen=True, gc=False):
    """Names of places, each with all that are in it: `eu` holds `eu-west-1`."""

    allowed: tuple[str, ...] = ()  # (): any
    preferred: tuple[str, ...] = ()  # best first


class RoutingSpec(msgspec.Struct, frozen=True):
    rules: tuple[RuleSpec, ...] = ()
    split: SplitSpec | None = None
    difficulty: DifficultySpec | None = None
    cascade: CascadeSpec | None = None
    sensitive: SensitiveSpec | None = None
    ceilings: CeilingSpec | None = None
    places: PlacesSpec | None = None
    context: bool = True  # deployments whose window cannot hold the request are left out


class Target(msgspec.Struct, frozen=True, gc=False):
    """What routing knows of a deployment, whoever asks."""

    name: str
    self_hosted: bool = False
    location: str = ""
    window: int | None = None  # tokens, prompt and answer together; None: not known
