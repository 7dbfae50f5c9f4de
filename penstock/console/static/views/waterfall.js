// Spans of one request on one axis, each from when to when, in seconds after it had been read.
import { html } from "../vendor/preact-htm.js";
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

const SHORT = 0.1; // seconds that an answer may take to end after its last token

export function Waterfall({ found }) {
  const { outcome } = found;
  const rows = spans(found);
  const end = Math.max(outcome.duration, ...rows.map((row) => row.to), 1e-6);
  const at = (seconds) => `${((100 * seconds) / end).toFixed(3)}%`;
  const first = outcome.first_token_after;
  const last = Math.max(first ?? 0, outcome.last_token_after ?? outcome.duration);
  const silent = outcome.duration - last > SHORT ? outcome.duration - last : 0;
  const n = outcome.usage.completion_tokens;
  const pace = outcome.stream && first !== null && n > 1 && last > first ? (n - 1) / (last - first) : 0;
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
    ${first !== null && outcome.stream && html`
      <div class="name last">Tokens</div>
      <div class="lane last" title=${`the first after ${span(first)}, the last after ${span(last)}`}>
        <span class="bar" style=${{ left: at(first), width: at(last - first), "--colour": "var(--c2)" }} />
        ${silent > 0 && html`<span class="bar hatched" style=${{ left: at(last), width: at(silent), "--colour": "var(--c6)" }} />`}
      </div>
      <div class="took last">${span(last - first)}</div>`}
  </div>
  <ul class="legend"><li><span class="swatch" style=${{ "--colour": "var(--c1)" }} />an answer comes</li><li>hatched: nothing has come yet</li>${wish !== null && html`<li>dotted: when the first token was predicted</li>`}${pace > 0 && html`<li><span class="swatch" style=${{ "--colour": "var(--c2)" }} />from the first token to the last: ${digits(pace)} per second on average</li>`}${silent > 0 && html`<li>after the last token nothing came for ${span(silent)}</li>`}</ul>`;
}
