// Spans of one request on one axis, each from when to when, in seconds after it had been read.
import { html, useEffect, useRef } from "../vendor/preact-htm.js";
import { colour, useTheme } from "../chart.js";
import { digits, span } from "../format.js";

/** `{name, kind, from, to, token, hatched?, note}` in the order of their beginning. */
function spans({ outcome, guards, cache }) {
  const found = [];
  const add = (name, from, to, token, more = {}) => found.push({ name, from, to: Math.max(from, to), token, ...more });
  const admitted = outcome.admitted_after ?? 0;
  if (admitted > 0) add("Admission", 0, admitted, "--c6", { note: "key, limits, budgets and where it may go" });
  for (const one of guards.filter((guard) => guard.at === "input")) add(`Guard ${one.name}`, one.after, one.after + one.took, "--c7", { note: one.verdict });
  if (cache) add(`Cache, ${cache.kind}`, cache.after, cache.after + cache.took, "--c5", { note: cache.hit ? "hit" : "miss" });
  if (outcome.queued_for > 0) add("Queue", admitted, admitted + outcome.queued_for, "--c3", { note: "until a replica had room" });
  for (const one of outcome.attempts) {
    const token = one.ended === "ok" ? "--c1" : one.ended === "cancelled" ? "--c6" : "--bad";
    add(`Try ${one.number + 1}: ${one.replica}`, one.started_after, one.ended_after, token, { first: one.first_token_after, note: one.ended.replaceAll("_", " ") });
  }
  for (const one of guards.filter((guard) => guard.at === "output")) add(`Guard ${one.name}`, one.after, one.after + one.took, "--c7", { note: one.verdict });
  return found.sort((a, b) => a.from - b.from);
}

export function Waterfall({ found }) {
  const { outcome } = found;
  const rows = spans(found);
  const end = Math.max(outcome.duration, ...rows.map((row) => row.to), 1e-6);
  const at = (seconds) => `${((100 * seconds) / end).toFixed(3)}%`;
  const first = outcome.first_token_after;
  const wish = outcome.predicted_ttft ? (outcome.attempts.at(-1)?.started_after ?? 0) + outcome.predicted_ttft : null;
  return html`<div class="fall">
    <div class="name muted small">Stage</div>
    <div class="axis">${[0, 0.25, 0.5, 0.75, 1].map((part) => html`<span style=${{ left: `${part * 100}%` }}>${span(part * end)}</span>`)}</div>
    <div class="took muted small">Took</div>
    ${rows.map((row) => html`
      <div class="name" title=${row.note}><span class="clip">${row.name}</span></div>
      <div class="lane" title=${`${row.note}: ${span(row.from)} to ${span(row.to)}`}>
        ${row.first != null && html`<span class="bar hatched" style=${{ left: at(row.from), width: at(row.first - row.from), "--colour": `var(${row.token})` }} />`}
        <span class=${`bar ${row.first === null && row.to > row.from && row.token !== "--c6" ? "hatched" : ""}`} style=${{ left: at(row.first ?? row.from), width: at(row.to - (row.first ?? row.from)), "--colour": `var(${row.token})` }} />
        ${wish !== null && row.first != null && wish < end && html`<span class="tick wish" style=${{ left: at(wish) }} title=${`First token predicted after ${span(wish)}`} />`}
      </div>
      <div class="took">${span(row.to - row.from)}</div>`)}
    ${first !== null && html`
      <div class="name last">Tokens</div>
      <div class="lane last" title=${found.tokens ? "When tokens came" : "When tokens came was not recorded: drawn evenly"}><${Tokens} found=${found} end=${end} /></div>
      <div class="took last">${span(outcome.duration - first)}</div>`}
  </div>
  <ul class="legend"><li><span class="swatch" style=${{ "--colour": "var(--c1)" }} />an answer comes</li><li>hatched: nothing has come yet</li>${wish !== null && html`<li>dotted: when the first token was predicted</li>`}${first !== null && !found.tokens && html`<li>When each token came was not recorded; they are drawn evenly.</li>`}</ul>`;
}

/** A stroke for each token, or where they are too many, darker where more came. */
function Tokens({ found, end }) {
  const place = useRef();
  const theme = useTheme();
  const n = found.outcome.usage.completion_tokens;
  const { first_token_after: first, duration } = found.outcome;
  const times = arrivals(found.tokens, n, first, duration);
  useEffect(() => {
    const canvas = place.current;
    const draw = () => {
      const scale = devicePixelRatio;
      canvas.width = canvas.clientWidth * scale;
      canvas.height = canvas.clientHeight * scale;
      const pen = canvas.getContext("2d");
      pen.fillStyle = colour("--c2", Math.max(0.18, Math.min(1, (0.7 * canvas.clientWidth) / (3 * times.length || 1))));
      for (const one of times) pen.fillRect(Math.min(canvas.width - 2 * scale, (one / end) * canvas.width), canvas.height * 0.26, 1.5 * scale, canvas.height * 0.48);
    };
    const watch = new ResizeObserver(draw);
    watch.observe(canvas);
    return () => watch.disconnect();
  }, [found, theme]);
  const rate = duration > first && n > 1 ? `, ${digits((n - 1) / (duration - first))} per second` : "";
  return html`<canvas ref=${place} role="img" aria-label=${`${n} tokens${rate}`} />`;
}

function arrivals(recorded, n, first, duration) {
  if (recorded) {
    let before = 0;
    return recorded.flatMap(([at, so_far]) => {
      const came = Array(Math.max(0, so_far - before)).fill(at);
      before = so_far;
      return came;
    });
  }
  const count = Math.min(n, 600);
  const gap = count > 1 ? (duration - first) / (count - 1) : 0;
  return Array.from({ length: count }, (_, k) => first + k * gap);
}
