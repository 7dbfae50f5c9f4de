"""`penstock explain`: where a request would go, and why all else lost. Asks a running gateway; nothing is sent on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.mistake import Failure, Mistake

if TYPE_CHECKING:
    from penstock.routing.decision import Explained


@click.command()
@click.argument("words", nargs=-1)
@click.option(
    "--url",
    envvar="PENSTOCK_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where the gateway is.",
)
@click.option(
    "--key",
    envvar="PENSTOCK_API_KEY",
    show_envvar=True,
    help="The API key to show: the decision is for whoever has it.",
)
@click.option("--model", help="The model to ask for. Without it: the first one the gateway has.")
@click.option(
    "--file",
    "request",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    help="The body of a chat request, instead of WORDS; - is the standard input.",
)
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header of the request; as many as.")
@click.option("--max-tokens", type=click.IntRange(1), help="How long the answer may be.")
@click.option("--json", "as_json", is_flag=True, help="As the gateway says it.")
def explain(
    words: tuple[str, ...],
    url: str,
    key: str | None,
    model: str | None,
    request: Path | None,
    headers: tuple[str, ...],
    max_tokens: int | None,
    as_json: bool,
) -> int:
    """Say where a running gateway would send a request, and why not elsewhere. Nothing is sent there.

    Exit code 0: it would be answered. 1: it would be refused.

    \b
    Examples
      penstock explain --model chat Why is the sky blue?
      penstock explain --file request.json --header "x-tier: gold"
      penstock explain --model chat --max-tokens 8000 --json Write a book.
    """
    import msgspec

    from penstock.cli.conversation import Caller, CallFailed
    from penstock.core.clock import SystemClock
    from penstock.routing.decision import Explained

    body = _body(words, request)
    try:
        caller = Caller(url, key, SystemClock())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    try:
        if model is not None:
            body["model"] = model
        elif "model" not in body:
            names = caller.models()
            if not names:
                raise Failure(f"{caller.address} has no model that this key may use")
            body["model"] = names[0]
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        answer = caller.post("/v1/route/explain", msgspec.json.encode(body), _headers(headers))
    except CallFailed as error:
        raise Failure(str(error)) from None
    try:
        explanation = msgspec.json.decode(answer, type=Explained)
    except msgspec.MsgspecError:
        raise Failure(f"{caller.address} does not explain its routes: is it an older Penstock?") from None
    if as_json:
        click.echo(answer.decode())
    else:
        for line in table(explanation):
            click.echo(line)
    return 0 if explanation.decision.refusal is None else 1


def table(explanation: Explained) -> list[str]:
    """For people: the decision in a sentence, how it came about, and one line for each that won or lost."""
    from penstock.cli.chat import printable

    decision = explanation.decision
    if decision.refusal is not None:
        lines = [f"Refused with {decision.refusal.status} {decision.refusal.code}: {decision.refusal.message}"]
    elif explanation.say is not None:
        lines = [f"Answered with this text: {explanation.say}"]
    else:
        lines = [f"{decision.model}: {', then '.join(decision.deployments)}"]
    if decision.cascade is not None:
        lines.append(f"  cascade: {' -> '.join(' or '.join(step) for step in decision.cascade.steps)}")
    lines += [f"  {why}" for why in decision.why]
    if explanation.degraded:
        lines.append(f"  given up: {', '.join(explanation.degraded)}")
    lines += [
        "",
        *_aligned(
            ("", "deployment", "cost", "first token", "window", "where", ""),
            *(
                (
                    "-" if one.rank is None else str(one.rank),
                    one.deployment,
                    "?" if one.cost is None else f"${one.cost / 1e9:.6f}",
                    "?" if one.first_token is None else f"{one.first_token * 1e3:.0f} ms",
                    "?" if one.window is None else f"{one.window:,}",
                    " ".join(filter(None, (one.location, "inside" if one.self_hosted else ""))) or "?",
                    one.why or ("" if one.ready else "not ready"),
                )
                for one in explanation.candidates
            ),
        ),
    ]
    if explanation.replicas:
        lines += [
            "",
            *_aligned(
                ("", "replica", "cost", "wait", "uncached", ""),
                *(
                    (
                        ">" if one.chosen else "-",
                        one.replica,
                        "?" if one.cost is None else f"{one.cost * 1e3:.1f} ms",
                        "?" if one.wait is None else f"{one.wait * 1e3:.1f} ms",
                        "?" if one.uncached is None else f"{one.uncached:,}",
                        one.why,
                    )
                    for one in explanation.replicas
                ),
            ),
        ]
    waiting = [one for one in explanation.queue if one.waiting]
    if waiting:
        rows = [(str(one.priority), f"{one.waiting:,} waiting", f"sent in {one.drain:.1f} s") for one in waiting]
        lines += ["", *_aligned(*rows)]
    if explanation.rules:
        held = {True: "holds", False: "does not", None: "not asked"}
        lines += ["", *_aligned(*((held[rule.held], rule.rule, rule.when) for rule in explanation.rules))]
    return [printable(line) for line in lines]


def _aligned(*rows: tuple[str, ...]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _body(words: tuple[str, ...], request: Path | None) -> dict[str, Any]:
    import msgspec

    if (request is None) == (not words):
        raise Mistake("say what would be asked: some words, or --file with the body of a request")
    if request is None:
        return {"messages": [{"role": "user", "content": " ".join(words)}]}
    try:
        text = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
        return msgspec.json.decode(text, type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise Mistake(f"{request}: is not the body of a request: {error}") from None


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for one in given:
        name, colon, value = one.partition(":")
        if not colon or not name.strip():
            raise Mistake(f'--header is a name, a colon and a value, such as "x-tier: gold", not {one!r}')
        headers[name.strip().lower()] = value.strip()
    return headers
