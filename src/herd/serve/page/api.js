// The server's OpenAI API, at the page's own origin: what models there are, and answers as they come.

import { readEvents } from "./sse.js";

const KEY = "herd.key";

/** What went wrong, by kind: unreachable, loading, key, busy, long, refused, failed, broken. `said`: the server's words. */
export class ApiError extends Error {
  constructor(kind, said = "", wait = 0) {
    super(said || kind);
    Object.assign(this, { kind, said, wait });
  }
}

/** The key that the server asks for, kept in this browser only: for this visit, or until it is taken back. */
export const key = {
  get: () => read(sessionStorage) || read(localStorage),
  set(value, remember) {
    for (const storage of [sessionStorage, localStorage]) remove(storage);
    try {
      if (value) (remember ? localStorage : sessionStorage).setItem(KEY, value);
    } catch {
      unstored = value; // storage is off or full: the key lives as long as the page
    }
  },
};
let unstored = "";

function read(storage) {
  try {
    return storage.getItem(KEY) || unstored;
  } catch {
    return unstored;
  }
}

function remove(storage) {
  unstored = "";
  try {
    storage.removeItem(KEY);
  } catch {
    // nothing is kept where nothing can be
  }
}

/** The models that are served: [{id, max_model_len?}]. */
export async function listModels() {
  const response = await send("v1/models", {});
  return (await response.json()).data ?? [];
}

/**
 * One answer as events: {text}, {call: {index, id, name, arguments}} (parts), {finish}, {usage}, {warnings} (what of
 * the request had no effect). `signal` stops it.
 * Ends with an ApiError of kind "broken" if the stream ends before it said that it is whole.
 */
export async function* complete(body, signal) {
  const response = await send("v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let whole = false;
  try {
    for await (const { data } of readEvents(response)) {
      if (data === "[DONE]") return;
      const chunk = parse(data);
      if (chunk.error) throw refusal(statusOf(chunk.error), chunk.error);
      if (chunk.warnings) yield { warnings: chunk.warnings };
      const choice = chunk.choices?.[0];
      if (choice?.delta?.content) yield { text: choice.delta.content };
      for (const part of choice?.delta?.tool_calls ?? []) yield { call: partOfCall(part) };
      if (choice?.finish_reason) {
        whole = true;
        yield { finish: choice.finish_reason };
      }
      if (chunk.usage) yield { usage: chunk.usage };
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("broken");
  }
  if (!whole) throw new ApiError("broken");
}

function partOfCall(part) {
  return {
    index: part.index ?? 0,
    id: part.id ?? "",
    name: part.function?.name ?? "",
    arguments: part.function?.arguments ?? "",
  };
}

async function send(path, options) {
  const headers = { Accept: "application/json, text/event-stream" };
  if (options.body) headers["Content-Type"] = "application/json";
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("unreachable");
  }
  if (response.ok) return response;
  const content = parse(await response.text().catch(() => ""));
  throw refusal(response.status, content.error ?? content, Number(response.headers.get("Retry-After")) || 0);
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function refusal(status, error, wait = 0) {
  const said = typeof error === "string" ? error : String(error.message ?? error.detail ?? "");
  return new ApiError(kindOf(status, String(error.code ?? ""), said), said || `status ${status}`, wait);
}

function kindOf(status, code, said) {
  if (status === 401) return "key";
  if (code === "not_ready") return "loading";
  if (code === "context_length_exceeded" || status === 413 || (status === 400 && /context length/i.test(said)))
    return "long";
  if (status === 429 || status === 503) return "busy";
  return status >= 400 && status < 500 ? "refused" : "failed";
}

/** An error inside a stream has no status of its own; its type says as much. */
function statusOf({ type, code }) {
  if (typeof code === "number") return code;
  return { rate_limit_error: 429, service_unavailable_error: 503, invalid_request_error: 400 }[type] ?? 500;
}
