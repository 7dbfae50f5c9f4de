// Is it well, and if not, where: alerts, golden signals with what they were before, error budgets, models, failures.
import { html, useMemo } from "../vendor/preact-htm.js";
import { CONSOLE, query as asked, useAsk } from "../api.js";
import { Chart } from "../chart.js";
import { count, digits, money, share, span, whole } from "../format.js";
import { Asked, Badge, Change, Empty, Head, Meter, Panel, Segments, Stat, Table, Time } from "../parts.js";
import { go, put, to } from "../route.js";

const WINDOWS = [["900", "15 min"], ["3600", "1 h"], ["21600", "6 h"], ["86400", "1 d"], ["604800", "7 d"]];
const REFRESH = { 900: 5, 3600: 10, 21600: 30, 86400: 60, 604800: 120 };

export function Overview({ query }) {
  const window = REFRESH[query.window] ? query.window : "3600";
  const model = query.model ?? "";
  const answer = useAsk(`${CONSOLE}/overview${asked({ window, model })}`, REFRESH[window]);
  const names = answer.value?.models.map((one) => one.model) ?? [];
  return html`
    <${Head} title="Overview">
      <label><span class="hidden">Model</span><select value=${model} onChange=${(event) => put({ model: event.target.value })}>
        <option value="">All models</option>
        ${[...new Set([...names, model])].filter(Boolean).map((name) => html`<option value=${name}>${name}</option>`)}
      </select></label>
      <${Segments} label="Time" options=${WINDOWS} value=${window} pick=${(key) => put({ window: key === "3600" ? "" : key })} />
    </${Head}>
    <${Asked} asked=${answer}>${(value) => html`<${Signals} value=${value} model=${model} stale=${answer.error !== null} />`}</${Asked}>
  `;
}

