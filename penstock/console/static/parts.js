// What views are made of.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";
import { ago, count, moment, NONE, share, utc } from "./format.js";

const ICONS = {
  overview: "M3 13h4l3-8 4 14 3-8h4",
  live: "M5 12a7 7 0 0 1 14 0M8.5 12a3.5 3.5 0 0 1 7 0M12 12v7",
  requests: "M4 6h16M4 12h10M4 18h13",
  models: "M4 5h16v5H4zM4 14h16v5H4zM7.5 7.5h.01M7.5 16.5h.01",
  explain: "M6 5v5c0 5 12 3 12 9M6 10v9M15 16l3 3 3-3M3 16l3 3 3-3",
  rollouts: "M4 19V9M10 19V5M16 19v-7M20 19H3",
  evals: "M4 12l5 5L20 6",
  guards: "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z",
  caches: "M4 7c0-4 16-4 16 0s-16 4-16 0v10c0 4 16 4 16 0V7M4 12c0 4 16 4 16 0",
  cost: "M12 4v16M16.5 8c0-4-9-4-9 0s9 4 9 8-9 4-9 0",
  limits: "M4 18a9 9 0 1 1 16 0M12 15l4-6",
  keys: "M14 10a4 4 0 1 0-3.5 4L12 15.500h2V18h2.500v2.500H20V17l-6-6z",
  audit: "M7 4h10v16H7zM10 9h4M10 13h4",
  playground: "M5 5h14v10H10l-4 4v-4H5z",
  config: "M8 5l-5 7 5 7M16 5l5 7-5 7",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  stop: "M6 6h12v12H6z",
  help: "M9 9a3 3 0 1 1 3 3.500V14M12 18h.01",
  leave: "M10 5H5v14h5M14 8l4 4-4 4M18 12H9",
};

export function Icon({ name, size = 16 }) {
  return html`<svg width=${size} height=${size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

let arrived = false; // the first view after loading leaves the focus where the browser has it, before the skip link

export function Head({ title, note, children }) {
  const at = useRef();
  useEffect(() => {
    document.title = `${title} · Penstock`;
    if (arrived) at.current.focus({ preventScroll: true });
    arrived = true;
  }, [title]);
  return html`<header class="head"><h1 ref=${at} tabindex="-1">${title}</h1>${children}${note && html`<p>${note}</p>`}</header>`;
}

export function Panel({ title, note, tools, flush, class: extra = "", children }) {
  return html`<section class="panel ${extra}">
    <header><h2>${title}</h2>${note && html`<span class="small">${note}</span>`}${tools}</header>
    <div class=${flush ? "flush" : "in"}>${children}</div>
  </section>`;
}

/** Text in which `names` stand between backticks. */
export function Words({ text }) {
  return text.split("`").map((part, n) => (n % 2 ? html`<code>${part}</code>` : part));
}

export function Badge({ kind = "", children }) {
  return html`<span class="badge ${kind}">${children}</span>`;
}

/** Local, with UTC on hover. */
export function Time({ at, relative = false }) {
  if (at == null) return NONE;
  return html`<time datetime=${new Date(at * 1000).toISOString()} title=${`${utc(at)}${relative ? "" : ` (${ago(at)})`}`}>${relative ? ago(at) : moment(at)}</time>`;
}

export function Loading({ what = "Loading" }) {
  return html`<div class="loading" role="status"><span class="hidden">${what}</span><i /><i /><i /></div>`;
}

export function Empty({ title, children }) {
  return html`<div class="note-box"><strong>${title}</strong>${children && html`<p>${children}</p>`}</div>`;
}

export function Fault({ error, again }) {
  const away = error instanceof TypeError;
  const text = away ? "The server does not answer. It is asked again as soon as it is there." : error.message;
  return html`<div class="fault" role="alert"><span class="grow">${text}</span>${again && html`<button onClick=${() => again()}>Ask again</button>`}</div>`;
}

/** One of: loading, the fault, the view of what came (greyed while a newer one is asked for would only flicker). */
export function Asked({ asked, children }) {
  const { value, error, loading, again } = asked;
  return html`
    ${error && html`<${Fault} error=${error} again=${again} />`}
    ${value !== null ? children(value) : loading && !error && html`<section class="panel"><${Loading} /></section>`}
  `;
}

export function Stat({ name, value, unit, note, series, bad, href }) {
  return html`<div class="stat">
    <dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt>
    <dd>${value}${unit && html`<small>${unit}</small>`}${note && html`<div class="note">${note}</div>`}</dd>
    ${series?.length > 1 && html`<${Spark} values=${series} bad=${bad} />`}
  </div>`;
}

/** How much more or less than before; `worse` is which way is bad: 1 up, -1 down, 0 neither. */
export function Change({ now, before, worse = 0 }) {
  if (!before || now == null) return html`<span>no comparison yet</span>`;
  const change = now / before - 1;
  if (Math.abs(change) < 0.005) return html`<span>as before</span>`;
  const kind = Math.abs(change) > 0.1 && worse && Math.sign(change) === worse ? "bad" : "";
  return html`<span class=${kind}>${change > 0 ? "▲" : "▼"} ${Math.abs(change) > 9.99 ? `${count(1 + change)}×` : share(Math.abs(change))}</span> vs before`;
}

