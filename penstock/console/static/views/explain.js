// Where a request would go now, and why not elsewhere. Nothing is sent to any replica.
import { html, useState } from "../vendor/preact-htm.js";
import { CONSOLE, send } from "../api.js";
import { money, share, span, whole } from "../format.js";
import { Badge, Fault, Head, Panel, Table, Words } from "../parts.js";
import { GatewayKey, gatewayKey, lastKey } from "./gateway_key.js";

const USUAL = JSON.stringify({ model: "chat", messages: [{ role: "user", content: "Where would this go?" }], max_tokens: 256 }, null, 2);
const VERDICTS = {
  chosen: "it would go here",
  costlier: "another one costs less",
  "not sampled": "too many to look at all, or explored away from",
  policy: "the policy decided without looking at costs",
  later: "its deployment's turn did not come",
  tried: "has been tried",
  "not ready": "its health checks fail",
  cooling: "it asked to be left alone",
  ejected: "does worse than its like",
  breaker: "fails too often",
};
const PARTS = [["own", "--c1", "until our prompt is computed"], ["others", "--c3", "delay of those running there"], ["batch", "--c2", "delay that they put on ours"], ["memory", "--c4", "pressure on its KV cache"]];

export function Explain() {
  const [text, set] = useState(USUAL);
  const [key, setKey] = useState(lastKey());
  const [answer, tell] = useState(null);
  const [fault, blame] = useState(null);
  const look = async (event) => {
    event.preventDefault();
    blame(null);
    try {
      tell(await send("POST", `${CONSOLE}/explain`, { endpoint: "chat.completions", body: JSON.parse(text) }, gatewayKey()));
    } catch (error) {
      tell(null);
      blame(error instanceof SyntaxError ? new Error(`This is not JSON: ${error.message}`) : error);
    }
  };
  return html`<${Head} title="Routing" note="Where a request would go at this moment, and why it would not go elsewhere. Nothing is sent." />
    <div class="grid">
      <form class="w5 stack" onSubmit=${look}>
        <label class="field">Body of a chat request<textarea data-find class="mono" rows="14" spellcheck=${false} value=${text} onInput=${(event) => set(event.target.value)} /></label>
        <${GatewayKey} value=${key} set=${setKey} note="whose it would be" />
        <div class="tools"><button class="first">Explain</button></div>
      </form>
      <div class="w7 stack">
        ${fault && html`<${Fault} error=${fault} />`}
        ${answer ? html`<${Answer} answer=${answer} />` : !fault && html`<section class="panel"><div class="note-box"><strong>Send a body</strong><p>Every replica that could answer is listed with what it would cost in engine time: ours, and what others lose by it.</p></div></section>`}
      </div>
    </div>`;
}

function Answer({ answer }) {
  return html`
    <${Panel} title=${answer.chosen ? `It would go to ${answer.chosen}` : "It would go nowhere"} note=${answer.prompt_tokens != null && `${whole(answer.prompt_tokens)} prompt tokens, about`}>
      ${answer.refused && html`<div class="fault">${answer.refused.message}</div>`}
      ${answer.why.length ? html`<ul class="why">${answer.why.map((one) => html`<li><span><${Words} text=${one} /></span></li>`)}</ul>` : !answer.refused && html`<p class="muted">No rule had a say.</p>`}
      <p class="small muted">Deployments, best first: ${answer.plan.join(", ") || "none"}.</p>
    </${Panel}>
    <${Panel} title="Replicas" note="cost in seconds of engine time" flush><${Candidates} rows=${answer.candidates} prompt=${answer.prompt_tokens} /></${Panel}>
    ${answer.candidates.some((row) => row.own != null) && html`<ul class="legend">${PARTS.map(([name, token, said]) => html`<li><span class="swatch" style=${{ "--colour": `var(${token})` }} />${name}: ${said}</li>`)}</ul>`}
    <${Panel} title="Deployments" note="of the model, won or lost" flush><${Deployments} rows=${answer.deployments} /></${Panel}>
    ${answer.rules.length > 0 && html`<${Panel} title="Rules" note="in their order" flush><${Rules} rows=${answer.rules} /></${Panel}>`}`;
}

function Deployments({ rows }) {
  const columns = [
    { head: "Deployment", cell: (row) => row.deployment },
    { head: "Place", cell: (row) => (row.rank ? html`<${Badge} kind="good">${row.rank}</${Badge}>` : html`<${Badge}>out</${Badge}>`) },
    { head: "Why", wrap: true, cell: (row) => html`<${Words} text=${row.why || "–"} />` },
    { head: "Ready", cell: (row) => (row.ready ? "yes" : html`<span class="bad">no</span>`) },
    { head: "Would cost", num: true, cell: (row) => money(row.cost) },
    { head: "First token", num: true, cell: (row) => span(row.first_token) },
    { head: "Holds", num: true, cell: (row) => (row.window ? `${whole(row.window)} tokens` : "–") },
  ];
  return html`<${Table} label="Deployments" columns=${columns} rows=${rows} id=${(row) => row.deployment} empty="No deployment serves this model" />`;
}

function Rules({ rows }) {
  const columns = [
    { head: "Rule", cell: (row) => row.rule },
    { head: "When", wrap: true, cell: (row) => html`<code>${row.when || "always"}</code>` },
    { head: "Held", cell: (row) => (row.held === null ? html`<span class="muted">was not asked</span>` : row.held ? html`<${Badge} kind="good">yes</${Badge}>` : "no") },
  ];
  return html`<${Table} label="Rules" columns=${columns} rows=${rows} id=${(row) => row.rule} />`;
}

function Candidates({ rows, prompt }) {
  const most = Math.max(...rows.map((row) => row.cost), 1e-9);
  const kind = (verdict) => (verdict === "chosen" ? "good" : ["not ready", "ejected", "breaker"].includes(verdict) ? "bad" : verdict === "cooling" ? "warn" : "");
  const columns = [
    { head: "Replica", cell: (row) => row.replica, sort: (row) => row.replica },
    { head: "Verdict", cell: (row) => html`<${Badge} kind=${kind(row.verdict)}>${row.verdict}</${Badge}><div class="under">${VERDICTS[row.verdict] ?? ""}</div>` },
    { head: "Cost", num: true, cell: (row) => span(row.cost), sort: (row) => row.cost },
    ...(rows.every((row) => row.own == null) ? [] : [{ head: "Made of", cell: (row) => html`<span class="meter"><span class="track" style=${{ width: "110px", height: "9px", display: "flex" }} aria-hidden="true">${PARTS.map(([name, token]) => html`<span style=${{ width: `${(100 * row[name] * row.ramp) / most}%`, background: `var(${token})` }} />`)}</span></span>` }]),
    { head: "In its cache", num: true, cell: (row) => share(prompt && row.uncached != null ? Math.max(0, 1 - row.uncached / prompt) : null), sort: (row) => -row.uncached },
    { head: "First token", num: true, cell: (row) => span(row.wait), sort: (row) => row.wait },
  ];
  return html`<${Table} label="Replicas" columns=${columns} rows=${rows} id=${(row) => row.replica} empty="No replica serves this model" order=${{ column: 2, up: true }} />`;
}
