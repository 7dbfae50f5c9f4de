// Limits and budgets of the configuration file, and how much of each is used.
import { html } from "../vendor/preact-htm.js";
import { ADMIN, useAsk } from "../api.js";
import { count, exact, money } from "../format.js";
import { Asked, Badge, Empty, Head, Meter, Panel } from "../parts.js";

export function Limits() {
  const answer = useAsk(`${ADMIN}/limits`, 10);
  return html`<${Head} title="Budgets and limits" note="They are set in the configuration file. Who has used most of each comes first." />
    <${Asked} asked=${answer}>${({ items }) => {
      if (!items.length) return html`<section class="panel"><${Empty} title="No budget and no limit is set">Add <code>budgets</code> or <code>limits</code> to the configuration file.</${Empty}></section>`;
      const budgets = items.filter((one) => one.is_budget);
      const limits = items.filter((one) => !one.is_budget);
      return html`<div class="grid">${[...budgets, ...limits].map((one) => html`<${One} key=${`${one.is_budget}${one.name}`} one=${one} />`)}</div>`;
    }}</${Asked}>`;
}

function One({ one }) {
  const { amount, ...options } = one.options;
  const words = Object.entries(options).filter(([, value]) => typeof value !== "object" && value !== false).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  const said = (n) => (one.is_budget ? money(n) : count(n));
  return html`<${Panel} class="w6" title=${one.name} note=${words.join(" · ")} tools=${html`<${Badge} kind=${one.is_budget ? "accent" : ""}>${one.is_budget ? `budget${amount ? ` ${amount}` : ""}` : "limit"}</${Badge}>`} flush>
    ${one.used == null && html`<${Empty} title="How much is used cannot be said now" />`}
    ${one.used?.length === 0 && html`<${Empty} title="Nobody has used any of it" />`}
    ${one.used?.length > 0 && html`<ul class="slos">${one.used.slice(0, 12).map((use) => html`<li class="slo use">
      <span class="clip">${use.who || "everybody"}</span>
      <${Meter} wide value=${use.amount ? use.used / use.amount : 0} />
      <span class="small" title=${one.is_budget ? `${exact(use.used)} of ${exact(use.amount)}` : undefined}>${said(use.used)} of ${said(use.amount)}</span>
    </li>`)}</ul>`}
  </${Panel}>`;
}
