"""One HTML file that says how a run went: facts, tables, bars and charts. It asks nothing of any network, follows the
reader's light or dark theme, and no text that was put into it can become markup or code.

Everything is escaped by the template engine; beyond that, the page's own policy runs no script but the one it carries.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Sequence
from importlib.resources import files
from math import isfinite
from typing import Any, ClassVar, Final, Literal, TypeAlias

import msgspec

from penstock import __version__
from penstock.cli.mistake import Mistake

MOST_POINTS: Final = 1_000  # of one series; more cannot be seen


class Fact(msgspec.Struct, frozen=True):
    """A number that a reader wants first."""

    label: str
    value: str
    note: str = ""


class Table(msgspec.Struct, frozen=True):
    """`text`: its cells are sentences, not numbers."""

    kind: ClassVar[str] = "table"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    text: bool = False


class Bar(msgspec.Struct, frozen=True):
    label: str
    value: float
    shown: str


class Bars(msgspec.Struct, frozen=True):
    """Lengths from zero to the largest value."""

    kind: ClassVar[str] = "bars"
    title: str
    values: Sequence[Bar]
    note: str = ""

    @property
    def bars(self) -> list[dict[str, str]]:
        longest = max((bar.value for bar in self.values if isfinite(bar.value)), default=0.0) or 1.0
        return [
            {"label": bar.label, "shown": bar.shown, "percent": f"{_share(bar.value, longest):.2f}"}
            for bar in self.values
        ]


def _share(value: float, longest: float) -> float:
    return max(0.0, min(100.0, 100 * value / longest)) if isfinite(value) else 0.0


class Series(msgspec.Struct, frozen=True):
    """`x` rises; a `y` of None is a gap that is drawn through."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


class Chart(msgspec.Struct, frozen=True):
    """Lines in one picture. `cdf`: y is percent, from 0 to 100. `steps`: a value holds until the next."""

    kind: ClassVar[str] = "chart"
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    drawn: Literal["line", "steps", "cdf"] = "line"
    log_x: bool = False
    note: str = ""

    @property
    def data(self) -> dict[str, Any]:
        return {
            "x_label": self.x_label,
            "y_label": self.y_label,
            "kind": self.drawn,
            "log_x": self.log_x,
            "series": [_thinned(series, positive=self.log_x) for series in self.series],
        }


Block: TypeAlias = Table | Bars | Chart


def cdf(name: str, values: Sequence[float]) -> Series:
    """How much of `values` is at most x, in percent."""
    rising = sorted(values)
    n = len(rising)
    step = max(1, n // 250)
    taken = sorted({*range(0, n, step), *range(max(0, n - 20), n)})  # the tail is what a CDF is looked at for
    return Series(name, [rising[i] for i in taken], [100 * (i + 1) / n for i in taken])


def page(title: str, told: Sequence[str], facts: Sequence[Fact], blocks: Sequence[Block]) -> str:
    """`told` are the lines under the title. Raises `Mistake` where Jinja is not installed."""
    need_template_engine()
    import jinja2
    from markupsafe import Markup

    css = _vendored("uplot.min.css") + _asset("report.css")
    script = _vendored("uplot.min.js") + _asset("report.js")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source(script)}",
            f"style-src {_source(css)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_asset("report.html.j2")).render(
        title=title,
        told=told,
        facts=facts,
        blocks=blocks,
        policy=policy,
        css=Markup(css),  # our own files
        script=Markup(script),
        foot=f"Penstock {__version__}. Charts by uPlot (MIT). Drag to look closer, double-click to look back.",
    )


def need_template_engine() -> None:
    """Raises `Mistake` where there is none; to be asked before a long run, not after it."""
    if importlib.util.find_spec("jinja2") is None:
        raise Mistake("a report page needs Jinja. Install it with: pip install 'penstock[report]'")


def _asset(name: str) -> str:
    return files("penstock.cli").joinpath("assets", name).read_text(encoding="utf-8")


def _vendored(name: str) -> str:
    """Of the console, which has the same."""
    return files("penstock.console").joinpath("static", "vendor", name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """What lets a content security policy run exactly this text (W3C CSP 3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _thinned(series: Series, *, positive: bool) -> dict[str, Any]:
    """Without what a chart cannot show: infinities, values from 0 down on a logarithmic axis, too many points."""
    points = [
        (x, y if y is not None and isfinite(y) else None)
        for x, y in zip(series.x, series.y, strict=True)
        if isfinite(x) and (x > 0 or not positive)
    ]
    step = -(-len(points) // MOST_POINTS) or 1
    kept = points[::step]
    if points and kept[-1] is not points[-1]:
        kept.append(points[-1])
    return {"name": series.name, "x": [_short(x) for x, _ in kept], "y": [_short(y) for _, y in kept]}


def _short(value: float | None) -> float | None:
    """Six digits are more than a pixel."""
    return None if value is None else float(f"{value:.6g}")
