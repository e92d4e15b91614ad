// What every byte source must do, as checks that throw. Knows no test runner and no runtime: a new source costs a function that opens it over given bytes.
import type { ByteSource } from "../../src/weights/source.ts";

/** How a suite gets at a source. */
export interface SourceDriver {
  /** Opens a source over these bytes. */
  open(bytes: Uint8Array, signal?: AbortSignal): Promise<ByteSource>;
  /** Opens a source with these files beside it; left out where the kind has no such thing. */
  openBeside?(bytes: Uint8Array, beside: Readonly<Record<string, Uint8Array>>): Promise<ByteSource>;
  /** Opens a source that ends after so many bytes, whatever size it says: a file that was cut while it was open. Left out where that cannot be. */
  openShort?(bytes: Uint8Array, there: number): Promise<ByteSource>;
}

/** One property of a source. */
export interface SourceCheck {
  readonly name: string;
  /** Rejects when the source does not have the property. */
  run(): Promise<void>;
}

/** Long enough for several pieces of every kind of source. */
const SIZE = 300_001;
/** Of a file and the one beside it. */
const BESIDE = [1000, 2000] as const;
/** A read that takes longer hangs. */
const HANG_MS = 20_000;

function expect(isTrue: boolean, what: string): asserts isTrue {
  if (!isTrue) throw new Error(`expected ${what}`);
}

function expectBytes(got: Uint8Array, right: Uint8Array, what: string): void {
  expect(got.length === right.length, `${what}: ${right.length} bytes, got ${got.length}`);
  const at = got.findIndex((byte, i) => byte !== right[i]);
  expect(at < 0, `${what}: byte ${at} to be ${right[at]}, got ${got[at]}`);
}

/** @returns how the promise ended: `undefined`, or the error; and makes sure that it does end */
async function outcome(promise: Promise<unknown>, what: string): Promise<Error | undefined> {
  let timer: unknown;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`expected ${what} to end, it hangs`)), HANG_MS);
  });
  try {
    await Promise.race([promise, hang]);
    return undefined;
  } catch (error) {
    expect(error instanceof Error, `${what}: an Error`);
    if (error.message.includes("it hangs")) throw error;
    return error;
  } finally {
    clearTimeout(timer as never);
  }
}

async function expectError(promise: Promise<unknown>, names: string, what: string): Promise<Error> {
  const error = await outcome(promise, what);
  expect(error !== undefined && names.split("|").includes(error.name), `${what}: ${names}, got ${error ?? "no error"}`);
  return error;
}

function content(length: number): Uint8Array {
  let x = 12_345;
  return Uint8Array.from({ length }, () => (x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0) >>> 24);
}

/** @returns the files that the checks open, by name, for a server that cannot be handed them */
export function sourceFiles(): Readonly<Record<string, Uint8Array>> {
  const [beside, other] = BESIDE.map(content);
  return { [`${SIZE}.bin`]: content(SIZE), "0.bin": new Uint8Array(0), [`${BESIDE[0]}.bin`]: beside!, "other.gguf": other! };
}

/** Ranges at both ends, across the middle, empty ones. */
const RANGES: readonly (readonly [offset: number, length: number])[] = [
  [0, 1],
  [0, 100],
  [SIZE - 1, 1],
  [SIZE - 100, 100],
  [0, SIZE],
  [1, SIZE - 1],
  [65_535, 2],
  [65_536, 65_536],
  [100_000, 150_000],
  [0, 0],
  [7, 0],
  [SIZE, 0],
];

