// What the user set, kept in localStorage: sampling, tools, theme, the conversation that is open, unsent text.

const KEY = "herd.preferences";

/** The settings of sampling, in the order of the form. What is left empty is the server's to choose. */
export const SAMPLING = [
  {
    name: "temperature",
    label: "Temperature",
    min: 0,
    max: 5,
    step: 0.1,
    hint: "0 takes the likeliest token; higher is more varied",
  },
  { name: "top_p", label: "Top p", min: 0.01, max: 1, step: 0.05, hint: "keep the likeliest tokens up to this mass" },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1, whole: true, hint: "keep so many tokens; 0 keeps all" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.05, hint: "drop tokens below this share of the likeliest" },
  { name: "max_tokens", label: "Longest answer", min: 1, max: 1_000_000, step: 1, whole: true, hint: "in tokens" },
  {
    name: "seed",
    label: "Seed",
    min: 0,
    max: 2 ** 53 - 1,
    step: 1,
    whole: true,
    hint: "the same seed gives the same answer",
  },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    min: 0.1,
    max: 10,
    step: 0.05,
    hint: "over 1: what stood before becomes less likely",
  },
  {
    name: "presence_penalty",
    label: "Presence penalty",
    min: -2,
    max: 2,
    step: 0.1,
    hint: "once for each token that was said",
  },
  {
    name: "frequency_penalty",
    label: "Frequency penalty",
    min: -2,
    max: 2,
    step: 0.1,
    hint: "each time that it was said",
  },
];

const DEFAULTS = {
  sampling: {},
  stop: "",
  toolsOn: false,
  builtinOff: [],
  ownTools: [],
  open: "",
  drafts: {},
  model: "",
};

export const preferences = { ...structuredClone(DEFAULTS), ...load() };

function load() {
  try {
    const stored = JSON.parse(localStorage.getItem(KEY));
    const known = Object.entries(stored ?? {}).filter(
      ([name, value]) => name in DEFAULTS && typeof value === typeof DEFAULTS[name],
    );
    return Object.fromEntries(known.filter(([name, value]) => Array.isArray(value) === Array.isArray(DEFAULTS[name])));
  } catch {
    return {};
  }
}

/** Change some and keep them; false if the browser has no room. */
export function keep(changes) {
  Object.assign(preferences, changes);
  try {
    localStorage.setItem(KEY, JSON.stringify(preferences));
    return true;
  } catch {
    return false;
  }
}

/** A number as the form has it: null for an empty field, an Error in words for what the setting cannot be. */
export function readSetting({ label, min, max, whole }, value) {
  if (value.trim() === "") return null;
  const number = Number(value);
  if (!Number.isFinite(number)) throw new Error(`${label} is a number.`);
  if (whole && !Number.isInteger(number)) throw new Error(`${label} is a whole number.`);
  if (number < min || number > max) throw new Error(`${label} is from ${min} to ${max}.`);
  return number;
}

/** The settings as a request carries them. */
export function samplingBody() {
  const stop = preferences.stop.split("\n").filter(Boolean);
  return { ...preferences.sampling, ...(stop.length && { stop }) };
}
