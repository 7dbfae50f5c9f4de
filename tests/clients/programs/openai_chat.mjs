// openai-node, chat completions.

import OpenAI from "openai";
import { ASK, DESCRIPTION, GREET, PARAMETERS, WEATHER, check, getWeather, main, streamed } from "./cases.mjs";

const client = ({ origin }) => new OpenAI({ baseURL: `${origin}/v1`, apiKey: "sk-canary-client", maxRetries: 0 });
const messages = [{ role: "user", content: GREET }];

async function chat(target) {
  const said = [{ role: "system", content: "Be brief." }, ...messages];
  const answer = await client(target).chat.completions.create({ model: target.model, messages: said });
  check(answer.usage.total_tokens === 22, "22 tokens in all");
  return answer.choices[0].message.content;
}

async function stream(target) {
  const options = { model: target.model, messages, stream_options: { include_usage: true } };
  const events = client(target).chat.completions.stream(options);
  const pieces = [];
  events.on("content", (piece) => pieces.push(piece));
  const answer = await events.finalChatCompletion();
  check(answer.choices[0].finish_reason === "stop", "it stopped");
  check((await events.totalUsage()).total_tokens === 22, "22 tokens in all");
  return streamed(pieces);
}

async function tools(target) {
  const offered = [{ type: "function", function: { name: "get_weather", description: DESCRIPTION, parameters: PARAMETERS } }];
  const said = [{ role: "user", content: ASK }];
  for (let i = 0; i < 4; i++) {
    const answer = await client(target).chat.completions.create({ model: target.model, messages: said, tools: offered });
    const message = answer.choices[0].message;
    if (!message.tool_calls?.length) return message.content;
    said.push(message);
    for (const call of message.tool_calls) {
      said.push({ role: "tool", tool_call_id: call.id, content: getWeather(JSON.parse(call.function.arguments)) });
    }
  }
  throw new Error("it went on calling");
}

async function schema(target) {
  const answer = await client(target).chat.completions.parse({
    model: target.model,
    messages,
    response_format: { type: "json_schema", json_schema: { name: "weather", schema: WEATHER, strict: true } },
  });
  return JSON.parse(answer.choices[0].message.content);
}

await main({ chat, stream, tools, schema });
