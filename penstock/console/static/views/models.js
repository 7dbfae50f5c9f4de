// Every replica of every deployment: whether it is given work, how full it is, and what was learned of it.
import { html, useMemo } from "../vendor/preact-htm.js";
import { CONSOLE, useAsk } from "../api.js";
import { ago, count, share, span, whole } from "../format.js";
import { Asked, Badge, Empty, Head, Meter, Panel, Stat, Table, Time } from "../parts.js";
import { to } from "../route.js";

export function Models() {
  const answer = useAsk(`${CONSOLE}/fleet`, 3);
  return html`<${Head} title="Models and replicas" /><${Asked} asked=${answer}>${(fleet) => html`<${Fleet} fleet=${fleet} />`}</${Asked}>`;
}

function Fleet({ fleet }) {
  const replicas = fleet.deployments.flatMap((one) => one.replicas);
  const ready = replicas.filter((one) => state(one, fleet.at).works).length;
  const known = replicas.filter((one) => one.kv_tokens);
  const used = known.reduce((sum, one) => sum + one.kv_used * one.kv_tokens, 0);
  const room = known.reduce((sum, one) => sum + one.kv_tokens, 0);
  const sum = (name) => replicas.reduce((all, one) => all + one[name], 0);
  return html`<div class="stack">
    <dl class="stats">
      <${Stat} name="Replicas that work" value=${ready} unit=${`of ${replicas.length}`} />
      <${Stat} name="In flight" value=${whole(sum("inflight"))} />
      <${Stat} name="In engines' queues" value=${whole(sum("waiting"))} />
      <${Stat} name="KV cache held" value=${room ? share(used / room) : "–"} note=${room ? `of ${count(room)} tokens` : "no engine says"} />
      <${Stat} name="Prompt tokens to compute" value=${count(sum("pending_tokens"))} />
    </dl>
    ${fleet.deployments.map((one) => html`<${Deployment} key=${one.name} one=${one} fleet=${fleet} />`)}
    <div class="grid">
      <${Panel} class="w7" title="Queues" note="requests that wait here because no replica has room" flush><${Queues} queues=${fleet.queues} /></${Panel}>
      <${Panel} class="w5" title="What happened" flush><${Events} rows=${fleet.events} /></${Panel}>
    </div>
    <${Panel} title="Models" note="names that callers use" flush><${Names} rows=${fleet.models} /></${Panel}>
  </div>`;
}

/** In a word, how bad that is, and whether it is given work. */
export function state(one, now) {
  if (!one.ready) return { word: "not ready", kind: "bad", works: false, why: one.failed_in_a_row ? `${one.failed_in_a_row} health checks failed in a row` : "has not been well yet" };
  if (one.ejected_until > now) return { word: "ejected", kind: "bad", works: false, why: [EJECTED[one.ejected_why], `back in ${span(one.ejected_until - now)}`].filter(Boolean).join("; ") };
  if (one.phase === "open") return { word: "breaker open", kind: "bad", works: false, why: "too many failures" };
  if (one.cool_until > now) return { word: one.rate_limited ? "rate-limited" : "cooling", kind: "warn", works: false, why: `asked to be left alone for ${span(one.cool_until - now)}` };
  if (one.phase === "half_open") return { word: "on trial", kind: "warn", works: true, why: "one request at a time, to see whether it is well" };
  if (one.ramp > 1.01) return { word: "warming up", kind: "warn", works: true, why: `is given ${share(1 / one.ramp)} of a full share` };
  return { word: "ready", kind: "good", works: true, why: "" };
}

const EJECTED = { slow: "slower than its like", share: "fails more often than its like", in_a_row: "failed too often in a row" };

