// Markdown inside a block: emphasis, strong, struck out, code, links; everything else is text.
//
// Emphasis follows CommonMark's delimiter runs (section 6.2, "process emphasis"), so the work grows with the text and
// not with its square, whatever a model writes. Pictures become links: the page fetches nothing from elsewhere.

const PUNCTUATION = /[\p{P}\p{S}]/u;
const PLAIN = /[^\\`*_~[\]!<\nhH]+/y;
const BARE_LINK = /https?:\/\/[^\s<>"`]+/iy;
const ANGLE_LINK = /<(https?:\/\/[^\s<>]*)>/iy;
const TARGET = /\(\s*(?:<([^<>\n]*)>|((?:[^\s()]|\((?:[^\s()])*\))*))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)/y;

/** Nodes: {type: "text" | "code", text}, {type: "break"}, {type: "em" | "strong" | "del", of}, {type: "link", href, of}. */
export function parseInline(text) {
  return new Inline(text).nodes();
}

/** The address of a link that may be followed, null for any other: http and https only. */
export function safeHref(address) {
  try {
    const url = new URL(address);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

class Inline {
  constructor(text) {
    Object.assign(this, { text, at: 0, out: [], runs: [], brackets: [], without: new Map() });
  }

  nodes() {
    while (this.at < this.text.length) this.step(this.text[this.at]);
    this.emphasise(0);
    return this.take(0);
  }

  step(character) {
    if (character === "\n") this.node({ type: "break" }, 1);
    else if (character === "\\") this.escape();
    else if (character === "`") this.code();
    else if ("*_~".includes(character)) this.run(character);
    else if (character === "[" || (character === "!" && this.text[this.at + 1] === "[")) this.open(character === "!");
    else if (character === "]") this.close();
    else if (!this.link(character)) this.plain(this.match(PLAIN)?.[0] ?? character);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text);
  }

  node(node, width) {
    this.out.push(node);
    this.at += width;
  }

  plain(text, width = text.length) {
    this.node({ type: "text", text }, width);
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next && /[!-/:-@[-`{-~]/.test(next)) this.plain(next, 2);
    else this.plain("\\");
  }

  code() {
    const run = /`+/y;
    run.lastIndex = this.at;
    const [mark] = run.exec(this.text);
    const from = this.at + mark.length;
    const end = this.without.get(mark.length) <= from ? -1 : this.closing(mark, from);
    if (end < 0) {
      this.without.set(mark.length, from);
      return this.plain(mark);
    }
    const inner = this.text.slice(from, end).replace(/\n/g, " ");
    const padded = /^ .*[^ ].* $/.test(inner) || /^ [^ ]+ $/.test(inner);
    return this.node({ type: "code", text: padded ? inner.slice(1, -1) : inner }, end + mark.length - this.at);
  }

  /** Where a run of exactly as many backticks begins; -1 for nowhere, which is remembered so as not to look again. */
  closing(mark, from) {
    for (const found of this.text.slice(from).matchAll(/`+/g)) {
      if (found[0].length === mark.length) return from + found.index;
    }
    return -1;
  }

  run(character) {
    let stop = this.at;
    while (this.text[stop] === character) stop++;
    const length = stop - this.at;
    const before = characterBefore(this.text, this.at);
    const after = this.text.slice(stop, stop + 2).match(/^./su)?.[0] ?? " ";
    const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
    const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
    const word = character === "_";
    const opens = left && (!word || !right || PUNCTUATION.test(before));
    const closes = right && (!word || !left || PUNCTUATION.test(after));
    const node = { type: "text", text: character.repeat(length), ends: 0, begins: [] };
    if ((opens || closes) && (character !== "~" || length === 2)) {
      this.runs.push({ node, character, length, original: length, opens, closes });
    }
    this.node(node, length);
  }

  open(picture) {
    const node = { type: "text", text: picture ? "![" : "[" };
    this.brackets.push({ node, index: this.out.length, runs: this.runs.length, at: this.at, picture });
    this.node(node, node.text.length);
  }

  close() {
    const bracket = this.brackets.pop();
    this.at++;
    const target = bracket && !bracket.off ? this.match(TARGET) : null;
    const href = target && safeHref(target[1] ?? target[2]);
    if (!href) return this.plain("]", 0);
    this.emphasise(bracket.runs);
    const of = this.take(bracket.index + 1);
    this.out.pop(); // the bracket itself
    this.out.push({ type: "link", href, of: of.length ? of : [{ type: "text", text: href }] });
    this.at += target[0].length;
    if (!bracket.picture) for (const outer of this.brackets) outer.off ||= !outer.picture; // no link within a link
    return undefined;
  }

  /** A bare or angled address at this place. */
  link(character) {
    const inside = this.brackets.some((bracket) => !bracket.off) && character !== "<";
    const angled = character === "<" ? this.match(ANGLE_LINK) : null;
    const bare =
      "hH".includes(character) && !/\w/.test(characterBefore(this.text, this.at)) ? this.match(BARE_LINK) : null;
    const shown = angled?.[1] ?? (bare && trimmed(bare[0]));
    const href = shown && safeHref(shown);
    if (!href || inside) return false;
    this.node({ type: "link", href, of: [{ type: "text", text: shown }] }, angled ? angled[0].length : shown.length);
    return true;
  }

  /** Pair the delimiter runs from `bottom` on; what finds no partner stays text. */
  emphasise(bottom) {
    const openers = [];
    const floors = {}; // by kind of closer: so deep in `openers` there is none for it
    for (const run of this.runs.splice(bottom)) {
      const kind = `${run.character}${run.opens}${run.original % 3}`;
      while (run.closes && run.length) {
        const found = opener(openers, run, floors[kind] ?? 0);
        if (found < 0) {
          floors[kind] = openers.length;
          break;
        }
        openers.length = found + 1;
        pair(openers[found], run);
        if (!openers[found].length) openers.pop();
        for (const name of Object.keys(floors)) floors[name] = Math.min(floors[name], openers.length);
      }
      if (run.opens && run.length) openers.push(run);
    }
  }

  /** Takes the nodes from `index` on out, as a tree: what was paired is around what stands between. */
  take(index) {
    const levels = [{ of: [] }];
    for (const { ends, begins, ...node } of this.out.splice(index)) {
      for (let n = 0; n < ends; n++) append(levels.at(-2).of, levels.pop());
      append(levels.at(-1).of, node);
      for (const type of begins?.toReversed() ?? []) levels.push({ type, of: [] });
    }
    return levels[0].of;
  }
}

function opener(openers, closer, floor) {
  for (let i = openers.length - 1; i >= floor; i--) {
    const run = openers[i];
    if (run.character !== closer.character) continue;
    const odd = (run.closes || closer.opens) && (run.original + closer.original) % 3 === 0;
    if (!odd || (run.original % 3 === 0 && closer.original % 3 === 0)) return i;
  }
  return -1;
}

function pair(opening, closing) {
  const width = opening.character === "~" || (opening.length > 1 && closing.length > 1) ? 2 : 1;
  opening.node.begins.push(opening.character === "~" ? "del" : width === 2 ? "strong" : "em");
  closing.node.ends++;
  for (const run of [opening, closing]) {
    run.length -= width;
    run.node.text = run.character.repeat(run.length);
  }
}

function characterBefore(text, at) {
  return text.slice(Math.max(0, at - 2), at).match(/.$/su)?.[0] ?? " ";
}

/** A bare address without the punctuation behind it, and without a bracket that opened before it. */
function trimmed(address) {
  let text = address.replace(/[.,;:!?'*_~]+$/, "");
  while (text.endsWith(")") && text.split(")").length > text.split("(").length)
    text = text.slice(0, -1).replace(/[.,;:!?]+$/, "");
  return text;
}

/** Texts side by side become one, and empty ones nothing. */
function append(nodes, node) {
  const last = nodes.at(-1);
  if (node.type !== "text") nodes.push(node);
  else if (last?.type === "text") last.text += node.text;
  else if (node.text) nodes.push(node);
}
