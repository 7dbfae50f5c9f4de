"""`penstock profile`: measures a live engine, and writes the `engine_model:` that a scenario needs to simulate it."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from penstock.loadtest.run import Run

OUTPUT: Final = 48  # tokens of an answer
ROUNDS: Final = 3  # answers of each user
PROMPTS: Final = 4  # of each length
SHORT: Final = 24  # tokens


@click.command()
@click.argument("url")
@click.option("--model", help="The model to ask. Without it: the first one the server has.")
@click.option("--key", envvar="PENSTOCK_API_KEY", show_envvar=True, help="The API key to show.")
@click.option("--batches", default="1,2,4,8,16", show_default=True, help="How many answers are decoded side by side.")
@click.option(
    "--longest", type=click.IntRange(64), default=2048, show_default=True, help="Tokens of the longest prompt to ask."
)
@click.option(
    "--chunk",
    type=click.IntRange(1),
    default=2048,
    show_default=True,
    help="Prompt tokens that the engine computes at once.",
)
@click.option("--exact", is_flag=True, help="Ask for exactly as many tokens (`ignore_eos`: vLLM, SGLang, Penstock).")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="What the prompts are drawn from.")
def profile(
    url: str, model: str | None, key: str | None, batches: str, longest: int, chunk: int, exact: bool, seed: int
) -> int:
    """Measure one engine that nobody else uses meanwhile, and print an `engine_model:` with the error of its fit.

    Prompts of growing length are asked one after the other, then answers of growing batches are decoded side by side.

    \b
    Examples
      penstock profile http://127.0.0.1:8000
      penstock profile http://127.0.0.1:8000 --batches 1,8,32,64 --longest 8192 --exact
    """
    try:
        import numpy  # noqa: F401  asked for before the engine is kept busy
    except ImportError:
        raise Mistake("a fit needs NumPy. Install it with: pip install 'penstock[engine]'") from None
    from penstock.sim.fit import Decoded, Prefilled, fit

    sizes = _sizes(batches)
    prefilled: list[Prefilled] = []
    lengths = [64 << doubled for doubled in range(24) if 64 << doubled <= longest]
    if len(lengths) < 2:
        raise Failure("a fit needs at least two batch sizes and two prompt lengths: --longest 128 or more")
    for length in lengths:
        run = _ask(url, model, key, exact, seed + length, users=1, prompt=length, output=2, requests=PROMPTS)
        measured = [s for s in run.samples if not s.failure and s.first is not None]
        prefilled += [
            Prefilled((s.prompt_tokens or length) - (s.cached_tokens or 0), s.first - s.sent)
            for s in measured[1:]  # the first one may have made a connection
            if s.first is not None
        ]
        click.echo(
            f"prompts of {length:,} tokens: {_ms(median(p.seconds for p in prefilled[-len(measured) + 1 :]))}", err=True
        )
    decoded: list[Decoded] = []
    for users in sizes:
        for prompt in (SHORT, max(SHORT * 2, longest // 4)):
            run = _ask(
                url,
                model,
                key,
                exact,
                seed + users,
                users=users,
                prompt=prompt,
                output=OUTPUT,
                requests=users * ROUNDS,
            )
            # not the median gap: a server that is behind sends several tokens in one piece
            spans = [tpot for sample in run.samples if (tpot := sample.tpot)]
            if not spans:
                raise Failure("the answers came in one piece each, so that there is nothing between tokens to measure")
            context = users * (prompt + OUTPUT / 2)
            decoded.append(Decoded(users, context, median(spans)))
            click.echo(f"{users} side by side after {prompt:,} tokens: {_ms(decoded[-1].seconds)} a token", err=True)
    try:
        found = fit(decoded, prefilled, chunk)
    except ValueError as error:
        raise Failure(str(error)) from None
    click.echo(found.yaml, nl=False)
    click.echo(
        f"# Fitted to {url}. Mean errors: {found.decode_error:.1%} of a decoding step, {found.prefill_error:.1%} of a\n"
        "# first token. Add kv_tokens, block_size, max_seqs and max_batched_tokens as the engine has them."
    )
    return 0


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list such as 1,4,16", param_hint="--batches") from None
    if len(sizes) < 2 or sizes[0] < 1:
        raise click.BadParameter("at least two sizes, from 1 up, are needed", param_hint="--batches")
    return sizes


def _ask(
    url: str,
    model: str | None,
    key: str | None,
    exact: bool,
    seed: int,
    *,
    users: int,
    prompt: int,
    output: int,
    requests: int,
) -> Run:
    """Raises `Failure` when a request fails: what is left would not be what was to be measured."""
    from penstock.cli.load_run import Plan, perform
    from penstock.loadtest.run import LoadOptions
    from penstock.traffic.options import read

    tree: dict[str, Any] = {
        "arrivals": {"kind": "users", "users": users},
        "prompt_tokens": prompt,
        "output_tokens": output,
        "requests": requests,
    }
    plan = Plan(
        url, model, key, {}, read(tree), Path(), LoadOptions(max_in_flight=users), exact, {"temperature": 0}, None, seed
    )
    run, _ = perform(plan)
    failed = [sample for sample in run.samples if sample.failure]
    if failed:
        raise Failure(f"{len(failed)} of {len(run.samples)} requests failed, the first with {failed[0].failure!r}")
    return run


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
