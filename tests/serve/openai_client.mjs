// OpenAI's official JavaScript client against the server: node openai_client.mjs URL MODEL
// Prints what it found as JSON; tests/serve/test_serve_clients.py compares it.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The package is looked for where the test says, for the repository holds no node_modules.
const require = createRequire(process.env.OPENAI_JS + "/");
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "How is the weather in Bern?" }];
const weather = {
  name: "weather",
  parameters: {
    type: "object",
    properties: { town: { type: "string", maxLength: 6 } },
    required: ["town"],
    additionalProperties: false,
  },
};
const found = {};

found.models = (await client.models.list()).data.map((one) => one.id);
const how = { model, messages, max_tokens: 12, seed: 5 };
found.whole = (await client.chat.completions.create(how)).choices[0].message.content;
found.streamed = "";
const stream = await client.chat.completions.create({ ...how, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.usage = chunk.usage ?? found.usage;
}

const tools = [{ type: "function", function: weather }];
const called = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", max_tokens: 300, seed: 1 });
const calls = (await called.finalChatCompletion()).choices[0].message.tool_calls;
found.calls = calls.map((call) => [call.function.name, Object.keys(JSON.parse(call.function.arguments))]);

const response_format = { type: "json_schema", json_schema: { name: "answer", schema: weather.parameters, strict: true } };
found.json = JSON.parse(
  (await client.chat.completions.create({ model, messages, response_format, max_tokens: 300 })).choices[0].message.content,
);

const kinds = [];
for await (const event of await client.responses.create({ model, input: "Hello", max_output_tokens: 5, stream: true })) {
  kinds.push(event.type);
}
found.events = [kinds[0], kinds.at(-1)];
found.embedding = (await client.embeddings.create({ model, input: "hello" })).data[0].embedding.length;

try {
  await client.chat.completions.create({ ...how, temperature: -1 });
} catch (error) {
  found.error = [error.status, error.param, error.constructor.name];
}

const controller = new AbortController();
const long = await client.chat.completions.create(
  { ...how, max_tokens: 800, stream: true, ignore_eos: true },
  { signal: controller.signal },
);
for await (const _ of long) controller.abort();
found.aborted = true;
console.log(JSON.stringify(found));
