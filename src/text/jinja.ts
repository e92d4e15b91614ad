// Runs a Jinja template within a budget. The language is @huggingface/jinja's; steps, sizes and errors are ours. Must not know messages or tokens.
import { Environment, Interpreter, parse, Template, tokenize } from "@huggingface/jinja";
import { FormatError, InputError, Lfm2Error, UnsupportedError } from "../errors.ts";
import {
  MAX_TEMPLATE_BYTES,
  MAX_TEMPLATE_RANGE,
  MAX_TEMPLATE_STEPS,
  MAX_TEMPLATE_WHITESPACE_RUN,
  MAX_TIME_FORMAT,
  TEMPLATE_CHARACTERS_PER_STEP,
} from "./limits.ts";
import { notWritten, overBudget, TemplateSizes, type Value, WHERE } from "./template-sizes.ts";

type Program = ReturnType<typeof parse>;
type Node = Parameters<Interpreter["evaluate"]>[0];
/** What is read of the nodes of the library's trees: their classes are not exported. */
type Syntax = NonNullable<Node>;
interface Names extends Syntax {
  readonly value: string;
}
interface Call extends Syntax {
  readonly callee: Names;
  readonly args: readonly Argument[];
}
interface Argument extends Syntax {
  /** Of `name=value`. */
  readonly key: Names;
  readonly value: Syntax;
  /** Of `*list` and `**object`. */
  readonly argument: Syntax;
}
/** One of those that are looked into. */
interface Expression extends Syntax {
  readonly iterable: Syntax & { readonly lhs: Syntax };
  readonly operand: Syntax;
  readonly filter: Names | Call;
  readonly body: readonly Syntax[];
  readonly left: Syntax;
  readonly right: Syntax;
  readonly operator: { readonly value: string };
  readonly object: Syntax;
  readonly property: Syntax;
  readonly computed: boolean;
}

/** A template that has been parsed. */
export class JinjaTemplate {
  readonly #program: Program;
  readonly #written = new Set<unknown>();

