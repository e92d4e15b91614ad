// The hub's token that the user's machine has: of the environment, else the one that `hf auth login` has stored. Node, Deno and Bun share it.
import { readFile, stat } from "node:fs/promises";
import type { Variable } from "./folders.ts";

/** A token has 37 characters; what is longer than this is none. */
const MOST_BYTES = 4096;

/**
 * @param variable reads the environment
 * @param pathOf tells where the file would be: asked where the environment has no token, since a runtime may ask the user before it says where home is
 * @param mayRead whether a file may be read without asking
 * @returns the token; undefined where there is none, where its file cannot be read or holds something else, and where HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it
 */
export async function tokenOf(
  variable: Variable,
  pathOf: () => string | undefined,
  mayRead: (path: string) => boolean,
): Promise<string | undefined> {
  if (/^(?:1|true|yes|on)$/i.test(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN")?.trim() ?? "")) return undefined;
  const token = variable("HF_TOKEN")?.trim();
  if (token) return token;
  const path = pathOf();
  if (path === undefined || !mayRead(path)) return undefined;
  try {
    const about = await stat(path);
    const text = about.isFile() && about.size <= MOST_BYTES ? (await readFile(path, "utf8")).trim() : "";
    return /^[\x21-\x7e]+$/.test(text) ? text : undefined;
  } catch {
    return undefined; // nobody has logged in, or it is not for this program
  }
}
