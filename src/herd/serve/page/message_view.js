// One message as an element: what the user said, with editing; an answer that grows, with its calls and figures.

import { announce, copyButton, growing, h, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { CallView } from "./call_view.js";
import { errorWords, statsWords } from "./words.js";

/** A message of the user's. `replace(message, text)` says something else in its place. */
export class UserView {
  constructor(message, { replace }) {
    this.message = message;
    this.replace = replace;
    this.bubble = h("div.bubble", { dir: "auto" }, message.content);
    this.actions = h(
      "div.actions",
      {},
      copyButton(() => message.content, "Copy the message"),
      iconButton("pencil", "Edit the message", () => this.edit()),
    );
    this.element = h(
      "article.message.user",
      { "aria-label": "You" },
      h("h2.hidden", {}, "You"),
      this.bubble,
      this.actions,
    );
  }

  update() {}

  edit() {
    const area = h("textarea", { dir: "auto", "aria-label": "The message, edited", rows: "2" });
    area.value = this.message.content;
    const fit = growing(area);
    const close = () => {
      form.replaceWith(this.bubble, this.actions);
      this.actions.querySelector("[aria-label^=Edit]").focus();
    };
    const send = (event) => {
      event.preventDefault();
      if (area.value.trim() && this.element.isConnected) this.replace(this.message, area.value);
    };
    const form = h(
      "form.edit",
      { onsubmit: send },
      area,
      h(
        "div.edit-row",
        {},
        h("small", {}, "Sending replaces all that follows."),
        h("button.quiet", { type: "button", onclick: close }, "Cancel"),
        h("button.primary", { type: "submit" }, "Send"),
      ),
    );
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
    });
    this.actions.remove();
    this.bubble.replaceWith(form);
    fit();
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}

/** An answer. `results` are the tool messages of the conversation; the actions are the thread's. */
export class AnswerView {
  constructor(message, actions) {
    Object.assign(this, { message, actions, calls: [] });
    this.prose = h("div.prose");
    this.markdown = new MarkdownView(this.prose);
    this.cards = h("div.calls");
    this.note = h("div.note");
    this.stats = h("span.stats");
    this.buttons = h(
      "div.actions",
      {},
      copyButton(() => message.content, "Copy the answer"),
      iconButton("retry", "Answer anew", () => actions.retry(message)),
    );
    this.foot = h("div.answer-foot", {}, this.stats, this.buttons);
    this.element = h(
      "article.message.answer",
      { "aria-label": "Answer" },
      h("h2.hidden", {}, "Answer"),
      this.prose,
      this.cards,
      this.note,
      this.foot,
    );
  }

  /** Draw it as it is now. `last`: whether it stands at the end, where it can be tried again. */
  update({ results, last, running }) {
    const { message } = this;
    const busy = message.end === "running";
    this.markdown.show(message.content);
    this.element.setAttribute("aria-busy", String(busy));
    this.element.classList.toggle("busy", busy);
    this.element.classList.toggle("waiting", busy && !message.content && !message.tool_calls?.length);
    this.#drawCalls(results, running);
    this.#drawNote(last);
    this.stats.textContent = statsWords(message.stats ?? {}).join(" · ");
    const between = !last && message.tool_calls?.length; // the model's way to an answer is none to copy or try again
    this.foot.hidden = between || (busy ? !message.stats?.rate : !message.content && !message.stats?.tokens);
    this.buttons.hidden = busy;
  }

  #drawCalls(results, running) {
    const calls = this.message.tool_calls ?? [];
    while (this.calls.length > calls.length) this.calls.pop().element.remove();
    calls.forEach((call, i) => {
      if (!this.calls[i]) {
        this.calls[i] = new CallView((given, text) => this.actions.giveResult(given, text));
        this.cards.append(this.calls[i].element);
      }
      this.calls[i].update(call, results.get(call.id), this.message.end === "running" || running);
    });
  }

  #drawNote(last) {
    const words = noteOf(this.message);
    const shown = `${words} ${last}`;
    if (this.note.dataset.shown === shown) return;
    this.note.dataset.shown = shown;
    this.note.classList.toggle("failed", this.message.end === "error");
    const retry =
      last &&
      this.message.end === "error" &&
      h("button.quiet", { type: "button", onclick: () => this.actions.retry(this.message) }, "Try again");
    const settings =
      this.message.end === "length" &&
      h("button.link", { type: "button", onclick: () => this.actions.settings("max_tokens") }, "Let answers be longer");
    const key =
      this.message.error?.kind === "key" &&
      h("button.quiet", { type: "button", onclick: () => this.actions.key() }, "Give the key");
    this.note.replaceChildren(
      ...(words ? [h("span", { dir: "auto" }, words), ...[key, retry, settings].filter(Boolean)] : []),
    );
  }

  /** Read the end of the answer out: its text, or what went wrong. */
  announce() {
    const text = this.prose.innerText.trim();
    const long = text.length > 1500 ? `${text.slice(0, 1500)} … The whole answer stands in the conversation.` : text;
    announce([long && `Answer: ${long}`, noteOf(this.message)].filter(Boolean).join(" ") || "The model said nothing.");
  }
}

function noteOf(message) {
  const warned = message.end === "running" ? [] : (message.warnings ?? []);
  return [endOf(message), ...warned.map((warning) => `The server notes: ${warning}.`)].filter(Boolean).join(" ");
}

function endOf({ end, error, content, tool_calls }) {
  if (end === "error") return errorWords(error ?? { kind: "failed" });
  if (end === "stopped") return "Stopped.";
  if (end === "length") return "The answer was cut off at the longest it may be.";
  if (end && end !== "running" && !content && !tool_calls?.length) return "The model said nothing.";
  return "";
}