function Deployment({ one, fleet }) {
  const columns = useMemo(() => [
    { head: "Replica", cell: (row) => html`<a href=${to("requests", { replica: row.name })}>${row.name}</a>`, sort: (row) => row.name },
    { head: "State", cell: (row) => {
      const { word, kind, why } = state(row, fleet.at);
      return html`<${Badge} kind=${kind}><span class="dot" />${word}</${Badge}>${why && html`<div class="under">${why}</div>`}`;
    } },
    { head: "KV cache", cell: (row) => (row.kv_tokens ? html`<span title=${`of ${whole(row.kv_tokens)} tokens${row.reported_at ? `; said ${ago(row.reported_at)}` : ""}`}><${Meter} value=${row.kv_used} /></span>` : "not told"), sort: (row) => row.kv_used },
    { head: "Running", cell: (row) => (row.max_running ? html`<${Meter} value=${row.running / row.max_running} label=${`${whole(row.running)} of ${whole(row.max_running)}`} warn=${2} bad=${2} />` : whole(row.running)), sort: (row) => row.running },
    { head: "Queue", num: true, cell: (row) => whole(row.waiting), sort: (row) => row.waiting },
    { head: "In flight", num: true, cell: (row) => whole(row.inflight), sort: (row) => row.inflight },
    { head: "Prefix hits", num: true, cell: (row) => share(row.prefix_hit), sort: (row) => row.prefix_hit },
    { head: "First token p95", num: true, cell: (row) => html`<span title=${`p50 ${span(row.last_5m?.ttft_p50)}, of the last 5 min`}>${span(row.last_5m?.ttft_p95)}</span>`, sort: (row) => row.last_5m?.ttft_p95 },
    { head: "Failed", num: true, cell: (row) => html`<span class=${row.last_5m?.errors > 0.01 * row.last_5m?.requests ? "bad" : ""} title=${row.last_5m && `${whole(row.last_5m.errors)} of ${whole(row.last_5m.requests)} in the last 5 min`}>${share(row.last_5m?.requests ? row.last_5m.errors / row.last_5m.requests : null)}</span>`, sort: (row) => row.last_5m?.errors },
    { head: "Prefill tok/s", num: true, cell: (row) => count(Math.round(row.prefill_rate)), sort: (row) => row.prefill_rate },
    { head: "Step", num: true, cell: (row) => html`<span title=${`${span(row.step_base)} and ${span(row.itl_slope)} more for each running sequence; learned`}>${span(row.step_base + row.itl_slope * row.running)}</span>`, sort: (row) => row.step_base },
    { head: "GPU memory", num: true, cell: (row) => share(row.gpu_memory), sort: (row) => row.gpu_memory },
  ], [fleet]);
  const note = [one.engine, one.upstream_model, `policy ${one.policy}`].filter(Boolean).join(" · ");
  return html`<${Panel} title=${one.name} note=${note} flush>
    <${Table} label=${`Replicas of ${one.name}`} columns=${columns} rows=${one.replicas} id=${(row) => row.name} empty="It has no replicas" />
  </${Panel}>`;
}

function Queues({ queues }) {
  const rows = queues.flatMap((queue) => (queue.view?.classes ?? []).filter((one) => one.waiting || one.running).map((one) => ({ ...one, of: queue.models.join(", ") })));
  if (!rows.length) return html`<${Empty} title="Nobody waits">${queues.some((queue) => queue.engaged) ? "There is room on some replica for everybody." : "No engine says how much it can hold, so requests are sent at once."}</${Empty}>`;
  const columns = [
    { head: "Models", cell: (row) => row.of },
    { head: "Class", cell: (row) => html`<${Badge}>${row.priority}</${Badge}>` },
    { head: "Waiting", num: true, cell: (row) => whole(row.waiting) },
    { head: "Oldest", num: true, cell: (row) => span(row.oldest) },
    { head: "Sent after", num: true, cell: (row) => span(row.drain) },
    { head: "Running", num: true, cell: (row) => whole(row.running) },
    { head: "Most of", cell: (row) => row.tenants.slice(0, 3).map((one) => `${one.tenant || "none"} ${one.waiting}`).join(", ") },
  ];
  return html`<${Table} label="Queues" columns=${columns} rows=${rows} id=${(row) => row.of + row.priority} />`;
}

const BAD = new Set(["ejected", "breaker_open", "not_ready"]);

function Events({ rows }) {
  const columns = [
    { head: "Replica", cell: (row) => row.replica },
    { head: "What", cell: (row) => html`<${Badge} kind=${BAD.has(row.what) ? "bad" : "good"}>${row.what.replaceAll("_", " ")}</${Badge}>` },
    { head: "Why", wrap: true, cell: (row) => row.why },
    { head: "When", cell: (row) => html`<${Time} at=${row.at} />` },
  ];
  return html`<${Table} label="Events" columns=${columns} rows=${rows} id=${(row) => `${row.at}${row.replica}`} empty="Nothing lately: nobody was ejected and no breaker opened" />`;
}

function Names({ rows }) {
  const columns = [
    { head: "Model", cell: (row) => html`<a href=${to("", { model: row.name })}>${row.name}</a>`, sort: (row) => row.name },
    { head: "Deployments, best first", wrap: true, cell: (row) => row.deployments.join(", ") },
    { head: "APIs", wrap: true, cell: (row) => row.operations.join(", ") },
    { head: "Also called", wrap: true, cell: (row) => row.aliases.join(", ") || "–" },
  ];
  return html`<${Table} label="Models" columns=${columns} rows=${rows} id=${(row) => row.name} />`;
}
