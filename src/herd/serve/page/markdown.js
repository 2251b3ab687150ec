// Markdown to elements. Built node by node, never from markup: HTML in a model's text is shown, not read.

import { copyButton, h } from "./dom.js";
import { highlight } from "./highlight.js";
import { parseBlocks } from "./markdown_blocks.js";
import { parseInline } from "./markdown_inline.js";

const FIRST_LEVEL = 3; // of headings: the conversation's is h1, a message's h2

/** An answer that grows: `show(text)` redraws from the first block on that changed, so long ones stay quick. */
export class MarkdownView {
  #raws = [];

  constructor(element) {
    this.element = element;
  }

  show(text) {
    const blocks = parseBlocks(text);
    let same = 0;
    while (same < blocks.length && blocks[same].raw === this.#raws[same]) same++;
    if (same === this.#raws.length && same === blocks.length) return;
    while (this.element.children.length > same) this.element.lastElementChild.remove();
    this.element.append(...blocks.slice(same).map(draw));
    this.#raws = blocks.map((block) => block.raw);
  }
}

function draw(block) {
  switch (block.type) {
    case "heading":
      return h(`h${Math.min(6, block.level + FIRST_LEVEL - 1)}`, { dir: "auto" }, ...inline(block.text));
    case "rule":
      return h("hr");
    case "quote":
      return h("blockquote", { dir: "auto" }, ...block.blocks.map(draw));
    case "code":
      return code(block);
    case "list":
      return list(block);
    case "table":
      return table(block);
    default:
      return h("p", { dir: "auto" }, ...inline(block.text));
  }
}

function code({ language, text }) {
  return h(
    "div.code",
    { dir: "ltr" },
    h(
      "div.code-head",
      {},
      h("span", {}, language || "text"),
      copyButton(() => text, "Copy code"),
    ),
    h(
      "pre",
      { tabindex: "0", "aria-label": language ? `Code, ${language}` : "Code" },
      h("code", {}, ...highlight(text, language)),
    ),
  );
}

function list({ ordered, start, loose, items }) {
  const properties = {
    dir: "auto",
    start: ordered && start !== 1 ? start : null,
    class: items.some((i) => i.done !== null) ? "tasks" : null,
  };
  return h(
    ordered ? "ol" : "ul",
    properties,
    ...items.map((item) => h("li", {}, task(item.done), ...entry(item, loose))),
  );
}

function task(done) {
  return done === null
    ? null
    : h("span.task", { role: "img", "aria-label": done ? "done: " : "open: " }, done ? "☑" : "☐");
}

function entry({ blocks }, loose) {
  return blocks.flatMap((block) => (block.type === "paragraph" && !loose ? inline(block.text) : [draw(block)]));
}

function table({ head, align, rows }) {
  const cell =
    (tag, more = {}) =>
    (text, i) =>
      h(tag, { ...more, dir: "auto", class: `to-${align[i]}` }, ...inline(text));
  return h(
    "div.table",
    { tabindex: "0", role: "group", "aria-label": "Table" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...head.map(cell("th", { scope: "col" })))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell("td"))))),
    ),
  );
}

function inline(text) {
  return parseInline(text).map(drawInline);
}

function drawInline(node) {
  switch (node.type) {
    case "text":
      return node.text;
    case "break":
      return h("br");
    case "code":
      return h("code", { dir: "ltr" }, node.text);
    case "link":
      return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer" }, ...node.of.map(drawInline));
    default:
      return h(node.type, {}, ...node.of.map(drawInline));
  }
}
