// Where we are is in the address and nowhere else, so that every view can be sent to a colleague.
import { useEffect, useState } from "./vendor/preact-htm.js";

export const ROOT = "/console";
const MOVED = "penstock-moved";

export function go(href, { replace = false } = {}) {
  if (href === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", href);
  dispatchEvent(new Event(MOVED));
}

/** `{parts: ["requests", "req_1"], query: {model: "chat"}}` */
export function useRoute() {
  const [route, set] = useState(read);
  useEffect(() => {
    const moved = () => set(read());
    addEventListener("popstate", moved);
    addEventListener(MOVED, moved);
    return () => {
      removeEventListener("popstate", moved);
      removeEventListener(MOVED, moved);
    };
  }, []);
  return route;
}

function read() {
  const rest = location.pathname.slice(ROOT.length);
  return {
    parts: rest.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(location.search)),
  };
}

/** The same view with some of the query changed; "" takes a name out. */
export function put(changes, options) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value == null) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ""), options);
}

export function to(view, query = {}) {
  const there = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  return `${ROOT}${view ? `/${view}` : ""}${there.length ? `?${new URLSearchParams(there)}` : ""}`;
}

export const request = (id) => `${ROOT}/requests/${encodeURIComponent(id)}`;

/** Links of the console change the view without loading the page anew. */
export function followLinks() {
  addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const other = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.defaultPrevented;
    if (!link || other || link.target || link.hasAttribute("download")) return;
    const inside = link.pathname === ROOT || link.pathname.startsWith(`${ROOT}/`);
    const page = inside && !link.pathname.startsWith(`${ROOT}/api/`) && !link.pathname.startsWith(`${ROOT}/static/`);
    if (link.origin !== location.origin || !page || link.hash) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}
