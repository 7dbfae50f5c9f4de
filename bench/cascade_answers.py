"""Real answers of the two bundled models to three examinations, with the probabilities of their tokens; kept in
bench/.build until the models or the prompts change. The examinations are drawn by `models/corpus.py` and ask for
different things. `training` is what routing is fitted to; `held_out`, the one that the models never saw, was looked at
while the bench was written; `fresh` was drawn when nothing was changed any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import sys
from itertools import islice
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

import corpus  # noqa: E402

from penstock.core.clock import SystemClock  # noqa: E402
from penstock.engine.core import EngineCore, Generation  # noqa: E402
from penstock.engine.load import load_model, model_directory  # noqa: E402
from penstock.engine.options import EngineOptions  # noqa: E402
from penstock.engine.sampling import SamplingParams  # noqa: E402

CHEAP, STRONG = "tiny-small", "tiny"
N_PER_SKILL = 250
TRAINING_SEED = corpus.EXAM_SEED + 1
FRESH_SEED = corpus.EXAM_SEED + 2
MAX_TOKENS = 100


class Said(msgspec.Struct, frozen=True):
    """One model's answer. `steps`: of each token its log probability, and that of the best other one."""

    text: str
    right: bool  # exactly the expected answer
    prompt_tokens: int
    steps: list[tuple[float, float]]


class Case(msgspec.Struct, frozen=True):
    skill: str
    prompt: str
    cheap: Said
    strong: Said


class Answers(msgspec.Struct, frozen=True):
    training: list[Case]
    held_out: list[Case]
    fresh: list[Case]


def answers() -> Answers:
    """From the cache, or asked now: a few minutes of one core."""
    held_out = corpus.examination(N_PER_SKILL)
    training = _without(corpus.examination(2 * N_PER_SKILL, TRAINING_SEED), held_out)
    fresh = _without(corpus.examination(2 * N_PER_SKILL, FRESH_SEED), held_out, training)
    exams = (training, held_out, fresh)
    print_of = hashlib.sha256(msgspec.json.encode(exams))
    for model in (CHEAP, STRONG):
        print_of.update((model_directory(model) / "model.safetensors").read_bytes())
    path = ROOT / "bench" / ".build" / f"cascade-{print_of.hexdigest()[:12]}.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Answers)
    print("asking the two bundled models; their answers are kept for the next time")
    turns = [(skill, turn) for exam in exams for skill, of in exam.items() for turn in of]
    said = {model: asyncio.run(_ask(model, [turn for _, turn in turns])) for model in (CHEAP, STRONG)}
    cases = [
        Case(skill, turn.prompt, cheap, strong)
        for (skill, turn), cheap, strong in zip(turns, said[CHEAP], said[STRONG], strict=True)
    ]
    rest = iter(cases)
    made = Answers(*(list(islice(rest, sum(map(len, exam.values())))) for exam in exams))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(made))
    return made


Exam = dict[str, list[corpus.Turn]]


def _without(exam: Exam, *others: Exam) -> Exam:
    """What asks for nothing that the others ask for, in whatever words."""
    turns = [turn for other in others for of in other.values() for turn in of]
    keys, prompts = {turn.key for turn in turns}, {turn.prompt for turn in turns}
    return {
        skill: [turn for turn in of if turn.key not in keys and turn.prompt not in prompts]
        for skill, of in exam.items()
    }


async def _ask(model: str, turns: list[corpus.Turn]) -> list[Said]:
    loaded = load_model(EngineOptions(model=model, max_seqs=32, threads=1), str)
    core = EngineCore(
        loaded.forward, loaded.tokenizer, loaded.batching, eos_token_ids=loaded.config.eos_token_ids,
        clock=SystemClock(), on_crash=print,
    )  # fmt: skip
    core.start()
    params = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, logprobs=2)
    free = asyncio.Semaphore(32)

    async def one(number: int, turn: corpus.Turn) -> Said:
        prompt = loaded.tokenizer.encode_chat([{"role": "user", "content": turn.prompt}])
        async with free:
            return await _read(core.submit(str(number), prompt, params, streams=False), turn.answer)

    try:
        return await asyncio.gather(*(one(number, turn) for number, turn in enumerate(turns)))
    finally:
        core.stop()


async def _read(generation: Generation, expected: str) -> Said:
    text, steps = "", []
    while (piece := await generation.read()) is not None:
        text += piece.text
        for part in piece.tokens:
            assert part.logprobs is not None, "they were asked for"
            chosen = part.logprobs.chosen
            other = next((value for token, value in part.logprobs.top if token != part.token), -math.inf)
            steps.append((round(chosen, 6), max(round(other, 6), -99.0)))
    return Said(text, text == expected, generation.prompt_tokens, steps)


if __name__ == "__main__":
    made = answers()
    for name, cases in (("training", made.training), ("held out", made.held_out), ("fresh", made.fresh)):
        print(f"{name}: {len(cases)} prompts")
        for skill in dict.fromkeys(case.skill for case in cases):
            of = [case for case in cases if case.skill == skill]
            cheap, strong = (sum(getattr(case, m).right for case in of) / len(of) for m in ("cheap", "strong"))
            print(f"  {skill:10} {len(of):5}  {CHEAP} {cheap:.2f}  {STRONG} {strong:.2f}")