  /** @throws FormatError when `source` is too long or not Jinja; UnsupportedError for a statement that the language here does not have. */
  constructor(source: string) {
    checkSource(source);
    this.#program = guarded(() => parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })));
    guarded(() => noteWritten(this.#program, this.#written));
  }

  /**
   * @param variables - by name; may not redefine the language's own
   * @param extraSteps - what the size of the input adds to the budget
   * @throws InputError when the template calls `raise_exception`; FormatError when it fails or goes beyond its budget.
   */
  render(variables: ReadonlyMap<string, unknown>, extraSteps = 0): string {
    return guarded(() => {
      const environment = new Environment();
      for (const [name, value] of globals) environment.set(name, value);
      for (const [name, value] of variables) {
        if (environment.variables.has(name))
          throw new InputError(`variables: expected names that Jinja leaves free, got "${name}". Rename it.`);
        environment.set(name, value);
      }
      return String(new BudgetInterpreter(environment, MAX_TEMPLATE_STEPS + extraSteps, this.#written).run(this.#program).value);
    });
  }
}

function checkSource(source: string): void {
  if (source.trim() === "") throw new FormatError(`${WHERE}: expected Jinja, got an empty text. Use the model's own template.`);
  if (source.length > MAX_TEMPLATE_BYTES || new TextEncoder().encode(source).length > MAX_TEMPLATE_BYTES) {
    throw new FormatError(
      `${WHERE}: expected at most ${MAX_TEMPLATE_BYTES} bytes, the limit, got ${source.length}. Use the model's own template.`,
    );
  }
  if (new RegExp(`\\s{${MAX_TEMPLATE_WHITESPACE_RUN + 1}}`).test(source)) {
    throw new FormatError(
      `${WHERE}: expected at most ${MAX_TEMPLATE_WHITESPACE_RUN} white-space characters in a row, the limit, got more.`,
    );
  }
}

/** Thrown by `raise_exception`: the template refuses the messages. */
class Refusal extends Error {}

/** The library's own clock: it does not export the function, so a template of one expression calls it. */
const clock = new Template("{{ strftime_now(format) }}");

const globals: readonly (readonly [string, unknown])[] = [
  ...["true", "True"].map((name) => [name, true] as const),
  ...["false", "False"].map((name) => [name, false] as const),
  ...["none", "None"].map((name) => [name, null] as const),
  [
    "raise_exception",
    (message: unknown) => {
      throw new Refusal(String(message));
    },
  ],
  ["range", range],
  ["strftime_now", strftimeNow],
];

function strftimeNow(format: unknown): string {
  if (String(format).length > MAX_TIME_FORMAT) throw overBudget(`${MAX_TIME_FORMAT} characters of a format of time`, "more");
  return clock.render({ format });
}

function range(first: unknown, second?: unknown, third: unknown = 1): number[] {
  const [start, stop, step] = second === undefined ? [0, first, third] : [first, second, third];
  if (![start, stop, step].every(Number.isSafeInteger) || step === 0) {
    throw new FormatError(`${WHERE}: range: expected whole numbers and a step other than 0, got others. Use the model's own template.`);
  }
  const count = Math.max(0, Math.ceil(((stop as number) - (start as number)) / (step as number)));
  if (count > MAX_TEMPLATE_RANGE) throw overBudget(`a range of ${MAX_TEMPLATE_RANGE}`, `${count}`);
  return Array.from({ length: count }, (_, i) => (start as number) + i * (step as number));
}

/** Stands for a node that has been evaluated. */
class Held {
  readonly type = "Held";
  readonly value: Value;
  constructor(value: Value) {
    this.value = value;
  }
}

/** Adds the statements of all blocks below `node`: what they give becomes text. */
function noteWritten(node: object, written: Set<unknown>): void {
  for (const [key, value] of Object.entries(node)) {
    if (Array.isArray(value) && /^(?:body|alternate|defaultBlock)$/.test(key)) for (const statement of value) written.add(statement);
    if (typeof value === "object" && value !== null) noteWritten(value, written);
  }
}

/**
 * Counts every node that is evaluated, by the size of its value, and every turn of a loop; looks at the size of every value, and of what a filter, a method, an
 * addition or a slice would make before it is made: its operands are evaluated first, and held for the library.
 */
class BudgetInterpreter extends Interpreter {
  #steps: number;
  readonly #iterables = new Set<Node>();
  readonly #sizes = new TemplateSizes();
  readonly #written: ReadonlySet<unknown>;

  /** @param written - the nodes whose values become text */
  constructor(environment: Environment, steps: number, written: ReadonlySet<unknown>) {
    super(environment);
    this.#steps = steps;
    this.#written = written;
  }

  override evaluate(node: Node, environment: Environment): Value {
    if (node instanceof Held) return node.value;
    this.#spend(1);
    const value = node === undefined ? super.evaluate(node, environment) : this.#measured(node as Expression, environment);
    const size = this.#sizes.check(value);
    this.#spend((typeof value.value === "string" ? value.value.length : 8 * size) / TEMPLATE_CHARACTERS_PER_STEP);
    if (this.#iterables.has(node)) this.#spend(size);
    if (value.type === "NamespaceValue" && this.#written.has(node)) throw notWritten();
    return value;
  }

  #spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) throw overBudget("its budget of evaluation steps", "more");
  }

  /** Evaluates one node of the library's, but its operands first where it may make much of them. */
  #measured(node: Expression, environment: Environment): Value {
    switch (node.type) {
      case "For":
        this.#iterables.add(node.iterable.type === "SelectExpression" ? node.iterable.lhs : node.iterable);
        break;
      case "FilterExpression":
        return this.#filter(node.operand, node.filter, environment);
      case "FilterStatement":
        return this.#filter(syntax({ type: "Program", body: node.body }), node.filter, environment);
      case "BinaryExpression":
        if (node.operator.value === "+" || node.operator.value === "~") return this.#sum(node, environment);
        break;
      case "MemberExpression":
        return this.#member(node, environment);
      case "CallExpression":
        return this.#noted(super.evaluate(node, environment));
    }
    return super.evaluate(node, environment);
  }

  #noted(value: Value): Value {
    this.#sizes.note(value);
    return value;
  }

  #filter(operandNode: Syntax, filter: Names | Call, environment: Environment): Value {
    const operand = this.evaluate(operandNode, environment);
    let name = (filter as Names).value;
    let held: Syntax = filter;
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    if ("args" in filter) {
      name = filter.callee.value;
      const args = filter.args.map((arg) => this.#hold(arg, environment, positional, named));
      held = syntax({ ...filter, args });
    }
    this.#sizes.checkCall(name, operand, positional, named);
    return this.#noted(super.evaluate(syntax({ type: "FilterExpression", operand: new Held(operand), filter: held }), environment));
  }

  /** @returns the argument with its value held, which is added to one of the two */
  #hold(arg: Argument, environment: Environment, positional: Value[], named: Map<string, Value>): Syntax {
    const value = this.evaluate(arg.type === "KeywordArgumentExpression" ? arg.value : (arg.argument ?? arg), environment);
    const held = new Held(value);
    switch (arg.type) {
      case "KeywordArgumentExpression":
        named.set(arg.key.value, value);
        return syntax({ ...arg, value: held });
      case "SpreadExpression":
        if (Array.isArray(value.value)) for (const each of value.value as readonly Value[]) positional.push(each);
        return syntax({ ...arg, argument: held });
      case "KeywordSpreadExpression":
        if (value.value instanceof Map) for (const [key, each] of value.value as Map<string, Value>) named.set(key, each);
        return syntax({ ...arg, argument: held });
    }
    positional.push(value);
    return arg.type === "StringLiteral" ? arg : syntax(held); // some filters take nothing but a literal
  }

  /** An addition whose sides may be written out. */
  #sum(node: Expression, environment: Environment): Value {
    const left = this.evaluate(node.left, environment);
    const right = this.evaluate(node.right, environment);
    if (left.type === "NamespaceValue" || right.type === "NamespaceValue") throw notWritten();
    const { type, operator } = node;
    return super.evaluate(syntax({ type, operator, left: new Held(left), right: new Held(right) }), environment);
  }

  /** A method is measured when it is called, whatever it is called by. */
  #member(node: Expression, environment: Environment): Value {
    const object = this.evaluate(node.object, environment);
    const isSlice = node.property.type === "SliceExpression";
    if (isSlice) this.#sizes.checkSlice(object);
    const { type, property, computed } = node;
    const value = super.evaluate(syntax({ type, property, computed, object: new Held(object) }), environment);
    if (isSlice) return this.#noted(value);
    if (value.type !== "FunctionValue" || typeof object.value !== "string") return value;
    const name = [...object.builtins].find(([, builtin]) => builtin === value)?.[0] ?? "";
    const method = value.value as (args: readonly Value[], scope: Environment) => Value;
    const measured = (args: readonly Value[], scope: Environment): Value => {
      this.#sizes.checkCall(name, object, args, new Map());
      return method(args, scope);
    };
    return Object.assign(Object.create(Object.getPrototypeOf(value)), value, { value: measured });
  }
}

/** @returns a node of the library's, made here */
const syntax = (node: object): Syntax => node as Syntax;

/** What the library cannot do, told by its messages. */
const UNSUPPORTED = /^(?:Unknown (?:\w+ )?(?:filter|test|statement)|Cannot apply filter)/i;

/** Runs `work` and turns what the library throws into our errors. */
function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof Lfm2Error) throw cause;
    const message = cause instanceof Error ? cause.message.slice(0, 300) : String(cause);
    if (cause instanceof Refusal) throw new InputError(`${WHERE}: it refuses the messages: ${message}`, { code: "template-refusal" });
    if (cause instanceof RangeError)
      throw new FormatError(`${WHERE}: expected less nesting, got too much of it. Use the model's own template.`, { cause });
    if (UNSUPPORTED.test(message))
      throw new UnsupportedError(`${WHERE}: it needs what is not there: ${message}. Use the model's own template.`, { cause });
    throw new FormatError(`${WHERE}: expected Jinja that renders, got an error: ${message}. Use the model's own template.`, { cause });
  }
}