function Signals({ value, model, stale }) {
  const { total, before, live, series, step } = value;
  const failed = (one) => (one?.requests ? one.errors / one.requests : null);
  const per = (values) => values.map((each) => (each == null ? null : each / step));
  const rates = useMemo(() => ({
    good: series.requests.map((n, at) => (n == null ? null : Math.max(0, (n - (series.errors[at] ?? 0)) / step))),
    bad: per(series.errors),
    prompt: per(series.prompt_tokens),
    completion: per(series.completion_tokens),
    cost: series.cost_nanos.map((each) => (each == null ? null : (each / step) * 3600)),
  }), [series, step]);
  const rate = (each) => (each == null ? "–" : `${digits(each)}/s`);
  const all = to("requests", { model });
  const pick = (since, until) => go(to("requests", { model, since: Math.floor(since), until: Math.ceil(until) }));
  return html`<div class=${stale ? "stale" : ""}>
    <${Alerts} alerts=${value.alerts} />
    <dl class="stats">
      <${Stat} name="Requests" value=${digits(total.requests / value.window)} unit="/s" href=${all} series=${series.requests}
        note=${html`<${Change} now=${total.requests} before=${before?.requests} />`} />
      <${Stat} name="Failed" value=${share(failed(total))} href=${to("requests", { model, status: "failed" })} series=${series.errors} bad
        note=${html`<${Change} now=${failed(total)} before=${failed(before)} worse=${1} />`} />
      <${Stat} name="First token, p95" value=${span(total.ttft.p95)} series=${series.ttft_p95}
        note=${html`<${Change} now=${total.ttft.p95} before=${before?.ttft.p95} worse=${1} />`} />
      <${Stat} name="Per token, p95" value=${span(total.tpot.p95)} series=${series.tpot_p95}
        note=${html`<${Change} now=${total.tpot.p95} before=${before?.tpot.p95} worse=${1} />`} />
      <${Stat} name="Cost" value=${money((total.cost_nanos / value.window) * 3600)} unit="/h" href=${to("cost")} series=${series.cost_nanos}
        note=${total.unpriced ? html`<span class="warn">${count(total.unpriced)} without a price</span>` : html`<${Change} now=${total.cost_nanos} before=${before?.cost_nanos} />`} />
      <${Stat} name="In flight now" value=${whole(live.in_flight)} href=${to("live")} series=${series.in_flight}
        note=${html`${whole(live.queued)} waiting · ${live.replicas_ready} of ${live.replicas} replicas ready`} />
    </dl>
    <div class="grid">
      <${Panel} class="w6" title="Traffic" note="requests per second; failed ones in red">
        <${Chart} label="Requests per second over time" at=${series.at} show=${rate} stacked pick=${pick}
          series=${[{ name: "failed", values: rates.bad, token: "--bad", bars: true }, { name: "whole", values: rates.good, token: "--c1", bars: true }]} />
      </${Panel}>
      <${Panel} class="w6" title="Time to first token" note="streams">
        <${Chart} label="Time to first token over time" at=${series.at} show=${span} pick=${pick}
          series=${[{ name: "p99", values: series.ttft_p99, token: "--c4" }, { name: "p95", values: series.ttft_p95, token: "--c3" }, { name: "p50", values: series.ttft_p50, token: "--c1", fill: true }]} />
      </${Panel}>
      <${Panel} class="w6" title="Tokens" note="per second">
        <${Chart} label="Tokens per second over time" at=${series.at} show=${rate} pick=${pick}
          series=${[{ name: "prompt", values: rates.prompt, token: "--c2" }, { name: "generated", values: rates.completion, token: "--c5", fill: true }]} />
      </${Panel}>
      <${Panel} class="w6" title="Whole answers" note="end to end">
        <${Chart} label="Duration of requests over time" at=${series.at} show=${span} pick=${pick}
          series=${[{ name: "p99", values: series.e2e_p99, token: "--c4" }, { name: "p95", values: series.e2e_p95, token: "--c3" }, { name: "p50", values: series.e2e_p50, token: "--c1", fill: true }]} />
      </${Panel}>
      <${Panel} class="w7" title="Error budgets" note="how much may still go wrong in the period" flush><${Slos} slos=${value.slos} /></${Panel}>
      <${Panel} class="w5" title="Also" note="in this time">
        <dl class="facts">
          <dt>Gateway itself</dt><dd>${span(total.overhead.p50)} p50, ${span(total.overhead.p99)} p99</dd>
          <dt>In the queue</dt><dd>${span(total.queue.p50)} p50, ${span(total.queue.p99)} p99</dd>
          <dt>Limited</dt><dd><a href=${to("requests", { model, status: "429" })}>${whole(total.limited)}</a></dd>
          <dt>Cancelled by callers</dt><dd>${whole(total.cancelled)}</dd>
          <dt>Retries, hedges, failovers</dt><dd>${whole(total.retries)}, ${whole(total.hedges)}, ${whole(total.failovers)}</dd>
          <dt>Refused by models</dt><dd>${whole(total.refusals)}</dd>
          <dt>Ended at their token cap</dt><dd>${whole(total.capped)}</dd>
          <dt>Prompt tokens from caches</dt><dd>${total.prompt_tokens ? share(total.cached_tokens / total.prompt_tokens) : "–"}</dd>
        </dl>
      </${Panel}>
      <${Panel} class="w7" title="Models" flush><${ModelsTable} rows=${value.models} window=${value.window} /></${Panel}>
      <${Panel} class="w5" title="What failed" flush><${Failures} rows=${value.failures} model=${model} /></${Panel}>
      <${Panel} class="w12" title="Incidents" note="alerts of the last day" flush><${Incidents} rows=${value.alerts} /></${Panel}>
    </div>
  </div>`;
}

function Alerts({ alerts }) {
  const firing = alerts.filter((one) => one.until === null);
  if (!firing.length) return null;
  return html`<div class="alerts" role="status">${firing.map((one) => html`<div class=${`alert ${one.severity === "page" ? "urgent" : "slow"}`}>
    <span class="dot pulse" /><strong>${one.name}</strong><span class="says">${one.says}</span>
    <span class="small">for ${span(Date.now() / 1000 - one.since)}</span>${one.link && html`<a href=${one.link}>See these requests</a>`}
  </div>`)}</div>`;
}

