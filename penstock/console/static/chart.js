// Lines and bars over time, drawn by uPlot. Their cursors move together, and the legend tells the values under it.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { count, dayOf, mark, moment } from "./format.js";

/** What a token such as `--c1` is now: a canvas cannot read CSS, and `light-dark()` is resolved only in a property. */
export function colour(token, alpha = 1) {
  const probe = document.createElement("i");
  probe.style.color = `var(${token})`;
  document.body.append(probe);
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}

/** Changes when the theme does, so that what is drawn is drawn anew. */
export function useTheme() {
  const [n, set] = useState(0);
  useEffect(() => {
    const changed = () => set((before) => before + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", changed);
    addEventListener("penstock-theme", changed);
    return () => {
      system.removeEventListener("change", changed);
      removeEventListener("penstock-theme", changed);
    };
  }, []);
  return n;
}

/** `series`: `{name, values, token, bars?, fill?}`; `stacked` draws each on top of those before it. `show` formats a
 *  value, `days`: moments are days of UTC. `pick(since, until)` is told of a range that was drawn with the mouse. */
export function Chart({ label, at, series, show = count, stacked = false, days = false, pick }) {
  const place = useRef();
  const theme = useTheme();
  const [under, hover] = useState(null);
  const data = useMemo(() => [at, ...(stacked ? piled(series) : series.map((one) => one.values))], [at, series, stacked]);
  const names = series.map((one) => `${one.name} ${one.token} ${one.bars}`).join();
  const plot = useRef(null);
  const picked = useRef(pick);
  picked.current = pick;

  useEffect(() => {
    const drawn = new uPlot(options(place.current, series, { show, stacked, days, hover, picked }), data, place.current);
    plot.current = drawn;
    const fit = () => drawn.setSize({ width: place.current.clientWidth, height: place.current.clientHeight });
    const watch = new ResizeObserver(fit);
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      drawn.destroy();
      plot.current = null;
    };
  }, [names, theme, stacked, days]);
  useEffect(() => plot.current?.setData(data), [data]);

  const n = under ?? at.length - 1;
  return html`<figure class="chart" role="group" aria-label=${label}>
    <ul class="legend">
      ${series.map((one) => html`<li><span class="swatch" style=${{ "--colour": `var(${one.token})` }} />${one.name} <b>${show(one.values[n])}</b></li>`)}
      <li>${at.length ? (days ? dayOf : moment)(at[n]) : ""}</li>
    </ul>
    <div class="plot" ref=${place} />
  </figure>`;
}

function piled(series) {
  const below = new Array(series[0]?.values.length ?? 0).fill(0);
  return series.map((one) => one.values.map((value, n) => (below[n] += value ?? 0))).reverse();
}

function options(place, series, { show, stacked, days, hover, picked }) {
  const ink = colour("--muted");
  const grid = { stroke: colour("--line", 0.6), width: 1 };
  const drawn = stacked ? [...series].reverse() : series; // the tallest pile is drawn first, the others over it
  return {
    width: place.clientWidth || 300,
    height: place.clientHeight || 168,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: "penstock" },
      drag: { x: Boolean(picked.current), y: false, setScale: false },
      points: { size: 7, width: 2, fill: (u, n) => colour(drawn[n - 1].token) },
      y: false,
    },
    hooks: {
      setCursor: [(u) => hover(u.cursor.idx ?? null)],
      setSelect: [(u) => {
        const { left, width } = u.select;
        if (width > 4) picked.current?.(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      }],
    },
    tzDate: days ? (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC") : (at) => new Date(at * 1000),
    scales: {
      x: { range: (u, low, high) => around(u.data[0], low, high, drawn[0]?.bars) },
      y: { range: (u, low, high) => [0, high * 1.08 || 1] },
    },
    axes: [
      { stroke: ink, grid: { show: false }, ticks: { show: false }, font: font(), size: 26, space: 64, values: (u, marks, axis, space, apart) => marks.map((at) => (days ? dayOf(at) : mark(at, apart))) },
      { stroke: ink, grid, ticks: { show: false }, font: font(), size: 58, values: (u, marks) => marks.map((mark) => show(mark)), space: 36 },
    ],
    series: [{}, ...drawn.map((one) => ({
      label: one.name,
      stroke: colour(one.token),
      width: one.bars ? 0 : 1.6,
      fill: one.bars ? colour(one.token) : one.fill ? colour(one.token, 0.14) : undefined,
      paths: one.bars ? uPlot.paths.bars({ size: [0.78, 40], radius: 0.12 }) : uPlot.paths.spline?.(),
      points: { show: !one.bars, size: 4, width: 0, fill: colour(one.token), filter: alone },
    }))],
  };
}

/** A line breaks where nothing is known; what has nothing on either side of it is drawn as a point. */
function alone(u, n) {
  const values = u.data[n];
  return values.flatMap((value, at) => (value != null && values[at - 1] == null && values[at + 1] == null ? [at] : []));
}

/** Bars stand around their moment: half a step more on both sides. */
function around(at, low, high, bars) {
  const half = bars && at.length > 1 ? (at[1] - at[0]) / 2 : 0;
  return [low - half, high + half];
}

const font = () => `11.5px ${getComputedStyle(document.documentElement).fontFamily}`;
