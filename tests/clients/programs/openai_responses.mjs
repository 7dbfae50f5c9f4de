// openai-node, the Responses API.

import OpenAI from "openai";
import { ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, check, getWeather, main, streamed } from "./cases.mjs";

const client = ({ origin }) => new OpenAI({ baseURL: `${origin}/v1`, apiKey: "sk-canary-client", maxRetries: 0 });

async function chat(target) {
  const answer = await client(target).responses.create({ model: target.model, instructions: "Be brief.", input: GREET });
  check(answer.usage.total_tokens === 22, "22 tokens in all");
  return answer.output_text;
}

async function stream(target) {
  const events = client(target).responses.stream({ model: target.model, input: GREET });
  const pieces = [];
  events.on("response.output_text.delta", (event) => pieces.push(event.delta));
  check((await events.finalResponse()).status === "completed", "it is completed");
  return streamed(pieces);
}

async function tools(target) {
  const offered = [
    { type: "function", name: "get_weather", description: DESCRIPTION, parameters: PARAMETERS, strict: true },
  ];
  const said = [{ role: "user", content: ASK }];
  for (let i = 0; i < 4; i++) {
    const answer = await client(target).responses.create({ model: target.model, input: said, tools: offered });
    const calls = answer.output.filter((item) => item.type === "function_call");
    if (!calls.length) return answer.output_text;
    said.push(...answer.output);
    for (const call of calls) {
      const output = getWeather(JSON.parse(call.arguments));
      said.push({ type: "function_call_output", call_id: call.call_id, output });
    }
  }
  throw new Error("it went on calling");
}

async function schema(target) {
  const answer = await client(target).responses.parse({
    model: target.model,
    input: GREET,
    text: { format: { type: "json_schema", name: "weather", schema: WEATHER, strict: true } },
  });
  return JSON.parse(answer.output_text);
}

await main({ chat, stream, tools, schema });
