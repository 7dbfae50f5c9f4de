// What happens now: requests that are open, and those that end, as they end.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/preact-htm.js";
import { CONSOLE, get, query as asked, send, useAsk, useEvents } from "../api.js";
import { count, digits, span, whole } from "../format.js";
import { Badge, Dialog, Empty, Fault, Head, Icon, Panel, Stat, Table } from "../parts.js";
import { to } from "../route.js";
import { chosen, Filters } from "./filters.js";
import { columns } from "./lines.js";

const MOST = 200; // rows that are kept
const HISTORY = 90; // seconds in the small charts
const STATES = { open: ["good", "live"], connecting: ["warn", "connecting"], closed: ["bad", "not connected"] };

export function Live({ me, query }) {
  const { since, until, ...filters } = chosen(query); // what happens now is after the one and before the other
  const search = asked(filters);
  const [rows, setRows] = useState([]);
  const [now, setNow] = useState(null);
  const [past, setPast] = useState([]);
  const [dropped, setDropped] = useState(0);
  const [fault, tell] = useState(null);
  const [paused, pause] = useState(false);
  const held = useRef({ paused: false, waiting: [] });
  const seen = useRef(new Set());

  useEffect(() => {
    setRows([]);
    setDropped(0);
    get(`${CONSOLE}/requests${search}`).then(({ items }) => {
      items.forEach((line) => seen.current.add(line.id));
      setRows((there) => merged(there, items));
    }, tell);
  }, [search]);

  const state = useEvents(`${CONSOLE}/live${search}`, {
    line: (line) => (held.current.paused ? held.current.waiting.push(line) : setRows((there) => merged([line], there))),
    dropped: ({ n }) => setDropped((before) => before + n),
    now: (value) => {
      setNow(value);
      setPast((before) => [...before, value].slice(-HISTORY));
    },
  });
  const flip = () => {
    held.current.paused = !paused;
    if (paused) setRows((there) => merged(held.current.waiting.splice(0).reverse(), there));
    pause(!paused);
  };
  const shown = useMemo(() => columns((name, value) => to("live", { ...filters, [name]: value }), me.slow_ttft), [search]);
  const [kind, said] = paused ? ["warn", "paused"] : STATES[state];
  const of = (name) => past.map((one) => one[name]);
  return html`
    <${Head} title="Live">
      <${Badge} kind=${kind}><span class=${`dot ${state === "open" && !paused ? "pulse" : ""}`} />${said}</${Badge}>
      <button onClick=${flip} data-pause aria-pressed=${String(paused)}><${Icon} name=${paused ? "play" : "pause"} />${paused ? "Go on" : "Pause"}</button>
    </${Head}>
    <div class="stack">
      <dl class="stats">
        <${Stat} name="Requests" value=${now ? digits(now.requests_per_second) : "–"} unit="/s" series=${of("requests_per_second")} />
        <${Stat} name="Failed" value=${now ? digits(now.errors_per_second) : "–"} unit="/s" series=${of("errors_per_second")} bad />
        <${Stat} name="Tokens" value=${now ? count(now.tokens_per_second) : "–"} unit="/s" series=${of("tokens_per_second")} />
        <${Stat} name="In flight" value=${now ? whole(now.in_flight) : "–"} series=${of("in_flight")} />
        <${Stat} name="Waiting" value=${now ? whole(now.queued) : "–"} series=${of("queued")} />
      </dl>
      <${Filters} query=${query} />
      ${fault && html`<${Fault} error=${fault} />`}
      <${Open} filters=${filters} me=${me} />
      <${Panel} title="Ended" note=${dropped ? `${count(dropped)} more than can be shown were left out` : "newest first"} flush>
        ${rows.length || paused
          ? html`<${Table} label="Requests that ended" columns=${shown} rows=${rows} id=${(row) => row.id} isNew=${(row) => !seen.current.has(row.id)} />`
          : html`<${Empty} title="Waiting for the next request">It appears here when it ends.</${Empty}>`}
      </${Panel}>
    </div>`;
}

