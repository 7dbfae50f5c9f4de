"""The plot of the brown-out, as SVG for docs/. matplotlib is a dependency of benches and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from routing_trouble import BROWN_OUT, NAIVE, OURS, STEP

COLOURS = {OURS: "#0b6e99", NAIVE: "#c0392b"}
NAMES = {OURS: "Penstock", NAIVE: "naive retries"}


def brown_out(record: Mapping[str, Any], file: Path) -> None:
    """Goodput and attempts over time; `record` is that of the part. The same record gives the same file."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "penstock", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, (goodput, attempts) = plt.subplots(2, 1, sharex=True, figsize=(7.2, 4.2), layout="constrained")
    for policy in (NAIVE, OURS):
        for place, one in enumerate(record[policy]):
            times = [(at + 0.5) * STEP for at in range(len(one["good"]))]
            style = {"color": COLOURS[policy], "linewidth": 1.2, "alpha": 1.0 if place == 0 else 0.35}
            goodput.plot(times, one["good"], label=NAMES[policy] if place == 0 else None, **style)
            attempts.plot(times, one["attempts"], **style)
    for axes in (goodput, attempts):
        axes.axvspan(*BROWN_OUT, color="#999999", alpha=0.25, linewidth=0)
        axes.grid(alpha=0.3)
    goodput.set(ylabel="share that meets the SLO", ylim=(0, 1.05))
    goodput.legend(loc="center right")
    attempts.set(ylabel="attempts per request", xlabel="time of arrival, s; grey: every replica is six times slower")
    attempts.set_ylim(bottom=0)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
