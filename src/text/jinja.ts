// Runs a Jinja template within a budget. The language is @huggingface/jinja's; steps, sizes and errors are ours. Must not know messages or tokens.
import { Environment, Interpreter, parse, Template, tokenize } from "@huggingface/jinja";
import { FormatError, InputError, Lfm2Error, UnsupportedError } from "../errors.ts";
import {
  MAX_TEMPLATE_BYTES,
  MAX_TEMPLATE_CHARACTERS,
  MAX_TEMPLATE_ITEMS,
  MAX_TEMPLATE_NODES,
  MAX_TEMPLATE_RANGE,
  MAX_TEMPLATE_STEPS,
  MAX_TEMPLATE_WHITESPACE_RUN,
  TEMPLATE_CHARACTERS_PER_STEP,
} from "./limits.ts";

const WHERE = "chat template";
type Program = ReturnType<typeof parse>;
type Node = Parameters<Interpreter["evaluate"]>[0];
type Value = ReturnType<Interpreter["evaluate"]>;

/** A template that has been parsed. */
export class JinjaTemplate {
  readonly #program: Program;

  /** @throws FormatError when `source` is too long or not Jinja; UnsupportedError for a statement that the language here does not have. */
  constructor(source: string) {
    checkSource(source);
    this.#program = guarded(() => parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true })));
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
      return String(new BudgetInterpreter(environment, MAX_TEMPLATE_STEPS + extraSteps).run(this.#program).value);
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
  ["strftime_now", (format: unknown) => clock.render({ format })],
];

function range(first: unknown, second?: unknown, third: unknown = 1): number[] {
  const [start, stop, step] = second === undefined ? [0, first, third] : [first, second, third];
  if (![start, stop, step].every(Number.isSafeInteger) || step === 0) {
    throw new FormatError(`${WHERE}: range: expected whole numbers and a step other than 0, got others. Use the model's own template.`);
  }
  const count = Math.max(0, Math.ceil(((stop as number) - (start as number)) / (step as number)));
  if (count > MAX_TEMPLATE_RANGE) throw overBudget(`a range of ${MAX_TEMPLATE_RANGE}`, `${count}`);
  return Array.from({ length: count }, (_, i) => (start as number) + i * (step as number));
}

const overBudget = (limit: string, got: string): FormatError =>
  new FormatError(`${WHERE}: expected at most ${limit}, the limit, got ${got}. Use the model's own template.`);

/** Counts every node that is evaluated, by the size of its value, and every turn of a loop, and looks at the size of every value. */
class BudgetInterpreter extends Interpreter {
  #steps: number;
  readonly #iterables = new Set<Node>();
  readonly #nodes = new WeakMap<object, number>();

  constructor(environment: Environment, steps: number) {
    super(environment);
    this.#steps = steps;
  }

  override evaluate(node: Node, environment: Environment): Value {
    this.#spend(1);
    if (node?.type === "For")
      this.#noteLoop(node as unknown as { readonly iterable: { readonly type: string; readonly lhs?: Node } & NonNullable<Node> });
    const value = super.evaluate(node, environment);
    const size = this.#checkSize(value);
    this.#spend((typeof value.value === "string" ? value.value.length : 8 * size) / TEMPLATE_CHARACTERS_PER_STEP);
    if (this.#iterables.has(node)) this.#spend(size);
    return value;
  }

  #noteLoop({ iterable }: { readonly iterable: { readonly type: string; readonly lhs?: Node } & NonNullable<Node> }): void {
    this.#iterables.add(iterable.type === "SelectExpression" ? iterable.lhs : iterable);
  }

  #spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) throw overBudget("its budget of evaluation steps", "more");
  }

  /** @returns the items of a list or an object, 0 for other values. */
  #checkSize(value: Value): number {
    const content: unknown = value.value;
    if (typeof content === "string" && content.length > MAX_TEMPLATE_CHARACTERS) {
      throw overBudget(`${MAX_TEMPLATE_CHARACTERS} characters of output`, `${content.length}`);
    }
    const items = Array.isArray(content) ? content.length : content instanceof Map ? content.size : 0;
    if (items > MAX_TEMPLATE_ITEMS) throw overBudget(`${MAX_TEMPLATE_ITEMS} items`, `${items}`);
    const nodes = this.#countNodes(value);
    if (nodes > MAX_TEMPLATE_NODES) throw overBudget(`${MAX_TEMPLATE_NODES} nested items`, `${nodes}`);
    return items;
  }

  /** @returns how many values there would be if shared ones were written out; a list of itself twice, again and again, doubles it. */
  #countNodes(value: Value): number {
    const content: unknown = value.value;
    if (value.type === "NamespaceValue" || !(Array.isArray(content) || content instanceof Map)) return 1;
    const known = this.#nodes.get(content);
    if (known !== undefined) return known;
    let nodes = 1;
    for (const item of content.values() as Iterable<Value>) nodes += this.#countNodes(item);
    this.#nodes.set(content, nodes);
    return nodes;
  }
}

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
