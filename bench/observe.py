"""What does seeing everything cost? `python bench/observe.py`: CPU per request, per chunk and per scrape.

Receipts of a mixed load go through everything that watches (metrics, the log, the tail sampler, spans, OTLP, gzip, and
what a gateway does for a trace's context) and, turn by turn, through nothing, in the same loop. What is sent goes to a
place that takes everything at once. Process CPU, best of the rounds with the median in brackets: other programs on this
machine make a round longer, never shorter.

    --rounds N          rounds of each (default 15)
    --python FOLDER     Penstock as it is imported from there; without, it is compiled, as it is in a wheel
    --sources           Penstock as it is in this checkout, not compiled
    --write             put the table into docs/figures.md

Ends with 1 when a target is missed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- observe:begin (written by bench/observe.py --write) -->", "<!-- observe:end -->"

PER_REQUEST, PER_CHUNK, SCRAPE = 8.0, 0.3, 5_000.0  # us
RATIO = 0.01
SERIES = 500


def main() -> int:
    options = _options()
    from gateway import FIGURES, RESULTS, Verdict, verdict_lines, write_figures
    from machine import Unusable
    from stacks import ROOT, penstock_as_shipped

    try:
        python = ROOT if options.sources else options.python or penstock_as_shipped()
    except Unusable as error:
        print(f"This cannot be measured here: {error}")
        return 2
    command = [sys.executable, str(HERE / "observe_parts.py"), str(options.rounds)]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(python)}, capture_output=True, text=True, check=False, cwd="/"
    )
    if ran.returncode:
        print(f"This cannot be measured here: {ran.stderr.strip().splitlines()[-1:]}")
        return 2
    found: dict[str, list[float]] = json.loads(ran.stdout)
    rows = {name: (min(each), median(each)) for name, each in found.items()}
    request = rows["all of it, per request"][0] - rows["the same loop without, per request"][0]
    chunk = rows["an open trace, per chunk"][0] - rows["none, per chunk"][0]
    scrape = rows[f"scrape of {SERIES} histogram series"][0]
    verdicts = [
        Verdict(f"at most {PER_REQUEST:g} us of CPU per request", f"{request:.2f} us", request <= PER_REQUEST),
        Verdict(f"at most {PER_CHUNK:g} us of CPU per chunk", f"{chunk:.3f} us", chunk <= PER_CHUNK),
        Verdict(
            f"at most {SCRAPE / 1e3:g} ms for a scrape of {SERIES} histogram series",
            f"{scrape / 1e3:.2f} ms",
            scrape <= SCRAPE,
        ),
    ]
    table = ["| | us of CPU |", "|---|---|"]
    table += [f"| {name} | {best:.2f} ({middle:.2f}) |" for name, (best, middle) in rows.items()]
    print("\n".join(table) + "\n")
    print("\n".join(verdict_lines(verdicts)))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("observe-%Y%m%d-%H%M%S.json", time.gmtime())
    path.write_text(json.dumps({"rows": found, "verdicts": [vars(one) for one in verdicts]}, indent=1))
    print(f"written: {path.relative_to(ROOT)}")
    if options.write:
        write_figures(FIGURES, text_of(table, verdicts), BEGIN, END)
        print(f"written: {FIGURES.relative_to(ROOT)}")
    return 1 if any(one.met is False for one in verdicts) else 0


def text_of(table: list[str], verdicts: list) -> str:  # type: ignore[type-arg]  # of gateway.Verdict, imported late
    words = {True: "met", False: "**missed**", None: "-"}
    return "\n".join(
        [
            "## Seeing everything",
            "",
            f"`make bench-observe`: receipts of a mixed load through metrics, log, tail sampling at {RATIO:.0%}, "
            "spans, OTLP and gzip, beside the same loop without them. Best of the rounds, median in brackets.",
            "",
            *table,
            "",
            "| target | measured | |",
            "|---|---|---|",
            *[f"| {one.target} | {one.figure} | {words[one.met]} |" for one in verdicts],
        ]
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--python", type=Path, help="import Penstock from this folder")
    parser.add_argument("--sources", action="store_true", help="this checkout, not compiled")
    parser.add_argument("--write", action="store_true", help="put the table into docs/figures.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
