// What every program here does: read the targets, try the six cases on each, print what happened.

import { text } from "node:stream/consumers";

export const GREET = "Say hello.";
export const ASK = "How is the weather in Paris and in Oslo?";
export const DESCRIPTION = "The weather in a city, now.";
const TOLD = { Paris: "21 degrees", Oslo: "12 degrees" };

const object = (properties) => ({
  type: "object",
  properties,
  required: Object.keys(properties),
  additionalProperties: false,
});
export const PARAMETERS = object({ city: { type: "string" } });
export const WEATHER = object({ city: { type: "string" }, degrees: { type: "integer" } });

export const getWeather = ({ city }) => TOLD[city];

// What a stream said, and whether it came in more than one piece.
export async function streamed(pieces) {
  const said = [];
  for await (const piece of pieces) said.push(piece);
  return { text: said.join(""), in_pieces: said.filter(Boolean).length > 1 };
}

export function check(claim, what) {
  if (!claim) throw new Error(`it is not so: ${what}`);
}

// `cases`: chat, stream, tools and schema; both errors come from a chat with another model.
export async function main(cases) {
  const report = {};
  for (const [name, { origin, ...models }] of Object.entries(JSON.parse(await text(process.stdin)))) {
    report[name] = {};
    for (const [what, ask] of Object.entries({ ...cases, unknown: cases.chat, limited: cases.chat })) {
      report[name][what] = await outcome(ask, { origin, model: models[what] ?? models.model });
    }
  }
  process.stdout.write(JSON.stringify(report));
}

async function outcome(ask, target) {
  try {
    return await ask(target);
  } catch (error) {
    const headers = new Headers(error.headers ?? error.responseHeaders ?? {});
    return {
      error: error.name === "Error" ? error.constructor.name : error.name,
      status: error.status ?? error.statusCode ?? null,
      retry_after: headers.get("retry-after"),
      message: String(error.message).slice(0, 600),
    };
  }
}
