// Administrative acts, newest last, as they are chained in the log; and whether the chain is whole.
import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { ADMIN, get, useAsk } from "../api.js";
import { whole } from "../format.js";
import { Asked, Fault, Head, Panel, Table, Time } from "../parts.js";

export function Audit() {
  const answer = useAsk(`${ADMIN}/audit?most=200`);
  const [more, set] = useState([]);
  const [found, tell] = useState(null);
  const [fault, blame] = useState(null);
  useEffect(() => set([]), [answer.value]);
  const verify = () => get(`${ADMIN}/audit/verify`).then(tell, blame);
  return html`
    <${Head} title="Audit" note="Every act of an administrator. Each row holds the digest of the one before it."><button onClick=${verify}>Verify the chain</button></${Head}>
    <div class="stack">
      ${fault && html`<${Fault} error=${fault} />`}
      ${found && html`<div class=${found.whole ? "panel" : "fault"} role="status"><div class="in">${found.whole
        ? html`<strong class="good">The log is whole</strong>: ${whole(found.seq)} rows. Keep this digest elsewhere to prove it later: <code>${found.head}</code>`
        : html`Row ${found.seq} is not what was written: ${found.why}`}</div></div>`}
      <${Asked} asked=${answer}>${(value) => {
        const last = more.at(-1) ?? value;
        const rows = [value, ...more].flatMap((page) => page.items);
        const go_on = () => get(`${ADMIN}/audit?most=200&after=${last.next}`).then((page) => set([...more, page]), blame);
        return html`<${Panel} title=${`${whole(rows.length)} acts`} flush><${Acts} rows=${rows} />${last.next && html`<div class="more"><button onClick=${go_on}>More</button></div>`}</${Panel}>`;
      }}</${Asked}>
    </div>`;
}

function Acts({ rows }) {
  const detail = (row) => Object.entries(row.detail).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
  const columns = [
    { head: "Row", num: true, cell: (row) => row.seq, sort: (row) => row.seq },
    { head: "When", cell: (row) => html`<${Time} at=${row.at_micros / 1e6} />` },
    { head: "Who", cell: (row) => row.actor, sort: (row) => row.actor },
    { head: "Did", cell: (row) => html`<code>${row.action}</code>`, sort: (row) => row.action },
    { head: "To", cell: (row) => row.target },
    { head: "Detail", wrap: true, cell: (row) => html`<span class="small">${detail(row) || "–"}</span>` },
  ];
  return html`<${Table} label="Acts" columns=${columns} rows=${rows} id=${(row) => row.seq} empty="Nothing was changed yet" order=${{ column: 0, up: false }} />`;
}
