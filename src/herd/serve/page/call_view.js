// A tool call as a card: what is called with which arguments, and its result, or a field to type one.

import { growing, h, icon } from "./dom.js";

export class CallView {
  /** `give(call, text)` hands the user's result on. */
  constructor(give) {
    this.give = give;
    this.name = h("code.call-name");
    this.state = h("span.call-state");
    this.arguments = h("pre", { tabindex: "0", "aria-label": "Arguments", dir: "auto" });
    this.outcome = h("div.call-outcome");
    this.details = h(
      "details.call",
      { open: true },
      h("summary", {}, icon("tool"), this.name, this.state),
      this.arguments,
      this.outcome,
    );
    this.element = this.details;
    this.drawn = "";
  }

  /** `result`: the message with its result, if there is one; `writing`: more of the answer may come. */
  update(call, result, writing) {
    this.name.textContent = call.function.name;
    this.arguments.textContent = pretty(call.function.arguments);
    const state = result ? (result.failed ? "failed" : "done") : writing ? "writing" : "yours";
    const drawn = `${state} ${result?.content ?? ""}`;
    if (this.drawn === drawn) return;
    this.drawn = drawn;
    this.details.dataset.state = state;
    this.state.textContent = {
      done: "answered",
      failed: "failed",
      writing: "being called",
      yours: "waits for your result",
    }[state];
    this.outcome.replaceChildren(...(result ? shown(result) : state === "yours" ? [this.#form(call)] : []));
  }

  #form(call) {
    const area = h("textarea.mono", {
      rows: "2",
      dir: "auto",
      "aria-label": `Result of ${call.function.name}`,
      placeholder: "What the tool gives back, as text or JSON",
    });
    growing(area);
    const send = (event) => {
      event.preventDefault();
      this.give(call, area.value);
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
    });
    return h("form.call-form", { onsubmit: send }, area, h("button.primary", { type: "submit" }, "Give the result"));
  }
}

function shown({ content }) {
  return [
    h("span.call-label", {}, "Result"),
    h("pre", { tabindex: "0", "aria-label": "Result", dir: "auto" }, content),
  ];
}

/** Arguments on lines of their own, once they are whole; as they stand until then. */
function pretty(text) {
  try {
    const value = JSON.parse(text || "{}");
    const entries = Object.entries(value);
    return (
      entries
        .map(([name, argument]) => `${name}: ${typeof argument === "string" ? argument : JSON.stringify(argument)}`)
        .join("\n") || "no arguments"
    );
  } catch {
    return text;
  }
}
