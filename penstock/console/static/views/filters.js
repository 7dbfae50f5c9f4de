// What a list of requests is narrowed to: chips of what is chosen, and one field for more (`model:chat status:failed`).
import { html, useRef, useState } from "../vendor/preact-htm.js";
import { Chip } from "../parts.js";
import { moment } from "../format.js";
import { put } from "../route.js";
import { FILTERS } from "./lines.js";

const NAMES = Object.entries(FILTERS);
const said = (name, value) => (name === "since" || name === "until" ? moment(Number(value)) : name === "slower" ? `${value} s` : value);

export const chosen = (query) => Object.fromEntries(NAMES.flatMap(([name]) => (query[name] ? [[name, query[name]]] : [])));

export function Filters({ query }) {
  const [text, set] = useState("");
  const [fault, tell] = useState("");
  const field = useRef();
  const add = (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    const pairs = text.trim().split(/\s+/).map((word) => word.match(/^([a-z_]+):(.+)$/));
    const unknown = pairs.find((pair) => !pair || !(pair[1] in FILTERS));
    if (unknown !== undefined) return tell(`Write name:value. Names are ${Object.keys(FILTERS).join(", ")}.`);
    put(Object.fromEntries(pairs.map(([, name, value]) => [name, value])));
    set("");
    tell("");
  };
  return html`<form class="tools" onSubmit=${add}>
    <input class="grow" type="search" data-find ref=${field} list="filters" value=${text} onInput=${(event) => set(event.target.value)}
      placeholder="Filter, such as status:failed model:chat" aria-label="Filter" aria-invalid=${String(Boolean(fault))} size="34" />
    <datalist id="filters">${["status:failed", "status:429", "slower:3", ...NAMES.map(([name]) => `${name}:`)].map((value) => html`<option value=${value} />`)}</datalist>
    ${Object.entries(chosen(query)).map(([name, value]) => html`<${Chip} name=${FILTERS[name]} value=${said(name, value)} drop=${() => put({ [name]: "" })} />`)}
    ${fault && html`<span class="bad small" role="alert">${fault}</span>`}
  </form>`;
}
