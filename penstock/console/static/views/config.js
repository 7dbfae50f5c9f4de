// What the server runs with, and what another file would change. A dry run changes nothing.
import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { CONSOLE, send, useAsk } from "../api.js";
import { Asked, Badge, Empty, Fault, Head, Panel, Segments, Time } from "../parts.js";
import { put } from "../route.js";

const TABS = [["", "Current"], ["try", "Dry run"], ["changes", "Changes"]];

export function Config({ query }) {
  const answer = useAsk(`${CONSOLE}/config`);
  const tab = query.tab ?? "";
  return html`
    <${Head} title="Configuration"><${Segments} label="Part" options=${TABS} value=${tab} pick=${(key) => put({ tab: key })} /></${Head}>
    <${Asked} asked=${answer}>${(value) => (tab === "try" ? html`<${Try} value=${value} />` : tab === "changes" ? html`<${Changes} value=${value} />` : html`<${Current} value=${value} />`)}</${Asked}>`;
}

function Current({ value }) {
  return html`<${Panel} title=${value.path ?? "No file"} note=${html`version ${value.version}, since <${Time} at=${value.loaded_at} />`} flush>
    <div class="lines" tabindex="0" role="region" aria-label="The configuration file">${value.text.replace(/\n$/, "").split("\n").map((line) => html`<div>${line || " "}</div>`)}</div>
  </${Panel}>`;
}

function Diff({ lines }) {
  const kind = (line) => ({ "+": "plus", "-": "minus" })[line[0]] ?? "other";
  return html`<ul class="diff">${lines.map((line) => html`<li class=${kind(line)}>${line}</li>`)}</ul>`;
}

function Changes({ value }) {
  if (!value.changes.length) return html`<section class="panel"><${Empty} title="Nothing has changed since the server started" /></section>`;
  return html`<div class="stack">${value.changes.map((one) => html`<${Panel} title=${`Version ${one.version}`} note=${html`<${Time} at=${one.at} />`}><${Diff} lines=${one.lines} /></${Panel}>`)}</div>`;
}

function Try({ value }) {
  const [text, set] = useState(value.text);
  const [found, tell] = useState(null);
  const [fault, blame] = useState(null);
  useEffect(() => tell(null), [text]);
  const check = (event) => {
    event.preventDefault();
    blame(null);
    send("POST", `${CONSOLE}/config/check`, { text }).then(tell, blame);
  };
  return html`<form class="grid" onSubmit=${check}>
    <div class="w7"><label class="field">A configuration file<textarea data-find class="mono" rows="28" spellcheck=${false} value=${text} onInput=${(event) => set(event.target.value)} /></label></div>
    <div class="w5 stack">
      <div class="tools"><button class="first">Check it</button><span class="small muted">Nothing is changed. What is hidden, such as <code>(digest 1)</code>, is put back for the check.</span></div>
      ${fault && html`<${Fault} error=${fault} />`}
      ${found && (found.good
        ? html`<${Panel} title="It would work" tools=${html`<${Badge} kind="good">no problems</${Badge}>`}>${found.diff.length ? html`<${Diff} lines=${found.diff} />` : html`<p class="muted">It means the same as what runs now.</p>`}</${Panel}>`
        : html`<${Panel} title="It would be refused" tools=${html`<${Badge} kind="bad">${found.problems.length} problems</${Badge}>`}><ul class="why">${found.problems.map((one) => html`<li><span>Line ${one.line}: ${one.path && html`<code>${one.path}</code> `}${one.message}</span></li>`)}</ul></${Panel}>`)}
    </div>
  </form>`;
}
