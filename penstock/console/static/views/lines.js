// One request in a table: the same columns in the live view and in the list.
import { html } from "../vendor/preact-htm.js";
import { count, money, span } from "../format.js";
import { Badge, Time } from "../parts.js";
import { request } from "../route.js";

export const FILTERS = {
  model: "model", org: "org", team: "team", key_id: "key", deployment: "deployment", replica: "replica", feature: "feature",
  session: "session", status: "status", error: "error", slower: "slower than", since: "since", until: "until",
};

export function Status({ line }) {
  const kind = line.error === null ? "good" : line.status === 499 || line.status === 429 ? "warn" : "bad";
  const tries = line.n_attempts > 1 && html` <${Badge} kind="warn">${line.n_attempts} tries</${Badge}>`;
  return html`<${Badge} kind=${kind}>${line.status}${line.error && html` ${line.error.replaceAll("_", " ")}`}</${Badge}>${tries}`;
}

/** `with_(name, value)` is the same view with one filter more. */
export function columns(with_, slow) {
  const link = (name, value) => (value ? html`<a class="quiet" href=${with_(name, value)} title=${`Only ${FILTERS[name]} ${value}`}>${value}</a>` : "–");
  return [
    { head: "Request", cell: (row) => html`<a class="mono" href=${request(row.id)}>…${row.id.slice(-8)}</a>` },
    { head: "When", cell: (row) => html`<${Time} at=${row.at} />` },
    { head: "Status", cell: (row) => html`<${Status} line=${row} />` },
    { head: "Model", cell: (row) => link("model", row.model) },
    { head: "First token", num: true, cell: (row) => html`<span class=${row.ttft > slow ? "bad" : ""}>${span(row.ttft)}</span>` },
    { head: "Whole", num: true, cell: (row) => span(row.duration) },
    { head: "Tokens in", num: true, cell: (row) => count(row.prompt_tokens) },
    { head: "out", num: true, cell: (row) => count(row.completion_tokens) },
    { head: "Cost", num: true, cell: (row) => money(row.cost_nanos) },
    { head: "Replica", cell: (row) => link("replica", row.replica) },
    { head: "Key", cell: (row) => html`<span title=${[row.org, row.team].filter(Boolean).join(", ")}>${link("key_id", row.key_id)}</span>` },
    { head: "Feature", cell: (row) => link("feature", row.feature) },
  ];
}
