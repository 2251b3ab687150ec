// Server-sent events, as WHATWG HTML 9.2.6 reads them: lines end in LF, CR or CRLF, an empty line ends an event.

export class SseParser {
  #rest = "";
  #data = [];
  #type = "";

  /** The events that `text` completes, each {type, data}; comments and events without data leave nothing. */
  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the very end may be half of a CRLF
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") this.#close(events);
      else this.#field(line);
    }
    return events;
  }

  #close(events) {
    if (this.#data.length) events.push({ type: this.#type || "message", data: this.#data.join("\n") });
    this.#data = [];
    this.#type = "";
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
  }
}

/** The events of a response's body as they come. */
export async function* readEvents(response) {
  const parser = new SseParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening early closes the connection
  }
}
