// What an address means in a browser: relative to the page, or of a scheme that only the browser itself knows.
import { NetworkError, PlatformError, StorageError, UnsupportedError } from "../../errors.ts";
import type { FetchWasm } from "../../kernels/delivery.ts";
import type { LoadOptions, ModelSource } from "../../lfm2.ts";
import { quoted } from "../../values.ts";
import { blobSource } from "../../weights/blob.ts";
import type { ByteSource } from "../../weights/source.ts";

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

/**
 * Opens what is no https: address: `blob:`, `data:`, an extension's own files.
 * @throws StorageError for a name without a scheme, PlatformError for a file of the computer, UnsupportedError for a scheme that the browser does not read
 */
export async function openAddress(source: string | URL): Promise<ByteSource> {
  const text = String(source);
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined)
    throw new StorageError(
      `load: expected an address or a hub's id org/name, got ${quoted(text)}. An address relative to the page begins with "/", "./" or "../".`,
      { code: "not-found" },
    );
  if (scheme === "file")
    throw new PlatformError(
      `load: expected an https: address, bytes or a File, got ${quoted(text)}, which a browser does not open. Let the user choose the file, or serve it.`,
      { code: "no-files" },
    );
  let response: Response;
  try {
    response = await fetch(text);
  } catch (cause) {
    throw new UnsupportedError(
      `load: expected an address that the browser can read, got ${quoted(text)}: ${(cause as Error).message}. Download the file and pass its bytes.`,
      { code: "scheme", cause },
    );
  }
  if (!response.ok)
    throw new NetworkError(`load: expected the file at ${quoted(text)}, got status ${response.status}. Check the address.`, {
      status: response.status,
    });
  return blobSource(await response.blob(), new URL(text).pathname.split("/").at(-1) || scheme);
}
