"""A model's routing, ready to decide: each stage narrows or reorders the candidates and says so.

The order is fixed: what must stay inside; rules; the experiment; difficulty or cascade; where answers may be made; what
fits; what is too dear or too slow. Later stages never bring back what an earlier one has dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import tzinfo
from random import Random
from typing import Final

from msgspec import structs

from penstock.core.money import show
from penstock.core.request import Attribution, Request
from penstock.routing import places
from penstock.routing.decision import Asked, Candidate, Decision, Explanation, Refusal, View
from penstock.routing.difficulty import Classifier, heuristic
from penstock.routing.expressions import Expression
from penstock.routing.facts import Facts, Reading, facts_of, read
from penstock.routing.sensitivity import find_pii
from penstock.routing.spec import (
    EVERY_PII,
    UNCHANGED,
    CascadeSpec,
    CeilingSpec,
    PlanChanges,
    RoutingSpec,
    RuleSpec,
    Target,
)
from penstock.routing.split import Split

MAX_MODELS: Final = 4  # that one request is sent on to; configurations have no circles, but planes are given by others


class Router:
    """Immutable. Made once for a model, from a spec that `check` found nothing wrong with."""

    __slots__ = (
        "_classifier", "_split", "headers", "model", "needs", "rules", "sensitive", "spec", "targets",
    )  # fmt: skip

    def __init__(self, model: str, spec: RoutingSpec, targets: Iterable[Target]) -> None:
        """`targets`: the model's deployments, best first, and no others are ever chosen. Raises `ValueError` for an
        expression or a classifier that cannot be read."""
        self.spec = spec
        self.model = model
        self.targets = {target.name: target for target in targets}
        self.rules: list[tuple[RuleSpec, Expression]] = [(rule, Expression(rule.when)) for rule in spec.rules]
        self._split = None if spec.split is None else Split(spec.split)
        when = None if spec.sensitive is None else spec.sensitive.when
        self.sensitive = None if when is None else Expression(when)
        said = "" if spec.difficulty is None else spec.difficulty.classifier
        self._classifier = Classifier.read(said) if said else None
        expressions = [expression for _, expression in self.rules]
        if self.sensitive is not None:
            expressions.append(self.sensitive)
        needs = frozenset[str]().union(*(expression.needs for expression in expressions))
        if spec.difficulty is not None:
            needs |= {"difficulty"}
        if spec.sensitive is not None and spec.sensitive.pii:
            needs |= {"pii"}
        self.needs: frozenset[str] = needs
        """The facts that its options speak of."""
        self.headers: frozenset[str] = frozenset[str]().union(*(expression.headers for expression in expressions))
        """The headers that its rules speak of; no others are ever looked at."""

    def facts(
        self,
        request: Request,
        said: Attribution,
        header: Callable[[bytes], bytes | None],
        wall: float,
        zone: tzinfo,
    ) -> Facts:
        """Of a request, as far as this routing asks. `wall` is Unix seconds."""
        needs = self.needs
        reading: Reading | None = None
        if "pii" in needs or "difficulty" in needs:
            reading = read(request, everything="pii" in needs)
        facts = facts_of(request, said, header, wall, zone, needs, self.headers, reading)
        if reading is not None:
            pii, difficulty = facts.pii, facts.difficulty
            if "pii" in needs:
                pii = find_pii(reading.everything, EVERY_PII)
            if "difficulty" in needs:
                score = heuristic if self._classifier is None else self._classifier.score
                difficulty = score(reading, request.max_tokens)
            facts = structs.replace(facts, pii=pii, difficulty=difficulty)
        return facts

    def decide(
        self, view: View, facts: Facts, rng: Random, *, inside: bool = False, changes: PlanChanges = UNCHANGED
    ) -> Decision:
        """Reads, never writes. `rng` places requests that belong to nobody in an experiment. `inside` and `changes`
        were decided by the model that it was sent on from."""
        return _Deciding(self, view, facts, rng, inside, changes).decide()

    def explain(
        self, view: View, facts: Facts, rng: Random, *, inside: bool = False, changes: PlanChanges = UNCHANGED
    ) -> Explanation:
        """The decision of the same moment, and everything that lost."""
        deciding = _Deciding(self, view, facts, rng, inside, changes)
        decision = deciding.decide()
        ranks = {name: i for i, name in enumerate(decision.deployments, 1)}
        return Explanation(
            decision,
            tuple(
                Candidate(
                    name,
                    ranks.get(name),
                    decision.dropped.get(name, ""),
                    view.ready(name),
                    target.self_hosted,
                    target.location,
                    deciding.window(name),
                    view.cost(name),
                    view.first_token(name),
                )
                for name, target in sorted(self.targets.items(), key=lambda one: ranks.get(one[0], len(ranks) + 1))
            ),
            tuple(
                Asked(rule.name, rule.when, deciding.held[i] if i < len(deciding.held) else None)
                for i, (rule, _) in enumerate(self.rules)
            ),
            {name: getattr(facts, name) for name in sorted(self.needs | {"model", "prompt_tokens", "max_tokens"})},
        )


class _Deciding:
    """One decision under way."""

    __slots__ = (
        "_facts", "_inside", "_rng", "_router", "_view", "arm", "changes", "dropped", "held", "left", "preferred",
        "refusal", "why",
    )  # fmt: skip

    def __init__(
        self, router: Router, view: View, facts: Facts, rng: Random, inside: bool, changes: PlanChanges
    ) -> None:
        self._router, self._view, self._facts, self._rng, self._inside = router, view, facts, rng, inside
        self.left: list[str] = list(router.targets)
        self.dropped: dict[str, str] = {}
        self.why: list[str] = []
        self.held: list[bool] = []
        self.arm: str | None = None
        self.preferred: tuple[str, ...] = ()
        self.changes = changes
        self.refusal: Refusal | None = None

    def decide(self) -> Decision:
        spec, facts = self._router.spec, self._facts
        cascade: CascadeSpec | None = None
        self._drop(lambda name: not self._view.serves(name), "does not serve this endpoint")
        if self._inside or spec.sensitive is not None:
            self._stay_inside()
        ruled = self._rules()
        if isinstance(ruled, Decision):
            return ruled
        if not ruled and self.refusal is None:
            if self._router._split is not None:
                arm = self._router._split.arm(facts, self._rng.random())
                self.arm = f"{self._router._split.name}/{arm.name}"
                self.why.append(f"arm {self.arm}")
                self._only(arm.deployments, f"not in the arm {self.arm}")
            else:
                cascade = self._by_difficulty()
        if self.refusal is None:
            self._places()
            self._prefer()
            self._fits()
            self._ceilings()
        if not self.left and self.refusal is None:
            self.refusal = self._nowhere()
        if self.refusal is not None:
            self.left, cascade = [], None
        elif cascade is not None:
            cascade = self._remaining(cascade)
        return Decision(
            tuple(self.left),
            self._router.model,
            self.arm,
            cascade,
            self.changes,
            self.refusal,
            tuple(self.why),
            self.dropped,
            self._inside,
        )

    def window(self, name: str) -> int | None:
        """The smaller of what was configured and what the engine reports."""
        known = [n for n in (self._router.targets[name].window, self._view.window(name)) if n is not None]
        return min(known) if known else None

    # --- stages, in their order ---

    def _stay_inside(self) -> None:
        sensitive, facts = self._router.spec.sensitive, self._facts
        reasons = ["the model that it was sent on from"] if self._inside else []
        if sensitive is not None:
            reasons += [kind for kind in sensitive.pii if kind in facts.pii]
            if sensitive.pii and sensitive.media and facts.opaque:
                reasons.append("media that cannot be looked into")
            expression = self._router.sensitive
            if expression is not None and expression.holds(facts):
                reasons.append(f"when {expression.source}")
        if not reasons:
            return
        self._inside = True
        self.why.append(f"sensitive ({', '.join(reasons)}): inside only")
        self._drop(
            lambda name: not self._router.targets[name].self_hosted, "is not self-hosted, the request is sensitive"
        )
        if not any(self._view.ready(name) for name in self.left):
            self._drop(lambda name: True, "is not ready, the request is sensitive")
            self.refusal = Refusal(
                503,
                "no_private_deployment",
                "This request may only be answered by a model that is hosted here, and none is ready.",
            )

    def _rules(self) -> bool | Decision:
        """Whether one of them has decided where; the decision itself where that is another model's."""
        for rule, expression in self._router.rules:
            if self.refusal is not None:
                break
            holds = expression.holds(self._facts)
            self.held.append(holds)
            if not holds:
                continue
            if rule.refuse is not None:
                self.why.append(f"{rule.name}: refused")
                self._drop(lambda name: True, f"{rule.name} refuses the request")
                self.refusal = Refusal(403, "refused_by_rule", rule.refuse)
                break
            if rule.model is not None:
                self.why.append(f"{rule.name}: goes on as the model {rule.model}")
                self._drop(lambda name: True, f"{rule.name} sends the request to the model {rule.model}")
                return Decision(
                    (), rule.model, changes=self.changes, why=tuple(self.why), dropped=self.dropped, inside=self._inside
                )
            self._change(rule.changes)
            if rule.avoid:
                self.why.append(f"{rule.name}: avoids {', '.join(rule.avoid)}")
                self._drop(rule.avoid.__contains__, f"{rule.name} avoids it")
            if rule.prefer:
                self.why.append(f"{rule.name}: prefers {', '.join(rule.prefer)}")
                self.preferred = (*rule.prefer, *self.preferred)
            if rule.use:
                self.why.append(f"{rule.name}: uses {', '.join(rule.use)}")
                self._only(rule.use, f"{rule.name} uses others")
                return True
            if rule.changes != UNCHANGED:
                self.why.append(f"{rule.name}: another plan")
        return False

    def _by_difficulty(self) -> CascadeSpec | None:
        """With both, what is known to be hard does not go through the cascade."""
        spec = self._router.spec
        if spec.difficulty is not None:
            score, threshold = self._facts.difficulty, spec.difficulty.threshold
            words = f"{'hard' if score > threshold else 'easy'} ({score:.2f}, threshold {threshold:g})"
            self.why.append(words)
            if score > threshold or spec.cascade is None:
                chosen = spec.difficulty.hard if score > threshold else spec.difficulty.easy
                self._only(chosen, f"the request is {words}")
                return None
        if spec.cascade is not None:
            self._only([name for step in spec.cascade.steps for name in step], "not in the cascade")
        return spec.cascade

    def _places(self) -> None:
        spec, targets = self._router.spec.places, self._router.targets
        if spec is None:
            return
        self._drop(
            lambda name: not places.allowed(targets[name].location, spec.allowed),
            f"is not in {' or '.join(spec.allowed)}",
        )
        if spec.preferred:
            self.left.sort(key=lambda name: places.rank(targets[name].location, spec.preferred))

    def _prefer(self) -> None:
        """What rules prefer comes before what places do."""
        first = self.preferred
        if first:
            self.left.sort(key=lambda name: first.index(name) if name in first else len(first))

    def _fits(self) -> None:
        if not self._router.spec.context or not self.left:
            return
        needed = self._facts.prompt_tokens + self._facts.max_tokens
        largest = 0
        for name in tuple(self.left):
            window = self.window(name)
            if window is not None and needed > window:
                largest = max(largest, window)
                self.left.remove(name)
                self.dropped[name] = f"holds {window:,} tokens, the request needs {needed:,}"
        if not self.left:
            self.refusal = Refusal(
                400,
                "context_length_exceeded",
                f"This request needs about {needed:,} tokens, prompt and answer together; the most that this model "
                f"can hold is {largest:,}.",
            )

    def _ceilings(self) -> None:
        spec = self._router.spec.ceilings
        if spec is None or not self.left:
            return
        for name in tuple(self.left):
            why = self._beyond(name, spec)
            if why:
                self.left.remove(name)
                self.dropped[name] = why
        if not self.left:
            self.refusal = Refusal(
                503, "over_ceiling", "Whatever could answer this request now would be too expensive or too slow."
            )

    def _beyond(self, name: str, spec: CeilingSpec) -> str:
        if spec.cost is not None:
            cost = self._view.cost(name)
            if cost is None:
                if spec.unknown:
                    return "nobody knows what it would cost"
            elif cost > spec.cost:
                return f"would cost {show(cost)}, the ceiling is {show(spec.cost)}"
        if spec.first_token is not None:
            first = self._view.first_token(name)
            if first is None:
                if spec.unknown:
                    return "nobody knows how soon it would begin"
            elif first > spec.first_token:
                return f"would begin after {first:.2f} s, the ceiling is {spec.first_token:g} s"
        return ""

    def _remaining(self, cascade: CascadeSpec) -> CascadeSpec | None:
        steps = tuple(left for step in cascade.steps if (left := tuple(name for name in step if name in self.left)))
        if len(steps) < 2:
            self.why.append("no cascade: one step is left")
            return None
        self.why.append(f"cascade of {len(steps)} steps")
        return CascadeSpec(steps, cascade.escalation.for_difficulty(self._facts.difficulty), cascade.hold)

    # --- what they do ---

    def _drop(self, beyond: Callable[[str], bool], why: str) -> None:
        for name in [name for name in self.left if beyond(name)]:
            self.left.remove(name)
            self.dropped[name] = why

    def _only(self, names: Sequence[str], why: str) -> None:
        """These, in their own order, as far as they are left."""
        self._drop(lambda name: name not in names, why)
        self.left.sort(key=names.index)

    def _change(self, changes: PlanChanges) -> None:
        """What two rules change, the later one does."""
        if changes is not UNCHANGED:
            said = {name: value for name, value in structs.asdict(changes).items() if value is not None}
            self.changes = structs.replace(self.changes, **said)

    def _nowhere(self) -> Refusal:
        return Refusal(503, "no_route", "No deployment of this model may answer this request.")


def follow(
    routers: Mapping[str, Router],
    model: str,
    ask: Callable[[Router], tuple[View, Facts]],
    rng: Random,
    *,
    inside: bool = False,
    changes: PlanChanges = UNCHANGED,
) -> Decision:
    """The decision where a rule may send a request on to another model: whose, and why, all the way. `ask` gives what
    a router decides from. What had to stay inside stays inside; `inside` and `changes` as for `decide`."""
    why: tuple[str, ...] = ()
    for _ in range(MAX_MODELS):
        router = routers[model]
        view, facts = ask(router)
        decision = router.decide(view, facts, rng, inside=inside, changes=changes)
        why += decision.why
        if decision.model == model:
            return structs.replace(decision, why=why)
        model, inside, changes = decision.model, decision.inside, decision.changes
    refusal = Refusal(503, "no_route", "The rules send this request from model to model.")
    return Decision((), model, refusal=refusal, why=why)