function merged(newer, older) {
  const there = new Set(newer.map((line) => line.id));
  return [...newer, ...older.filter((line) => !there.has(line.id))].slice(0, MOST);
}

const STAGES = {
  admission: ["", "admission"], queued: ["warn", "waiting"], sent: ["", "sent"], streaming: ["accent", "streaming"],
  drained: ["warn", "caller left"],
};
const EVERY = 2; // seconds
const OF_ENDED = ["status", "error", "slower"]; // nobody knows these of a request that is open

function Open({ filters, me }) {
  const there = Object.fromEntries(Object.entries(filters).filter(([name]) => !OF_ENDED.includes(name)));
  const answer = useAsk(me.features.includes("open") ? `${CONSOLE}/open${asked(there)}` : null, EVERY);
  const [chosen, choose] = useState(null);
  const [stopped, stop] = useState(new Set());
  const { value, error } = answer;
  if (error) return html`<${Fault} error=${error} again=${answer.again} />`;
  if (!value) return null;
  const columns = [
    { head: "Request", cell: (row) => html`<span class="mono">…${row.id.slice(-8)}</span>` },
    { head: "Stage", cell: (row) => html`<${Badge} kind=${STAGES[row.stage][0]}>${STAGES[row.stage][1]}</${Badge}>` },
    { head: "For", num: true, cell: (row) => span(Math.max(0, value.at - row.at)) },
    { head: "Model", cell: (row) => row.model || "–" },
    { head: "Replica", cell: (row) => row.replica || "–" },
    { head: "First token", num: true, cell: (row) => span(row.ttft) },
    { head: "Tokens", num: true, cell: (row) => whole(row.tokens) },
    { head: "Key", cell: (row) => html`<span title=${[row.org, row.team].filter(Boolean).join(", ")}>${row.key_id || "–"}</span>` },
    ...(me.may.includes("cancel requests") ? [{ head: html`<span class="hidden">Stop it</span>`, num: true, cell: (row) => (stopped.has(row.id) ? html`<span class="muted">stopped</span>` : html`<button class="plain danger" onClick=${() => choose(row)}>Stop</button>`) }] : []),
  ];
  const more = value.n - value.items.length;
  const note = [more > 0 ? `the oldest; ${count(more)} more` : "the oldest first", value.silent > 0 && `${value.silent} workers did not answer`].filter(Boolean).join("; ");
  return html`<${Panel} title="Open" class="short" note=${value.items.length ? note : ""} flush=${value.items.length > 0}>
    ${value.items.length ? html`<${Table} label="Open requests" columns=${columns} rows=${value.items} id=${(row) => row.id} />` : html`<p class="muted small">Nothing is in flight at this moment.</p>`}
    ${chosen && html`<${Stop} row=${chosen} close=${() => choose(null)} done=${() => { stop(new Set([...stopped, chosen.id])); choose(null); }} />`}
  </${Panel}>`;
}

/** Asks first: rows move, and an answer that was stopped does not come back. */
function Stop({ row, close, done }) {
  const [fault, tell] = useState(null);
  const [busy, wait] = useState(false);
  const cancel = () => {
    wait(true);
    send("POST", `${CONSOLE}/requests/${encodeURIComponent(row.id)}/cancel`).then(done, (error) => {
      wait(false);
      if (error.status === 404 || error.status === 409) done(); // it has ended by itself
      else tell(error);
    });
  };
  return html`<${Dialog} title="Stop this request?" close=${close}>
    <dl class="facts"><dt>Request</dt><dd class="mono">${row.id}</dd><dt>Model</dt><dd>${row.model}</dd><dt>Key</dt><dd>${row.key_id || "–"}</dd><dt>So far</dt><dd>${whole(row.tokens)} tokens</dd></dl>
    <p class="muted">Its caller is told that an operator has cancelled it, what came so far is charged, and the audit log says that it was you.</p>
    ${fault && html`<${Fault} error=${fault} />`}
    <div class="ends"><button onClick=${close}>Let it go on</button><button class="danger" disabled=${busy} onClick=${cancel}>${busy ? "Stopping" : "Stop it"}</button></div>
  </${Dialog}>`;
}
