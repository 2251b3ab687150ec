// What the page is about, without its elements: the conversations, the one that is open, the answers under way.
//
// Views listen: "list" (names, order), "open" (another conversation), "thread" (its messages changed), "message" (one
// of them grew), "run" (an answer began or ended), "problem" (a kind of words.js).

import { answer } from "./answering.js";
import { addResult, newConversation, openCalls, settle, titleOf } from "./conversation.js";
import { keep, preferences } from "./preferences.js";

const PAUSE = 400; // milliseconds between two savings of an answer that grows

export class Session {
  conversations = [];
  current = newConversation();
  models = [];
  #store;
  #runs = new Map(); // id of a conversation -> AbortController
  #timers = new Map(); // id -> timer of the next saving
  #unsaved = new Map(); // id -> a mark of its latest change that is not on disk yet
  #listeners = {};

  constructor(store) {
    this.#store = store;
  }

  async load() {
    this.conversations = (await this.#store.all()).map(settle);
    const last = this.conversations.find(({ id }) => id === preferences.open);
    if (last) this.current = last;
    this.#store.onElsewhere((id) => this.#elsewhere(id));
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#store.forgetAside()); // it was not left after all
    this.#tell("list");
    this.#tell("open");
  }

  on(name, listener) {
    (this.#listeners[name] ??= []).push(listener);
  }

  #tell(name, value) {
    for (const listener of this.#listeners[name] ?? []) listener(value);
  }

  get running() {
    return this.#runs.has(this.current.id);
  }

  isRunning(id) {
    return this.#runs.has(id);
  }

  get model() {
    const known = this.models.map(({ id }) => id);
    return known.find((id) => id === (this.current.model || preferences.model)) ?? known[0] ?? this.current.model;
  }

  /** How many tokens the open conversation's model can hold, 0 if the server does not say. */
  get context() {
    return this.models.find(({ id }) => id === this.model)?.max_model_len ?? 0;
  }

  choose(model) {
    this.current.model = model;
    keep({ model });
    if (this.current.messages.length) this.save(this.current);
  }

  open(conversation) {
    this.current = conversation;
    keep({ open: conversation.id });
    this.#tell("open");
    this.#tell("list");
  }

  create() {
    this.open(newConversation(this.model));
  }

  /** Say something at the end of the open conversation, and have it answered. */
  send(text) {
    if (this.running || !text.trim()) return;
    this.#enter(this.current);
    for (const call of openCalls(this.current)) addResult(this.current, call, "The user gave no result.", true);
    this.current.messages.push({ role: "user", content: text });
    this.go();
  }

  /** Say something else in place of a message: what followed it goes. Returns how to take that back. */
  replace(message, text) {
    const conversation = this.current;
    const before = [...conversation.messages];
    this.stop(conversation.id);
    conversation.messages = [...before.slice(0, before.indexOf(message)), { role: "user", content: text }];
    this.go();
    return () => this.#restore(conversation, before);
  }

  /** Have an answer written anew: it and what followed it go. Returns how to take that back. */
  retry(message) {
    const conversation = this.current;
    const before = [...conversation.messages];
    this.stop(conversation.id);
    conversation.messages = before.slice(0, before.indexOf(message));
    this.go();
    return () => this.#restore(conversation, before);
  }

  #restore(conversation, messages) {
    this.stop(conversation.id);
    conversation.messages = messages.filter((message) => message.end !== "running");
    this.#touch(conversation);
  }

  /** The user's result for a call; when none is open any more, the model goes on. */
  giveResult(call, text) {
    addResult(this.current, call, text);
    if (openCalls(this.current).length) this.#touch(this.current);
    else this.go();
  }

  stop(id = this.current.id) {
    this.#runs.get(id)?.abort();
  }

  async go() {
    const conversation = this.current;
    conversation.model = this.model;
    const abort = new AbortController();
    this.#runs.set(conversation.id, abort);
    this.#touch(conversation);
    this.#tell("run");
    const changed = (message) => {
      if (this.#runs.get(conversation.id) !== abort) return; // replaced by another try
      this.#saveSoon(conversation);
      if (this.current === conversation) this.#tell("message", message);
    };
    await answer(conversation, abort.signal, changed);
    if (this.#runs.get(conversation.id) !== abort) return;
    this.#runs.delete(conversation.id);
    this.#touch(conversation);
    this.#tell("run", conversation);
  }

  rename(conversation, title) {
    Object.assign(conversation, { title: title.trim(), named: Boolean(title.trim()) });
    this.save(conversation);
    this.#tell("list");
    if (conversation === this.current) this.#tell("thread");
  }

  /** Delete one; returns how to take that back. */
  remove(conversation) {
    this.stop(conversation.id);
    this.#forgetTimer(conversation);
    this.#unsaved.delete(conversation.id);
    this.conversations = this.conversations.filter((other) => other !== conversation);
    this.#store.remove(conversation.id).catch(() => this.#tell("problem", "storage"));
    if (conversation === this.current) this.create();
    this.#tell("list");
    return () => {
      this.#enter(conversation);
      this.save(conversation);
      this.open(conversation);
    };
  }

  setSystem(text) {
    this.current.system = text;
    if (this.current.messages.length) this.#saveSoon(this.current);
  }

  /** Take in conversations of a file, the first of them opened. */
  take(conversations) {
    for (const conversation of conversations.toReversed()) {
      this.#enter(conversation);
      this.save(conversation);
    }
    this.open(conversations[0]);
  }

  async save(conversation) {
    this.#forgetTimer(conversation);
    if (!this.#store.kept) return;
    const change = Symbol("change");
    this.#unsaved.set(conversation.id, change);
    try {
      await this.#store.save(conversation);
      if (this.#unsaved.get(conversation.id) === change) this.#unsaved.delete(conversation.id);
      this.#tell("problem", null);
    } catch {
      this.#tell("problem", "storage");
    }
  }

  #saveSoon(conversation) {
    this.#unsaved.set(conversation.id, Symbol("change"));
    if (this.#timers.has(conversation.id)) return;
    this.#timers.set(
      conversation.id,
      setTimeout(() => this.save(conversation), PAUSE),
    );
  }

  #forgetTimer({ id }) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }

  #enter(conversation) {
    if (!this.conversations.includes(conversation)) this.conversations.unshift(conversation);
  }

  #touch(conversation) {
    conversation.updated = Date.now();
    this.conversations.sort((a, b) => b.updated - a.updated);
    if (conversation === this.current) keep({ open: conversation.id });
    this.save(conversation);
    this.#tell("list");
    if (conversation === this.current) this.#tell("thread");
  }

  #leave() {
    for (const id of this.#unsaved.keys()) {
      const conversation = this.conversations.find((other) => other.id === id);
      if (conversation) this.#store.putAside(conversation);
    }
  }

  /** Another window of this page changed one: take it over, unless it is being answered here. */
  async #elsewhere(id) {
    if (this.#runs.has(id) || this.#unsaved.has(id)) return;
    const theirs = await this.#store.get(id);
    this.conversations = this.conversations.filter((other) => other.id !== id);
    if (theirs) this.conversations.push(theirs);
    this.conversations.sort((a, b) => b.updated - a.updated);
    if (theirs && this.current.id === id) {
      this.current = theirs;
      this.#tell("thread");
    }
    this.#tell("list");
  }

  titleOf(conversation = this.current) {
    return titleOf(conversation);
  }
}
