// Arithmetic out of text: numbers, + - * / % ^ (or **), brackets, functions. No eval: a parser of its own.
//
//     calculate("2^100 / 3")   "(1 + 0.05) ** 10"   "sqrt(2) * max(1, 3)"
//
// Whole numbers are exact at any size (BigInt) until a division or a function leaves them.

const DEEPEST = 200;
const LARGEST = 4096; // bits of a whole result: longer ones are numbers with a rounding
const TOKEN = /\s*(?:(\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|([A-Za-z]\w*)|(\*\*|[-+*/%^(),×÷−]))/y;
const SAME = { "×": "*", "÷": "/", "−": "-", "**": "^" };
const CONSTANTS = { pi: Math.PI, e: Math.E, tau: 2 * Math.PI };

const one = (f) => (values) => {
  if (values.length !== 1) throw new Error(`one argument is expected, not ${values.length}`);
  return f(Number(values[0]));
};
const FUNCTIONS = {
  ...Object.fromEntries(
    ["sqrt", "cbrt", "exp", "sin", "cos", "tan", "asin", "acos", "atan", "log2", "log10"].map((name) => [
      name,
      one(Math[name]),
    ]),
  ),
  ln: one(Math.log),
  log: one(Math.log),
  abs: one(Math.abs),
  floor: one(Math.floor),
  ceil: one(Math.ceil),
  round: one(Math.round),
  min: (values) => values.reduce((a, b) => (b < a ? b : a)),
  max: (values) => values.reduce((a, b) => (b > a ? b : a)),
};

/** The value as text; an Error that says what is wrong, and where, for what is no arithmetic. */
export function calculate(text) {
  if (text.length > 2000) throw new Error("the expression is longer than 2,000 characters");
  const parser = new Parser(tokens(text));
  const value = parser.sum(0);
  if (parser.peek()) throw new Error(`"${parser.peek().text}" is not expected at ${parser.peek().at + 1}`);
  return show(value);
}

function tokens(text) {
  const found = [];
  TOKEN.lastIndex = 0;
  const end = text.trimEnd().length;
  while (TOKEN.lastIndex < end) {
    const from = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (!match) throw new Error(`"${text.slice(from).trim()[0]}" is not understood at ${from + 1}`);
    const [all, number, name, sign] = match;
    const at = from + all.length - all.trimStart().length;
    found.push({ at, number: number?.replaceAll("_", ""), name, sign: SAME[sign] ?? sign, text: all.trim() });
  }
  return found;
}

class Parser {
  constructor(list) {
    Object.assign(this, { list, at: 0 });
  }

  peek() {
    return this.list[this.at];
  }

  accept(...signs) {
    const token = this.peek();
    if (!token?.sign || !signs.includes(token.sign)) return null;
    this.at++;
    return token.sign;
  }

  expect(sign) {
    if (!this.accept(sign))
      throw new Error(
        this.peek() ? `"${sign}" is expected at ${this.peek().at + 1}` : `"${sign}" is missing at the end`,
      );
  }

  sum(depth) {
    if (depth > DEEPEST) throw new Error("the brackets go too deep");
    let value = this.product(depth);
    for (let sign = this.accept("+", "-"); sign; sign = this.accept("+", "-"))
      value = apply(sign, value, this.product(depth));
    return value;
  }

  product(depth) {
    let value = this.signed(depth);
    for (let sign = this.accept("*", "/", "%"); sign; sign = this.accept("*", "/", "%"))
      value = apply(sign, value, this.signed(depth));
    return value;
  }

  /** -2^2 is -(2^2), as in print. */
  signed(depth) {
    if (depth > DEEPEST) throw new Error("the signs go too deep");
    if (this.accept("-")) return apply("-", 0n, this.signed(depth + 1));
    if (this.accept("+")) return this.signed(depth + 1);
    const base = this.atom(depth);
    return this.accept("^") ? apply("^", base, this.signed(depth + 1)) : base;
  }

  atom(depth) {
    const token = this.peek();
    if (!token) throw new Error("something is missing at the end");
    if (token.number) {
      this.at++;
      return /^\d+$/.test(token.number) ? BigInt(token.number) : Number(token.number);
    }
    if (token.name) return this.named(depth);
    this.expect("(");
    const value = this.sum(depth + 1);
    this.expect(")");
    return value;
  }

  named(depth) {
    const { name } = this.list[this.at++];
    const known = name.toLowerCase();
    if (Object.hasOwn(CONSTANTS, known)) return CONSTANTS[known];
    if (!Object.hasOwn(FUNCTIONS, known))
      throw new Error(`"${name}" is not known; there are ${Object.keys(FUNCTIONS).join(", ")}`);
    this.expect("(");
    const values = [this.sum(depth + 1)];
    while (this.accept(",")) values.push(this.sum(depth + 1));
    this.expect(")");
    return FUNCTIONS[known](values);
  }
}

function apply(sign, a, b) {
  if ((sign === "/" || sign === "%") && Number(b) === 0) throw new Error("division by zero");
  if (typeof a === "bigint" && typeof b === "bigint") {
    const exact = whole(sign, a, b);
    if (exact !== null) return exact;
  }
  const [x, y] = [Number(a), Number(b)];
  return { "+": x + y, "-": x - y, "*": x * y, "/": x / y, "%": x % y, "^": x ** y }[sign];
}

/** The exact whole result, null where there is none or it would be huge. */
function whole(sign, a, b) {
  if (sign === "^") return b >= 0n && Number(b) * bits(a) <= LARGEST ? a ** b : null;
  if (sign === "*") return bits(a) + bits(b) <= LARGEST ? a * b : null;
  if (sign === "/") return a % b === 0n ? a / b : null;
  if (sign === "%") return a % b;
  return sign === "+" ? a + b : a - b;
}

function bits(value) {
  return (value < 0n ? -value : value).toString(2).length;
}

function show(value) {
  if (typeof value === "bigint") return String(value);
  if (Number.isNaN(value)) throw new Error("the result is not a number");
  if (!Number.isFinite(value)) throw new Error("the result is too large");
  return String(Number(value.toPrecision(14))); // 0.1 + 0.2 is 0.3
}
