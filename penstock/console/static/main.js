// The shell: who is there, the views, the keyboard.
import { html, render, useEffect, useMemo, useState } from "./vendor/preact-htm.js";
import { CONSOLE, send, whoIsThere } from "./api.js";
import { Dialog, Icon, Loading } from "./parts.js";
import { followLinks, go, ROOT, to, useRoute } from "./route.js";
import { SignIn } from "./views/sign_in.js";
import { GROUPS, open as allowed, there, viewOf } from "./views/all.js";
import { Closed, Later } from "./views/later.js";

followLinks();
render(html`<${Console} />`, document.getElementById("app"));

function Console() {
  const [me, set] = useState(undefined); // undefined: not known yet; null: nobody
  useEffect(() => {
    whoIsThere().then(set, () => set(null));
    const out = () => set(null);
    addEventListener("penstock-signed-out", out);
    return () => removeEventListener("penstock-signed-out", out);
  }, []);
  if (me === undefined) return html`<main class="door"><${Loading} what="Asking who you are" /></main>`;
  if (me === null) return html`<${SignIn} entered=${set} />`;
  return html`<${Shell} me=${me} leave=${() => send("POST", `${CONSOLE}/logout`).finally(() => set(null))} />`;
}

function Shell({ me, leave }) {
  const { parts, query } = useRoute();
  const [open, setOpen] = useState(false);
  const [help, setHelp] = useState(false);
  const view = viewOf(parts);
  const Page = !allowed(view, me) ? Closed : there(view, me) ? view.page : Later;
  useEffect(() => setOpen(false), [parts.join("/")]);
  useEffect(() => {
    const first = PLACES.find((one) => allowed(one, me) && there(one, me));
    if (!parts.length && !allowed(view, me) && first) go(to(first.at), { replace: true });
  }, [view]);
  useKeyboard(setHelp);

  return html`<div class=${open ? "open" : ""} onKeyDown=${(event) => event.key === "Escape" && setOpen(false)}>
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the view</a>
    <header class="menu">
      <button class="plain square" aria-label="Menu" aria-expanded=${String(open)} aria-controls="side" onClick=${() => setOpen(!open)}><${Icon} name="menu" size="18" /></button>
      <${Brand} />
    </header>
    <div class="veil" onClick=${() => setOpen(false)} />
    <div class="shell">
      <${Side} me=${me} leave=${leave} current=${view} help=${() => setHelp(true)} />
      <main class="page" id="main" tabindex="-1"><${Page} key=${view.at} me=${me} parts=${parts.slice(1)} query=${query} room=${view} /></main>
    </div>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
  </div>`;
}

function Brand() {
  return html`<a class="brand" href=${ROOT}><img src="/console/static/icon.svg" alt="" />Penstock</a>`;
}

function Side({ me, leave, current, help }) {
  return html`<nav class="side" id="side" aria-label="Views">
    <${Brand} />
    ${GROUPS.map(({ name, views }) => [name, views.filter((view) => allowed(view, me))]).filter(([, views]) => views.length).map(([name, views]) => html`
      <h2>${name}</h2>
      ${views.map((view) => html`<a class=${`item ${there(view, me) ? "" : "later"}`} href=${to(view.at)} aria-current=${view === current ? "page" : undefined}><${Icon} name=${view.icon} />${view.name}${!there(view, me) && html`<span class="n small">not yet</span>`}</a>`)}
    `)}
    <div class="who">
      <div><strong class="clip">${me.name}</strong>${me.role}${me.org ? html` of <code>${me.org}</code>` : ", all organisations"}</div>
      <div class="tools">
        <${ThemeButton} />
        <button class="plain square" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick=${help}><${Icon} name="help" size="18" /></button>
        <button class="plain" onClick=${leave}><${Icon} name="leave" />Sign out</button>
      </div>
      <div>Penstock ${me.version}</div>
    </div>
  </nav>`;
}

const THEMES = ["system", "light", "dark"];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("penstock-theme", name);
  dispatchEvent(new Event("penstock-theme"));
}

const nextTheme = () => THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];

function ThemeButton() {
  const [name, set] = useState(document.documentElement.dataset.theme);
  useEffect(() => {
    const changed = () => set(document.documentElement.dataset.theme);
    addEventListener("penstock-theme", changed);
    return () => removeEventListener("penstock-theme", changed);
  }, []);
  return html`<button class="plain square" aria-label=${`Theme: ${name}`} title=${`Theme: ${name} (t)`} onClick=${() => setTheme(nextTheme())}><${Icon} name="theme" /></button>`;
}

const PLACES = GROUPS.flatMap(({ views }) => views).filter((view) => view.key);

/** One key where nothing is typed; `g` and another one goes to a view. */
function useKeyboard(setHelp) {
  const places = useMemo(() => Object.fromEntries(PLACES.map((view) => [view.key, view.at])), []);
  useEffect(() => {
    let going = 0;
    const pressed = (event) => {
      const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
      if (typing || event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
      const key = event.key;
      if (event.timeStamp < going) {
        going = 0;
        if (key in places) go(to(places[key]));
      } else if (key === "g") going = event.timeStamp + 1200;
      else if (key === "?") setHelp(true);
      else if (key === "t") setTheme(nextTheme());
      else if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
      else if (key === "/") document.querySelector("[data-find]")?.focus();
      else if (key === "p") document.querySelector("[data-pause]")?.click();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [places]);
}

/** The link of the next or previous row of a table. */
function step(by) {
  const links = [...document.querySelectorAll("tbody th a")];
  const now = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, now + by))]?.focus();
}

function Help({ close }) {
  return html`<${Dialog} title="Keyboard" close=${close}>
    <div class="keys">
      ${PLACES.map((view) => html`<div><span>${view.name}</span><span><kbd>g</kbd> <kbd>${view.key}</kbd></span></div>`)}
      ${[["Next row", "j"], ["Row before", "k"], ["Find", "/"], ["Pause and go on", "p"], ["Theme", "t"], ["This help", "?"]].map(([name, key]) => html`<div><span>${name}</span><kbd>${key}</kbd></div>`)}
    </div>
  </${Dialog}>`;
}
