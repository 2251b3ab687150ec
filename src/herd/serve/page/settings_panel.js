// The settings, in a drawer: system prompt, sampling, tools, key. Every change holds at once.

import { h, iconButton } from "./dom.js";
import { keep, preferences, readSetting, SAMPLING } from "./preferences.js";
import { BUILTIN, readDefinition } from "./tools.js";

const byId = (id) => document.getElementById(id);

const EXAMPLE = {
  name: "weather",
  description: "The weather in a town now.",
  parameters: { type: "object", properties: { town: { type: "string" } }, required: ["town"] },
};

export class SettingsPanel {
  #edited = -1; // the index of the own tool in the editor; -1 is a new one

  constructor(session, { changed, key }) {
    Object.assign(this, { session, changed });
    byId("open-settings").addEventListener("click", () => this.open());
    byId("system-prompt").addEventListener("input", (event) => {
      session.setSystem(event.target.value);
      changed();
    });
    byId("stop-texts").addEventListener("input", (event) => keep({ stop: event.target.value }));
    byId("reset-sampling").addEventListener("click", () => this.#reset());
    byId("tools-on").addEventListener("change", (event) => this.#keep({ toolsOn: event.target.checked }));
    byId("change-key").addEventListener("click", key);
    byId("tool-editor")
      .querySelector("form")
      .addEventListener("submit", (event) => this.#keepTool(event));
    byId("sampling").append(...SAMPLING.map((setting) => this.#field(setting)));
    byId("builtin").append(...BUILTIN.map((tool) => this.#builtin(tool)));
  }

  /** Open the drawer, at one of its fields if that is named. */
  open(name = "") {
    byId("system-prompt").value = this.session.current.system;
    byId("stop-texts").value = preferences.stop;
    byId("tools-on").checked = preferences.toolsOn;
    for (const { name: setting } of SAMPLING) this.#input(setting).value = preferences.sampling[setting] ?? "";
    this.#drawOwn();
    if (!byId("settings").open) byId("settings").showModal();
    const field = name && (document.getElementById(name) ?? this.#input(name));
    if (field) {
      field.focus();
      field.scrollIntoView({ block: "center" });
    }
  }

  #input(name) {
    return byId(`sampling-${name}`);
  }

  #keep(changes) {
    keep(changes);
    this.changed();
  }

  #field(setting) {
    const { name, label, hint, min, max, step } = setting;
    const problem = h("small.problem", { id: `problem-${name}`, role: "alert" });
    const input = h("input", {
      id: `sampling-${name}`,
      type: "number",
      min,
      max,
      step: step < 1 ? "any" : step,
      inputmode: "decimal",
      placeholder: "default",
      "aria-describedby": `hint-${name} problem-${name}`,
    });
    input.addEventListener("input", () => {
      problem.textContent = "";
      try {
        if (input.validity.badInput) throw new Error(`${label} is a number.`);
        const value = readSetting(setting, input.value);
        const { [name]: _, ...others } = preferences.sampling;
        keep({ sampling: value === null ? others : { ...others, [name]: value } });
      } catch (error) {
        problem.textContent = error.message;
      }
      input.setAttribute("aria-invalid", String(Boolean(problem.textContent)));
    });
    return h(
      "div.field",
      {},
      h("label", { for: input.id }, label),
      input,
      h("small", { id: `hint-${name}` }, hint),
      problem,
    );
  }

  #reset() {
    keep({ sampling: {}, stop: "" });
    for (const input of byId("sampling").querySelectorAll("input")) {
      input.value = "";
      input.dispatchEvent(new Event("input"));
    }
    byId("stop-texts").value = "";
  }

  #builtin({ about, definition: { name } }) {
    const box = h("input", { type: "checkbox" });
    box.checked = !preferences.builtinOff.includes(name);
    box.addEventListener("change", () => {
      const others = preferences.builtinOff.filter((other) => other !== name);
      keep({ builtinOff: box.checked ? others : [...others, name] });
    });
    return h("label.check", {}, box, h("span", {}, h("code", {}, name), h("small", {}, about)));
  }

  #drawOwn() {
    const rows = preferences.ownTools.map((tool, i) => this.#own(tool, i));
    const add = h("button.quiet", { type: "button", onclick: () => this.#edit(-1, EXAMPLE) }, "Add a tool");
    byId("own").replaceChildren(h("h4", { id: "own-title" }, "Yours: you type what they give back"), ...rows, add);
  }

  #own(tool, i) {
    const { name, description } = tool.definition;
    const box = h("input", { type: "checkbox" });
    box.checked = tool.on;
    box.addEventListener("change", () => this.#keepOwn(preferences.ownTools.with(i, { ...tool, on: box.checked })));
    return h(
      "div.own-row",
      {},
      h("label.check", {}, box, h("span", {}, h("code", {}, name), h("small", { dir: "auto" }, description))),
      iconButton("pencil", `Edit ${name}`, () => this.#edit(i, tool.definition)),
      iconButton("trash", `Delete ${name}`, () => {
        this.#keepOwn(preferences.ownTools.toSpliced(i, 1));
        byId("own").querySelector("button.quiet").focus();
      }),
    );
  }

  #keepOwn(ownTools) {
    this.#keep({ ownTools });
    this.#drawOwn();
  }

  #edit(i, definition) {
    this.#edited = i;
    byId("tool-source").value = JSON.stringify(definition, null, 2);
    byId("tool-problem").textContent = "";
    byId("tool-editor").showModal();
  }

  #keepTool(event) {
    try {
      const definition = readDefinition(byId("tool-source").value);
      const twice = preferences.ownTools.some(
        (tool, i) => i !== this.#edited && tool.definition.name === definition.name,
      );
      if (twice) throw new Error(`There is a tool named ${definition.name} already.`);
      const tool = { on: true, definition };
      const { ownTools } = preferences;
      this.#keepOwn(this.#edited < 0 ? [...ownTools, tool] : ownTools.with(this.#edited, tool));
      if (this.#edited < 0) this.#keep({ toolsOn: true });
      byId("tools-on").checked = preferences.toolsOn;
    } catch (error) {
      event.preventDefault(); // the dialog stays
      byId("tool-problem").textContent = error.message;
    }
  }
}
