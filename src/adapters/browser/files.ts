// What a relative address means in a browser.
import type { FetchWasm } from "../../kernels/delivery.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";

export const fetchWasm: FetchWasm = (address) => fetch(address);

/** @returns `source`, with an address that begins with `/`, `./` or `../` made whole; Turbopack's URLs of files are such addresses */
export function withBase(source: ModelSource): ModelSource {
  const text = typeof source === "string" || source instanceof URL ? String(source) : "";
  if (!/^\.{0,2}\//.test(text)) return source;
  const { location } = globalThis as { readonly location?: { readonly href: string } };
  return location && /^https?:/.test(location.href) ? new URL(text, location.href) : source;
}

/** @returns `options` with the kernels' relative addresses made whole as `fetch` makes them: a worker has another base */
export function withBases(options: LoadOptions | undefined): LoadOptions | undefined {
  const wasm = options?.wasm;
  const base = (globalThis as { readonly document?: { readonly baseURI: string } }).document?.baseURI;
  if (base === undefined || wasm === undefined || wasm === null) return options;
  const whole = (input: unknown): unknown => {
    try {
      return typeof input === "string" ? new URL(input, base).href : input; // URL.canParse is younger than browsers that are supported
    } catch {
      return input;
    }
  };
  const isNamed = typeof wasm === "object" && Object.getPrototypeOf(wasm) === Object.prototype;
  const named = (): object => Object.fromEntries(Object.entries(wasm).map(([name, input]) => [name, whole(input)]));
  return { ...options, wasm: (isNamed ? named() : whole(wasm)) as NonNullable<LoadOptions["wasm"]> };
}
