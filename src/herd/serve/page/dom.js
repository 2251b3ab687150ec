// Elements without markup: text given to these functions is text, whatever it holds.

/** An element: h("button.quiet", {type: "button", onclick: f}, "Copy"). Children that are null or false are left out. */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the drawings at the end of index.html; hidden from screen readers, for the button beside it has a name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "use"));
  svg.firstChild.setAttribute("href", `#icon-${name}`);
  return svg;
}

/** A button that shows an icon and is called `label`; `properties.class` adds classes. */
export function iconButton(name, label, onclick, properties = {}) {
  const classes = ["icon-button", properties.class].filter(Boolean).join(".");
  return h(
    `button.${classes}`,
    { type: "button", "aria-label": label, title: label, onclick, ...properties, class: null },
    icon(name),
  );
}

/** A button that copies what `text()` gives and says so for a moment. */
export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? "check" : "alert"));
    announce(done ? "Copied" : "The browser does not let this page copy");
    setTimeout(() => button.replaceChildren(icon("copy")), 1600);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // pages over plain http have no clipboard
  }
}

function copyBySelection(text) {
  const area = h("textarea.hidden", { readonly: true, "aria-hidden": "true" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const before = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

/** Tell screen readers, politely. The same words twice are read twice. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  setTimeout(() => (region.textContent = text), 50);
}

let toastTimer = 0;

/** A note at the foot of the page, gone after a while; `undo` puts a button beside it. */
export function toast(text, undo = null) {
  const region = document.getElementById("toast");
  const close = () => region.replaceChildren();
  clearTimeout(toastTimer);
  const button = undo && h("button.link", { type: "button", onclick: () => (close(), undo()) }, "Undo");
  region.replaceChildren(
    h("div.toast-card", {}, h("span", { dir: "auto" }, text), button, iconButton("close", "Close the note", close)),
  );
  toastTimer = setTimeout(close, undo ? 12_000 : 6_000);
}

/** Let a textarea be as tall as its text; the style sheet sets the limits. */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  };
  area.addEventListener("input", fit);
  return fit;
}
