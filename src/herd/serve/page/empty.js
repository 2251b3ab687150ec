// What stands on the page before anything was said: the herd, and something to begin with.

import { h } from "./dom.js";

const BEGINNINGS = [
  ["Explain", "Explain how a rainbow comes about, in five sentences."],
  ["Write", "Write a short, friendly letter that declines an invitation to a wedding."],
  ["Translate", "Translate into German, French and Hindi: The llamas are already on their way home."],
  ["Reckon", "A train leaves at 14:35 and travels 210 km at 84 km/h. When does it arrive? Show each step."],
];
const HERD = [
  [0, 74],
  [84, 54],
  [146, 38],
]; // x and size: the flagship and the two that it teaches
const SVG = "http://www.w3.org/2000/svg";

export function emptyState(session, fill) {
  const model = session.model;
  return h(
    "div.empty",
    {},
    herd(),
    h("p.empty-title", {}, "What shall we talk about?"),
    h(
      "p.soft",
      { dir: "auto" },
      model
        ? `${model} listens. All you say stays between this browser and the server.`
        : "All you say stays between this browser and the server.",
    ),
    h(
      "ul.beginnings",
      {},
      ...BEGINNINGS.map(([name, text]) =>
        h(
          "li",
          {},
          h("button", { type: "button", onclick: () => fill(text) }, h("strong", {}, name), h("span", {}, text)),
        ),
      ),
    ),
  );
}

function herd() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "herd");
  svg.setAttribute("viewBox", "0 0 188 78");
  svg.setAttribute("aria-hidden", "true");
  for (const [x, size] of HERD) {
    const llama = document.createElementNS(SVG, "use");
    for (const [name, value] of Object.entries({ href: "#icon-llama", x, y: 74 - size, width: size, height: size }))
      llama.setAttribute(name, value);
    svg.append(llama);
  }
  return svg;
}
