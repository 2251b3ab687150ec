// Conversations as JSON lines of {"messages": [...]}: the form that herd trains on, and OpenAI's.

import { newConversation, titleOf } from "./conversation.js";

const ROLES = { system: "system", user: "user", assistant: "assistant", tool: "tool", ipython: "tool" };

/** One line of JSON for a conversation. `title`, and `tools` where some were offered, stand beside the messages. */
export function toLine(conversation) {
  const system = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  const record = { messages: [...system, ...oneCallEach(conversation.messages)], title: titleOf(conversation) };
  return JSON.stringify(conversation.tools?.length ? { ...record, tools: conversation.tools } : record);
}

/** Llama 3.1 calls one tool a message: parallel calls become one message and one result after another. */
function oneCallEach(messages) {
  const found = [];
  const results = new Map(messages.filter((m) => m.role === "tool").map((m) => [m.tool_call_id, m]));
  for (const message of messages) {
    if (message.role === "tool") continue;
    if (!message.tool_calls?.length) {
      found.push({ role: message.role, content: message.content });
      continue;
    }
    message.tool_calls.forEach((call, i) => {
      found.push({ role: "assistant", content: i ? "" : message.content, tool_calls: [exported(call)] });
      const result = results.get(call.id);
      if (result) found.push({ role: "tool", content: result.content, tool_call_id: call.id });
    });
  }
  return found;
}

function exported(call) {
  let value = null;
  try {
    value = JSON.parse(call.function.arguments);
  } catch {
    // what is no JSON is kept as it was written
  }
  const object = typeof value === "object" && value !== null && !Array.isArray(value);
  return {
    id: call.id,
    type: "function",
    function: { name: call.function.name, arguments: object ? value : { text: call.function.arguments } },
  };
}

/** Conversations out of a file's text: {conversations, problems}, a problem a line that could not be read. */
export function fromText(text) {
  const conversations = [];
  const problems = [];
  text
    .replace(/^\ufeff/, "")
    .split("\n")
    .forEach((line, i) => {
      if (!line.trim()) return;
      try {
        conversations.push(fromRecord(JSON.parse(line)));
      } catch (error) {
        problems.push(`Line ${i + 1}: ${error instanceof SyntaxError ? "this is not JSON" : error.message}`);
      }
    });
  return { conversations, problems };
}

function fromRecord(record) {
  if (!Array.isArray(record?.messages) || !record.messages.length) throw new Error('there is no list "messages"');
  const messages = record.messages.map(imported);
  const conversation = newConversation();
  const system = messages[0].role === "system" ? messages.shift().content : "";
  if (messages.some((message) => message.role === "system")) throw new Error("a system message stands after the first");
  pairResults(messages);
  const title = typeof record.title === "string" ? record.title.slice(0, 200) : "";
  const tools = Array.isArray(record.tools) ? record.tools : [];
  return Object.assign(conversation, { system, messages, title, named: Boolean(title), tools });
}

function imported(raw, i) {
  const role = Object.hasOwn(ROLES, raw?.role) ? ROLES[raw.role] : null;
  if (!role) throw new Error(`message ${i + 1} has no known role`);
  const message = { role, content: contentOf(raw.content, role, i) };
  if (role === "assistant") message.end = "stop";
  if (raw.tool_calls?.length) message.tool_calls = raw.tool_calls.map((call, n) => callOf(call, `call_${i}_${n}`, i));
  if (raw.tool_call_id) message.tool_call_id = String(raw.tool_call_id);
  return message;
}

function contentOf(content, role, i) {
  if (content === null || content === undefined) return "";
  if (typeof content === "string") return content;
  if (Array.isArray(content) && content.every((part) => typeof part?.text === "string"))
    return content.map((part) => part.text).join("");
  if (role === "tool") return JSON.stringify(content);
  throw new Error(`the content of message ${i + 1} is no text`);
}

function callOf(raw, id, i) {
  const call = raw?.function ?? raw;
  if (typeof call?.name !== "string") throw new Error(`a tool call of message ${i + 1} has no name`);
  const given = call.arguments ?? {};
  return {
    id: String(raw.id ?? id),
    type: "function",
    function: { name: call.name, arguments: typeof given === "string" ? given : JSON.stringify(given) },
  };
}

/** Files without ids say by their order which call a result belongs to. */
function pairResults(messages) {
  let waiting = [];
  for (const message of messages) {
    if (message.role === "assistant") waiting = [...(message.tool_calls ?? [])];
    if (message.role !== "tool") continue;
    const call = waiting.find(({ id }) => id === message.tool_call_id) ?? waiting[0];
    waiting = waiting.filter((other) => other !== call);
    Object.assign(message, { tool_call_id: call?.id ?? message.tool_call_id ?? "", name: call?.function.name ?? "" });
  }
}
