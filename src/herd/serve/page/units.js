// Units of measure: how many base units one of each is. Exact by definition where the unit has one (SI Brochure; NIST
// SP 811, appendix B, for the customary ones).

const KINDS = {
  length: {
    m: 1,
    km: 1e3,
    cm: 1e-2,
    mm: 1e-3,
    um: 1e-6,
    nm: 1e-9,
    in: 0.0254,
    ft: 0.3048,
    yd: 0.9144,
    mi: 1609.344,
    nmi: 1852,
  },
  mass: { kg: 1, g: 1e-3, mg: 1e-6, t: 1e3, lb: 0.45359237, oz: 0.028349523125, st: 6.35029318 },
  volume: {
    l: 1,
    ml: 1e-3,
    cl: 1e-2,
    dl: 0.1,
    m3: 1e3,
    gal: 3.785411784,
    qt: 0.946352946,
    pt: 0.473176473,
    cup: 0.2365882365,
    floz: 0.0295735295625,
  },
  area: { m2: 1, km2: 1e6, cm2: 1e-4, ha: 1e4, acre: 4046.8564224, sqft: 0.09290304, sqmi: 2589988.110336 },
  time: { s: 1, ms: 1e-3, min: 60, h: 3600, d: 86_400, week: 604_800 },
  speed: { "m/s": 1, "km/h": 1 / 3.6, mph: 0.44704, kn: 1852 / 3600 },
  energy: { j: 1, kj: 1e3, cal: 4.184, kcal: 4184, wh: 3600, kwh: 3.6e6 },
  data: { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12, kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3, tib: 1024 ** 4 },
};
const TEMPERATURES = {
  // to kelvin, and back
  k: [(x) => x, (x) => x],
  c: [(x) => x + 273.15, (x) => x - 273.15],
  f: [(x) => ((x - 32) * 5) / 9 + 273.15, (x) => ((x - 273.15) * 9) / 5 + 32],
};
const NAMES = {
  meter: "m",
  metre: "m",
  kilometer: "km",
  kilometre: "km",
  centimeter: "cm",
  millimeter: "mm",
  inch: "in",
  inches: "in",
  foot: "ft",
  feet: "ft",
  yard: "yd",
  mile: "mi",
  kilogram: "kg",
  gram: "g",
  tonne: "t",
  pound: "lb",
  lbs: "lb",
  ounce: "oz",
  stone: "st",
  liter: "l",
  litre: "l",
  milliliter: "ml",
  gallon: "gal",
  quart: "qt",
  pint: "pt",
  hectare: "ha",
  second: "s",
  minute: "min",
  hour: "h",
  day: "d",
  hr: "h",
  "°c": "c",
  celsius: "c",
  "°f": "f",
  fahrenheit: "f",
  kelvin: "k",
  kmh: "km/h",
  kph: "km/h",
  knot: "kn",
  joule: "j",
  calorie: "cal",
  "m²": "m2",
  "km²": "km2",
  "m³": "m3",
  byte: "b",
};

export const UNITS = [...Object.values(KINDS).flatMap(Object.keys), ...Object.keys(TEMPERATURES)];

/** `value` of one unit in another, to 12 digits; an Error for units that are unknown or measure different things. */
export function convert(value, from, to) {
  const number = Number(value);
  if (value === "" || value === null || !Number.isFinite(number)) throw new Error("the value is not a number");
  const [a, b] = [unit(from), unit(to)];
  if (a in TEMPERATURES && b in TEMPERATURES) return digits(TEMPERATURES[b][1](TEMPERATURES[a][0](number)));
  const kind = Object.values(KINDS).find((units) => a in units && b in units);
  if (!kind) throw new Error(`${from} and ${to} do not measure the same`);
  return digits((number * kind[a]) / kind[b]);
}

function unit(text) {
  const word = String(text).trim().toLowerCase();
  const known = NAMES[word] ?? NAMES[word.replace(/s$/, "")] ?? word;
  if (!UNITS.includes(known)) throw new Error(`the unit "${text}" is not known; there are ${UNITS.join(", ")}`);
  return known;
}

function digits(number) {
  return Number(number.toPrecision(12));
}
