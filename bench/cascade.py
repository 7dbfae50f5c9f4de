"""What routing by difficulty and cascades save, and what that costs in quality: `make bench-cascade`.

Everything is real but the prices: both bundled models answered every prompt, and an answer is right when it is exactly
the expected one. `tiny-small` stands for a cheap model and is priced as gpt-5-nano, `tiny` for a strong one and is
priced as gpt-5, both from the price table. Classifier, threshold and confidence are fitted on the training examination
alone; every figure is from the two others, whose labels nothing has seen. The mixes and `FITTED_LOSS` were chosen while
looking at the held-out one; the fresh one was asked once, when all of this was fixed, and is the one to believe.

How much can be saved is decided by the mix: where half of the requests need the strong model, half of them must be
paid. So the bound of an oracle that knows the labels is printed beside; and for comparison, without a target, the ten
skills in equal parts, most of which the small model does not have.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import compress, product
from math import fsum
from random import Random
from typing import NamedTuple

from cascade_answers import CHEAP, STRONG, Case, Said, answers

from penstock.config.prices import bundled
from penstock.core.request import Usage
from penstock.pricing.cost import cost_of
from penstock.routing.cascade import Answered, Ask, Cascade, Token
from penstock.routing.difficulty import Classifier, heuristic
from penstock.routing.facts import Reading
from penstock.routing.spec import CascadeSpec, Escalation
from penstock.routing.training import Example, held_out, train

PRICED_AS = {CHEAP: ("openai", "gpt-5-nano"), STRONG: ("openai", "gpt-5")}
PRICED_AT = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
# An assistant's day, as far as these models can play it: mostly questions, moods and small chores. An eighth is
# answered rightly by the strong model alone, in `HARDER` a fifth; sums are what neither can do.
MIXED = {
    "fact": 0.42, "sentiment": 0.22, "count": 0.12, "refusal": 0.07, "harmless": 0.03, "add": 0.02,
    "context": 0.03, "json": 0.03, "reverse": 0.02, "sort": 0.02, "copy": 0.02,
}  # fmt: skip
HARDER = {
    "fact": 0.36, "sentiment": 0.20, "count": 0.12, "refusal": 0.07, "harmless": 0.03, "add": 0.02,
    "context": 0.05, "json": 0.05, "reverse": 0.03, "sort": 0.03, "copy": 0.04,
}  # fmt: skip
EQUAL = {skill: 0.1 for skill in MIXED if skill != "harmless"}
LEAST_CUT, MOST_LOSS = 0.70, 0.02
FITTED_LOSS = 0.012  # on the training examination: less than may be lost, because the held-out one is another draw
FOLDS = 5
RESAMPLES = 1_000
ANSWER = 256  # `max_tokens` of all requests, which so says nothing about them


class Routed(NamedTuple):
    """One request. `strong`: the strong model was paid for it."""

    right: bool
    nanos: int
    strong: bool


class Total(NamedTuple):
    """Of a workload: the share of right answers, the mean cost, and the share of requests that the strong model got."""

    quality: float
    nanos: float
    strong: float

    def loss(self, always: Total) -> float:
        return 1 - self.quality / always.quality

    def cut(self, always: Total) -> float:
        return 1 - self.nanos / always.nanos


Policy = Callable[[Case], Routed]


PRICES = {model: bundled().find(*name) for model, name in PRICED_AS.items()}


def nanos(model: str, said: Said) -> int:
    usage = Usage(prompt_tokens=said.prompt_tokens, completion_tokens=len(said.steps))
    cost = cost_of(usage, PRICES[model], PRICED_AT).nanos
    assert cost is not None, f"the table has no price for {PRICED_AS[model]}"
    return cost


# --- who answers ---


def always_cheap(case: Case) -> Routed:
    return Routed(case.cheap.right, nanos(CHEAP, case.cheap), False)


def always_strong(case: Case) -> Routed:
    return Routed(case.strong.right, nanos(STRONG, case.strong), True)


def is_hard(case: Case) -> bool:
    """Only the strong model answers it rightly: the label."""
    return case.strong.right and not case.cheap.right


def oracle(case: Case) -> Routed:
    return always_strong(case) if is_hard(case) else always_cheap(case)


def reading_of(case: Case) -> Reading:
    return Reading(words=case.prompt, last=case.prompt, turns=1)


def by_score(scores: dict[str, float], threshold: float, otherwise: Policy = always_cheap) -> Policy:
    return lambda case: always_strong(case) if scores[case.prompt] > threshold else otherwise(case)


def by_cascade(least: float, difficulty: dict[str, float] | None = None, strictness: float = 0.0) -> Policy:
    """The machine itself, fed with the tokens and probabilities that the cheap model really gave."""
    escalation = Escalation(min_probability=least, strictness=strictness)

    def policy(case: Case) -> Routed:
        asked = escalation if difficulty is None else escalation.for_difficulty(difficulty[case.prompt])
        cascade = Cascade(CascadeSpec(((CHEAP,), (STRONG,)), asked))
        cascade.start()
        events = [*(Token(logprob, other) for logprob, other in case.cheap.steps), Answered(case.cheap.text)]
        spent = nanos(CHEAP, case.cheap)
        if any(isinstance(action, Ask) for event in events for action in cascade.on(event)):
            return Routed(case.strong.right, spent + nanos(STRONG, case.strong), True)
        return Routed(case.cheap.right, spent, False)

    return policy


# --- adding up ---


def weights_of(cases: Sequence[Case], mix: dict[str, float]) -> list[float]:
    n = Counter(case.skill for case in cases)
    return [mix.get(case.skill, 0.0) / n[case.skill] for case in cases]


def total(routed: Sequence[Routed], weights: Sequence[float]) -> Total:
    whole = fsum(weights)
    return Total(*(fsum(map(lambda one, w: one * w, column, weights)) / whole for column in zip(*routed, strict=True)))


def interval(
    routed: Sequence[Routed], strong: Sequence[Routed], weights: Sequence[float], of: Callable[[Total, Total], float]
) -> tuple[float, float]:
    """95 %, by the bootstrap over requests, the same for both policies."""
    rng, n, found = Random(5), len(routed), []
    for _ in range(RESAMPLES):
        drawn = rng.choices(range(n), k=n)
        picked = [weights[i] for i in drawn]
        found.append(of(total([routed[i] for i in drawn], picked), total([strong[i] for i in drawn], picked)))
    found.sort()
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]


# --- fitting, on the training examination alone ---


def fit(cases: Sequence[Case]) -> Classifier:
    return train([Example(reading_of(case), is_hard(case), ANSWER) for case in cases], Random(2))


def scores(classifier: Classifier, cases: Iterable[Case]) -> dict[str, float]:
    return {case.prompt: classifier.score(reading_of(case), ANSWER) for case in cases}


def crossed(cases: Sequence[Case]) -> dict[str, float]:
    """The score of each by a classifier that was not trained on it: what a threshold may be fitted to."""
    order = list(range(len(cases)))
    Random(3).shuffle(order)
    found: dict[str, float] = {}
    for fold in range(FOLDS):
        out = [i % FOLDS == fold for i in order]
        rest = [not inside for inside in out]
        found |= scores(fit(list(compress(cases, rest))), compress(cases, out))
    return found


Setting = tuple[float, ...]


def cheapest(
    settings: Iterable[Setting], make: Callable[..., Policy], cases: Sequence[Case], mix: dict[str, float]
) -> Setting:
    """The setting that saves most of those that lose at most `FITTED_LOSS`."""
    weights = weights_of(cases, mix)
    strong = total([always_strong(case) for case in cases], weights)
    fitting = []
    for setting in settings:
        policy = make(*setting)
        found = total([policy(case) for case in cases], weights)
        if found.loss(strong) <= FITTED_LOSS:
            fitting.append((found.nanos, setting))
    return min(fitting)[1]


def policies(training: Sequence[Case], test: Sequence[Case], mix: dict[str, float]) -> dict[str, Policy]:
    seen, unseen = crossed(training), scores(fit(training), test)
    by_hand = {case.prompt: heuristic(reading_of(case), ANSWER) for case in (*training, *test)}
    steps = [i / 50 for i in range(51)]
    threshold = cheapest([(at,) for at in steps], lambda at: by_score(seen, at), training, mix)
    guessed = cheapest([(at,) for at in steps], lambda at: by_score(by_hand, at), training, mix)
    least = cheapest([(at,) for at in steps[20:41]], by_cascade, training, mix)
    both = cheapest(
        list(product(steps[20:36:2], (0.2, 0.3, 0.4, 0.5), (0.7, 1.0))),
        lambda least, strictness, hard: by_score(seen, hard, by_cascade(least, seen, strictness)),
        training,
        mix,
    )
    print(f"  fitted: hard above {threshold[0]:g}; least probability {least[0]:g}; together {both}")
    return {
        f"always {CHEAP}": always_cheap,
        "heuristics": by_score(by_hand, *guessed),
        "difficulty": by_score(unseen, *threshold),
        "cascade": by_cascade(*least),
        "difficulty and cascade": by_score(unseen, both[2], by_cascade(both[0], unseen, both[1])),
        "oracle": oracle,
    }


def main() -> int:
    made = answers()
    training, exams = made.training, {"held out": made.held_out, "fresh": made.fresh}
    test = made.fresh
    print(f"{len(training):,} requests to fit with, {len(made.held_out):,} held out, {len(test):,} fresh")
    print(f"{CHEAP} priced as {PRICED_AS[CHEAP][1]}, {STRONG} as {PRICED_AS[STRONG][1]}")
    found = held_out(
        [(score, is_hard(case)) for case, score in zip(test, scores(fit(training), test).values(), strict=True)]
    )
    print(f"classifier, fresh: accuracy {found.accuracy:.3f}, by the share {found.always:.3f}; AUC {found.auc:.3f}")
    met = missed = 0
    for name, mix, targets in (
        ("mixed workload", MIXED, ("cascade", "difficulty and cascade")),
        ("harder workload", HARDER, ("difficulty and cascade",)),
        ("all skills alike (no target)", EQUAL, ()),
    ):
        print(f"\n{name}")
        chosen = policies(training, [*made.held_out, *made.fresh], mix)
        for exam, cases in exams.items():
            weights = weights_of(cases, mix)
            strong = [always_strong(case) for case in cases]
            base = total(strong, weights)
            print(f"  {exam}: always {STRONG} is right in {base.quality:.1%}, ${base.nanos / 1e3:.2f} for a million")
            for policy_name, policy in chosen.items():
                routed = [policy(case) for case in cases]
                this = total(routed, weights)
                cut, loss = this.cut(base), this.loss(base)
                line = f"    {policy_name:24} cut {cut:6.1%}  loss {loss:6.2%}  strong {this.strong:5.1%}"
                if policy_name in targets:
                    low, high = interval(routed, strong, weights, Total.loss)
                    good = cut >= LEAST_CUT and loss <= MOST_LOSS
                    met, missed = met + good, missed + (not good)
                    line += f"  (95% {low:.2%} to {high:.2%})  {'met' if good else 'MISSED'}"
                print(line)
    print(f"\ntarget: cut >= {LEAST_CUT:.0%} at a loss <= {MOST_LOSS:.0%}\n{met} met, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
