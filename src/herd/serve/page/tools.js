// What the model may call: tools that this page carries out itself, and tools of the user's, who types their results.

import { calculate } from "./calculator.js";
import { convert } from "./units.js";

const text = (description) => ({ type: "string", description });

/** Each: its definition in OpenAI's form, and what it does with its arguments. */
export const BUILTIN = [
  {
    about: "Arithmetic, exact for whole numbers",
    definition: {
      name: "calculator",
      description: "Work out an arithmetic expression. % is the remainder of a division, ^ a power.",
      parameters: {
        type: "object",
        properties: { expression: text("for example: sqrt(2) * (3 + 4)^2") },
        required: ["expression"],
      },
    },
    run: ({ expression }) => calculate(String(expression ?? "")),
  },
  {
    about: "Today's date and the time, here or elsewhere",
    definition: {
      name: "current_time",
      description: "The date, the day of the week and the time now.",
      parameters: {
        type: "object",
        properties: { timezone: text("an IANA name, for example Europe/Zurich; without it the user's own") },
      },
    },
    run: ({ timezone }) => now(timezone),
  },
  {
    about: "Length, mass, temperature, volume, speed and more",
    definition: {
      name: "convert_units",
      description: "Convert a value from one unit of measure to another.",
      parameters: {
        type: "object",
        properties: {
          value: { type: "number", description: "how many" },
          from: text("its unit, for example km, lb, celsius, gal, mph"),
          to: text("the unit wanted"),
        },
        required: ["value", "from", "to"],
      },
    },
    run: ({ value, from, to }) => `${convert(value, from, to)} ${to}`,
  },
];

function now(timezone) {
  const zone = timezone || Intl.DateTimeFormat().resolvedOptions().timeZone;
  const options = {
    timeZone: zone,
    weekday: "long",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    hourCycle: "h23",
  };
  let parts;
  try {
    parts = new Intl.DateTimeFormat("en", options).formatToParts(new Date());
  } catch {
    throw new Error(`the time zone "${timezone}" is not known`);
  }
  const part = (type) => parts.find((found) => found.type === type).value;
  return `${part("weekday")}, ${part("year")}-${part("month")}-${part("day")} ${part("hour")}:${part("minute")} (${zone})`;
}

/** The definitions that go with a request, in OpenAI's form. `preferences`: {toolsOn, builtinOff: [names], ownTools}. */
export function activeTools({ toolsOn, builtinOff, ownTools }) {
  if (!toolsOn) return [];
  const own = ownTools.filter((tool) => tool.on).map((tool) => tool.definition);
  const taken = new Set(own.map((definition) => definition.name));
  const ours = BUILTIN.map((tool) => tool.definition).filter(
    ({ name }) => !builtinOff.includes(name) && !taken.has(name),
  );
  return [...ours, ...own].map((definition) => ({ type: "function", function: definition }));
}

/** What the page itself answers to a call, null where the user has to: {content, failed}. */
export function runBuiltin(call, { builtinOff, ownTools }) {
  const tool = BUILTIN.find(({ definition }) => definition.name === call.function.name);
  if (!tool || builtinOff.includes(call.function.name)) return null;
  if (ownTools.some(({ on, definition }) => on && definition.name === call.function.name)) return null;
  try {
    return { content: tool.run(argumentsOf(call)), failed: false };
  } catch (error) {
    return { content: `Error: ${error.message}`, failed: true };
  }
}

/** The arguments as an object; an Error for text that is none. */
export function argumentsOf(call) {
  let value;
  try {
    value = JSON.parse(call.function.arguments || "{}");
  } catch {
    throw new Error("the arguments are not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error("the arguments are no JSON object");
  return value;
}

/** A definition out of what the user wrote, nested under "function" or flat; an Error that says what is missing. */
export function readDefinition(source) {
  let value;
  try {
    value = JSON.parse(source);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
  const { name, description = "", parameters = { type: "object", properties: {} } } = value?.function ?? value ?? {};
  if (typeof name !== "string" || !/^[\w-]{1,64}$/.test(name))
    throw new Error('It needs a "name" of letters, digits, _ and -.');
  if (typeof description !== "string") throw new Error('"description" is not text.');
  if (parameters?.type !== "object") throw new Error('"parameters" is a JSON schema of "type": "object".');
  return { name, description, parameters };
}
