"""A cheap answer first, and a better one where it is not good enough: a machine that says what to do, and why.

What is held back decides what can be judged. `hold: all` keeps the whole answer until it has passed: every check works,
and the caller's first token comes when the answer is complete. `hold: {first_tokens: N}` lets go after N good tokens:
streams flow, but only the probabilities of those tokens count, because what has been shown cannot be taken back.

Sources: FrugalGPT (Chen et al., 2023) for the shape; probabilities of tokens as confidence: Gupta et al., 2024.
"""

from __future__ import annotations

from math import exp
from typing import Any, Final, TypeAlias

import msgspec

from penstock.core.refusals import reads_like_a_refusal
from penstock.routing.spec import CascadeSpec, Escalation


class Token(msgspec.Struct, frozen=True, gc=False):
    """One came. `logprob` is natural; `other` that of the likeliest one that was not taken; None: not told."""

    logprob: float | None = None
    other: float | None = None


class Answered(msgspec.Struct, frozen=True):
    """The answer of this step is complete. `called_tools`: it is no text but a call, which is not a refusal."""

    text: str
    called_tools: bool = False


class Judged(msgspec.Struct, frozen=True, gc=False):
    """The judge's verdict, 0..1; None: it gave none."""

    verdict: float | None


class Failed(msgspec.Struct, frozen=True):
    """Nobody of this step has answered."""

    why: str


Event: TypeAlias = Token | Answered | Judged | Failed


class Ask(msgspec.Struct, frozen=True):
    """Open an attempt at these deployments, whose answers are held unless `shown`."""

    step: int
    deployments: tuple[str, ...]
    shown: bool  # nothing is judged any more: let it flow


class Release(msgspec.Struct, frozen=True, gc=False):
    """What is held is good enough: show it, and what follows as it comes."""


class Discard(msgspec.Struct, frozen=True):
    """It is not: cancel the attempt, forget its text. Its cost stays."""

    step: int
    why: str


class Judge(msgspec.Struct, frozen=True):
    """Ask this model for a verdict about the text, then say `Judged`."""

    model: str
    text: str


class GiveUp(msgspec.Struct, frozen=True):
    """No step is left; the caller is told why the last one failed."""

    why: str


Action: TypeAlias = Ask | Release | Discard | Judge | GiveUp


class Confidence:
    """Probabilities of an answer's tokens, added up. Tokens that nobody gave a probability to are not counted."""

    __slots__ = ("_margins", "_sum", "least", "n", "n_margins")

    def __init__(self) -> None:
        self._sum = self._margins = 0.0
        self.n = self.n_margins = 0
        self.least = 1.0

    def add(self, logprob: float | None, other: float | None) -> None:
        if logprob is None:
            return
        self.n += 1
        self._sum += logprob
        probability = exp(min(0.0, logprob))
        self.least = min(self.least, probability)
        if other is not None:
            self.n_margins += 1
            self._margins += probability - exp(min(0.0, other))

    @property
    def mean(self) -> float:
        """Geometric, 0..1."""
        return exp(min(0.0, self._sum / self.n)) if self.n else 0.0

    @property
    def margin(self) -> float:
        """Mean of best minus second, -1..1."""
        return self._margins / self.n_margins if self.n_margins else 0.0

    def doubt(self, rule: Escalation) -> str:
        """Why it is not confident enough; "" when it is. An answer without probabilities gives no reason to trust it
        where they are asked for."""
        asked = (rule.mean_probability, rule.min_probability, rule.margin)
        if asked == (None, None, None):
            return ""
        if self.n == 0:
            return "no probabilities came"
        if rule.mean_probability is not None and self.mean < rule.mean_probability:
            return f"mean probability {self.mean:.3f} < {rule.mean_probability:g}"
        if rule.min_probability is not None and self.least < rule.min_probability:
            return f"least probability {self.least:.3f} < {rule.min_probability:g}"
        if rule.margin is not None and self.margin < rule.margin:
            return f"margin {self.margin:.3f} < {rule.margin:g}"
        return ""


