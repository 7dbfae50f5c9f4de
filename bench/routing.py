"""Does Penstock route better than every router it knows? `python bench/routing.py`, or `make bench-routing`.

In the simulator, against the rules of other routers (`rivals.py`), on a real trace and when something goes wrong; over
HTTP, against the routers themselves; and on the embedded engine. What is simulated comes from seeds and is the same
everywhere; what is measured is not, and says how.

    --only traces,tail,fair,brownout,faults,decisions,simulator,http,followups
    --seeds 5           of what is simulated; figures are means, ± half of what lies between the least and the most
    --quick             one seed, short: to see that it runs
    --interpreted       Penstock as it lies here; without, it is compiled, as it is in a wheel
    --write             put the tables into docs/figures.md, and the plot of the brown-out into docs/

Ends with 1 when a target is missed, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILED = "PENSTOCK_COMPILED"  # set where the path begins with the compiled modules; as for routing_micro.py
PARTS = {
    "traces": ("routing_traces", "measure"),
    "tail": ("routing_trouble", "tail"),
    "fair": ("routing_trouble", "fair"),
    "brownout": ("routing_trouble", "brownout"),
    "faults": ("routing_trouble", "faults"),
    "decisions": ("routing_speed", "decisions"),
    "simulator": ("routing_speed", "simulator"),
    "http": ("routing_http", "measure"),
    "followups": ("routing_followups", "measure"),
}
BEGIN, END = "<!-- routing:begin (written by bench/routing.py --write) -->", "<!-- routing:end -->"
PLOT = "brown-out.svg"


def as_compiled() -> None:
    """Start anew with the compiled modules first on the path, for this process and all that it starts."""
    from stacks import penstock_as_shipped

    path = os.pathsep.join(map(str, (penstock_as_shipped(), HERE)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", COMPILED: "1"}
    os.execve(sys.executable, [sys.executable, __file__, *sys.argv[1:]], environment)


def main() -> int:
    options = _options()
    wanted = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        print(f"There is no {', '.join(sorted(unknown))}. Parts: {', '.join(PARTS)}.")
        return 2
    from machine import Unusable

    if not options.interpreted and COMPILED not in os.environ:
        try:
            as_compiled()
        except Unusable as problem:
            print(f"{problem}\nWith --interpreted it is measured as it lies here.")
            return 2
    from gateway import FIGURES, RESULTS, ROOT, Verdict, verdict_lines, write_figures
    from routing_simulated import Part, Scale

    scale = Scale(seeds=1, requests=400, share=0.05) if options.quick else Scale(seeds=options.seeds)
    parts: list[Part] = []
    record: dict[str, object] = {"seeds": scale.seeds, "interpreted": options.interpreted}
    for name in wanted:
        module, function = PARTS[name]
        begun = time.monotonic()
        try:
            part: Part = getattr(importlib.import_module(module), function)(scale)
        except Unusable as problem:
            part = Part(name, [f"Not measured: {problem}"], [Verdict(f"{name}: all of it", "-", None)])
        parts.append(part)
        record[name] = {"record": part.record, "verdicts": [vars(verdict) for verdict in part.verdicts]}
        print(f"## {part.title} ({name}, {time.monotonic() - begun:.0f} s)\n")
        print("\n".join([*part.said, "", *verdict_lines(part.verdicts), ""]), flush=True)
    verdicts = [verdict for part in parts for verdict in part.verdicts]
    print(verdict_lines(verdicts)[-1])
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("routing-%Y%m%d-%H%M%S.json", time.gmtime())
    path.write_text(json.dumps(record, indent=1))
    print(f"written: {path.relative_to(ROOT)}")
    if options.write:
        write_figures(FIGURES, text_of(parts, scale.seeds, wanted), BEGIN, END)
        print(f"written: {FIGURES.relative_to(ROOT)}")
        if "brownout" in wanted:
            from routing_plots import brown_out

            brown_out(parts[wanted.index("brownout")].record, ROOT / "docs" / PLOT)
            print(f"written: docs/{PLOT}")
    if all(verdict.met is None for verdict in verdicts):
        return 2
    return 1 if any(verdict.met is False for verdict in verdicts) else 0


def text_of(parts: Sequence[object], seeds: int, wanted: Sequence[str]) -> str:
    from routing_simulated import Part

    words = {True: "met", False: "**missed**", None: "not measured"}
    left_out = [name for name in PARTS if name not in wanted]
    lines = [
        "## Routing",
        "",
        f"`make bench-routing`, {seeds} seeds (mean, ± half of what lies between the least and the most). Rivals are "
        "their rules, written anew (bench/rivals.py), and flattered: they see our prefix index and the engines' queues "
        "without delay. Workers compute by cost model A: 8,000 prompt tokens/s, 6 ms and 0.35 ms per sequence a step, "
        "2,048 tokens a step, 524,288 tokens of KV cache. Good: first token within 2 s, 50 ms between tokens.",
    ]
    if left_out:
        lines += ["", f"Not in this run: {', '.join(left_out)}."]
    for part in parts:
        assert isinstance(part, Part)
        lines += ["", f"### {part.title}", "", *part.said, ""]
        if part.title == "A brown-out":
            lines += [f"![Goodput and attempts per request over time, with ours and with naive retries]({PLOT})", ""]
        lines += ["| target | measured | |", "|---|---|---|"]
        lines += [f"| {verdict.target} | {verdict.figure} | {words[verdict.met]} |" for verdict in part.verdicts]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=",".join(PARTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed, short")
    parser.add_argument("--interpreted", action="store_true", help="not compiled")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/figures.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
