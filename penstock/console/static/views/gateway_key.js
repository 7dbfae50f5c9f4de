// A key of the gateway, for what the console asks it in somebody's name: in this page's memory only, and gone with it.
import { html } from "../vendor/preact-htm.js";

let kept = "";

export const gatewayKey = () => ({ "x-penstock-key": kept });
export const lastKey = () => kept;

export function GatewayKey({ value, set, note }) {
  const changed = (event) => {
    kept = event.target.value.trim();
    set(kept);
  };
  return html`<label class="field">Gateway key${note && ` (${note})`}<input type="password" autocomplete="off" value=${value} placeholder="sk-..." onInput=${changed} /></label>`;
}
