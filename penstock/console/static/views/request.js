// The life of one request: where its time went, why it went there, what it used and what that cost.
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { CONSOLE, useAsk } from "../api.js";
import { count, digits, exact, money, share, span, whole } from "../format.js";
import { Asked, Badge, Copy, Head, Loading, Panel, Table, Time, Words } from "../parts.js";
import { request, to } from "../route.js";
import { Status } from "./lines.js";
import { Waterfall } from "./waterfall.js";

const COUNTED = { provider: "counted by who answered", provider_partial: "counted by who answered, not to the end", tokenizer: "counted here", estimate: "estimated from bytes", none: "nothing was generated" };
/** Why it was kept, where that says something about it. */
const KEPT = { error: "kept: it failed", slow: "kept: it was slow", flagged: "kept: it was flagged", caller: "kept: its caller traces it" };
const CLASSES = { input: "--c1", cached_input: "--c5", cache_write: "--c6", cache_write_1h: "--c8", output: "--c2", reasoning: "--c7" };

const TRIES = 5;
const AGAIN_AFTER = 600; // ms

export function Request({ id }) {
  const answer = useAsk(`${CONSOLE}/requests/${encodeURIComponent(id)}`);
  const { value } = answer;
  const tries = useRef(0);
  const soon = answer.error?.status === 404 && tries.current < TRIES; // what ended just now is on its way from its worker
  useEffect(() => {
    if (!soon || answer.loading) return undefined;
    tries.current += 1;
    const timer = setTimeout(answer.again, AGAIN_AFTER);
    return () => clearTimeout(timer);
  }, [soon, answer.loading, answer.again]);
  return html`
    <${Head} title=${value ? `${value.line.model}, ${span(value.line.duration)}` : "Request"}>
      <a class="button" href=${to("requests")}>All requests</a>
      ${value?.around.previous && html`<a class="button" href=${request(value.around.previous)}>Before in the session</a>`}
      ${value?.around.next && html`<a class="button" href=${request(value.around.next)}>Next in the session</a>`}
    </${Head}>
    ${soon ? html`<section class="panel"><${Loading} /></section>` : html`<${Asked} asked=${answer}>${(found) => html`<${Detail} found=${found} />`}</${Asked}>`}`;
}

function Detail({ found }) {
  const { line, outcome, failure } = found;
  const usage = outcome.usage;
  const gap = outcome.stream && outcome.first_token_after !== null && usage.completion_tokens > 1 ? ((outcome.last_token_after ?? outcome.duration) - outcome.first_token_after) / (usage.completion_tokens - 1) : null;
  return html`<div class="stack">
    <div class="tools"><${Status} line=${line} />${outcome.stream && html`<${Badge}>stream</${Badge}>`}${outcome.finish_reason && html`<${Badge}>finished: ${outcome.finish_reason}</${Badge}>`}
      ${line.why in KEPT && html`<${Badge} kind="accent">${KEPT[line.why]}</${Badge}>`}
      ${outcome.degraded.map((what) => html`<${Badge} kind="warn">${what}</${Badge}>`)}
      <span class="mono">${line.id}</span><${Copy} text=${line.id} what="Copy the request id" /><span class="muted"><${Time} at=${line.at} /></span></div>
    ${failure && html`<div class="fault" role="note"><span class="grow">${failure.message ?? `It failed: ${line.error.replaceAll("_", " ")}.`}</span><${Badge}>${failure.lasting}</${Badge}><${Badge}>${failure.blame}</${Badge}></div>`}
    <dl class="stats">
      <${Number} name="First token" value=${span(outcome.first_token_after)} note=${outcome.predicted_ttft ? `${span(outcome.predicted_ttft)} predicted when it was sent` : ""} />
      <${Number} name="Whole" value=${span(outcome.duration)} note=${outcome.queued_for ? `${span(outcome.queued_for)} of it waiting` : "nothing of it waiting"} />
      <${Number} name="Per token" value=${span(gap)} note=${gap ? `${digits(1 / gap)} tokens per second` : ""} />
      <${Number} name="Tokens" value=${`${count(usage.prompt_tokens)} → ${count(usage.completion_tokens)}`} note=${usage.prompt_tokens && usage.cached_tokens ? `${share(usage.cached_tokens / usage.prompt_tokens)} of the prompt from a cache` : COUNTED[outcome.usage_source]} />
      <${Number} name="Cost" value=${money(outcome.cost_nanos)} note=${exact(outcome.cost_nanos)} />
    </dl>
    <${Panel} title="Where its time went" note="from the moment it had been read"><${Waterfall} found=${found} /></${Panel}>
    <div class="grid">
      <${Panel} class="w6" title="Why it went there"><${Why} outcome=${outcome} /></${Panel}>
      <${Panel} class="w6" title="Tries" flush><${Tries} outcome=${outcome} /></${Panel}>
      <${Panel} class="w6" title="What it used" note=${COUNTED[outcome.usage_source]}><${Used} found=${found} /></${Panel}>
      <${Panel} class="w6" title="Who asked"><${Who} line=${line} outcome=${outcome} /></${Panel}>
      ${(found.guards.length > 0 || found.cache) && html`<${Panel} class="w6" title="Guards and cache" flush><${Guards} found=${found} /></${Panel}>`}
      ${found.feedback.length > 0 && html`<${Panel} class="w6" title="Feedback"><${Feedback} rows=${found.feedback} /></${Panel}>`}
      <${Panel} class="w12" title="Content"><${Content} content=${found.content} /></${Panel}>
    </div>
    <${Raw} outcome=${outcome} />
  </div>`;
}

