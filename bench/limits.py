"""Do limits and budgets hold, how much of them can be used, and what does it cost? `python bench/limits.py`.

500 callers stream answers of very different lengths against one hard token limit, and then against one hard budget,
through one gateway worker, four, and two gateways of two workers over a Redis. Whoever is refused comes again, until
nothing more fits. What was served beyond the allowance is counted by the provider that served it: its tokens, and its
price in nano-dollars. LiteLLM, where it is installed (`make bench-peers`), has the same task. Then CPU per request with
keys, limits and budget and without, and the cost of 100,000 keys.

    --only streams,litellm,cpu,keys
    --python FOLDER     Penstock as it is imported from there; without, it is compiled, as it is in a wheel
    --write             put the table into docs/figures.md

Ends with 1 when a target is missed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import limits_cost as cost
import peers
import uvloop
from gateway import FIGURES, RESULTS, Verdict, World, verdict_lines, write_figures
from limits_callers import AT_ONCE, CAPS, Callers, Tally
from limits_gateways import (
    ARRANGEMENTS,
    BUDGET,
    KEY,
    LIMIT,
    LITELLM_PART,
    MONEY,
    TOKENS,
    WINDOW,
    Arrangement,
    books_of,
    litellm,
    litellm_key,
    penstock,
    provider,
)
from machine import Unusable
from stacks import ROOT, penstock_as_shipped

from penstock.core.money import show
from penstock.limits.blocks import overshoot

PARTS = ("streams", "litellm", "cpu", "keys")
WITHIN = 60.0  # seconds for one of the two tasks; LiteLLM's have less
LITELLM_WITHIN = 45.0
USE = 0.97
BEGIN, END = "<!-- limits:begin (written by bench/limits.py --write) -->", "<!-- limits:end -->"


@dataclass
class Outcome:
    """One task: tokens, or nano-dollars."""

    allowed: int
    served: int  # says the provider
    requests: int
    tally: Tally

    @property
    def beyond(self) -> int:
        return max(0, self.served - self.allowed)

    @property
    def use(self) -> float:
        return min(self.served, self.allowed) / self.allowed


@dataclass
class Row:
    name: str
    tokens: Outcome
    money: Outcome
    arrangement: Arrangement | None = None  # None: not ours


def measure(name: str, arrangement: Arrangement | None, python: Path) -> Row:
    part = 1 if arrangement is not None else LITELLM_PART
    outcomes = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
        folder = Path(place)
        with provider(folder) as paid:
            gateways: AbstractContextManager[list[int]] = (
                litellm(folder, paid) if arrangement is None else penstock(arrangement, folder, paid, python)
            )
            with gateways as ports:
                for model in (TOKENS, MONEY):
                    cost.note(f"{name}: {model}")
                    key = litellm_key(model) if arrangement is None else KEY
                    with_caps = arrangement is None or arrangement.with_caps
                    leased = arrangement is not None and arrangement.counters == "leased"
                    within = WITHIN if arrangement is not None else LITELLM_WITHIN
                    tally = uvloop.run(_ask(ports, model, key, with_caps, 3.0 if leased else 0.3, within))
                    books = books_of(paid, model)
                    if model == TOKENS:
                        drained = int(tally.seconds * LIMIT / WINDOW) if arrangement is not None else 0
                        outcome = Outcome(LIMIT // part + drained, books["tokens"], books["requests"], tally)
                    else:
                        outcome = Outcome(BUDGET // part, books["nanos"], books["requests"], tally)
                    outcomes[model] = outcome
    return Row(name, outcomes[TOKENS], outcomes[MONEY], arrangement)


async def _ask(ports: list[int], model: str, key: str, with_caps: bool, quiet: float, within: float) -> Tally:
    callers = Callers(ports, model=model, key=key, seed=1, with_caps=with_caps, quiet=quiet)
    return await callers.until_nothing_fits(within)


def judge_row(row: Row) -> Iterable[Verdict]:
    arrangement = row.arrangement
    if arrangement is None or not arrangement.with_caps:
        return
    bound = overshoot(LIMIT) if arrangement.counters == "leased" else 0
    for what, outcome, beyond, most in (
        ("tokens", row.tokens, f"{row.tokens.beyond:,} tokens", bound),
        ("budget", row.money, show(row.money.beyond), 0),
    ):
        target = f"at most the stated {most:,} tokens" if most else "nothing"
        yield Verdict(f"{row.name}, {what}: {target} beyond what is allowed", beyond, outcome.beyond <= most)
        yield Verdict(f"{row.name}, {what}: at least 97 % of it used", f"{outcome.use:.2%}", outcome.use >= USE)
        if outcome.tally.broken:
            n = outcome.tally.broken
            yield Verdict(f"{row.name}, {what}: no answer broke", f"{n}: {outcome.tally.last_words[:200]}", False)


def streams_table(rows: list[Row]) -> list[str]:
    lines = [
        "| | token limit used | beyond it | budget used | beyond it | answers | refusals | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tokens, money = row.tokens, row.money
        both = (tokens, money)
        lines.append(
            f"| {row.name} | {tokens.use:.2%} | {_beyond(tokens, f'{tokens.beyond:,} tokens')} | {money.use:.2%} | "
            f"{_beyond(money, show(money.beyond))} | {sum(one.requests for one in both):,} | "
            f"{sum(one.tally.refused for one in both):,} | {sum(one.tally.seconds for one in both):.0f} |"
        )
    return lines


def _beyond(outcome: Outcome, said: str) -> str:
    return f"{said} ({outcome.beyond / outcome.allowed:.1%})" if outcome.beyond else "0"


def judge_cpu(found: cost.Figures) -> Iterable[Verdict]:
    bare = min(found[cost.BARE])
    for name, most in ((cost.LOCAL, 12), (cost.REDIS, 25)):
        each = found[name]
        figure = f"{min(each) - bare:.1f} us" if each else "not measured: no redis-server"
        verdict = min(each) - bare <= most if each else None
        yield Verdict(f"{name}: at most {most} us of CPU per request more than with {cost.BARE}", figure, verdict)


def cpu_table(found: cost.Figures) -> list[str]:
    cells = [f"{min(each):.1f} ({cost.middle(each):.1f})" if each else "-" for each in found.values()]
    return [
        f"| | {' | '.join(found)} |",
        "|---|" + "---|" * len(found),
        f"| us of CPU per request | {' | '.join(cells)} |",
    ]


def judge_keys(started: dict[str, dict[int, tuple[float, float]]], looked_up: dict[int, float]) -> Iterable[Verdict]:
    few, many = cost.FEW, cost.MANY
    for place, found in started.items():
        seconds, megabytes = (many_keys - few_keys for many_keys, few_keys in zip(found[many], found[few], strict=True))
        what = f"{many:,} keys {place}"
        yield Verdict(f"{what}: start less than 2 s of CPU more than {few}", f"{seconds:.2f} s", seconds < 2)
        yield Verdict(f"{what}: less than 120 MB more", f"{megabytes:.0f} MB", megabytes < 120)
    ratio = looked_up[many] / looked_up[few]
    yield Verdict(
        f"{many:,} keys: a look-up costs at most 3 times that of {few} (a dictionary, and what is not in a cache)",
        f"{looked_up[many]:.2f} us, {looked_up[few]:.2f} us",
        ratio <= 3,
    )


def text_of(sections: list[list[str]], verdicts: list[Verdict]) -> str:
    words = {True: "met", False: "**missed**", None: "-"}
    lines = [
        "## Limits and budgets",
        "",
        f"`make bench-limits`: {AT_ONCE} callers at once; answers of a log-normal length, {CAPS[0]} to {CAPS[-1]:,} as "
        f"`max_tokens`; {LIMIT:,} tokens in 30 days, and then {show(BUDGET)}. Refused callers come again within a "
        "second, until nothing more fits. What was served is counted by the mock provider; what ran dry of the limit "
        "meanwhile is allowed. Without `max_tokens` what is reserved is an estimate, and has no target. LiteLLM has a "
        "fifth of both: a key's `tpm_limit` with a window of an hour, a deployment's `max_budget`, no database, "
        f"{LITELLM_WITHIN:.0f} s. CPU of the process: best of the rounds, median in brackets.",
    ]
    for section in sections:
        lines += ["", *section]
    lines += ["", "| target | measured | |", "|---|---|---|"]
    lines += [f"| {verdict.target} | {verdict.figure} | {words[verdict.met]} |" for verdict in verdicts]
    return "\n".join(lines)


def main() -> int:
    options = _options()
    wanted = options.only.split(",") if options.only else PARTS
    if unknown := set(wanted) - set(PARTS):
        print(f"There is no {', '.join(sorted(unknown))}. Parts: {', '.join(PARTS)}.")
        return 2
    sections: list[list[str]] = []
    verdicts: list[Verdict] = []
    rows: list[Row] = []
    missing: list[str] = []
    record: dict[str, object] = {}
    try:
        python = options.python or penstock_as_shipped()
        if "streams" in wanted:
            for arrangement in ARRANGEMENTS:
                rows.append(measure(arrangement.name, arrangement, python))
                verdicts += judge_row(rows[-1])
        if "litellm" in wanted:
            try:
                rows.append(measure(f"LiteLLM {peers.version('litellm')}", None, python))
            except Unusable as error:
                missing.append(f"LiteLLM: {str(error).splitlines()[0]}")
        if rows:
            sections.append(streams_table(rows))
        if {"cpu", "keys"} & set(wanted):
            world = World(0)
            try:
                with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
                    if "cpu" in wanted:
                        found = record["cpu"] = cost.cpu_per_request(world, Path(place), python, cost.note)
                        sections.append(cpu_table(found))
                        verdicts += judge_cpu(found)
                    if "keys" in wanted:
                        started = record["keys"] = cost.keys_cost(world, Path(place), python, cost.note)
                        looked_up = {n: cost.look_up(python, n) for n in (cost.FEW, cost.MANY)}
                        verdicts += judge_keys(started, looked_up)
            finally:
                world.close()
    except Unusable as error:
        print(f"This cannot be measured here: {error}")
        return 2
    print("\n\n".join("\n".join(section) for section in sections) + "\n")
    for line in missing:
        print(f"not measured: {line}")
    print("\n".join(verdict_lines(verdicts)))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("limits-%Y%m%d-%H%M%S.json", time.gmtime())
    record["rows"] = [{"name": row.name, "tokens": _plain(row.tokens), "money": _plain(row.money)} for row in rows]
    record["verdicts"] = [vars(verdict) for verdict in verdicts]
    path.write_text(json.dumps(record, indent=1))
    print(f"written: {path.relative_to(ROOT)}")
    if options.write:
        write_figures(
            FIGURES, text_of([*sections, *[[f"Not measured: {line}."] for line in missing]], verdicts), BEGIN, END
        )
        print(f"written: {FIGURES.relative_to(ROOT)}")
    return 1 if any(verdict.met is False for verdict in verdicts) else 0


def _plain(outcome: Outcome) -> dict[str, object]:
    return {**vars(outcome), "tally": vars(outcome.tally)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=",".join(PARTS))
    parser.add_argument("--python", type=Path, help="import Penstock from this folder")
    parser.add_argument("--write", action="store_true", help="put the table into docs/figures.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
