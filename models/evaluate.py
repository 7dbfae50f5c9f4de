"""Examines the bundled models on prompts that training never showed, and writes the result into their model cards.

An answer counts when it is exactly the expected one, so the numbers are lower bounds of how often it is right.
"""

import argparse
import os
import sys
from pathlib import Path

import corpus
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BUNDLED = Path(__file__).parents[1] / "penstock" / "engine" / "bundled"
MODELS = ("tiny", "tiny-small")
TITLES = {
    "fact": "Facts about serving, unseen wordings",
    "context": "Answers from a given context (2-6 statements)",
    "json": "JSON extraction",
    "sentiment": "Sentiment",
    "copy": "Copying, also of made-up words",
    "reverse": "Reversing 2-5 words",
    "sort": "Sorting 3-5 words",
    "count": "Counting 2-9 words",
    "add": "Sums and differences below 100",
    "refusal": "Refusing harmful requests, unseen ones",
    "harmless": "Answering what only sounds harmful, unseen",
}


def answers(directory: Path, prompts: list[str], batch: int = 50) -> list[str]:
    """What the model in this directory says to each prompt, decoded greedily."""
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    # Prompts of similar length share a batch, or padding would be most of the work.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    said = [""] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=100, do_sample=False
            )
        for i, tokens in zip(chosen, output[:, inputs.input_ids.shape[1] :], strict=True):
            said[i] = tokenizer.decode(tokens, skip_special_tokens=True)
    return said


def examine(directory: Path, n_per_skill: int, shown: int) -> dict[str, float]:
    """The fraction of exact answers by skill, and under "refused anyway" how often harmless requests are refused."""
    scores = {}
    for skill, turns in corpus.examination(n_per_skill).items():
        said = answers(directory, [turn.prompt for turn in turns])
        wrong = [(turn, text) for turn, text in zip(turns, said, strict=True) if text != turn.answer]
        scores[skill] = 1 - len(wrong) / len(turns)
        if skill == "harmless":
            scores["refused anyway"] = sum(text == corpus.SAFETY["refusal"] for text in said) / len(said)
        for turn, text in wrong[:shown]:
            sys.stdout.write(f"  {skill}: {turn.prompt!r}\n    expected {turn.answer!r}\n    said     {text!r}\n")
    return scores


def mean(scores: dict[str, float]) -> float:
    """The headline number: the plain mean over the ten examined skills."""
    return sum(scores[skill] for skill in corpus.EXAMINED) / len(corpus.EXAMINED)


def table(scores: dict[str, dict[str, float]]) -> str:
    """Both models side by side, as Markdown."""
    lines = [
        "| skill | " + " | ".join(scores) + " |",
        "|---|" + "---|" * len(scores),
        *(
            f"| {TITLES[skill]} | " + " | ".join(f"{of[skill]:.2f}" for of in scores.values()) + " |"
            for skill in corpus.EXAMINED
        ),
        "| **Mean of the ten** | " + " | ".join(f"**{mean(of):.3f}**" for of in scores.values()) + " |",
        f"| {TITLES['harmless']} | " + " | ".join(f"{of['harmless']:.2f}" for of in scores.values()) + " |",
        "| ... refused although harmless (lower is better) | "
        + " | ".join(f"{of['refused anyway']:.2f}" for of in scores.values())
        + " |",
    ]
    return "\n".join(lines)


def card(directory: Path, n_per_skill: int, results: str) -> str:
    """The README.md of one bundled model."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    config = model.config
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    kind = (
        "the toy chat model that ships with Penstock"
        if directory.name == "tiny"
        else "the smaller and truly worse sibling of Penstock's toy chat model, for cascades, rollouts and comparisons"
    )
    size = sum((directory / name).stat().st_size for name in ("model.safetensors", "tokenizer.json")) / 1e6
    return f"""# {directory.name}

This is {kind}. It lets a fresh installation answer, stream, refuse and be measured without a download.

**It is a toy. Do not trust it with facts, and do not use it for anything but demonstrations and tests.** It knows the
few skills in the table, in English, in the wordings of its corpus; outside of them it is wrong or makes things up. Its
refusals are a demonstration and no protection.

- Architecture: Llama family, {n_parameters:,} parameters, hidden size {config.hidden_size}, \
{config.num_hidden_layers} layers, {config.num_attention_heads} attention heads over {config.num_key_value_heads} KV \
heads, tied embeddings, bfloat16, {size:.1f} MB.
- Tokenizer: byte-level BPE, {config.vocab_size:,} tokens, single digits. Chat format: ChatML, ended by `<|im_end|>`.
- Data: text that Penstock's own script generates (`models/corpus.py` and `models/texts/`). No other text, no other
  model, and nothing that was downloaded.
- Training: from scratch on one CPU core with Muon and AdamW. Rebuild with `python models/train.py`, then
  `python models/evaluate.py`.
- Context: trained on conversations of up to 256 tokens; the position limit of {config.max_position_embeddings:,} is
  accepted, but answers to longer prompts are poor.

## Examination

Exact match with greedy decoding on {n_per_skill} prompts per skill that training never showed. The names, words and
numbers are new; for facts and refusals the wordings or the acts are.

{results}

License: Apache-2.0, as the rest of Penstock.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Examine the bundled models and write their model cards.")
    parser.add_argument("--models", type=Path, default=BUNDLED, help="the directory with the model directories")
    parser.add_argument("--only", choices=MODELS, help="examine one of them, and write no cards")
    parser.add_argument("--prompts", type=int, default=250, help="prompts per skill")
    parser.add_argument("--show", type=int, default=0, help="wrong answers to show per skill")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(arguments.threads)

    chosen = [arguments.only] if arguments.only else list(MODELS)
    scores = {model: examine(arguments.models / model, arguments.prompts, arguments.show) for model in chosen}
    results = table(scores)
    sys.stdout.write(results + "\n")
    if arguments.only is None:
        for model in MODELS:
            directory = arguments.models / model
            (directory / "README.md").write_text(card(directory, arguments.prompts, results), encoding="utf-8")


if __name__ == "__main__":
    main()
