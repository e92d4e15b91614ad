// Addresses of schemes that only the browser itself knows, and what is no address at all.
import { NetworkError, PlatformError, StorageError, UnsupportedError } from "../../errors.ts";
import { quoted } from "../../values.ts";
import { blobSource } from "../../weights/blob.ts";
import type { ByteSource } from "../../weights/source.ts";

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
