// Addresses as sources: a GGUF file, or a folder of files. Knows no hub and not what the bytes mean.
import { FormatError, NetworkError, UnsupportedError } from "../errors.ts";
import { quoted } from "../values.ts";
import { checkAddress } from "./address-check.ts";
import { openHttp } from "./http.ts";
import type { Network } from "./request.ts";
import { type ByteSource, type Folder, isFolderFile, isPlainPath } from "./source.ts";

const isMissing = (error: unknown): boolean => error instanceof NetworkError && (error.status === 404 || error.status === 410);

/** A file at an address. */
export interface AddressOptions {
  readonly name: string;
  readonly url: string;
  readonly sibling?: ByteSource["sibling"] | undefined;
}

/** Opens the file at an address, and waits for the server's first answer. */
export type OpenFile = (file: AddressOptions, signal?: AbortSignal) => Promise<ByteSource>;

/** @returns what opens files without keeping them */
export function openDirectly(network: Network): OpenFile {
  return async (file, signal) => {
    const source = openHttp(network, file, signal);
    try {
      await source.begin();
      return source;
    } catch (error) {
      await source.close();
      throw error;
    }
  };
}

function fileName({ pathname, host }: URL): string {
  const name = pathname.slice(pathname.lastIndexOf("/") + 1) || host;
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** @returns the file at `path` in the folder; undefined where the server has none. It cannot leave the folder, nor its origin. */
async function openIn(open: OpenFile, base: URL, path: string, signal?: AbortSignal): Promise<ByteSource | undefined> {
  if (!isPlainPath(path)) throw new FormatError(`load: expected the name of a file in the folder, got ${quoted(path)}.`);
  try {
    return await open({ name: path, url: new URL(path, base).href + base.search }, signal);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function urlFolder(open: OpenFile, base: URL, signal?: AbortSignal): Folder {
  return {
    name: fileName(new URL(base.pathname.replace(/\/$/, ""), base)),
    open: (path) => openIn(open, base, path, signal),
  };
}

/**
 * @param open opens one file
 * @param address of a GGUF file (any part of a split one), of a folder (it ends in a slash), or of model.safetensors, a shard or the shards' index in one
 * @param signal ends whatever the source or the folder's files do
 * @returns the file, or the folder
 * @throws InputError, UnsupportedError for an address of another kind; NetworkError when it does not answer; AbortError
 */
export async function openUrl(open: OpenFile, address: string | URL, signal?: AbortSignal): Promise<ByteSource | Folder> {
  const url = checkAddress(address, "source");
  const name = fileName(url);
  const folder = new URL(`./${url.search}`, url);
  if (url.pathname.endsWith("/")) return urlFolder(open, url, signal);
  if (isFolderFile(name)) return urlFolder(open, folder, signal);
  if (name.endsWith(".safetensors")) {
    throw new UnsupportedError(
      `load: expected a GGUF file, a folder or model.safetensors in it, got ${quoted(name)}. A file of another name cannot be loaded alone: pass the folder's address.`,
    );
  }
  const sibling = (path: string): Promise<ByteSource | undefined> => openIn(open, folder, path, signal);
  return open({ name, url: url.href, sibling }, signal);
}
