// What the suites use of node:assert/strict, for runtimes that lack it: the bundle for those puts this file in its place. Throws plain errors.

type Expected = Readonly<Record<string, unknown>> | ((error: Error) => boolean);

const show = (value: unknown): string => {
  try {
    return (typeof value === "string" ? value : (JSON.stringify(value) ?? String(value))).slice(0, 300);
  } catch {
    return String(value);
  }
};

function fail(message = "failed"): never {
  throw new Error(message);
}

function ok(value: unknown, message?: string): asserts value {
  if (!value) fail(message ?? `expected something true, got ${show(value)}`);
}

function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (ArrayBuffer.isView(a)) {
    const [x, y] = [a as unknown as ArrayLike<number>, b as unknown as ArrayLike<number>];
    return x.length === y.length && Array.prototype.every.call(x, (value: number, i: number) => Object.is(value, y[i]));
  }
  const [keys, others] = [Object.keys(a), Object.keys(b)];
  const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
  return keys.length === others.length && keys.every((key) => key in y && same(x[key], y[key]));
}

function told(error: unknown, expected: Expected | undefined): void {
  ok(error instanceof Error, `expected an Error, got ${show(error)}`);
  if (expected === undefined) return;
  if (typeof expected === "function") {
    ok(expected(error), `an error that does not fit: ${error.message}`);
    return;
  }
  for (const [key, value] of Object.entries(expected)) {
    const got = (error as unknown as Record<string, unknown>)[key];
    ok(
      value instanceof RegExp ? value.test(String(got)) : same(got, value),
      `${key}: expected ${String(value)}, got ${show(got)}: ${error.message}`,
    );
  }
}

const equal = (a: unknown, b: unknown, message?: string): void =>
  ok(Object.is(a, b), `${message ?? "equal"}: expected ${show(b)}, got ${show(a)}`);
const notEqual = (a: unknown, b: unknown, message?: string): void =>
  ok(!Object.is(a, b), message ?? `expected another value than ${show(a)}`);
const deepEqual = (a: unknown, b: unknown, message?: string): void =>
  ok(same(a, b), `${message ?? "deepEqual"}: expected ${show(b)}, got ${show(a)}`);
const notDeepEqual = (a: unknown, b: unknown, message?: string): void =>
  ok(!same(a, b), message ?? `expected another value than ${show(a)}`);
const match = (text: string, pattern: RegExp, message?: string): void =>
  ok(pattern.test(text), message ?? `expected ${pattern}, got ${show(text)}`);
const doesNotMatch = (text: string, pattern: RegExp, message?: string): void =>
  ok(!pattern.test(text), message ?? `expected nothing like ${pattern}, got ${show(text)}`);

async function rejects(what: Promise<unknown> | (() => Promise<unknown>), expected?: Expected): Promise<void> {
  let value: unknown;
  try {
    value = await (typeof what === "function" ? what() : what);
  } catch (error) {
    return told(error, expected);
  }
  fail(`expected a rejection, got ${show(value)}`);
}

function throws(what: () => unknown, expected?: Expected): void {
  let value: unknown;
  try {
    value = what();
  } catch (error) {
    told(error, expected);
    return;
  }
  fail(`expected an error, got ${show(value)}`);
}

const assert: typeof ok & {
  readonly ok: typeof ok;
  readonly fail: typeof fail;
  readonly equal: typeof equal;
  readonly notEqual: typeof notEqual;
  readonly deepEqual: typeof deepEqual;
  readonly notDeepEqual: typeof notDeepEqual;
  readonly match: typeof match;
  readonly doesNotMatch: typeof doesNotMatch;
  readonly rejects: typeof rejects;
  readonly throws: typeof throws;
} = Object.assign(ok, { ok, fail, equal, notEqual, deepEqual, notDeepEqual, match, doesNotMatch, rejects, throws });
export default assert;
