// A conversation as data, without the page around it.
//
//     {id, title, named, created, updated, model, system, messages: [...], tools: [...]}
//
// `messages` are those of OpenAI's API, {role, content, tool_calls?, tool_call_id?}; answers carry beside that `end`
// ("running", then "stop", "length", "tool_calls", "stopped" by the user or "error"), `error` {kind, said, wait} and
// `stats`. `tools` are the definitions that the last request took along.

const TITLE = 60; // characters

export function newConversation(model = "") {
  const now = Date.now();
  return {
    id: crypto.randomUUID?.() ?? randomId(),
    title: "",
    named: false,
    created: now,
    updated: now,
    model,
    system: "",
    messages: [],
    tools: [],
  };
}

function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Its name: the user's, or what it began with. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = first.trim().replace(/\s+/g, " ");
  const characters = [...line];
  return characters.length > TITLE ? `${characters.slice(0, TITLE).join("").trimEnd()}…` : line || "New conversation";
}

/** The messages as a request carries them: system prompt first, calls with ids, no marks of ours. */
export function wireMessages({ system, messages }) {
  const wire = system.trim() ? [{ role: "system", content: system }] : [];
  for (const { role, content, tool_calls, tool_call_id } of messages) {
    if (role === "tool") wire.push({ role, tool_call_id, content });
    else if (role === "assistant" && tool_calls?.length) wire.push({ role, content: content || null, tool_calls });
    else if (role !== "assistant" || content) wire.push({ role, content });
  }
  return wire;
}

/** The last answer's calls that have no result yet. */
export function openCalls({ messages }) {
  const at = messages.findLastIndex((message) => message.role === "assistant");
  if (at < 0 || messages[at].end === "running") return [];
  const answered = new Set(messages.slice(at + 1).map((message) => message.tool_call_id));
  if (messages.slice(at + 1).some((message) => message.role === "user")) return [];
  return (messages[at].tool_calls ?? []).filter((call) => !answered.has(call.id));
}

/** Put the result of a call behind those that came before it. */
export function addResult(conversation, call, content, failed = false) {
  conversation.messages.push({
    role: "tool",
    tool_call_id: call.id,
    name: call.function.name,
    content,
    ...(failed && { failed }),
  });
}

/** Whether every word of `query` stands in its name or its messages: {title, snippet}, where beside its name; else null. */
export function find(conversation, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const title = titleOf(conversation);
  const texts = [title, conversation.system, ...conversation.messages.map((message) => message.content ?? "")];
  const all = texts.join("\n").toLowerCase();
  if (!words.every((word) => all.includes(word))) return null;
  if (!words.length || title.toLowerCase().includes(words[0])) return { title, snippet: "" };
  const outside = texts.find((text) => text.toLowerCase().includes(words[0]));
  const at = outside.toLowerCase().indexOf(words[0]);
  return {
    title,
    snippet: outside
      .slice(Math.max(0, at - 30), at + 60)
      .replace(/\s+/g, " ")
      .trim(),
  };
}

/** Answers that a page left while they were written: they do not run any more. */
export function settle(conversation) {
  for (const message of conversation.messages) {
    if (message.end === "running") Object.assign(message, { end: "error", error: { kind: "left" } });
  }
  return conversation;
}
