// A little colour in code: comments, strings, numbers and the words that most languages share. One pass, no grammar.

import { h } from "./dom.js";

const HASH = /^(py|python|sh|bash|shell|zsh|console|yaml|yml|toml|ruby|rb|r|perl|make|makefile|dockerfile|julia)$/i;
const DASH = /^(sql|lua|haskell|hs|ada|elm)$/i;
const PLAIN = /^(|text|txt|plain|plaintext|markdown|md|csv|log|output)$/i;
const LONGEST = 30_000; // characters: what is longer stays in one colour

const WORDS = new Set(
  `and as assert async await break case catch class const continue def default defer del do elif else enum except export
  extends false finally fn for from func function global go if impl import in interface is lambda let loop match mod mut
  new nil none not null or pass private protected pub public raise return self static struct super switch this throw
  trait true try type typeof undefined use using var void where while with yield select insert update delete into values
  create table join on group by order limit set begin end then echo local`.split(/\s+/),
);

/** The text as nodes: strings where nothing is to be seen, spans elsewhere. */
export function highlight(text, language) {
  if (PLAIN.test(language) || text.length > LONGEST) return [text];
  const comment = HASH.test(language) ? "#.*" : DASH.test(language) ? "--.*" : "\\/\\/.*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)";
  const string = '"""[\\s\\S]*?(?:"""|$)|"(?:[^"\\\\\\n]|\\\\.)*"?|\'(?:[^\'\\\\\\n]|\\\\.)*\'?|`(?:[^`\\\\]|\\\\.)*`?';
  const parts = new RegExp(`(${comment})|(${string})|(\\b\\d[\\w.]*)|([\\p{L}_$][\\p{L}\\p{N}_$]*)|[^]`, "gu");
  const nodes = [];
  for (const [all, note, quoted, digits, word] of text.matchAll(parts)) {
    const kind = note
      ? "comment"
      : quoted
        ? "string"
        : digits
          ? "number"
          : word && WORDS.has(word.toLowerCase())
            ? "word"
            : "";
    if (kind) nodes.push(h(`span.code-${kind}`, {}, all));
    else if (typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += all;
    else nodes.push(all);
  }
  return nodes;
}
