// Where a request would go now, and why not elsewhere. Nothing is sent to any replica.
import { html, useState } from "../vendor/preact-htm.js";
import { CONSOLE, send } from "../api.js";
import { share, span, whole } from "../format.js";
import { Badge, Fault, Head, Panel, Table, Words } from "../parts.js";

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
  const [key, setKey] = useState("");
  const [answer, tell] = useState(null);
  const [fault, blame] = useState(null);
  const look = async (event) => {
    event.preventDefault();
    blame(null);
    try {
      tell(await send("POST", `${CONSOLE}/explain`, { endpoint: "chat.completions", body: JSON.parse(text), ...(key.trim() ? { key_id: key.trim() } : {}) }));
    } catch (error) {
      tell(null);
      blame(error instanceof SyntaxError ? new Error(`This is not JSON: ${error.message}`) : error);
    }
  };
  return html`<${Head} title="Routing" note="Where a request would go at this moment, and why it would not go elsewhere. Nothing is sent." />
    <div class="grid">
      <form class="w5 stack" onSubmit=${look}>
        <label class="field">Body of a chat request<textarea data-find class="mono" rows="14" spellcheck=${false} value=${text} onInput=${(event) => set(event.target.value)} /></label>
        <label class="field">As which key (its id, not the key itself)<input value=${key} placeholder="anybody" onInput=${(event) => setKey(event.target.value)} /></label>
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
    <${Panel} title=${answer.chosen ? `It would go to ${answer.chosen}` : "It would go nowhere"} note=${`${whole(answer.prompt_tokens)} prompt tokens, about`}>
      ${answer.refused && html`<div class="fault">${answer.refused.message}</div>`}
      ${answer.why.length ? html`<ul class="why">${answer.why.map((one) => html`<li><span><${Words} text=${one} /></span></li>`)}</ul>` : html`<p class="muted">No rule applied.</p>`}
      <p class="small muted">Deployments, best first: ${answer.plan.join(", ") || "none"}${answer.explored ? ". A costlier one was chosen, to learn about it." : "."}</p>
    </${Panel}>
    <${Panel} title="Replicas" note="cost in seconds of engine time" flush><${Candidates} rows=${answer.candidates} prompt=${answer.prompt_tokens} /></${Panel}>
    <ul class="legend">${PARTS.map(([name, token, said]) => html`<li><span class="swatch" style=${{ "--colour": `var(${token})` }} />${name}: ${said}</li>`)}</ul>`;
}

function Candidates({ rows, prompt }) {
  const most = Math.max(...rows.map((row) => row.cost), 1e-9);
  const kind = (verdict) => (verdict === "chosen" ? "good" : ["not ready", "ejected", "breaker"].includes(verdict) ? "bad" : verdict === "cooling" ? "warn" : "");
  const columns = [
    { head: "Replica", cell: (row) => row.replica, sort: (row) => row.replica },
    { head: "Verdict", cell: (row) => html`<${Badge} kind=${kind(row.verdict)}>${row.verdict}</${Badge}><div class="under">${VERDICTS[row.verdict] ?? ""}</div>` },
    { head: "Cost", num: true, cell: (row) => span(row.cost), sort: (row) => row.cost },
    { head: "Made of", cell: (row) => html`<span class="meter"><span class="track" style=${{ width: "110px", height: "9px", display: "flex" }} aria-hidden="true">${PARTS.map(([name, token]) => html`<span style=${{ width: `${(100 * row[name] * row.ramp) / most}%`, background: `var(${token})` }} />`)}</span></span>` },
    { head: "In its cache", num: true, cell: (row) => share(prompt ? row.cached_tokens / prompt : null), sort: (row) => row.cached_tokens },
    { head: "First token", num: true, cell: (row) => span(row.wait), sort: (row) => row.wait },
  ];
  return html`<${Table} label="Replicas" columns=${columns} rows=${rows} id=${(row) => row.replica} empty="No replica serves this model" order=${{ column: 2, up: true }} />`;
}
