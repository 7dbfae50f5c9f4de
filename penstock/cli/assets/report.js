"use strict";
// Draws every chart of the page from the JSON beside it. Colours come from the style sheet, so that they follow the theme.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => {
  if (value === null || value === undefined) return "\u2013";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
};

function draw(place) {
  const spec = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  const tables = spec.series.map((series) => [series.x, series.y]);
  const stroke = () => colour("--faint");
  const axis = (label) => ({
    label, stroke, labelSize: 20, size: label === spec.y_label ? 64 : 34, font: "11px system-ui, sans-serif",
    labelFont: "11px system-ui, sans-serif", grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false }, values: (_, splits) => splits.map((value) => (value === null ? "" : short(value))),
  });
  const options = {
    width: place.clientWidth,
    height: 280,
    scales: {
      x: { time: false, distr: spec.log_x ? 3 : 1 },
      y: { range: spec.kind === "cdf" ? [0, 100] : (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] },
    },
    axes: [axis(spec.x_label), axis(spec.y_label)],
    cursor: { y: false },
    series: [{ label: spec.x_label, value: (_, value) => short(value) }].concat(
      spec.series.map((series, i) => ({
        label: series.name, stroke: () => colour("--c" + (i % 8)), width: 1.75, spanGaps: true,
        points: { show: series.x.length < 2 },
        dash: i >= 8 ? [6, 4] : undefined, value: (_, value) => short(value),
        paths: spec.kind === "steps" ? uPlot.paths.stepped({ align: 1 }) : undefined,
      })),
    ),
  };
  const plot = new uPlot(options, uPlot.join(tables), place);
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 280 })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw(false));
}

document.querySelectorAll("[data-chart]").forEach(draw);