const STATES = { ok: ["good", "holding"], ticket: ["warn", "burning"], page: ["bad", "burning fast"] };

function Slos({ slos }) {
  if (!slos.length) return html`<${Empty} title="No objectives are set">Say what is promised with <code>slos</code> in the configuration file; budgets and burn rates follow.</${Empty}>`;
  return html`<ul class="slos">${slos.map((one) => {
    const [kind, said] = STATES[one.state];
    return html`<li class="slo">
      <div><div>${one.says} <${Badge} kind=${kind}>${said}</${Badge}></div><span class="small muted">${whole(one.bad)} bad of ${whole(one.good + one.bad)} in ${span(one.period)}</span></div>
      <div><${Meter} wide good value=${one.budget_left} label=${`${share(Math.max(0, one.budget_left))} left`} /><div class="burn">${Object.entries(one.burn).map(([over, rate]) => html`<span title=${`Burn rate over ${span(Number(over))}: 1 uses the budget up exactly at the end of the period`}>${span(Number(over))} <b>${rate == null ? "–" : `${digits(rate)}×`}</b></span>`)}</div></div>
    </li>`;
  })}</ul>`;
}

function ModelsTable({ rows, window }) {
  const most = Math.max(...rows.map((row) => row.requests), 1);
  const columns = [
    { head: "Model", cell: (row) => html`<a href=${to("", { model: row.model })}>${row.model}</a>`, sort: (row) => row.model },
    { head: "Requests", cell: (row) => html`<${Meter} value=${row.requests / most} label=${count(row.requests)} warn=${2} bad=${2} />`, sort: (row) => row.requests },
    { head: "Failed", num: true, cell: (row) => html`<span class=${row.errors / row.requests > 0.01 ? "bad" : ""}>${share(row.requests ? row.errors / row.requests : null)}</span>`, sort: (row) => row.errors / row.requests },
    { head: "First token p95", num: true, cell: (row) => html`<span title=${`p50 ${span(row.ttft_p50)}`}>${span(row.ttft_p95)}</span>`, sort: (row) => row.ttft_p95 },
    { head: "Tokens/s", num: true, cell: (row) => count(row.tokens_per_second), sort: (row) => row.tokens_per_second },
    { head: "Cost/h", num: true, cell: (row) => money(row.cost_nanos == null ? null : (row.cost_nanos / window) * 3600), sort: (row) => row.cost_nanos },
  ];
  return html`<${Table} label="Models" columns=${columns} rows=${rows} id=${(row) => row.model} empty="No requests in this time" order=${{ column: 1, up: false }} />`;
}

function Failures({ rows, model }) {
  const columns = [
    { head: "Error", cell: (row) => html`<a href=${to("requests", { model, error: row.code })}><code>${row.code}</code></a>`, sort: (row) => row.code },
    { head: "Whose", wrap: true, cell: (row) => [row.blame, row.lasting].filter(Boolean).join(", ") || "–", sort: (row) => row.blame },
    { head: "Count", num: true, cell: (row) => whole(row.count), sort: (row) => row.count },
  ];
  return html`<${Table} label="Errors" columns=${columns} rows=${rows} id=${(row) => row.code} empty="Nothing failed in this time" order=${{ column: 2, up: false }} />`;
}

function Incidents({ rows }) {
  const columns = [
    { head: "Alert", cell: (row) => html`${row.name}` },
    { head: "State", cell: (row) => (row.until === null ? html`<${Badge} kind=${row.severity === "page" ? "bad" : "warn"}>firing</${Badge}>` : html`<${Badge} kind="good">over</${Badge}>`) },
    { head: "What", wrap: true, cell: (row) => row.says },
    { head: "Since", cell: (row) => html`<${Time} at=${row.since} />`, sort: (row) => row.since },
    { head: "Lasted", num: true, cell: (row) => span((row.until ?? Date.now() / 1000) - row.since), sort: (row) => (row.until ?? Date.now() / 1000) - row.since },
  ];
  return html`<${Table} label="Incidents" columns=${columns} rows=${rows} id=${(row) => row.name + row.since} empty="None. No alert has fired within a day." />`;
}
