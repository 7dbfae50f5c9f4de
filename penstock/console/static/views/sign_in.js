// The door. What is pasted here is sent once and becomes a cookie that no script can read.
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { CONSOLE, send } from "../api.js";

export function SignIn({ entered }) {
  const [secret, set] = useState("");
  const [fault, tell] = useState("");
  const [busy, wait] = useState(false);
  const field = useRef();
  useEffect(() => {
    document.title = "Sign in · Penstock";
    field.current.focus();
  }, []);

  const enter = async (event) => {
    event.preventDefault();
    wait(true);
    tell("");
    try {
      entered(await send("POST", `${CONSOLE}/login`, { secret: secret.trim() }));
    } catch (error) {
      tell(error instanceof TypeError ? "The server does not answer." : `${error.message[0].toUpperCase()}${error.message.slice(1)}`);
      wait(false);
      field.current.select();
    }
  };

  return html`<main class="door">
    <form class="panel" onSubmit=${enter}>
      <img src="/console/static/icon.svg" alt="" />
      <h1>Sign in to Penstock</h1>
      <label class="field">Admin key, or a token of your identity provider
        <input type="password" name="secret" autocomplete="current-password" required ref=${field} value=${secret} onInput=${(event) => set(event.target.value)} aria-describedby="where" />
      </label>
      ${fault && html`<div class="fault" role="alert">${fault}</div>`}
      <button class="first" disabled=${busy || !secret.trim()}>${busy ? "Signing in" : "Sign in"}</button>
      <p class="small muted" id="where">Admin keys are those of <code>admin.keys</code> in the configuration. <code>penstock key create --admin owner</code> makes one.</p>
    </form>
  </main>`;
}
