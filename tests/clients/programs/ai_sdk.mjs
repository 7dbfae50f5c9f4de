// Vercel's AI SDK. The argument is the provider: openai (its default: the Responses API), openai-compatible or anthropic.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { ASK, DESCRIPTION, GREET, check, getWeather, main, streamed } from "./cases.mjs";

const PROVIDERS = {
  openai: (baseURL) => createOpenAI({ baseURL, apiKey: "sk-canary-client" }),
  "openai-compatible": (baseURL) =>
    createOpenAICompatible({ name: "penstock", baseURL, apiKey: "sk-canary-client", supportsStructuredOutputs: true }),
  anthropic: (baseURL) => createAnthropic({ baseURL, apiKey: "sk-canary-client" }),
};

const asking = ({ origin, model }, more) => ({
  model: PROVIDERS[process.argv[2]](`${origin}/v1`)(model),
  prompt: GREET,
  maxRetries: 0,
  ...more,
});

async function chat(target) {
  const { text, usage } = await generateText(asking(target, { instructions: "Be brief." }));
  check(usage.totalTokens === 22, "22 tokens in all");
  return text;
}

async function stream(target) {
  return streamed(streamText(asking(target)).textStream);
}

async function tools(target) {
  const get_weather = tool({
    description: DESCRIPTION,
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => getWeather(input),
  });
  const answer = await generateText(asking(target, { prompt: ASK, tools: { get_weather }, stopWhen: isStepCount(4) }));
  return answer.text;
}

async function schema(target) {
  const output = Output.object({ schema: z.object({ city: z.string(), degrees: z.number().int() }) });
  return (await generateText(asking(target, { output }))).output;
}

await main({ chat, stream, tools, schema });
