"""Trains the bundled tokenizer and both bundled models from scratch, on the CPU, and writes their directories.

The length of a run is a number of steps, never a time, so the same command gives the same files on the same machine.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

BUNDLED = Path(__file__).parents[1] / "penstock" / "engine" / "bundled"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
END_OF_TEXT, END_OF_TURN, PAD = 0, 2, 3
VOCABULARY = 2048
# The split of Qwen2: every engine knows it, and single digits make arithmetic learnable.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Recipe(NamedTuple):
    """How one model is made. `rows` x `length` tokens per step; the learning rates are for AdamW and Muon."""

    shape: dict[str, int]
    steps: int
    seed: int
    rows: int = 24
    length: int = 256
    adam_rate: float = 3e-3
    muon_rate: float = 0.02


RECIPES = {
    "tiny": Recipe(
        {
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "intermediate_size": 512,
        },
        steps=1900,
        seed=1,
    ),
    "tiny-small": Recipe(
        {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "intermediate_size": 256,
        },
        steps=700,
        seed=2,
    ),
}


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE of 2,048 tokens: the four special ones, 256 bytes, and merges learnt from the corpus."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    conversations = corpus.conversations(seed=7)
    tokenizer.train_from_iterator(
        ("\n".join(message.content for message in next(conversations)) for _ in range(20_000)),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return tokenizer


class Rows(NamedTuple):
    """Packed conversations, each (rows, length): token numbers, positions and conversation numbers, target weights."""

    tokens: torch.Tensor
    positions: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor


def encode(tokenizer: Tokenizer, messages: list[corpus.Message]) -> tuple[list[int], list[float]]:
    """Token numbers of a conversation, and how much the loss of each counts.

    Answers count, a long one less per token, or stories would drown the one-digit answers. Of a prompt, only tokens
    that stood in the conversation before count a little: they teach to look things up, which most skills build on.
    """
    tokens: list[int] = []
    weights: list[float] = []
    newline = tokenizer.encode("\n").ids
    for message in messages:
        head = tokenizer.encode(f"<|im_start|>{message.role}\n").ids
        body = [*tokenizer.encode(message.content).ids, END_OF_TURN]
        if message.role == "assistant":
            counts = [(8 / (8 + len(body))) ** 0.5] * len(body)
        else:
            counts = [0.15 if token in tokens or token in body[:i] else 0.0 for i, token in enumerate(body)]
        tokens += head + body + newline
        weights += [0.0] * len(head) + counts + [0.0] * len(newline)
    return tokens, weights


def batches(tokenizer: Tokenizer, rows: int, length: int) -> Iterator[Rows]:
    """Endless batches. Conversations are packed whole into rows and must not see their neighbours."""
    conversations = corpus.conversations()
    waiting: list[tuple[list[int], list[float]]] = []  # to choose from, so that rows end up nearly full
    while True:
        tokens = torch.full((rows, length), PAD)
        positions, owner, weights = torch.zeros_like(tokens), torch.zeros_like(tokens), torch.zeros(rows, length)
        for row in range(rows):
            used = number = 0
            while True:
                while len(waiting) < 64:
                    encoded = encode(tokenizer, next(conversations))
                    if len(encoded[0]) <= length:  # a conversation longer than a row is dropped
                        waiting.append(encoded)
                # The oldest begins a row; then the longest that fits.
                fitting = [i for i in range(len(waiting)) if used + len(waiting[i][0]) <= length]
                if not fitting:
                    break
                chosen = 0 if used == 0 else max(fitting, key=lambda i: len(waiting[i][0]))
                ids, counts = waiting.pop(chosen)
                n = len(ids)
                number += 1
                tokens[row, used : used + n] = torch.tensor(ids)
                positions[row, used : used + n] = torch.arange(n)
                owner[row, used : used + n] = number
                weights[row, used : used + n] = torch.tensor(counts)
                used += n
        yield Rows(tokens, positions, owner, weights)


def short_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Plain attention with all scores in memory: for rows of 256 a third faster per step than torch's CPU kernel.

    Query is (rows, heads, length, head size), key and value have fewer heads, the mask is added to the scores.
    Gives (rows, length, heads, head size).
    """
    rows, heads, length, size = query.shape
    repeats = heads // key.shape[1]
    key = key.repeat_interleave(repeats, 1).reshape(rows * heads, length, size)
    value = value.repeat_interleave(repeats, 1).reshape(rows * heads, length, size)
    mask = attention_mask.expand(rows, heads, length, length).reshape(rows * heads, length, length)
    scores = torch.baddbmm(mask, query.reshape(rows * heads, length, size) * scaling, key.transpose(1, 2))
    mixed = torch.bmm(torch.softmax(scores, -1), value)
    return mixed.view(rows, heads, length, size).transpose(1, 2), None


