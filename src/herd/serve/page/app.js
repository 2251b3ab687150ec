// The page of herd serve: joins the session with its views, and hears the keys that work everywhere.

import { ApiError, key, listModels } from "./api.js";
import { Composer } from "./composer.js";
import { h, icon } from "./dom.js";
import { Session } from "./session.js";
import { SettingsPanel } from "./settings_panel.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Thread } from "./thread.js";
import { errorWords } from "./words.js";

const byId = (id) => document.getElementById(id);
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = MAC ? "⌘" : "Ctrl";
const SHORTCUTS = [
  [["Enter"], "send the message"],
  [["Shift", "Enter"], "begin a line"],
  [["Esc"], "stop the answer; otherwise go to the message field"],
  [["↑"], "in an empty field: edit what you said last"],
  [[MOD, "K"], "search conversations"],
  [[MOD, "Shift", "O"], "new conversation"],
  [[MOD, ","], "settings"],
  [[MOD, "/"], "this help"],
];
const THEMES = { system: ["half", "as the system"], light: ["sun", "light"], dark: ["moon", "dark"] };

const store = await Store.open();
const session = new Session(store);
let afterKey = () => loadModels();

const settings = (name) => panel.open(name);
const composer = new Composer(session, { settings, editLast: () => thread.editLast() });
const panel = new SettingsPanel(session, { changed: () => composer.draw(), key: () => askKey() });
const thread = new Thread(session, { settings, key: () => askKey(retryLast), fill: (text) => composer.fill(text) });
const sidebar = new Sidebar(session);

session.on("open", drawTitle);
session.on("thread", drawTitle);
session.on("list", drawTitle);
session.on("problem", (kind) => (kind ? notice(errorWords({ kind })) : store.kept && clearNotice("storage")));
session.on("run", (ended) => {
  const error = ended?.messages.at(-1)?.error;
  if (error?.kind === "key" && ended === session.current) askKey(retryLast);
});

function drawTitle() {
  const title = session.titleOf();
  byId("title").textContent = title;
  document.title = session.current.messages.length ? `${title} · herd` : "herd";
  drawModels();
}

function drawModels() {
  const select = byId("model");
  const ids = session.models.map(({ id }) => id);
  if (select.dataset.ids !== ids.join("\n")) {
    select.dataset.ids = ids.join("\n");
    select.replaceChildren(...ids.map((id) => h("option", { value: id }, id)));
  }
  select.value = session.model;
  select.disabled = ids.length < 2;
  select.closest("label").hidden = !ids.length;
}

byId("model").addEventListener("change", (event) => {
  session.choose(event.target.value);
  composer.draw();
});

async function loadModels() {
  try {
    session.models = await listModels();
    clearNotice("server");
  } catch (error) {
    if (error instanceof ApiError && error.kind === "key") return askKey(loadModels);
    notice(errorWords(error), "server", loadModels);
    if (error.kind === "loading") setTimeout(loadModels, 2000);
  }
  drawTitle();
  if (!session.current.messages.length) thread.draw();
  return composer.draw();
}

/** A line above the conversation, until what it is about has passed. */
function notice(words, about = "storage", again = null) {
  const button = again && h("button.quiet", { type: "button", onclick: again }, "Try again");
  byId("notice").replaceChildren(icon("alert"), h("span", {}, words), ...(button ? [button] : []));
  byId("notice").dataset.about = about;
  byId("notice").hidden = false;
}

function clearNotice(about) {
  if (byId("notice").dataset.about === about) byId("notice").hidden = true;
}

function askKey(then = loadModels) {
  afterKey = then;
  byId("key-words").textContent = key.get()
    ? "The server does not take the key that this browser has."
    : "The server asks for a key. Whoever started it has it.";
  byId("key-value").value = "";
  if (!byId("key").open) byId("key").showModal();
}

byId("key")
  .querySelector("form")
  .addEventListener("submit", async () => {
    key.set(byId("key-value").value.trim(), byId("key-remember").checked);
    const then = afterKey;
    if (then !== loadModels) await loadModels();
    then();
  });

function retryLast() {
  const last = session.current.messages.at(-1);
  if (last?.error) session.retry(last);
}

for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
}

function drawTheme() {
  const theme = document.documentElement.dataset.theme ?? "system";
  byId("theme").replaceChildren(icon(THEMES[theme][0]));
  for (const name of ["aria-label", "title"]) byId("theme").setAttribute(name, `Theme: ${THEMES[theme][1]}`);
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % names.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("herd.theme", next);
  } catch {
    // it holds until the page is closed
  }
  drawTheme();
});

byId("help").addEventListener("click", () => byId("shortcuts").showModal());
byId("shortcut-list").append(
  ...SHORTCUTS.map(([keys, words]) =>
    h("div", {}, h("dt", {}, ...keys.map((name) => h("kbd", {}, name))), h("dd", {}, words)),
  ),
);

addEventListener("keydown", (event) => {
  const command = MAC ? event.metaKey : event.ctrlKey;
  const name = event.key.toLowerCase();
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) escape();
  else if (command && !event.shiftKey && name === "k") act(event, () => sidebar.focusSearch());
  else if (command && event.shiftKey && name === "o") act(event, () => sidebar.begin());
  else if (command && name === ",") act(event, () => panel.open());
  else if (command && name === "/") act(event, () => byId("shortcuts").showModal());
});

function act(event, action) {
  event.preventDefault();
  if (!document.querySelector("dialog[open]")) action();
}

function escape() {
  if (session.running) composer.stop();
  else if (sidebar.open) sidebar.show(false);
  else byId("message").focus();
}

drawTheme();
await session.load();
if (!store.kept) notice(errorWords({ kind: "nostorage" }), "nostorage");
byId("message").focus();
await loadModels();
