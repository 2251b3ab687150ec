// One answer after another until the model needs the user: stream, carry out the calls that the page can, go on.

import { complete, listModels } from "./api.js";
import { addResult, openCalls, wireMessages } from "./conversation.js";
import { preferences, samplingBody } from "./preferences.js";
import { activeTools, runBuiltin } from "./tools.js";

const SHORT = 20; // milliseconds: over less than that a rate says nothing
const ROUNDS = 12; // answers in a row that call tools; then the user is asked to go on

/** Answer `conversation` at its end. `changed(message)` hears of every piece; returns when it is the user's turn. */
export async function answer(conversation, signal, changed) {
  for (let round = 0; round < ROUNDS; round++) {
    if (signal.aborted) return; // the messages may be others by now
    const message = { role: "assistant", content: "", end: "running", stats: {} };
    conversation.messages.push(message);
    changed(message);
    await stream(conversation, message, signal, changed);
    changed(message);
    if (message.end === "error" || message.end === "stopped" || !message.tool_calls?.length) return;
    for (const call of message.tool_calls) {
      const result = runBuiltin(call, preferences);
      if (result) addResult(conversation, call, result.content, result.failed);
    }
    changed(message);
    if (openCalls(conversation).length) return;
  }
  const last = conversation.messages.findLast((message) => message.role === "assistant");
  Object.assign(last, { end: "error", error: { kind: "rounds" } });
  changed(last);
}

async function stream(conversation, message, signal, changed) {
  const clock = new Clock(message);
  const parts = [];
  try {
    conversation.model ||= (await listModels())[0]?.id ?? ""; // said before the page knew them
    for await (const event of complete(requestOf(conversation), signal)) {
      if (event.text || event.call) clock.tick();
      if (event.text) message.content += event.text;
      if (event.call) gather(parts, event.call);
      if (event.finish) message.finish = event.finish;
      if (event.warnings) message.warnings = event.warnings;
      if (event.usage) clock.usage(event.usage);
      if (parts.length) message.tool_calls = parts.map(whole);
      changed(message);
    }
    message.end = message.finish ?? "stop";
  } catch (error) {
    failed(message, error);
  }
  delete message.finish;
  clock.close();
}

function requestOf(conversation) {
  conversation.tools = activeTools(preferences);
  return {
    model: conversation.model,
    messages: wireMessages({ ...conversation, messages: conversation.messages.slice(0, -1) }),
    ...samplingBody(),
    ...(conversation.tools.length && { tools: conversation.tools }),
  };
}

function failed(message, error) {
  delete message.tool_calls; // half a call is none, and a whole one may be followed by another
  message.end = error.name === "AbortError" ? "stopped" : "error";
  if (message.end === "error")
    message.error = { kind: error.kind ?? "failed", said: error.said ?? error.message, wait: error.wait ?? 0 };
}

/** Calls come in parts: id and name first, then the arguments bit by bit. */
function gather(parts, { index, id, name, arguments: more }) {
  const part = (parts[index] ??= { id: "", name: "", arguments: "" });
  part.id ||= id;
  part.name ||= name;
  part.arguments += more;
}

function whole({ id, name, arguments: text }, index) {
  return { id: id || `call_${index}`, type: "function", function: { name, arguments: text } };
}

/** Times of one answer in milliseconds, and what the server counted. */
class Clock {
  #started = performance.now();
  #first = 0;
  #last = 0;
  #ticks = 0;

  constructor(message) {
    this.stats = message.stats;
  }

  tick() {
    this.#last = performance.now();
    this.#ticks++;
    if (this.#ticks === 1) {
      this.#first = this.#last;
      this.stats.first = this.#first - this.#started;
    }
    this.#rate(this.#ticks);
  }

  usage({ prompt_tokens: prompt, completion_tokens: tokens, prompt_tokens_details: details }) {
    Object.assign(this.stats, { prompt, tokens, cached: details?.cached_tokens ?? 0 });
  }

  close() {
    this.#rate(this.stats.tokens ?? this.#ticks);
  }

  /** The first token is the prompt's time, so one less than there are. */
  #rate(tokens) {
    const passed = this.#last - this.#first;
    if (tokens > 1 && passed > SHORT) this.stats.rate = ((tokens - 1) / passed) * 1000;
    else delete this.stats.rate;
  }
}
