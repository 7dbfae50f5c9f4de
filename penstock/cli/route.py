"""`penstock route`: a classifier that tells hard requests from easy ones, made from your own labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.mistake import Mistake

if TYPE_CHECKING:
    from penstock.routing.training import Example

FEWEST: Final = 50  # labelled requests; fewer teach nothing that could be measured


@click.group()
def route() -> None:
    """What helps to decide which model answers a request."""


@route.command("train")
@click.argument("labels", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write: `classifier:`."
)
@click.option(
    "--held-out", type=click.FloatRange(0.05, 0.5), default=0.2, show_default=True, help="Share kept for measuring."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the division, and of the training.")
def train_(labels: Path, out: Path, held_out: float, seed: int) -> None:
    """Learn from LABELS which requests are hard, and say how well on requests that were kept aside.

    LABELS has one JSON object on each line: `hard`, true where only your strong model answers well, and the request:
    its `messages`, or just its `prompt`. The file that is written is some kilobytes of weights, and no text of yours.

    \b
    Examples
      penstock route train labels.jsonl --out difficulty.json
      {"prompt": "What is a KV cache?", "hard": false}
      {"messages": [{"role": "user", "content": "Prove that..."}], "max_tokens": 2000, "hard": true}
    """
    from random import Random

    from penstock.routing.training import held_out as measured
    from penstock.routing.training import threshold_at, train

    examples = _examples(labels)
    rng = Random(seed)
    rng.shuffle(examples)
    n_aside = max(1, int(len(examples) * held_out))
    aside, rest = examples[:n_aside], examples[n_aside:]
    for part, name in ((aside, "kept aside"), (rest, "to learn from")):
        if len({example.hard for example in part}) < 2:
            raise Mistake(f"{labels}: the {len(part)} requests {name} are all alike; label more of both kinds")
    classifier = train(rest, rng)
    scored = [(classifier.score(one.reading, one.max_tokens), one.hard) for one in aside]
    found = measured(scored)
    out.write_text(
        classifier.write({"examples": len(rest), "accuracy": round(found.accuracy, 4), "auc": round(found.auc, 4)}),
        encoding="utf-8",
    )
    click.echo(f"Learned from {len(rest):,} requests; measured on {found.n:,} that were kept aside:")
    click.echo(f"  accuracy  {found.accuracy:.3f}   (always saying what is commoner: {found.always:.3f})")
    click.echo(f"  AUC       {found.auc:.3f}   (0.5: it knows nothing; 1: it is never wrong)")
    click.echo("  threshold   goes to hard   hard ones missed, of all requests")
    for missed in (0.005, 0.01, 0.02, 0.05):
        at = threshold_at(scored, missed)
        above = sum(score > at for score, _ in scored) / len(scored)
        lost = sum(hard and score <= at for score, hard in scored) / len(scored)
        click.echo(f"  {at:9.3f}   {above:12.1%}   {lost:.1%}")
    click.echo(f"Wrote {out}. Name it in `routing.difficulty.classifier`.")


def _examples(labels: Path) -> list[Example]:
    """Raises `Mistake` with the number of the line."""
    import msgspec

    from penstock.routing.facts import reading_of
    from penstock.routing.training import Example

    examples: list[Example] = []
    try:
        lines = labels.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{labels}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line.encode(), type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise Mistake(f"{labels}:{number}: is not a JSON object: {error}") from None
        hard, most = fields.pop("hard", None), fields.pop("max_tokens", 256)
        if not isinstance(hard, bool):
            raise Mistake(f"{labels}:{number}: `hard` must be true or false")
        if type(most) is not int or most < 0:
            raise Mistake(f"{labels}:{number}: `max_tokens` must be a whole number")
        reading = reading_of({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()})
        if not reading.words:
            raise Mistake(f"{labels}:{number}: needs `messages` or a `prompt` with text in it")
        examples.append(Example(reading, hard, most))
    if len(examples) < FEWEST:
        raise Mistake(f"{labels}: has {len(examples)} labelled requests; at least {FEWEST} are needed")
    return examples
