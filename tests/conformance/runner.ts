// describe and it where there is no mocha: registers, runs one after the other, tells what failed. Knows no runtime.

type Body = () => unknown;

interface Suite {
  readonly name: string;
  readonly before: Body[];
  readonly after: Body[];
  readonly children: (Suite | { readonly name: string; readonly body: Body })[];
}

/** What came of a run. */
export interface Outcome {
  readonly passed: number;
  /** Each with its name and error. */
  readonly failed: readonly string[];
}

let current: Suite | undefined;

function open(name: string, fill: () => void): Suite {
  const suite: Suite = { name, before: [], after: [], children: [] };
  const outer = current;
  outer?.children.push(suite);
  current = suite;
  try {
    fill();
  } finally {
    current = outer;
  }
  return suite;
}

const suite = (): Suite => {
  if (!current) throw new Error("it, before and after belong into describe");
  return current;
};

async function within(body: Body, limitMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${limitMs / 1000} s`)), limitMs);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Runs what `fill` describes with mocha's globals.
 * @param limitMs no test takes that long: a hang is told by name
 * @param begins is told the name of each test, and of what surrounds it
 */
export async function runSuites(fill: () => void, limitMs: number, begins: (name: string) => void = () => {}): Promise<Outcome> {
  Object.assign(globalThis, {
    describe: open,
    it: (name: string, body: Body) => suite().children.push({ name, body }),
    before: (body: Body) => suite().before.push(body),
    after: (body: Body) => suite().after.push(body),
  });
  const failed: string[] = [];
  let passed = 0;
  const attempt = async (name: string, body: Body): Promise<boolean> => {
    begins(name);
    try {
      await within(body, limitMs);
      return true;
    } catch (error) {
      failed.push(`${name}: ${error instanceof Error ? `${error.message}\n${error.stack}` : error}`);
      return false;
    }
  };
  const walk = async (node: Suite, path: string): Promise<void> => {
    let isReady = true;
    for (const body of node.before) isReady = isReady && (await attempt(`${path} before`, body));
    for (const child of isReady ? node.children : []) {
      const name = `${path} › ${child.name}`;
      if ("children" in child) await walk(child, name);
      else if (await attempt(name, child.body)) passed++;
    }
    for (const body of node.after) await attempt(`${path} after`, body);
  };
  await walk(open("all", fill), "");
  return { passed, failed };
}
