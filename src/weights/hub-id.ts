// `org/name[@revision][:file or type]`: how a model on a hub is named. Knows no network.
import { DTYPES, type DType } from "../memory/dtype.ts";
import { isPlainPath } from "./source.ts";

/** A model's name on a hub, taken apart. */
export interface HubId {
  /** `org/name`. */
  readonly repo: string;
  /** Branch, tag or commit; undefined: the default branch. */
  readonly revision: string | undefined;
  /** The file to take. */
  readonly file: string | undefined;
  /** The element type to take, as `load`'s `dtype`. */
  readonly dtype: DType | undefined;
  /** The quantization to take, as in a GGUF file's name: `Q4_K_M`. */
  readonly type: string | undefined;
}

const ID = /^([A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9][\w.-]{0,95})(?:@([A-Za-z0-9][\w./-]{0,127}))?(?::([^:]{1,1024}))?$/;
const WEIGHTS = /\.(?:gguf|safetensors|bin|json)$/i;

/** @returns the parts of a hub's id, or undefined when `text` is none: a path with more or fewer folders, an address, a file */
export function parseHubId(text: string): HubId | undefined {
  const [, repo, revision, what] = ID.exec(text) ?? [];
  if (repo === undefined || WEIGHTS.test(repo) || repo.includes("..") || revision?.includes("..")) return undefined;
  if (what === undefined) return { repo, revision, file: undefined, dtype: undefined, type: undefined };
  const dtype = DTYPES.find((d) => d === what);
  const isFile = WEIGHTS.test(what);
  if (isFile ? !isPlainPath(what) : !/^\w+$/.test(what)) return undefined;
  return { repo, revision, dtype, file: isFile ? what : undefined, type: isFile || dtype ? undefined : what };
}