function Number({ name, value, note }) {
  return html`<div class="stat"><dt>${name}</dt><dd>${value}<div class="note">${note || html`${" "}`}</div></dd></div>`;
}

function Why({ outcome }) {
  return html`
    ${outcome.why.length ? html`<ul class="why">${outcome.why.map((one) => html`<li><span><${Words} text=${one} /></span></li>`)}</ul>` : html`<p class="muted">No rule had a say: the replica that cost least was taken.</p>`}
    ${outcome.matched_tokens > 0 && html`<p class="small muted">The replica was taken to have ${whole(outcome.matched_tokens)} tokens of the prompt in its cache.</p>`}
    ${outcome.arm && html`<p class="small muted">Arm <code>${outcome.arm}</code> of the experiment.</p>`}`;
}

function Used({ found }) {
  const usage = found.outcome.usage;
  const amounts = {
    input: Math.max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens),
    cached_input: usage.cached_tokens,
    cache_write: usage.cache_write_tokens - usage.cache_write_1h_tokens,
    cache_write_1h: usage.cache_write_1h_tokens,
    output: usage.completion_tokens - usage.reasoning_tokens,
    reasoning: usage.reasoning_tokens,
  };
  const { cost, outcome } = found;
  const rows = cost ?? Object.entries(amounts).filter(([, amount]) => amount > 0).map(([what, amount]) => ({ what, amount }));
  if (!rows.length) return html`<p class="muted">No tokens.</p>`;
  const colour = (what) => `var(${CLASSES[what] ?? "--c3"})`;
  return html`
    <div class="split" aria-hidden="true">${rows.map((one) => html`<i style=${{ flex: one.amount, "--colour": colour(one.what) }} />`)}</div>
    <div class="scroll"><table class="used">
      <thead><tr><th scope="col">Tokens</th><th scope="col" class="num">Count</th>${cost && html`<th scope="col" class="num">Per million</th><th scope="col" class="num">Cost</th>`}</tr></thead>
      <tbody>${rows.map((one) => html`<tr><th scope="row"><span class="swatch" style=${{ "--colour": colour(one.what) }} /> ${one.what.replaceAll("_", " ")}</th><td class="num">${whole(one.amount)}</td>${cost && html`<td class="num">${money(one.nanos_per_million)}</td><td class="num" title=${exact(one.nanos)}>${money(one.nanos)}</td>`}</tr>`)}</tbody>
      <tfoot><tr><td>All</td><td class="num">${whole(usage.prompt_tokens + usage.completion_tokens)}</td>${cost && html`<td /><td class="num" title=${exact(outcome.cost_nanos)}>${money(outcome.cost_nanos)}</td>`}</tr></tfoot>
    </table></div>
    ${!cost && html`<p class="small muted">${outcome.cost_nanos === null ? "Nobody knows what it cost: its model has no price here." : outcome.cost_nanos === 0 ? "It cost nothing." : html`It cost ${exact(outcome.cost_nanos)}. What each class of tokens cost is not known: prices are not those of then, or more than this answer was paid for.`}</p>`}`;
}

