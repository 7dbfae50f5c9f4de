// The one door to the server: JSON in, JSON out, and a refusal is an error with a sentence for people.
import { useCallback, useEffect, useRef, useState } from "./vendor/preact-htm.js";

export const CONSOLE = "/console/api";
export const ADMIN = "/admin/v1";

export class Refused extends Error {
  constructor(status, { code = "", message = "", faults = [] } = {}) {
    const where = faults.map((fault) => `${fault.at} ${fault.message}`.trim()).join("; ");
    super([message || `The server answered ${status}.`, where].filter(Boolean).join(": "));
    Object.assign(this, { status, code });
  }
}

/** Raises `Refused`, and `TypeError` where nobody answers. A 401 tells the whole page, which shows the door; not where the
 *  gateway says it, to a key of its own (`through`). */
export async function ask(path, { method = "GET", body, headers = {}, signal, through = false } = {}) {
  const lines = { ...headers };
  if (method !== "GET") lines["x-penstock-console"] = "1";
  if (body !== undefined) lines["content-type"] = "application/json";
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const answer = await fetch(path, { method, headers: lines, body: sent, signal, credentials: "same-origin" });
  if (answer.ok) return answer;
  if (answer.status === 401 && !through) dispatchEvent(new Event("penstock-signed-out"));
  throw new Refused(answer.status, (await answer.json().catch(() => ({}))).error);
}

export async function get(path, options) {
  return (await ask(path, options)).json();
}

export async function send(method, path, body, headers) {
  const answer = await ask(path, { method, body, headers });
  return answer.status === 204 ? null : answer.json();
}

/** Who is signed in. Null: nobody, and the whole page is told so. */
export async function whoIsThere() {
  const me = await get(`${CONSOLE}/me`);
  if (me === null) dispatchEvent(new Event("penstock-signed-out"));
  return me;
}

/** Names and values that are there, as a query. */
export function query(values) {
  const there = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return there.length ? `?${new URLSearchParams(there)}` : "";
}

/** What `path` answers, asked again every `every` seconds while somebody looks. The last value stays while it is asked
 *  anew; null asks nothing. `{value, error, loading, again}` */
export function useAsk(path, every = 0) {
  const [state, set] = useState({ value: null, error: null, loading: path !== null });
  const turn = useRef(0);
  const shown = useRef(null);

  const load = useCallback(async (signal) => {
    if (path === null) return;
    const mine = ++turn.current;
    set((before) => ({ ...before, loading: true }));
    try {
      const value = await get(path, { signal });
      shown.current = path;
      if (mine === turn.current) set({ value, error: null, loading: false });
    } catch (error) {
      if (error.name !== "AbortError" && mine === turn.current) {
        set((before) => ({ value: shown.current === path ? before.value : null, error, loading: false }));
      }
    }
  }, [path]);

  useEffect(() => {
    const leaving = new AbortController();
    load(leaving.signal);
    const timer = every && setInterval(() => document.hidden || load(leaving.signal), every * 1000);
    return () => {
      leaving.abort();
      clearInterval(timer);
    };
  }, [load, every]);

  return { ...state, again: load };
}

/** Events of `path` go to `handlers` by their names; the answer is "open", "connecting" or "closed". */
export function useEvents(path, handlers) {
  const [state, set] = useState("connecting");
  const current = useRef(handlers);
  current.current = handlers;
  useEffect(() => {
    if (path === null) return set("closed");
    const source = new EventSource(path);
    source.onopen = () => set("open");
    source.onerror = () => {
      const over = source.readyState === EventSource.CLOSED;
      set(over ? "closed" : "connecting");
      if (over) whoIsThere().catch(() => null); // whoever is not let in any more is shown the door by this
    };
    for (const name of Object.keys(current.current)) {
      source.addEventListener(name, (event) => current.current[name](JSON.parse(event.data)));
    }
    return () => source.close();
  }, [path]);
  return state;
}

/** The payloads of an SSE answer that is read by `fetch`, as they come. */
export async function* payloads(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (kept + value).split(/\r?\n\r?\n/);
    kept = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) yield data.join("\n");
    }
  }
}
