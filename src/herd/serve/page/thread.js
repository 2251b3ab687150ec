// The open conversation on the page: its messages in order, kept at the end while an answer grows.

import { h, toast } from "./dom.js";
import { AnswerView, UserView } from "./message_view.js";
import { emptyState } from "./empty.js";

const NEAR = 48; // pixels from the end that still count as the end

export class Thread {
  #views = new Map();
  #pending = new Set();
  #frame = 0;
  #following = true;

  constructor(session, { settings, key, fill }) {
    Object.assign(this, { session, fill });
    this.element = document.getElementById("thread");
    this.scroller = document.getElementById("scroll");
    this.latest = document.getElementById("latest");
    this.actions = {
      replace: (message, text) => this.#branch(session.replace(message, text)),
      retry: (message) => this.#branch(session.retry(message)),
      giveResult: (call, text) => session.giveResult(call, text),
      settings,
      key,
    };
    session.on("open", () => this.#open());
    session.on("thread", () => this.draw());
    session.on("message", (message) => this.#soon(message));
    session.on("run", (ended) => this.#ran(ended));
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(this.element);
    new ResizeObserver(() => this.#follow()).observe(this.scroller);
    this.latest.addEventListener("click", () => this.toEnd());
  }

  /** Draw what is there; messages that were there keep their elements. */
  draw() {
    const { messages } = this.session.current;
    const shown = messages.filter((message) => message.role !== "tool");
    const views = new Map(shown.map((message) => [message, this.#views.get(message) ?? this.#view(message)]));
    for (const [message, view] of this.#views) if (!views.has(message)) view.element.remove();
    this.#views = views;
    this.element.querySelector(".empty")?.remove();
    let at = this.element.firstElementChild;
    for (const view of views.values()) {
      if (view.element === at) at = at.nextElementSibling;
      else this.element.insertBefore(view.element, at);
    }
    for (const message of shown) this.#update(message);
    if (!shown.length) this.element.append(emptyState(this.session, this.fill));
    this.#follow();
  }

  /** Edit what the user said last. */
  editLast() {
    const last = [...this.#views.values()].findLast((view) => view instanceof UserView);
    last?.edit();
  }

  toEnd() {
    this.#following = true;
    this.#follow();
    this.#scrolled();
  }

  #view(message) {
    return message.role === "user" ? new UserView(message, this.actions) : new AnswerView(message, this.actions);
  }

  #update(message) {
    const { messages } = this.session.current;
    const results = new Map(
      messages
        .slice(messages.indexOf(message) + 1)
        .filter((m) => m.role === "tool")
        .toReversed()
        .map((m) => [m.tool_call_id, m]),
    );
    const last = messages.findLast((m) => m.role !== "tool") === message;
    this.#views.get(message)?.update({ results, last, running: this.session.running });
  }

  /** Once a frame is often enough, however fast pieces come. A hidden window has no frames, and no one who looks. */
  #soon(message) {
    this.#pending.add(message);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      const known = [...this.#pending].every((pending) => this.#views.has(pending));
      if (known) for (const pending of this.#pending) this.#update(pending);
      else this.draw();
      this.#pending.clear();
      this.#follow();
    });
  }

  #open() {
    this.#views.forEach((view) => view.element.remove());
    this.#views.clear();
    this.draw();
    this.toEnd();
  }

  #branch(undo) {
    this.toEnd();
    toast("What followed was replaced.", undo);
    document.getElementById("message").focus();
  }

  #ran(ended) {
    if (!ended) this.toEnd();
    if (ended === this.session.current) {
      const last = [...this.#views.values()].at(-1);
      if (last instanceof AnswerView) last.announce();
    }
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.#following = scrollTop + clientHeight >= scrollHeight - NEAR;
    this.latest.hidden = this.#following;
  }

  #follow() {
    if (this.#following) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this.#scrolled();
  }
}