/** @returns the checks for a kind of source */
export function sourceChecks(driver: SourceDriver): readonly SourceCheck[] {
  const right = content(SIZE);
  /** Opens a source, which is closed however the check ends. */
  const using =
    (use: (source: ByteSource) => Promise<void>, bytes = right) =>
    async (): Promise<void> => {
      const source = await driver.open(bytes);
      try {
        await use(source);
      } finally {
        await source.close?.();
      }
    };
  const into = async (source: ByteSource, offset: number, length: number): Promise<Uint8Array> => {
    const around = new Uint8Array(length + 16).fill(0xa5);
    await source.readInto?.(offset, around.subarray(8, 8 + length));
    expect(
      around.subarray(0, 8).every((b) => b === 0xa5) && around.subarray(8 + length).every((b) => b === 0xa5),
      "bytes outside the target to be untouched",
    );
    return around.slice(8, 8 + length);
  };

  const checks: SourceCheck[] = [
    {
      name: "has a name and its size",
      run: using(async (source) => {
        expect(typeof source.name === "string" && source.name !== "", "a name");
        expect(source.size === SIZE, `a size of ${SIZE}, got ${source.size}`);
      }),
    },
    {
      name: "reads any range, forwards and backwards",
      run: using(async (source) => {
        for (const [offset, length] of [...RANGES, ...RANGES.toReversed()])
          expectBytes(await source.read(offset, length), right.subarray(offset, offset + length), `read(${offset}, ${length})`);
      }),
    },
    {
      name: "fills a target, and nothing outside it",
      run: using(async (source) => {
        if (!source.readInto) return;
        for (const [offset, length] of RANGES)
          expectBytes(await into(source, offset, length), right.subarray(offset, offset + length), `readInto(${offset}, ${length})`);
      }),
    },
    {
      name: "reads to its end and no further; a target past it is an error",
      run: using(async (source) => {
        expectBytes(await source.read(SIZE - 5, 100), right.subarray(SIZE - 5), "a read across the end");
        expectBytes(await source.read(SIZE, 10), new Uint8Array(0), "a read at the end");
        expectBytes(await source.read(SIZE + 1000, 10), new Uint8Array(0), "a read behind the end");
        if (source.readInto) await expectError(source.readInto(SIZE - 5, new Uint8Array(6)), "FormatError", "a target across the end");
        expectBytes(await source.read(0, 10), right.subarray(0, 10), "a read after that");
      }),
    },
    {
      name: "may be empty",
      run: using(async (source) => {
        expect(source.size === 0, `a size of 0, got ${source.size}`);
        expectBytes(await source.read(0, 10), new Uint8Array(0), "a read of nothing");
      }, new Uint8Array(0)),
    },
    {
      name: "answers reads that overlap in time, in any order",
      run: using(async (source) => {
        const offsets = Array.from({ length: 24 }, (_, i) => (i * 97_003) % (SIZE - 20_000));
        const got = await Promise.all(
          offsets.map((at, i) => (i % 2 && source.readInto ? into(source, at, 20_000) : source.read(at, 20_000))),
        );
        for (const [i, at] of offsets.entries())
          expectBytes(got[i] as Uint8Array, right.subarray(at, at + 20_000), `read ${i} of 24 at ${at}`);
      }),
    },
    {
      name: "does not lend its memory: bytes of a read outlive the next one",
      run: using(async (source) => {
        const first = await source.read(0, 50_000);
        for (let at = 50_000; at + 50_000 <= SIZE; at += 50_000) await source.read(at, 50_000);
        expectBytes(first, right.subarray(0, 50_000), "the first read's bytes");
      }),
    },
    {
      name: "ends with AbortError where the signal has fired, and reads on without it",
      run: using(async (source) => {
        const control = new AbortController();
        control.abort(new Error("enough"));
        const reads = [source.read(0, 1000, control.signal), source.readInto?.(0, new Uint8Array(1000), control.signal)];
        for (const read of reads) {
          if (!read) continue;
          const error = await expectError(read, "AbortError", "a read with a signal that has fired");
          expect((error.cause as Error | undefined)?.message === "enough", "the signal's reason as cause");
        }
        expectBytes(await source.read(0, 1000), right.subarray(0, 1000), "a read after that");
      }),
    },
    {
      name: "settles when the signal fires during a read, with the right bytes or AbortError",
      run: using(async (source) => {
        for (let turns = 0; turns < 6; turns++) {
          const control = new AbortController();
          const reading = source.read(0, SIZE, control.signal);
          for (let i = 0; i < turns; i++) await Promise.resolve();
          control.abort();
          const error = await outcome(reading, "a read that is aborted");
          if (error) expect(error.name === "AbortError", `AbortError, got ${error}`);
          else expectBytes(await reading, right, "a read that was over before the signal");
        }
        expectBytes(await source.read(0, SIZE), right, "a read after that");
      }),
    },
    {
      name: "is closed twice without harm; a read under way or later settles",
      run: async () => {
        const source = await driver.open(right);
        const reading = source.read(0, SIZE);
        const ending = outcome(reading, "a read while the source is closed"); // heard before it can fail
        await source.close?.();
        const error = await ending;
        if (!error) expectBytes(await reading, right, "a read that was over before the close");
        await source.close?.();
        const later = await outcome(source.read(0, 10), "a read of a closed source");
        if (later) expect("code" in later, `an error of the package, got ${later}`);
      },
    },
    {
      name: "closes although its signal has fired",
      run: async () => {
        const control = new AbortController();
        const source = await driver.open(right, control.signal);
        await source.read(0, 10);
        control.abort();
        await outcome(source.read(0, 10), "a read after the abort of all");
        expect((await outcome(Promise.resolve(source.close?.()), "close")) === undefined, "close to succeed");
      },
    },
  ];
  const { openBeside, openShort } = driver;
  if (openBeside)
    checks.push({
      name: "opens the file beside it, and none outside its folder",
      run: async () => {
        const [a, b] = [content(BESIDE[0]), content(BESIDE[1])];
        const source = await openBeside(a, { "other.gguf": b });
        try {
          const other = await source.sibling?.("other.gguf");
          expect(other !== undefined, "the file beside it");
          expectBytes(await other.read(0, 5000), b, "the file beside it");
          await other.close?.();
          expect((await source.sibling?.("none.gguf")) === undefined, "undefined where there is no such file");
          for (const path of ["../other.gguf", "/etc/passwd", "https://example.org/x.gguf", "..", ""]) {
            const found = await source.sibling?.(path).catch((error: Error) => error);
            expect(found === undefined || (found instanceof Error && "code" in found), `nothing at ${JSON.stringify(path)}`);
          }
        } finally {
          await source.close?.();
        }
      },
    });
  if (openShort)
    checks.push({
      name: "calls bytes that are not there an error, whatever its size said",
      run: async () => {
        const source = await openShort(right, 100_000);
        try {
          expectBytes(await source.read(0, 50_000), right.subarray(0, 50_000), "what is there");
          await expectError(source.read(50_000, 100_000), "FormatError|NetworkError|StorageError", "a read of what is not there");
        } finally {
          await source.close?.();
        }
      },
    });
  return checks;
}