function Who({ line, outcome }) {
  const rows = [
    ["Organisation", line.org, "org"], ["Team", line.team, "team"], ["Key", line.key_id, "key_id"], ["User", outcome.user_hash],
    ["Feature", line.feature, "feature"], ["Session", line.session, "session"], ["Tags", outcome.tags.join(", ")],
    ["Priority", outcome.priority], ["Endpoint", line.endpoint], ["Deployment", line.deployment, "deployment"],
    ["Prompt version", outcome.prompt_version], ["Retrieved", outcome.context.join(", ")], ["Trace", outcome.trace_id],
    ["Configuration", outcome.plane_version ? `version ${outcome.plane_version}` : ""],
  ];
  return html`<dl class="facts">${rows.filter(([, value]) => value).map(([name, value, filter]) => html`<dt>${name}</dt><dd>${filter ? html`<a href=${to("requests", { [filter]: value })}>${value}</a>` : name === "Trace" || name === "User" ? html`<code>${value}</code>` : value}</dd>`)}</dl>`;
}

function Tries({ outcome }) {
  const columns = [
    { head: "Replica", cell: (row) => html`<a href=${to("requests", { replica: row.replica })}>${row.replica}</a>` },
    { head: "Ended", cell: (row) => html`<${Badge} kind=${row.ended === "ok" ? "good" : row.ended === "cancelled" ? "" : "bad"}>${row.ended.replaceAll("_", " ")}</${Badge}>` },
    { head: "Began after", num: true, cell: (row) => span(row.started_after) },
    { head: "First token", num: true, cell: (row) => span(row.first_token_after === null ? null : row.first_token_after - row.started_after) },
    { head: "Took", num: true, cell: (row) => span(row.ended_after - row.started_after) },
  ];
  return html`<${Table} label="Tries" columns=${columns} rows=${outcome.attempts} id=${(row) => row.number} empty="It reached no replica" />`;
}

function Guards({ found }) {
  const rows = [...(found.cache ? [{ name: `${found.cache.kind} cache`, at: "input", verdict: found.cache.hit ? "hit" : "miss", took: found.cache.took }] : []), ...found.guards];
  const columns = [
    { head: "What", cell: (row) => row.name },
    { head: "On", cell: (row) => row.at },
    { head: "Said", cell: (row) => html`<${Badge} kind=${row.verdict === "block" ? "bad" : row.verdict === "flag" || row.verdict === "redact" ? "warn" : "good"}>${row.verdict}${row.mode === "shadow" ? " (shadow)" : ""}</${Badge}>` },
    { head: "Took", num: true, cell: (row) => span(row.took) },
  ];
  return html`<${Table} label="Guards and cache" columns=${columns} rows=${rows} />`;
}

function Feedback({ rows }) {
  return html`<ul class="why">${rows.map((one) => html`<li><span>${one.kind}${one.value != null && html`: <b>${String(one.value)}</b>`}${one.comment && html` “${one.comment}”`} <span class="muted"><${Time} at=${one.at} /></span></span></li>`)}</ul>`;
}

function Content({ content }) {
  if (!content) return html`<p class="muted">Neither the prompt nor the answer was kept: capture is off for this request.</p>`;
  return html`<div class="grid"><div class="w6"><h3 class="small muted">Prompt</h3><pre>${content.prompt}</pre></div><div class="w6"><h3 class="small muted">Answer</h3><pre>${content.answer}</pre></div></div>`;
}

function Raw({ outcome }) {
  const [open, show] = useState(false);
  const text = JSON.stringify(outcome, null, 2);
  return html`<section class="panel"><header><h2>Receipt</h2><${Copy} text=${text} what="Copy the receipt" /><button class="plain" aria-expanded=${String(open)} onClick=${() => show(!open)}>${open ? "Hide" : "Show as JSON"}</button></header>
    <div class="in">${open ? html`<pre>${text}</pre>` : html`<span class="small muted">What metrics, logs, cost and quality are made of.</span>`}</div></section>`;
}
