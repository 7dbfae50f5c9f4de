// Where the money went: the ledger by up to three attributes, narrowed by what is clicked. Sums are the ledger's own.
import { html, useMemo } from "../vendor/preact-htm.js";
import { CONSOLE, query as asked, useAsk } from "../api.js";
import { Chart } from "../chart.js";
import { count, date, exact, money, moment, share, whole } from "../format.js";
import { Asked, Chip, Head, Meter, Panel, Segments, Stat, Table } from "../parts.js";
import { put, to } from "../route.js";

const BY = [
  ["org", "Organisation"], ["team", "Team"], ["key_id", "Key"], ["user_hash", "User"], ["feature", "Feature"], ["model", "Model"],
  ["deployment", "Deployment"], ["endpoint", "API"], ["session", "Session"], ["day", "Day"], ["hour", "Hour"],
];
const NAMES = Object.fromEntries(BY);
const FILTERS = BY.map(([name]) => name).filter((name) => name !== "day" && name !== "hour");
const RANGES = [["1", "Today"], ["7", "7 d"], ["30", "30 d"], ["90", "90 d"]];
const TOKENS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c7", "--c8"];
const DAY = 86_400;

export function Cost({ query }) {
  const by = (query.by ?? "model").split(",").filter((name) => name in NAMES).slice(0, 3);
  const days = RANGES.some(([key]) => key === query.days) ? query.days : "30";
  const filters = Object.fromEntries(FILTERS.filter((name) => name in query).map((name) => [name, query[name]]));
  const today = Math.floor(Date.now() / 1000 / DAY) * DAY;
  const range = { since: query.since ?? date(today - (Number(days) - 1) * DAY), until: query.until ?? date(today + DAY) };
  const search = (more) => `${asked({ ...range, ...more })}${Object.entries(filters).map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join("")}`;
  const whole_time = query.whole ? { whole: 1 } : {};
  const sums = useAsk(`${CONSOLE}/costs${search({ by: by.join(","), most: 200, ...whole_time })}`);
  const over = by.find((name) => name !== "day" && name !== "hour");
  const unit = days === "1" ? "hour" : "day";
  const time = useAsk(`${CONSOLE}/costs${search({ by: over ? `${unit},${over}` : unit, most: 500, ...whole_time })}`);
  const setBy = (n, name) => put({ by: [...by.slice(0, n), name, ...by.slice(n + 1)].filter((one, at, all) => one && all.indexOf(one) === at).join(","), whole: "" });
  return html`
    <${Head} title="Cost">
      <${Segments} label="Range" options=${RANGES} value=${query.since ? "" : days} pick=${(key) => put({ days: key === "30" ? "" : key, since: "", until: "", whole: "" })} />
      <a class="button" href=${`${CONSOLE}/costs.csv${search({ by: by.join(",") })}`} download>Download CSV</a>
    </${Head}>
    <div class="stack">
      <div class="tools">
        ${[0, 1, 2].slice(0, Math.min(3, by.length + 1)).map((n) => html`<label class="tools"><span class="muted">${n ? "then" : "By"}</span><select data-find=${n === 0} value=${by[n] ?? ""} onChange=${(event) => setBy(n, event.target.value)}>
          ${n > 0 && html`<option value="">nothing</option>`}${BY.map(([name, said]) => html`<option value=${name}>${said}</option>`)}
        </select></label>`)}
        ${Object.entries(filters).map(([name, value]) => html`<${Chip} name=${NAMES[name]} value=${value} drop=${() => put({ [name]: null })} />`)}
      </div>
      <${Asked} asked=${sums}>${(value) => html`
        <${Totals} value=${value} />
        ${value.missing.length > 0 && html`<div class="fault">Rows of ${value.missing.map(([from, to]) => `${from} to ${to}`).join(", ")} were let go: what is shown is less than what was spent.</div>`}
        ${value.since && html`<p class="muted" data-shortened>Since ${moment(Date.parse(value.since) / 1000)} only: by this, every request has to be read, and before then there are very many. <a href=${to("cost", { ...query, whole: "1" })}>Read all of them</a></p>`}
        ${time.value && html`<${Panel} title=${`Cost per ${unit}`} note=${over ? `by ${NAMES[over].toLowerCase()}` : ""}><${Over} answer=${time.value} by=${over} unit=${unit} range=${{ ...range, since: time.value.since ?? range.since }} /></${Panel}>`}
        <${Panel} title=${by.map((name) => NAMES[name]).join(", ")} note=${value.n_others ? `and ${whole(value.n_others)} smaller groups` : ""} flush>
          <${Groups} value=${value} by=${by} query=${query} />
        </${Panel}>`}</${Asked}>
    </div>`;
}

function Totals({ value: { total } }) {
  const tokens = total.input_tokens + total.cached_tokens + total.cache_write_tokens + total.cache_write_1h_tokens + total.output_tokens + total.reasoning_tokens;
  const prompt = total.input_tokens + total.cached_tokens + total.cache_write_tokens + total.cache_write_1h_tokens;
  return html`<dl class="stats">
    <${Stat} name="Cost" value=${money(total.cost_nanos)} note=${html`<span data-total>${exact(total.cost_nanos)}</span>`} />
    <${Stat} name="Requests" value=${count(total.requests)} note=${`${money(total.requests ? total.cost_nanos / total.requests : null)} each`} />
    <${Stat} name="Tokens" value=${count(tokens)} note=${`${money(tokens ? (total.cost_nanos / tokens) * 1e6 : null)} per million`} />
    <${Stat} name="Prompt from caches" value=${share(prompt ? total.cached_tokens / prompt : null)} note=${`${count(total.cached_tokens)} tokens`} />
    <${Stat} name="Without a price" value=${count(total.unpriced)} note=${total.unpriced ? html`<span class="warn">their cost is not in these sums</span>` : "everything has one"} />
  </dl>`;
}

