// What happens now: requests that are open, and those that end, as they end.
import { html, useEffect, useMemo, useRef, useState } from "../vendor/preact-htm.js";
import { CONSOLE, get, query as asked, send, useEvents } from "../api.js";
import { count, digits, span, whole } from "../format.js";
import { Badge, Empty, Fault, Head, Icon, Panel, Stat, Table } from "../parts.js";
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
      <${Open} now=${now} me=${me} />
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

const STAGES = { queued: ["warn", "waiting"], sent: ["", "sent"], streaming: ["accent", "streaming"] };

function Open({ now, me }) {
  const [stopping, stop] = useState(new Set());
  if (!now?.inflight.length) return null;
  const cancel = async (id) => {
    stop(new Set([...stopping, id]));
    await send("POST", `${CONSOLE}/requests/${encodeURIComponent(id)}/cancel`).catch((error) => {
      if (error.status !== 404) throw error; // it has ended by itself
    });
  };
  const columns = [
    { head: "Request", cell: (row) => html`<span class="mono">…${row.id.slice(-8)}</span>` },
    { head: "Stage", cell: (row) => html`<${Badge} kind=${STAGES[row.stage][0]}>${STAGES[row.stage][1]}</${Badge}>` },
    { head: "For", num: true, cell: (row) => span(Math.max(0, now.at - row.at)) },
    { head: "Model", cell: (row) => row.model },
    { head: "Replica", cell: (row) => row.replica || "–" },
    { head: "First token", num: true, cell: (row) => span(row.ttft) },
    { head: "Tokens", num: true, cell: (row) => whole(row.tokens) },
    { head: "Key", cell: (row) => row.key_id || "–" },
    ...(me.features.includes("cancel") ? [{ head: html`<span class="hidden">Stop it</span>`, num: true, cell: (row) => html`<button class="plain danger" disabled=${stopping.has(row.id)} onClick=${() => cancel(row.id)}>${stopping.has(row.id) ? "Stopping" : "Stop"}</button>` }] : []),
  ];
  const more = now.in_flight - now.inflight.length;
  return html`<${Panel} title="Open" note=${more > 0 ? `the oldest; ${whole(more)} more` : "the oldest first"} flush>
    <${Table} label="Open requests" columns=${columns} rows=${now.inflight} id=${(row) => row.id} />
  </${Panel}>`;
}
