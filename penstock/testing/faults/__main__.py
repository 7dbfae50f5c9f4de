"""`python -m penstock.testing.faults`: scores any gateway against the wall, or, when none is named, Penstock itself.

docs/faults.md says how to set another one up.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import penstock
from penstock.core.clock import SystemClock
from penstock.testing.faults import card as cards
from penstock.testing.faults import configs
from penstock.testing.faults.caller import Gateway
from penstock.testing.faults.card import Card
from penstock.testing.faults.run import Mark, run, scripts_of
from penstock.testing.faults.scenarios import DIALECTS, Cell, Wall, build, cells
from penstock.testing.faults.serving import DidNotStart, penstock_serving
from penstock.testing.faults.upstream import FaultServer, Ports
from penstock.testing.faults.verdicts import Limits

FIRST_PORT = 9410
OURS = "Penstock"
_PLACE_OF_THE_CARD = re.compile(r"(?s)(<!-- the card begins -->\n).*(<!-- the card ends -->\n)")


def main() -> int:
    parser = options()
    given = parser.parse_args()
    ports = Ports.after(given.first_port) if given.base_url or given.print_config else Ports()
    try:
        wall, card = asyncio.run(play(given, ports)) if not given.print_config else (None, None)
    except DidNotStart as problem:
        parser.exit(2, f"{problem}\n")
    if card is None or wall is None:
        sys.stdout.write(configuration(given, ports))
        return 0
    sys.stdout.write(cards.text(card, wall))
    if given.json is not None:
        given.json.write_text(cards.as_json(card), encoding="utf-8")
    if given.write is not None:
        others = [msgspec.json.decode(path.read_bytes(), type=Card) for path in given.beside]
        write(given.write, [card, *others], wall)
    return 0 if card.n_right == len(card.marks) else 1


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.testing.faults",
        description="Play every fault we know to a gateway, and score what its callers are told.",
    )
    parser.add_argument("--base-url", help="of the gateway, such as http://127.0.0.1:4000; without it, Penstock itself")
    parser.add_argument("--key", default=configs.KEY, help="that callers send (default: the one in the configurations)")
    parser.add_argument("--name", default=f"{OURS} {penstock.__version__}", help="of the gateway, for the card")
    parser.add_argument(
        "--deadline-header", default="x-request-timeout", help="its headers for a deadline in seconds, with commas"
    )
    parser.add_argument("--via", default=",".join(DIALECTS), help="dialects of the upstream (default: both)")
    parser.add_argument("--callers", default=",".join(DIALECTS), help="dialects of the callers (default: both)")
    parser.add_argument("--rows", help="only these rows, by name, with commas")
    parser.add_argument("--first-port", type=int, default=FIRST_PORT, help="of four that the upstream takes")
    parser.add_argument("--at-once", type=int, default=16, help="cells under way at a time (default: 16)")
    parser.add_argument("--json", type=Path, help="write the card to this file too")
    parser.add_argument("--write", type=Path, help="put the card into this page, between its markers")
    parser.add_argument("--beside", type=Path, action="append", default=[], help="there, another gateway's card (JSON)")
    parser.add_argument(
        "--print-config", choices=("penstock", "litellm", "list"), help="print a configuration, and do nothing else"
    )
    return parser


def chosen(given: argparse.Namespace, wall: Wall) -> list[Cell]:
    rows = None if given.rows is None else given.rows.split(",")
    every = cells(wall, given.via.split(","), given.callers.split(","), given.name.partition(" ")[0])
    return [cell for cell in every if rows is None or cell.scenario.name in rows]


def configuration(given: argparse.Namespace, ports: Ports) -> str:
    wall = build(SystemClock(), lambda: ports.thief)
    entries = configs.entries(chosen(given, wall), ports)
    match given.print_config:
        case "penstock":
            return configs.penstock(entries, Limits(), port=8080)
        case "litellm":
            return configs.litellm(entries, Limits())
        case _:
            return configs.anything(entries)


async def play(given: argparse.Namespace, ports: Ports) -> tuple[Wall, Card]:
    clock = SystemClock()
    wall = build(clock, lambda: upstream.ports.thief)
    picked = chosen(given, wall)
    async with FaultServer(scripts_of(picked), clock, ports) as upstream:
        if given.base_url is None:
            with penstock_serving(picked, upstream.ports) as url:
                marks = await ask_all(Gateway(url, configs.KEY), upstream, picked, given.at_once)
        else:
            url = given.base_url.rstrip("/").removesuffix("/v1")
            gateway = Gateway(url, given.key, tuple(given.deadline_header.split(",")))
            marks = await ask_all(gateway, upstream, picked, given.at_once)
    return wall, Card(given.name, marks)


async def ask_all(gateway: Gateway, upstream: FaultServer, picked: Sequence[Cell], at_once: int) -> list[Mark]:
    n_done = 0

    def on_mark(mark: Mark) -> None:
        nonlocal n_done
        n_done += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{n_done} of {len(picked)} cells" + ("\n" if n_done == len(picked) else ""))

    return await run(gateway, upstream, picked, SystemClock(), limits=Limits(), at_once=at_once, on_mark=on_mark)


def write(page: Path, given: Sequence[Card], wall: Wall) -> None:
    text = page.read_text(encoding="utf-8")
    if _PLACE_OF_THE_CARD.search(text) is None:
        raise SystemExit(f"{page} has no place for the card: it is marked by two comments")
    table = cards.markdown(given, wall)
    page.write_text(_PLACE_OF_THE_CARD.sub(lambda found: f"{found[1]}{table}{found[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