/** The largest six of the first attribute over time, and all others together. */
function Over({ answer, by, unit, range }) {
  const { at, series } = useMemo(() => layers(answer, by, unit, range), [answer, by, unit]);
  return html`<${Chart} label="Cost over time" at=${at} series=${series} stacked days=${unit === "day"} show=${money} />`;
}

function layers(answer, by, unit, range) {
  const step = unit === "day" ? DAY : 3600;
  const start = Math.floor(Date.parse(range.since) / 1000 / step) * step;
  const end = Math.min(Date.parse(range.until) / 1000, Date.now() / 1000);
  const at = Array.from({ length: Math.max(1, Math.ceil((end - start) / step)) }, (_, n) => start + n * step);
  const whose = (row) => (by ? String(row.group[by] || "none") : "all");
  const sizes = new Map();
  for (const row of answer.items) sizes.set(whose(row), (sizes.get(whose(row)) ?? 0) + row.cost_nanos);
  const largest = [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([name]) => name);
  const names = sizes.size > largest.length ? [...largest, "others"] : largest;
  const values = Object.fromEntries(names.map((name) => [name, at.map(() => 0)]));
  for (const row of answer.items) {
    const then = unit === "day" ? Date.parse(row.group.day) / 1000 : row.group.hour;
    const layer = values[whose(row)] ?? values.others;
    const n = Math.round((then - start) / step);
    if (layer && n >= 0 && n < at.length) layer[n] += row.cost_nanos;
  }
  return { at, series: names.map((name, n) => ({ name, values: values[name], token: name === "others" ? "--c6" : TOKENS[n], bars: true })) };
}

function Groups({ value, by, query }) {
  const most = Math.max(...value.items.map((row) => row.cost_nanos), 1);
  const total = value.total.cost_nanos || 1;
  const next = BY.map(([name]) => name).find((name) => !by.includes(name) && !(name in query));
  const said = (name, text) => (text === null || text === "" ? html`<span class="muted">none</span>` : name === "hour" ? moment(text) : text);
  const cell = (name, last) => (row) => {
    const text = row.group[name];
    if (!FILTERS.includes(name)) return said(name, text);
    const narrowed = to("cost", { ...query, [name]: text ?? "", by: by.length > 1 ? by.filter((one) => one !== name).join(",") : next });
    return html`<a href=${narrowed} title=${last ? `Only this, by ${NAMES[next]?.toLowerCase()}` : "Only this"}>${said(name, text)}</a>`;
  };
  const tokens = (row) => row.input_tokens + row.cached_tokens + row.cache_write_tokens + row.cache_write_1h_tokens;
  const out = (row) => row.output_tokens + row.reasoning_tokens;
  const columns = [
    ...by.map((name) => ({ head: NAMES[name], cell: cell(name, by.length === 1), sort: (row) => row.group[name] ?? "" })),
    { head: "Cost", num: true, cell: (row) => html`<span title=${exact(row.cost_nanos)} data-nanos=${row.cost_nanos}>${money(row.cost_nanos)}</span>`, sort: (row) => row.cost_nanos },
    { head: "Share", cell: (row) => html`<${Meter} value=${row.cost_nanos / most} label=${share(row.cost_nanos / total)} warn=${2} bad=${2} />`, sort: (row) => row.cost_nanos },
    { head: "Requests", num: true, cell: (row) => count(row.requests), sort: (row) => row.requests },
    { head: "Failed", num: true, cell: (row) => share(row.requests ? row.errors / row.requests : null), sort: (row) => row.errors / row.requests },
    { head: "Tokens in", num: true, cell: (row) => count(tokens(row)), sort: tokens },
    { head: "out", num: true, cell: (row) => count(out(row)), sort: out },
    { head: "Per request", num: true, cell: (row) => money(row.requests ? row.cost_nanos / row.requests : null), sort: (row) => row.cost_nanos / row.requests },
    { head: "No price", num: true, cell: (row) => (row.unpriced ? html`<span class="warn">${count(row.unpriced)}</span>` : "–"), sort: (row) => row.unpriced },
  ];
  const rest = value.n_others ? [html`<span>${whole(value.n_others)} others ${money(value.others.cost_nanos)}, all</span>`] : ["All"];
  const foot = [...rest, ...by.slice(1).map(() => ""), html`<span title=${exact(value.total.cost_nanos)}>${money(value.total.cost_nanos)}</span>`, "", count(value.total.requests), share(value.total.requests ? value.total.errors / value.total.requests : null), count(tokens(value.total)), count(out(value.total)), money(value.total.requests ? value.total.cost_nanos / value.total.requests : null), value.total.unpriced ? count(value.total.unpriced) : "–"];
  return html`<${Table} key=${by.join()} label="Cost by group" columns=${columns} rows=${value.items} id=${(row) => JSON.stringify(row.group)} empty="Nothing was used in this time" foot=${foot} />`;
}
