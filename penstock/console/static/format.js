// Numbers and times as people read them: always with their unit, never more digits than mean something.
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const NONE = "–";

/** 1,234 · 12.3 k · 4.56 M: three digits that mean something. */
export function count(n) {
  if (n == null) return NONE;
  const size = Math.abs(n);
  if (size < 10_000) return Number.isInteger(n) ? plain.format(n) : digits(n);
  const [by, unit] = size < 1e6 ? [1e3, "k"] : size < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${digits(n / by)} ${unit}`;
}

export const whole = (n) => (n == null ? NONE : plain.format(n));

export function digits(n) {
  const size = Math.abs(n);
  return size >= 100 ? plain.format(n) : size >= 10 ? n.toFixed(1) : size === 0 ? "0" : size >= 1 ? n.toFixed(2) : n.toPrecision(2);
}

/** 840 µs · 12.3 ms · 1.24 s · 2 min 5 s · 3 h 20 min · 4 d 2 h. */
export function span(seconds) {
  if (seconds == null) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds < 0.000_999_5) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 0.999_5) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 59.95) return `${digits(seconds)} s`;
  return long(seconds);
}

function long(seconds) {
  const parts = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];
  let left = Math.round(seconds);
  const first = parts.findIndex(([size]) => left >= size);
  const said = [];
  for (const [size, unit] of parts.slice(first, first + 2)) {
    const n = Math.floor(left / size);
    if (n) said.push(`${n} ${unit}`);
    left -= n * size;
  }
  return said.join(" ");
}

/** Of nano-dollars: exact to the cent from a dollar on, to two digits that mean something below. */
export function money(nanos) {
  if (nanos == null) return NONE;
  const dollars = nanos / 1e9;
  const size = Math.abs(dollars);
  const sign = dollars < 0 ? "−" : "";
  if (size === 0) return "$0";
  if (size >= 1) return `${sign}$${new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(size)}`;
  const places = Math.min(9, Math.max(2, 1 - Math.floor(Math.log10(size))));
  return `${sign}$${size.toFixed(places)}`;
}

/** All nine decimals: what the ledger has. */
export function exact(nanos) {
  if (nanos == null) return "no price known";
  const size = BigInt(Math.abs(nanos));
  return `${nanos < 0 ? "−" : ""}$${size / 1_000_000_000n}.${String(size % 1_000_000_000n).padStart(9, "0")}`;
}

/** Of a fraction: 99.95 %, 12.3 %, 0 %. */
export function share(fraction) {
  if (fraction == null) return NONE;
  const percent = fraction * 100;
  if (percent === 0 || percent === 100) return `${percent} %`;
  if (Math.abs(percent) < 0.01) return "< 0.01 %";
  if (percent > 99 && percent < 100) return `${(Math.floor(percent * 100) / 100).toFixed(2)} %`;
  return `${digits(percent)} %`;
}

const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const short = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const utcDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** Local: the time alone for today, the day before it otherwise. */
export function moment(at) {
  const then = new Date(at * 1000);
  const today = then.toDateString() === new Date().toDateString();
  return today ? clock.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}

export const utc = (at) => `${new Date(at * 1000).toISOString().replace("T", " ").slice(0, 23)} UTC`;

export const ago = (at, now = Date.now() / 1000) => {
  const seconds = now - at;
  return seconds < 1.5 ? "now" : `${seconds < 60 ? `${Math.round(seconds)} s` : span(seconds).split(" ").slice(0, 2).join(" ")} ago`;
};

/** For an axis whose marks are `apart` seconds from each other: 14:30, and 15 Jan where a day begins. */
export function mark(at, apart) {
  const then = new Date(at * 1000);
  return apart >= 86_400 || (then.getHours() === 0 && then.getMinutes() === 0) ? short.format(then) : hour.format(then);
}

/** The day of UTC that begins then: 15 Jan. */
export const dayOf = (at) => utcDay.format(new Date(at * 1000));

/** `day` as the ledger wants it: 2027-01-31, of UTC. */
export const date = (at) => new Date(at * 1000).toISOString().slice(0, 10);
