// What the page says about failures and figures, in words.

const SENTENCES = {
  unreachable: "The server does not answer. See whether herd serve still runs, and try again.",
  loading: "The server is still loading the model.",
  key: "The server asks for an API key.",
  busy: "The server has as much to do as it can take.",
  long: "The conversation is longer than the model's context. Nothing was cut: shorten a message above, or begin anew.",
  refused: "The server does not take this request.",
  failed: "Something went wrong in the server.",
  broken: "The connection broke off in mid-answer. What had come by then is kept.",
  rounds: "The model has called tools many times in a row. Try again to let it go on.",
  left: "The page was left while this was being written. What had come by then is kept.",
  storage: "The browser has no room left, so this conversation is not kept. Export it, or delete others.",
  nostorage: "This browser keeps nothing for this page: conversations end when it is closed. Export what you need.",
};

/** One or two sentences about an error {kind, said, wait}; the server's own words where they add something. */
export function errorWords({ kind, said, wait }) {
  const own = SENTENCES[kind] ?? SENTENCES.failed;
  const pause = kind === "busy" ? (wait ? ` Try again in ${wait} s.` : " Try again in a moment.") : "";
  return said && said !== kind && kind !== "loading" ? `${own}${pause} It says: ${said}` : own + pause;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(n, one, many = `${one}s`) {
  return `${number.format(n)} ${n === 1 ? one : many}`;
}

/** The parts of the line beneath an answer, from {tokens, rate, first, prompt, cached}; what is not known is left out. */
export function statsWords(stats) {
  const parts = [];
  if (stats.tokens) parts.push(count(stats.tokens, "token"));
  if (stats.rate) parts.push(`${stats.rate < 10 ? stats.rate.toFixed(1) : number.format(stats.rate)} tokens/s`);
  if (stats.first) parts.push(`first after ${seconds(stats.first)}`);
  if (stats.prompt)
    parts.push(
      `prompt of ${number.format(stats.prompt)}${stats.cached ? `, ${number.format(stats.cached)} cached` : ""}`,
    );
  return parts;
}

/** Milliseconds as seconds, two digits of them. */
export function seconds(milliseconds) {
  return `${(milliseconds / 1000).toPrecision(2)} s`;
}
