// Markdown to blocks: headings, paragraphs, fenced code, lists (tasks too), quotes, tables, rules.
//
// CommonMark where models write it, with GitHub's tables and line breaks. Left out on purpose: HTML (it stays text),
// setext headings and indented code (while text streams in they would turn paragraphs into something else),
// reference links.

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)| +|\t|$)/;
const DELIMITER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEEPEST = 24; // quotes and lists within one another; what is deeper is a paragraph

/** The blocks of `text`: each {type, raw, ...}, `raw` the lines it stands for, so that equal raws are equal blocks. */
export function parseBlocks(text, depth = 0) {
  return new Reader(text.replace(/\r\n?/g, "\n").split("\n"), depth).blocks();
}

class Reader {
  constructor(lines, depth) {
    Object.assign(this, { lines, depth, at: 0 });
  }

  blocks() {
    const found = [];
    let spaced = false; // an empty line stands before the block
    while (this.at < this.lines.length) {
      if (blank(this.lines[this.at])) {
        this.at++;
        spaced = true;
        continue;
      }
      const start = this.at;
      const block = this.block(this.lines[start]);
      found.push({ ...block, spaced, raw: this.lines.slice(start, this.at).join("\n") });
      spaced = blank(this.lines[this.at - 1]); // a list takes the empty lines behind it
    }
    return found;
  }

  block(line) {
    const fence = FENCE.exec(line);
    if (fence) return this.code(fence);
    const heading = HEADING.exec(line);
    if (heading) return this.take({ type: "heading", level: heading[1].length, text: heading[2] ?? "" });
    if (RULE.test(line)) return this.take({ type: "rule" });
    if (this.depth < DEEPEST && QUOTE.test(line)) return this.quote();
    if (this.depth < DEEPEST && ITEM.test(line)) return this.list();
    if (this.isTable(this.at)) return this.table();
    return this.paragraph();
  }

  take(block) {
    this.at++;
    return block;
  }

  /** Up to a fence at least as long; without one, to the end, for it may not have come yet. */
  code([, indent, mark, info]) {
    const end = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`);
    const lines = [];
    let closed = false;
    for (this.at++; this.at < this.lines.length && !closed; this.at++) {
      closed = end.test(this.lines[this.at]);
      if (!closed) lines.push(unindent(this.lines[this.at], indent.length));
    }
    return { type: "code", language: info.trim().split(/\s/)[0], text: lines.join("\n"), closed };
  }

  quote() {
    const inner = [];
    while (this.at < this.lines.length && (QUOTE.test(this.lines[this.at]) || this.continues(inner))) {
      inner.push(this.lines[this.at++].replace(QUOTE, ""));
    }
    return { type: "quote", blocks: parseBlocks(inner.join("\n"), this.depth + 1) };
  }

  /** A line of a paragraph inside a quote may leave the mark out. */
  continues(inner) {
    const line = this.lines[this.at];
    return inner.length > 0 && !blank(inner.at(-1)) && !blank(line) && !this.interrupts(this.at);
  }

  list() {
    const first = ITEM.exec(this.lines[this.at]);
    const ordered = /\d/.test(first[2]);
    const items = [];
    let loose = false;
    for (let item = first; item && item[2].at(-1) === first[2].at(-1) && !this.ruleHere();) {
      const { lines, gap } = this.item(item);
      items.push(this.entry(lines));
      const more = this.at < this.lines.length ? ITEM.exec(this.lines[this.at]) : null;
      loose ||= items.at(-1).loose || (gap && more !== null);
      item = more;
    }
    return { type: "list", ordered, start: ordered ? Number.parseInt(first[2], 10) : 1, loose, items };
  }

  ruleHere() {
    return RULE.test(this.lines[this.at]);
  }

  /** The lines of one item without their indentation, and whether empty ones follow it. */
  item(match) {
    const width = match[1].length + match[2].length + (match[3]?.length ?? 1);
    const lines = [this.lines[this.at++].slice(match[0].length)];
    let gap = false;
    for (; this.at < this.lines.length; this.at++) {
      const line = this.lines[this.at];
      if (blank(line)) gap = true;
      else if (indentation(line) >= width) {
        if (gap) lines.push("");
        lines.push(unindent(line, width));
        gap = false;
      } else if (gap || ITEM.test(line) || this.interrupts(this.at)) break;
      else lines.push(line.trimStart());
    }
    return { lines, gap };
  }

  entry(lines) {
    const task = /^\[([ xX])\][ \t]+/.exec(lines[0]);
    if (task) lines[0] = lines[0].slice(task[0].length);
    const blocks = parseBlocks(lines.join("\n"), this.depth + 1);
    return { done: task ? task[1] !== " " : null, blocks, loose: blocks.slice(1).some((block) => block.spaced) };
  }

  isTable(at) {
    const head = this.lines[at];
    const rule = this.lines[at + 1];
    return (
      rule !== undefined && head.includes("|") && DELIMITER.test(rule) && cells(head).length === cells(rule).length
    );
  }

  table() {
    const head = cells(this.lines[this.at]);
    const align = cells(this.lines[this.at + 1]).map(alignment);
    const rows = [];
    for (this.at += 2; this.at < this.lines.length && !blank(this.lines[this.at]) && !this.starts(this.at); this.at++) {
      const row = cells(this.lines[this.at]);
      rows.push(head.map((_, i) => row[i] ?? ""));
    }
    return { type: "table", head, align, rows };
  }

  paragraph() {
    const lines = [this.lines[this.at++].trim()];
    while (this.at < this.lines.length && !blank(this.lines[this.at]) && !this.interrupts(this.at)) {
      lines.push(this.lines[this.at++].trim());
    }
    return { type: "paragraph", text: lines.join("\n") };
  }

  starts(at) {
    const line = this.lines[at];
    return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line);
  }

  /** Whether the line ends a paragraph that runs up to it. Of numbered lists only those that begin at 1 do. */
  interrupts(at) {
    const item = ITEM.exec(this.lines[at]);
    const begins =
      item && this.lines[at].length > item[0].length && (!/\d/.test(item[2]) || Number.parseInt(item[2], 10) === 1);
    return this.starts(at) || Boolean(begins) || this.isTable(at);
  }
}

function blank(line) {
  return /^\s*$/.test(line);
}

function indentation(line) {
  return /^[ \t]*/.exec(line)[0].replace(/\t/g, "    ").length;
}

function unindent(line, width) {
  const space = /^[ \t]*/.exec(line)[0].replace(/\t/g, "    ");
  return space.slice(Math.min(width, space.length)) + line.trimStart();
}

/** A row's cells: every bar splits it but those behind a backslash, in code too (GitHub's rule). */
function cells(line) {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function alignment(rule) {
  if (rule.endsWith(":")) return rule.startsWith(":") ? "center" : "end";
  return "start";
}
