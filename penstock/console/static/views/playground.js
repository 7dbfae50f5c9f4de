// One prompt, up to three models side by side, through the gateway itself with one of its keys.
import { html, useRef, useState } from "../vendor/preact-htm.js";
import { ask, CONSOLE, payloads, useAsk } from "../api.js";
import { count, digits, span } from "../format.js";
import { Asked, Empty, Head, Icon } from "../parts.js";
import { put, request } from "../route.js";
import { GatewayKey, gatewayKey, lastKey } from "./gateway_key.js";

const MOST = 3;

export function Playground({ query }) {
  const there = useAsk(`${CONSOLE}/models`);
  return html`<${Head} title="Playground" note="Answers come through the gateway: its limits hold, and what is used is in the ledger of the key." />
    <${Asked} asked=${there}>${({ items }) => html`<${Compare} models=${items.filter((one) => !one.operations.length || one.operations.includes("chat.completions")).map((one) => one.name)} query=${query} />`}</${Asked}>`;
}

function Compare({ models, query }) {
  const asked = (query.models ?? models[0] ?? "").split(",").filter((name) => models.includes(name)).slice(0, MOST);
  const [key, setKey] = useState(lastKey());
  const [system, setSystem] = useState("");
  const [prompt, setPrompt] = useState("");
  const [settings, set] = useState({ temperature: "", max_tokens: "512" });
  const [answers, setAnswers] = useState([]);
  const going = useRef(null);
  const busy = answers.some((one) => one.state === "writing" || one.state === "asked");
  const choose = (names) => put({ models: names.join(",") }, { replace: true });

  const run = (event) => {
    event?.preventDefault();
    if (busy || !prompt.trim() || !key) return;
    going.current = new AbortController();
    const body = {
      messages: [...(system.trim() ? [{ role: "system", content: system }] : []), { role: "user", content: prompt }],
      stream: true,
      stream_options: { include_usage: true },
      ...(settings.temperature === "" ? {} : { temperature: Number(settings.temperature) }),
      ...(settings.max_tokens === "" ? {} : { max_tokens: Number(settings.max_tokens) }),
    };
    setAnswers(asked.map((model) => ({ model, state: "asked", text: "" })));
    asked.forEach((model, n) => stream({ ...body, model }, going.current.signal, (change) =>
      setAnswers((before) => before.map((one, at) => (at === n ? { ...one, ...change(one) } : one)))));
  };
  // Stop and Ask have keys: one button that turned from the first into the second in the middle of a click would ask anew.
  const keys = (event) => event.key === "Enter" && (event.metaKey || event.ctrlKey) && run(event);
  return html`<form class="stack" onSubmit=${run} onKeyDown=${keys}>
    <div class="grid">
      <div class="w8 stack">
        <label class="field">Message<textarea data-find rows="5" value=${prompt} placeholder="Ask the models something" onInput=${(event) => setPrompt(event.target.value)} /></label>
        <label class="field">System message<textarea rows="2" value=${system} placeholder="None" onInput=${(event) => setSystem(event.target.value)} /></label>
      </div>
      <div class="w4 stack">
        <${GatewayKey} value=${key} set=${setKey} />
        <fieldset class="tools"><legend class="small muted">Models, at most ${MOST}</legend>
          ${models.map((name) => html`<label class="tools small"><input type="checkbox" checked=${asked.includes(name)} disabled=${!asked.includes(name) && asked.length >= MOST} onChange=${() => choose(asked.includes(name) ? asked.filter((one) => one !== name) : [...asked, name])} />${name}</label>`)}
        </fieldset>
        <div class="tools">
          <label class="field">Temperature<input type="number" min="0" max="2" step="0.1" placeholder="usual" value=${settings.temperature} onInput=${(event) => set({ ...settings, temperature: event.target.value })} /></label>
          <label class="field">Tokens at most<input type="number" min="1" max="100000" placeholder="usual" value=${settings.max_tokens} onInput=${(event) => set({ ...settings, max_tokens: event.target.value })} /></label>
        </div>
        <div class="tools">
          ${busy ? html`<button key="stop" type="button" onClick=${() => going.current.abort()}><${Icon} name="stop" />Stop</button>` : html`<button key="ask" class="first" disabled=${!asked.length || !prompt.trim() || !key}><${Icon} name="play" />Ask ${asked.length > 1 ? `${asked.length} models` : asked[0]}</button>`}
          <span class="small muted"><kbd>Ctrl</kbd> <kbd>Enter</kbd></span>
        </div>
      </div>
    </div>
    ${answers.length
      ? html`<div class="answers">${answers.map((one) => html`<${Answer} one=${one} />`)}</div>`
      : html`<section class="panel"><${Empty} title="Nothing asked yet">Choose two models to see their answers side by side, with the time to the first token and the speed of each.</${Empty}></section>`}
  </form>`;
}

/** `change` is told how an answer becomes another one. */
async function stream(body, signal, change) {
  const begun = performance.now();
  const after = () => (performance.now() - begun) / 1000;
  try {
    const answer = await ask(`${CONSOLE}/playground`, { method: "POST", body, signal, through: true, headers: gatewayKey() });
    change(() => ({ id: answer.headers.get("x-request-id") }));
    for await (const data of payloads(answer)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const delta = event.choices?.[0]?.delta ?? {};
      const piece = (delta.reasoning_content ?? "") + (delta.content ?? "");
      change((one) => ({
        text: one.text + piece,
        ttft: one.ttft ?? (piece ? after() : undefined),
        state: "writing",
        finish: event.choices?.[0]?.finish_reason ?? one.finish,
        usage: event.usage ?? one.usage,
      }));
    }
    change(() => ({ state: "whole", took: after() }));
  } catch (error) {
    change(() => (error.name === "AbortError" ? { state: "stopped", took: after() } : { state: "failed", took: after(), fault: error.message }));
  }
}

function Answer({ one }) {
  const out = one.usage?.completion_tokens;
  const rate = out > 1 && one.took > one.ttft ? (out - 1) / (one.took - one.ttft) : null;
  return html`<section class="panel answer" aria-label=${`Answer of ${one.model}`} aria-busy=${String(one.state === "asked" || one.state === "writing")}>
    <header><h2>${one.model}</h2>${one.id && html`<a class="small" href=${request(one.id)}>See its request</a>`}</header>
    ${one.fault ? html`<div class="in"><div class="fault" role="alert">${one.fault}</div></div>` : null}
    <div class=${`text ${one.state === "writing" || one.state === "asked" ? "writing" : ""}`}>${one.text}</div>
    <footer>
      <span>First token <b>${span(one.ttft)}</b></span><span>Whole <b>${span(one.took)}</b></span>
      <span>Speed <b>${rate ? `${digits(rate)} tok/s` : "–"}</b></span><span>Tokens <b>${one.usage ? `${count(one.usage.prompt_tokens)} → ${count(out)}` : "–"}</b></span>
      ${one.finish && html`<span>Finished <b>${one.finish}</b></span>`}${one.state === "stopped" && html`<span>stopped</span>`}
    </footer>
  </section>`;
}
