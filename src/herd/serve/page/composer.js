// The field at the foot of the page, its buttons, and the room that is left in the model's context.

import { growing } from "./dom.js";
import { keep, preferences } from "./preferences.js";
import { count } from "./words.js";

const byId = (id) => document.getElementById(id);
const DRAFTS = 50; // unsent texts that are kept

export class Composer {
  #fit;
  #timer = 0;

  constructor(session, { settings, editLast }) {
    this.session = session;
    this.field = byId("message");
    this.#fit = growing(this.field);
    this.touch = matchMedia("(hover: none) and (pointer: coarse)"); // there Enter begins a line: the button sends
    byId("hint").hidden = this.touch.matches;
    byId("composer").addEventListener("submit", (event) => this.#submit(event));
    byId("stop").addEventListener("click", () => this.stop());
    byId("tools").addEventListener("click", () => this.#toggleTools());
    byId("system").addEventListener("click", () => settings("system-prompt"));
    this.field.addEventListener("keydown", (event) => this.#key(event, editLast));
    this.field.addEventListener("input", () => this.#keepSoon());
    addEventListener("pagehide", () => this.#keep());
    session.on("open", () => this.#open());
    session.on("run", () => this.draw());
    session.on("thread", () => this.draw());
  }

  fill(text) {
    this.field.value = text;
    this.#fit();
    this.#keep();
    this.field.focus();
    this.draw();
  }

  draw() {
    const { running, current, context } = this.session;
    byId("stop").hidden = !running;
    byId("send").hidden = running;
    byId("send").disabled = !this.field.value.trim();
    byId("tools").setAttribute("aria-pressed", String(preferences.toolsOn));
    byId("system").setAttribute("aria-pressed", String(Boolean(current.system.trim())));
    const stats = current.messages.findLast((message) => message.stats?.prompt)?.stats;
    const used = stats ? stats.prompt + stats.tokens : 0;
    byId("room").textContent =
      used && context ? `${Math.round((100 * used) / context)} % of ${count(context, "token")}` : "";
  }

  stop() {
    this.session.stop();
    this.field.focus();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.field.value;
    if (!text.trim() || this.session.running) return;
    this.fill("");
    this.session.send(text);
    this.name = this.#nameOfDraft();
  }

  #key(event, editLast) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !this.touch.matches) this.#submit(event);
    if (event.key === "ArrowUp" && !this.field.value && !this.session.running) {
      event.preventDefault();
      editLast();
    }
  }

  #toggleTools() {
    keep({ toolsOn: !preferences.toolsOn });
    this.draw();
  }

  #open() {
    this.#keep(); // what was typed in the one before
    this.name = this.#nameOfDraft();
    this.field.value = preferences.drafts[this.name] ?? "";
    this.#fit();
    this.draw();
  }

  #nameOfDraft() {
    return this.session.conversations.includes(this.session.current) ? this.session.current.id : "new";
  }

  #keepSoon() {
    this.draw();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#keep(), 300);
  }

  /** Unsent text outlives a reload, with the conversation it belongs to. */
  #keep() {
    clearTimeout(this.#timer);
    if (!this.name) return; // nothing is open yet
    const { [this.name]: _, ...others } = preferences.drafts;
    const drafts = this.field.value ? { ...others, [this.name]: this.field.value } : others;
    keep({ drafts: Object.fromEntries(Object.entries(drafts).slice(-DRAFTS)) });
  }
}
