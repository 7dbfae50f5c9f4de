// @anthropic-ai/sdk.

import Anthropic from "@anthropic-ai/sdk";
import { ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, check, getWeather, main, streamed } from "./cases.mjs";

const client = ({ origin }) => new Anthropic({ baseURL: origin, apiKey: "sk-canary-client", maxRetries: 0 });
const asking = ({ model }) => ({ model, max_tokens: 64, messages: [{ role: "user", content: GREET }] });

async function chat(target) {
  const answer = await client(target).messages.create({ ...asking(target), system: "Be brief." });
  check(answer.stop_reason === "end_turn", "it ended its turn");
  check(answer.usage.input_tokens === 11 && answer.usage.cache_read_input_tokens === 4, "11 and 4 tokens read");
  return answer.content[0].text;
}

async function stream(target) {
  const pieces = [];
  const events = client(target).messages.stream(asking(target)).on("text", (piece) => pieces.push(piece));
  const answer = await events.finalMessage();
  check(answer.stop_reason === "end_turn" && answer.usage.output_tokens === 7, "it ended its turn after 7 tokens");
  return streamed(pieces);
}

async function tools(target) {
  const offered = [{ name: "get_weather", description: DESCRIPTION, input_schema: PARAMETERS }];
  const said = [{ role: "user", content: ASK }];
  for (let i = 0; i < 4; i++) {
    const answer = await client(target).messages.create({ ...asking(target), messages: said, tools: offered });
    const calls = answer.content.filter((block) => block.type === "tool_use");
    if (!calls.length) return answer.content[0].text;
    said.push({ role: "assistant", content: answer.content });
    const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: getWeather(call.input) }));
    said.push({ role: "user", content: results });
  }
  throw new Error("it went on calling");
}

async function schema(target) {
  const output_config = { format: { type: "json_schema", schema: WEATHER } };
  const answer = await client(target).messages.create({ ...asking(target), output_config });
  return JSON.parse(answer.content[0].text);
}

await main({ chat, stream, tools, schema });
