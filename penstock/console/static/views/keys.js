// Organisations, teams and keys: made, changed, rotated and revoked through the admin API. A key is shown once, when made.
import { html, useMemo, useState } from "../vendor/preact-htm.js";
import { ADMIN, query as asked, send, useAsk } from "../api.js";
import { whole } from "../format.js";
import { Asked, Badge, Copy, Dialog, Fault, Head, Panel, Table, Time } from "../parts.js";
import { put, to } from "../route.js";

const RUN = "make and change organisations, teams and keys";

export function Keys({ me, query }) {
  const may = me.may.includes(RUN);
  const org = me.org || query.org || "";
  const team = query.team ?? "";
  const orgs = useAsk(me.org ? null : `${ADMIN}/orgs?most=500`);
  const teams = useAsk(org ? `${ADMIN}/orgs/${encodeURIComponent(org)}/teams?most=500` : null);
  const keys = useAsk(`${ADMIN}/keys${asked({ org, team, most: 500 })}`);
  const [doing, act] = useState(null); // {what, key?}
  const done = () => {
    keys.again();
    orgs.again();
    teams.again();
  };
  return html`
    <${Head} title="Keys and teams">
      ${may && !me.org && html`<button onClick=${() => act({ what: "org" })}>New organisation</button>`}
      ${may && org && html`<button onClick=${() => act({ what: "team" })}>New team</button>`}
      ${may && html`<button class="first" onClick=${() => act({ what: "key" })}>New key</button>`}
    </${Head}>
    <div class="stack">
      <div class="tools">
        ${!me.org && html`<label class="tools"><span class="muted">Organisation</span><select data-find value=${org} onChange=${(event) => put({ org: event.target.value, team: "" })}>
          <option value="">all</option>${(orgs.value?.items ?? []).map((one) => html`<option value=${one.org}>${one.org}</option>`)}
        </select></label>`}
        ${org && html`<label class="tools"><span class="muted">Team</span><select value=${team} onChange=${(event) => put({ team: event.target.value })}>
          <option value="">all</option>${(teams.value?.items ?? []).map((one) => html`<option value=${one.team}>${one.team}</option>`)}
        </select></label>`}
      </div>
      <${Asked} asked=${keys}>${({ items, next }) => html`<${Panel} title=${`${whole(items.length)}${next ? "+" : ""} keys`} note="never the keys themselves" flush><${KeysTable} rows=${items} may=${may} act=${act} /></${Panel}>`}</${Asked}>
      ${!org && orgs.value && html`<${Panel} title="Organisations" flush><${Tenants} rows=${orgs.value.items} name=${(row) => row.org} link=${(row) => to("keys", { org: row.org })} /></${Panel}>`}
      ${org && teams.value && html`<${Panel} title=${`Teams of ${org}`} flush><${Tenants} rows=${teams.value.items} name=${(row) => row.team} link=${(row) => to("keys", { org, team: row.team })} /></${Panel}>`}
    </div>
    ${doing && html`<${Doing} key=${doing.what + (doing.key?.id ?? "")} doing=${doing} org=${org} team=${team} close=${() => act(null)} done=${done} />`}`;
}