function Spark({ values, bad }) {
  const [line, area] = useMemo(() => sparkPaths(values), [values]);
  return html`<svg class="spark ${bad ? "bad" : ""}" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true"><path class="area" d=${area} /><path class="line" d=${line} /></svg>`;
}

/** Drawn through what is not known. */
function sparkPaths(values) {
  const step = 100 / (values.length - 1);
  const known = values.flatMap((value, n) => (value == null ? [] : [[n * step, value]]));
  if (!known.length) return ["", ""];
  const top = Math.max(...known.map(([, value]) => value)) || 1;
  const line = `M${known.map(([x, value]) => `${x.toFixed(2)} ${(28.5 - (26 * value) / top).toFixed(2)}`).join("L")}`;
  return [line, `${line}V30H${known[0][0].toFixed(2)}Z`];
}

export function Meter({ value, label, good, warn = 0.75, bad = 0.92, wide }) {
  if (value == null) return NONE;
  const kind = good ? (value <= 0.1 ? "bad" : value <= 0.35 ? "warn" : "good") : value >= bad ? "bad" : value >= warn ? "warn" : "";
  const width = `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;
  return html`<span class="meter ${wide ? "wide" : ""}"><span class="track" aria-hidden="true"><span class="fill ${kind}" style=${{ width }} /></span><span>${label ?? share(value)}</span></span>`;
}

/** Columns are `{head, cell(row), num?, sort?(row), wrap?}`; the first is the row's header. */
export function Table({ label, columns, rows, id, empty = "Nothing here.", foot, order, isNew }) {
  const [sorted, sort] = useState(order ?? null); // {column, up}
  const shown = useMemo(() => {
    const by = sorted && columns[sorted.column]?.sort;
    if (!by) return rows;
    const up = sorted.up ? 1 : -1;
    const key = (row) => by(row) ?? -Infinity;
    return [...rows].sort((a, b) => (key(a) < key(b) ? -up : key(a) > key(b) ? up : 0));
  }, [rows, sorted, columns]);
  if (!rows.length) return html`<${Empty} title=${empty} />`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr>${columns.map((column, n) => {
      const mine = sorted?.column === n;
      const direction = mine ? (sorted.up ? "ascending" : "descending") : undefined;
      return html`<th scope="col" class=${column.num ? "num" : ""} aria-sort=${direction}>${column.sort
        ? html`<button onClick=${() => sort({ column: n, up: mine ? !sorted.up : !column.num })}>${column.head} <span aria-hidden="true">${mine ? (sorted.up ? "↑" : "↓") : ""}</span></button>`
        : column.head}</th>`;
    })}</tr></thead>
    <tbody>${shown.map((row) => html`<tr key=${id?.(row)} class=${isNew?.(row) ? "new" : ""}>${columns.map((column, n) =>
      n === 0
        ? html`<th scope="row">${column.cell(row)}</th>`
        : html`<td class=${`${column.num ? "num" : ""} ${column.wrap ? "wrap" : ""}`}>${column.cell(row)}</td>`)}</tr>`)}</tbody>
    ${foot && html`<tfoot><tr>${foot.map((cell, n) => html`<td class=${columns[n].num ? "num" : ""}>${cell}</td>`)}</tr></tfoot>`}
  </table></div>`;
}

export function Segments({ label, options, value, pick }) {
  return html`<div class="segments" role="group" aria-label=${label}>${options.map(([key, text]) =>
    html`<button type="button" aria-pressed=${String(key === value)} onClick=${() => pick(key)}>${text}</button>`)}</div>`;
}

export function Chip({ name, value, drop }) {
  return html`<span class="chip"><span class="clip">${name}: ${value === "" ? "none" : value}</span><button type="button" aria-label=${`Without ${name}`} onClick=${drop}><${Icon} name="close" size="13" /></button></span>`;
}

export function Dialog({ title, close, children }) {
  const at = useRef();
  useEffect(() => at.current.showModal(), []);
  return html`<dialog ref=${at} onClose=${close} onClick=${(event) => event.target === at.current && at.current.close()} aria-label=${title}>
    <header><h2>${title}</h2><button class="plain square" aria-label="Close" onClick=${() => at.current.close()}><${Icon} name="close" /></button></header>
    <div class="in">${children}</div>
  </dialog>`;
}

export function Copy({ text, what = "Copy" }) {
  const [done, say] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    say(true);
    setTimeout(() => say(false), 1500);
  };
  return html`<button class="plain square" aria-label=${done ? "Copied" : what} title=${done ? "Copied" : what} onClick=${copy}><${Icon} name=${done ? "evals" : "copy"} size="14" /></button>`;
}
