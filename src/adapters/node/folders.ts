// Where a user's programs keep what they download, by the variables and folders of Hugging Face's own tools. Node, Deno and Bun share it.
import { homedir } from "node:os";
import { dirname, join } from "node:path";

/** Reads the environment, as far as it may be read. */
export type Variable = (name: string) => string | undefined;

/** @returns the user's home; undefined where it may not be known */
function homeFolder(): string | undefined {
  try {
    return homedir();
  } catch {
    return undefined; // Deno tells it to those who may ask
  }
}

/** @returns the path that a variable holds */
function pathIn(variable: Variable, name: string): string | undefined {
  const home = (): string => variable("HOME") || homeFolder() || "~";
  return (
    variable(name)
      ?.trim()
      .replace(/^~(?=$|[/\\])/, home) || undefined
  );
}

const below = (dir: string | undefined, ...path: readonly string[]): string | undefined =>
  dir === undefined ? undefined : join(dir, ...path);

/** @returns Hugging Face's own folder: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` or ~/.cache; undefined without a home */
function hubHome(variable: Variable): string | undefined {
  return (
    pathIn(variable, "HF_HOME") ??
    below(pathIn(variable, "XDG_CACHE_HOME"), "huggingface") ??
    below(variable("HOME") || homeFolder(), ".cache", "huggingface")
  );
}

/** @returns the folder of models: `HF_HUB_CACHE`, or `hub` in Hugging Face's own; undefined without a home */
export function cacheFolder(variable: Variable): string | undefined {
  return pathIn(variable, "HF_HUB_CACHE") ?? pathIn(variable, "HUGGINGFACE_HUB_CACHE") ?? below(hubHome(variable), "hub");
}

/** @returns the file in which Hugging Face's tools keep the token of who has logged in: `HF_TOKEN_PATH`, or `token` in their own folder */
export function tokenPath(variable: Variable): string | undefined {
  return pathIn(variable, "HF_TOKEN_PATH") ?? below(hubHome(variable), "token");
}

/**
 * @param name `addresses`: files at plain addresses, which no other program knows; `packed`: images
 * @returns a folder of ours: in a cache that is named, or beside Hugging Face's tools'
 */
export function ownFolder(name: "addresses" | "packed", dir: string | undefined, variable: Variable): string | undefined {
  if (dir !== undefined) return join(dir, ".lfm2-wasm", name);
  const hub = cacheFolder(variable);
  return hub && join(dirname(hub), "lfm2-wasm", name);
}