const may_do = (one) => Object.entries(one).filter(([name]) => ["models", "priority", "max_cost", "budget", "limits", "expires"].includes(name)).map(([name, value]) => `${name.replace("_", " ")} ${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");

function KeysTable({ rows, may, act }) {
  const instant = (text) => (text ? html`<${Time} at=${Date.parse(text) / 1000} />` : "–");
  const columns = useMemo(() => [
    { head: "Key", cell: (row) => html`<a href=${to("requests", { key_id: row.id })}>${row.id}</a>`, sort: (row) => row.id },
    { head: "State", cell: (row) => (row.revoked ? html`<${Badge} kind="bad">revoked</${Badge}>` : row.previous_until ? html`<${Badge} kind="warn">rotated</${Badge}>` : html`<${Badge} kind="good">works</${Badge}>`) },
    { head: "Organisation", cell: (row) => row.org || "–", sort: (row) => row.org },
    { head: "Team", cell: (row) => row.team || "–", sort: (row) => row.team },
    { head: "May", wrap: true, cell: (row) => may_do(row) || html`<span class="muted">what its team may</span>` },
    { head: "Made", cell: (row) => instant(row.created), sort: (row) => row.created },
    { head: "Last used", cell: (row) => instant(row.last_used), sort: (row) => row.last_used },
    { head: "Where", cell: (row) => html`<${Badge}>${row.where}</${Badge}>` },
    ...(may ? [{ head: html`<span class="hidden">Acts</span>`, cell: (row) => row.version > 0 && !row.revoked && html`<button class="plain" onClick=${() => act({ what: "rotate", key: row })}>Rotate</button><button class="plain danger" onClick=${() => act({ what: "revoke", key: row })}>Revoke</button>` }] : []),
  ], [may]);
  return html`<${Table} label="Keys" columns=${columns} rows=${rows} id=${(row) => row.id} empty="No keys here" />`;
}

function Tenants({ rows, name, link }) {
  const columns = [
    { head: "Name", cell: (row) => html`<a href=${link(row)}>${name(row)}</a>`, sort: name },
    { head: "May", wrap: true, cell: (row) => may_do(row) || html`<span class="muted">everything</span>` },
    { head: "Where", cell: (row) => html`<${Badge}>${row.where}</${Badge}>` },
  ];
  return html`<${Table} label="Tenants" columns=${columns} rows=${rows} id=${name} empty="None yet" />`;
}

const TITLES = { org: "New organisation", team: "New team", key: "New key", rotate: "Rotate this key", revoke: "Revoke this key" };

function Doing({ doing: { what, key }, org, team, close, done }) {
  const [name, set] = useState("");
  const [models, setModels] = useState("");
  const [secret, tell] = useState("");
  const [fault, blame] = useState(null);
  const act = async (event) => {
    event.preventDefault();
    blame(null);
    const access = models.trim() ? { models: models.split(",").map((one) => one.trim()).filter(Boolean) } : {};
    const at = key && `${ADMIN}/keys/${encodeURIComponent(key.id)}`;
    const version = key && { "if-match": `"${key.version}"` };
    try {
      const made = await {
        org: () => send("POST", `${ADMIN}/orgs`, { org: name, ...access }),
        team: () => send("POST", `${ADMIN}/orgs/${encodeURIComponent(org)}/teams`, { team: name, ...access }),
        key: () => send("POST", `${ADMIN}/keys`, { ...(name ? { id: name } : {}), ...(org ? { org } : {}), ...(team ? { team } : {}), ...access }),
        rotate: () => send("POST", `${at}/rotate`, { overlap: "7d" }, version),
        revoke: () => send("POST", `${at}/revoke`, undefined, version),
      }[what]();
      done();
      if (made?.secret) tell(made.secret);
      else close();
    } catch (error) {
      blame(error);
    }
  };
  if (secret) return html`<${Dialog} title="The key, this once" close=${close}><p>Copy it now: it is kept nowhere and cannot be shown again.</p><div class="tools"><code class="grow">${secret}</code><${Copy} text=${secret} what="Copy the key" /></div></${Dialog}>`;
  return html`<${Dialog} title=${TITLES[what]} close=${close}><form class="stack" onSubmit=${act}>
    ${what === "rotate" && html`<p>A new key is made for <code>${key.id}</code>. The old one goes on working for 7 days.</p>`}
    ${what === "revoke" && html`<p>Whoever uses <code>${key.id}</code> is refused from now on, for good.</p>`}
    ${!key && html`<label class="field">${what === "key" ? "Its name (made up when empty)" : "Its name"}<input value=${name} required=${what !== "key"} onInput=${(event) => set(event.target.value)} /></label>
      <label class="field">Models it may use, with commas<input value=${models} placeholder="all" onInput=${(event) => setModels(event.target.value)} /></label>`}
    ${what === "key" && html`<p class="small muted">${org ? `For ${org}${team ? `, ${team}` : ""}.` : "For no organisation. Choose one in the list first if it is to have one."}</p>`}
    ${fault && html`<${Fault} error=${fault} />`}
    <div class="ends"><button class=${what === "revoke" ? "danger" : "first"}>${TITLES[what]}</button></div>
  </form></${Dialog}>`;
}