class Cascade:
    """Of one request. `why` says, for each step that was left, what was not good enough."""

    __slots__ = ("_confidence", "_schema", "_shown", "_spec", "_step", "_wants_json", "why")

    def __init__(self, spec: CascadeSpec, *, wants_json: bool = False, schema: object = None) -> None:
        """`schema`: the JSON Schema that the answer must fit, decoded; None: any JSON, where it `wants_json`."""
        self._spec = spec
        self._wants_json, self._schema = wants_json, schema
        self._step = 0
        self._shown = False
        self._confidence = Confidence()
        self.why: list[str] = []

    @property
    def step(self) -> int:
        return self._step

    def start(self) -> list[Action]:
        return [self._ask()]

    def on(self, event: Event) -> list[Action]:
        if isinstance(event, Failed):
            if self._shown and not self._last:
                return [GiveUp(event.why)]  # what was shown cannot be begun anew
            return [GiveUp(event.why)] if self._last else self._escalate(event.why)
        if self._shown:
            return []
        if isinstance(event, Token):
            self._confidence.add(event.logprob, event.other)
            hold = self._spec.hold
            if hold is None or self._confidence.n < hold:
                return []
            doubt = self._confidence.doubt(self._spec.escalation)
            return self._escalate(doubt) if doubt else self._release()
        if isinstance(event, Answered):
            return self._answered(event)
        rule = self._spec.escalation
        if event.verdict is None:
            return self._escalate("the judge gave no verdict")
        if event.verdict < rule.judge_at_least:
            return self._escalate(f"the judge says {event.verdict:.2f} < {rule.judge_at_least:g}")
        return self._release()

    @property
    def _last(self) -> bool:
        return self._step == len(self._spec.steps) - 1

    def _answered(self, answer: Answered) -> list[Action]:
        rule = self._spec.escalation
        doubt = self._confidence.doubt(rule)
        if not doubt and not answer.called_tools:
            if rule.schema and (self._wants_json or self._schema is not None):
                doubt = misfit(answer.text, self._schema)
            if not doubt and not answer.text.strip():
                doubt = "it is empty"
            if not doubt and rule.refusal and reads_like_a_refusal(answer.text):
                doubt = "it refuses"
        if doubt:
            return self._escalate(doubt)
        if rule.judge is not None and not answer.called_tools:
            return [Judge(rule.judge, answer.text)]
        return self._release()

    def _release(self) -> list[Action]:
        self._shown = True
        return [Release()]

    def _escalate(self, why: str) -> list[Action]:
        self.why.append(f"step {self._step + 1} ({', '.join(self._spec.steps[self._step])}): {why}")
        left = Discard(self._step, why)
        self._step += 1
        self._confidence = Confidence()
        return [left, self._ask()]

    def _ask(self) -> Ask:
        self._shown = self._last
        return Ask(self._step, self._spec.steps[self._step], self._last)


_decode = msgspec.json.Decoder().decode
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
MAX_DEPTH: Final = 32


def misfit(text: str, schema: object) -> str:
    """Why the text is not JSON of this schema; "" when nothing was found. Looks at `type`, `enum`, `const`, `required`,
    `properties`, `additionalProperties: false` and `items`: enough to see that a small model has lost the thread, and
    no validator."""
    try:
        value = _decode(text.strip().encode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "it is not JSON"
    found = _misfit(value, schema, "it", 0)
    return found and f"{found}"


def _misfit(value: Any, schema: object, where: str, depth: int) -> str:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return ""
    wanted = schema.get("type")
    kinds = [kind for kind in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(kind, str)]
    known = [_TYPES[kind] for kind in kinds if kind in _TYPES]
    if known and not any(_is(value, types) for types in known):
        return f"{where} is not {' or '.join(kinds)}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return f"{where} is none of what is allowed"
    if "const" in schema and value != schema["const"]:
        return f"{where} is not what it has to be"
    if isinstance(value, list):
        for i, inner in enumerate(value):
            if found := _misfit(inner, schema.get("items"), f"{where}[{i}]", depth + 1):
                return found
    if not isinstance(value, dict):
        return ""
    required, properties = schema.get("required"), schema.get("properties")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            return f"{where} lacks {name!s}"
    inside = properties if isinstance(properties, dict) else {}
    for name, inner in value.items():
        if name not in inside:
            if schema.get("additionalProperties") is False:
                return f"{where} has more than is allowed"
        elif found := _misfit(inner, inside[name], f"{where}.{name}", depth + 1):
            return found
    return ""


def _is(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    if isinstance(value, float) and value.is_integer() and types == (int,):
        return True  # JSON Schema: 1.0 is an integer
    return isinstance(value, types)