def orthogonalized(gradient: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with all singular values near one, by five Newton-Schulz steps (Muon, Jordan et al. 2024)."""
    x = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return (x.T if tall else x).float()


class Muon:
    """Momentum with orthogonalized updates for the matrices inside the layers."""

    def __init__(self, matrices: list[torch.nn.Parameter]) -> None:
        self.matrices = matrices
        self.momenta = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the matrices by their gradients, and forget the gradients."""
        for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
            assert matrix.grad is not None
            momentum.mul_(0.95).add_(matrix.grad)
            update = orthogonalized(matrix.grad + 0.95 * momentum)
            scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            matrix.mul_(1 - 0.1 * rate).add_(update, alpha=-rate * scale)
            matrix.grad = None


def rate_at(progress: float, step: int) -> float:
    """The share of the full learning rate: a short warm-up, flat for 40 %, then a straight line to nearly zero."""
    return min(1.0, (step + 1) / 50) * min(1.0, max(0.01, (1 - progress) / 0.6))


def model_config(shape: dict[str, int]) -> dict[str, Any]:
    """The content of config.json, in the form that engines read today."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TURN,
        "pad_token_id": PAD,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def train(recipe: Recipe, tokenizer: Tokenizer, checkpoint: Path | None) -> LlamaForCausalLM:
    """One model, trained from nothing.

    With a checkpoint path the whole state is kept there every 100 steps, and a run that finds one goes on from it, to
    the same result. While the rate is still flat, even the number of steps may change on the way.
    """
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(LlamaConfig(**model_config(recipe.shape), attn_implementation="short")).float()
    inner = {k: p for k, p in model.named_parameters() if p.ndim == 2 and "embed" not in k}
    muon = Muon(list(inner.values()))
    adam = torch.optim.AdamW(
        [p for k, p in model.named_parameters() if k not in inner],
        lr=0.0,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=True,
    )
    stream = batches(tokenizer, recipe.rows, recipe.length)
    causal = torch.ones(recipe.length, recipe.length, dtype=torch.bool).tril()
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        muon.momenta = state["momenta"]
        first = state["steps"]
        for _ in range(first):
            next(stream)
    started, smooth = time.process_time(), 0.0
    for step in range(first, recipe.steps):
        rate = rate_at(step / recipe.steps, step)
        rows = next(stream)
        # (rows, 1, length, length): a token sees what came before it in its own conversation.
        visible = (causal & (rows.owner[:, :, None] == rows.owner[:, None, :]))[:, None]
        mask = torch.zeros(visible.shape, dtype=torch.bfloat16).masked_fill_(~visible, -1e9)
        counted = rows.weights[:, 1:] > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(
                input_ids=rows.tokens, attention_mask=mask, position_ids=rows.positions, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(hidden[:, :-1][counted])
        losses = F.cross_entropy(logits.float(), rows.tokens[:, 1:][counted], reduction="none")
        weights = rows.weights[:, 1:][counted]
        loss = (losses * weights).sum() / weights.sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = recipe.adam_rate * rate
        adam.step()
        muon.step(recipe.muon_rate * rate)

        smooth = loss.item() if step == first else 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % 50 == 0:
            spent = time.process_time() - started
            tokens_per_second = (step + 1 - first) * recipe.rows * recipe.length / spent
            sys.stderr.write(f"step {step + 1} loss {smooth:.4f} cpu {spent:.0f} s {tokens_per_second:.0f} tokens/s\n")
        if checkpoint is not None and (step + 1) % 100 == 0:
            state = {"model": model.state_dict(), "adam": adam.state_dict(), "momenta": muon.momenta, "steps": step + 1}
            torch.save(state, checkpoint)
    return model.eval()


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write(directory: Path, recipe: Recipe, tokenizer: Tokenizer, model: LlamaForCausalLM) -> None:
    """The files that engines load; the model card is written by `evaluate.py`."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.to(torch.bfloat16).contiguous()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # it is package data; the library makes it private
    write_json(directory / "config.json", model_config(recipe.shape))
    special = {"bos_token_id": END_OF_TEXT, "eos_token_id": END_OF_TURN, "pad_token_id": PAD}
    write_json(directory / "generation_config.json", {"do_sample": False, **special})
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[END_OF_TEXT],
            "eos_token": SPECIAL[END_OF_TURN],
            "pad_token": SPECIAL[PAD],
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled models from scratch.")
    parser.add_argument("--only", choices=sorted(RECIPES), help="train one of the two")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="where the model directories go")
    parser.add_argument("--steps", type=int, help="fewer or more steps than the recipe says; gives another model")
    parser.add_argument("--threads", type=int, default=1, help="the files are reproducible for one number of threads")
    parser.add_argument("--checkpoints", type=Path, help="a directory to keep the state in, to go on from")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(arguments.threads)
    AttentionInterface.register("short", short_attention)

    tokenizer = train_tokenizer()
    for name, recipe in RECIPES.items():
        if arguments.only not in (None, name):
            continue
        if arguments.steps:
            recipe = recipe._replace(steps=arguments.steps)
        checkpoint = arguments.checkpoints / f"{name}.pt" if arguments.checkpoints else None
        model = train(recipe, tokenizer, checkpoint)
        write(arguments.out / name, recipe, tokenizer, model)


if __name__ == "__main__":
    main()
