// Requests that have ended, newest first; and, with an id in the address, one of them.
import { html, useEffect, useMemo, useState } from "../vendor/preact-htm.js";
import { CONSOLE, get, query as asked, useAsk } from "../api.js";
import { whole } from "../format.js";
import { Asked, Fault, Head, Panel, Table, Time } from "../parts.js";
import { to } from "../route.js";
import { chosen, Filters } from "./filters.js";
import { columns } from "./lines.js";
import { Request } from "./request.js";

export function Requests({ me, parts, query }) {
  if (parts.length) return html`<${Request} key=${parts[0]} id=${parts[0]} me=${me} />`;
  return html`<${List} me=${me} query=${query} />`;
}

function List({ me, query }) {
  const filters = chosen(query);
  const path = `${CONSOLE}/requests`;
  const answer = useAsk(`${path}${asked(filters)}`);
  const [more, set] = useState([]); // pages after the first
  const [fault, tell] = useState(null);
  useEffect(() => set([]), [answer.value]);
  const shown = useMemo(() => columns((name, value) => to("requests", { ...filters, [name]: value }), me.slow_ttft), [JSON.stringify(filters)]);
  return html`
    <${Head} title="Requests"><button onClick=${() => answer.again()}>Look again</button></${Head}>
    <div class="stack">
      <${Filters} query=${query} />
      <${Asked} asked=${answer}>${(value) => {
        const last = more.at(-1) ?? value;
        const rows = [value, ...more].flatMap((page) => page.items);
        const go_on = () => get(`${path}${asked({ ...filters, before: last.next })}`).then((page) => set([...more, page]), tell);
        return html`<${Panel} title=${rows.length ? `${whole(rows.length)}${last.next ? " newest" : ""}` : "Requests"} note=${value.kept_since && html`kept since <${Time} at=${value.kept_since} />`} flush>
          <${Table} label="Requests" columns=${shown} rows=${rows} id=${(row) => row.id} empty=${last.next ? "None among the newest" : Object.keys(filters).length ? "No request that is kept is like that" : "No request yet"} />
          ${fault && html`<${Fault} error=${fault} />`}
          ${last.next && html`<div class="more"><button onClick=${go_on}>Older ones</button></div>`}
        </${Panel}>`;
      }}</${Asked}>
    </div>`;
}
