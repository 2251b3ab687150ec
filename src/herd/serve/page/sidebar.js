// The list of conversations: by day, searched, renamed, deleted, exported and imported.

import { find } from "./conversation.js";
import { fromText, toLine } from "./dialogues.js";
import { announce, h, iconButton, toast } from "./dom.js";
import { count } from "./words.js";

const byId = (id) => document.getElementById(id);
const DAY = 86_400_000;

export class Sidebar {
  #renaming = null;

  constructor(session) {
    this.session = session;
    this.list = byId("conversations");
    this.search = byId("search");
    session.on("list", () => this.draw());
    session.on("run", () => this.draw());
    this.search.addEventListener("input", () => this.draw(true));
    byId("new").addEventListener("click", () => this.begin());
    byId("export").addEventListener("click", () => this.#export(session.conversations, "conversations"));
    byId("import").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => this.#import(event.target));
    byId("open-sidebar").addEventListener("click", () => this.show(true));
    for (const id of ["close-sidebar", "veil"]) byId(id).addEventListener("click", () => this.show(false));
    this.narrow = matchMedia("(max-width: 52rem)");
    this.narrow.addEventListener("change", () => this.show(false, false));
    this.show(false, false);
  }

  begin() {
    this.session.create();
    this.show(false, false);
    byId("message").focus();
  }

  /** On a phone the list lies over the conversation; what is under it can't be reached meanwhile. */
  show(open, focus = true) {
    const over = this.narrow.matches;
    document.body.classList.toggle("sidebar-open", over && open);
    byId("sidebar").inert = over && !open;
    byId("main").inert = over && open;
    byId("veil").hidden = !(over && open);
    byId("open-sidebar").setAttribute("aria-expanded", String(over && open));
    if (focus && over) byId(open ? "close-sidebar" : "open-sidebar").focus();
  }

  get open() {
    return document.body.classList.contains("sidebar-open");
  }

  focusSearch() {
    this.show(true, false);
    this.search.focus();
    this.search.select();
  }

  draw(searched = false) {
    if (this.#renaming?.isConnected) return; // the list is drawn when that is done
    const focused = document.activeElement?.closest?.("#conversations [data-id]")?.dataset.id;
    const query = this.search.value.trim();
    const found = this.session.conversations.map((c) => [c, find(c, query)]).filter(([, hit]) => hit);
    const groups = Map.groupBy ? Map.groupBy(found, ([c]) => dayOf(c.updated)) : grouped(found);
    this.list.replaceChildren(
      ...[...groups].map(([day, hits], i) =>
        group(
          day,
          i,
          hits.map(([c, hit]) => this.#item(c, hit)),
        ),
      ),
    );
    if (!found.length)
      this.list.append(h("p.soft", {}, query ? "Nothing has these words." : "Conversations will be kept here."));
    if (searched && query) announce(`${count(found.length, "conversation")} found`);
    if (focused) this.list.querySelector(`[data-id="${CSS.escape(focused)}"] .open`)?.focus();
  }

  #item(conversation, { title, snippet }) {
    const open = () => {
      this.session.open(conversation);
      this.show(false, false);
      byId("message").focus();
    };
    const current = conversation === this.session.current;
    const button = h(
      "button.open",
      { type: "button", "aria-current": current ? "true" : null, onclick: open },
      h("span.name", { dir: "auto" }, title),
      snippet && h("span.snippet", { dir: "auto" }, snippet),
      this.session.isRunning(conversation.id) && h("span.pulse", { role: "img", "aria-label": "answering" }),
    );
    const item = h("li.item", { "data-id": conversation.id, class: current ? "current" : null });
    item.className = current ? "item current" : "item";
    item.append(
      button,
      h(
        "span.item-actions",
        {},
        iconButton("pencil", `Rename: ${title}`, () => this.#rename(conversation, item)),
        iconButton("download", `Export: ${title}`, () => this.#export([conversation], title)),
        iconButton("trash", `Delete: ${title}`, () => this.#remove(conversation, title)),
      ),
    );
    return item;
  }

  #rename(conversation, item) {
    const field = h("input.rename", {
      type: "text",
      "aria-label": "Name of the conversation",
      dir: "auto",
      maxlength: "200",
    });
    field.value = this.session.titleOf(conversation);
    const close = (keep) => {
      if (this.#renaming !== field) return;
      this.#renaming = null;
      if (keep) this.session.rename(conversation, field.value);
      this.draw();
      this.list.querySelector(`[data-id="${CSS.escape(conversation.id)}"] .open`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) close(true);
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close(false);
    });
    field.addEventListener("blur", () => close(true));
    this.#renaming = field;
    item.replaceChildren(field);
    field.select();
  }

  #remove(conversation, title) {
    const undo = this.session.remove(conversation);
    toast(`“${title}” is deleted.`, undo);
    byId("new").focus();
  }

  #export(conversations, name) {
    const kept = conversations.filter((conversation) => conversation.messages.length);
    if (!kept.length) return toast("There is no conversation to export yet.");
    const file = new Blob([kept.map((conversation) => `${toLine(conversation)}\n`).join("")], {
      type: "application/jsonl",
    });
    const link = h("a", {
      href: URL.createObjectURL(file),
      download: `${name.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "conversation"}.jsonl`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    return toast(`${count(kept.length, "conversation")} exported.`);
  }

  async #import(input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    const { conversations, problems } = fromText(await file.text());
    if (conversations.length) this.session.take(conversations);
    const more = problems.length > 1 ? ` And ${count(problems.length - 1, "line")} more.` : "";
    const words = problems.length ? ` Not read: ${problems[0]}.${more}` : "";
    toast(`${count(conversations.length, "conversation")} imported.${words}`);
  }
}

function group(day, i, items) {
  return h("section", { "aria-labelledby": `day-${i}` }, h("h2", { id: `day-${i}` }, day), h("ul", {}, ...items));
}

function dayOf(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY) return "Yesterday";
  if (time >= midnight - 7 * DAY) return "The last week";
  return new Intl.DateTimeFormat("en", { month: "long", year: "numeric" }).format(time);
}

function grouped(found) {
  const groups = new Map();
  for (const hit of found) {
    const day = dayOf(hit[0].updated);
    groups.set(day, [...(groups.get(day) ?? []), hit]);
  }
  return groups;
}
