// Which file of a repository to take for an element type. Knows file names and sizes only, no network.
import type { DType } from "../memory/dtype.ts";
import { isReadable } from "./gguf.ts";

/** A file of a repository. */
export interface HubFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Git's sha1 of the blob, where the file is one. */
  readonly oid: string | undefined;
  /** sha256 of a file that lies in LFS. */
  readonly sha256: string | undefined;
}

/** What is taken: one GGUF, or the folder. */
export type HubChoice =
  | { readonly kind: "gguf"; readonly file: HubFile; readonly downloadBytes: number }
  | { readonly kind: "folder"; readonly file: HubFile; readonly downloadBytes: number };

/** Quantizations that file names tell, and the types of the tensors in such a file; vectors are F32 in all. */
const FILE_TYPES: ReadonlyMap<string, readonly string[]> = new Map([
  ["F32", ["F32"]],
  ["F16", ["F16"]],
  ["BF16", ["BF16"]],
  ["Q8_0", ["Q8_0"]],
  ["Q6_K", ["Q6_K"]],
  ["Q5_K_M", ["Q5_K", "Q6_K"]],
  ["Q5_K_S", ["Q5_K", "Q6_K"]],
  ["Q5_1", ["Q5_1", "Q6_K"]],
  ["Q5_0", ["Q5_0", "Q6_K"]],
  ["Q4_K_M", ["Q4_K", "Q6_K"]],
  ["Q4_K_S", ["Q4_K", "Q5_K", "Q6_K"]],
  ["Q4_1", ["Q4_1", "Q6_K"]],
  ["Q4_0", ["Q4_0", "Q6_K"]],
  ["IQ4_NL", ["IQ4_NL", "Q6_K"]],
  ["Q3_K_L", ["Q3_K", "Q5_K", "Q6_K"]],
  ["Q3_K_M", ["Q3_K", "Q4_K", "Q5_K", "Q6_K"]],
  ["Q3_K_S", ["Q3_K", "Q6_K"]],
  ["Q2_K", ["Q2_K", "Q3_K", "Q6_K"]],
]);

/** A folder of safetensors stands among the GGUF types under this name; its tensors are BF16 as a rule. */
const FOLDER = "safetensors";
const SMALL = ["IQ4_NL", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"];
const MIDDLE = ["Q5_K_M", "Q5_K_S", "Q6_K", "Q5_1", "Q5_0"];
const HALF = ["BF16", FOLDER, "F16", "F32"];

/** For each wish what to take, the best first: of the same bits, then of more, then of fewer. */
const ORDER: Readonly<Record<DType | "any", readonly string[]>> = {
  any: ["Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", ...MIDDLE, "Q8_0", ...HALF, ...SMALL],
  q4: ["Q4_0", "Q4_K_M", "Q4_K_S", "Q4_1", ...MIDDLE, "Q8_0", ...HALF, ...SMALL],
  q8: ["Q8_0", ...HALF, "Q6_K", ...MIDDLE, "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", ...SMALL],
  f16: ["F16", "BF16", FOLDER, "F32", "Q8_0", "Q6_K", ...MIDDLE, "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", ...SMALL],
  bf16: [...HALF, "Q8_0", "Q6_K", ...MIDDLE, "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", ...SMALL],
  f32: ["F32", "BF16", FOLDER, "F16", "Q8_0", "Q6_K", ...MIDDLE, "Q4_K_M", "Q4_0", "Q4_K_S", "Q4_1", ...SMALL],
};

const GGUF = /^(?:.*\/)?(?!mmproj)[^/]*\.gguf$/i;
const SPLIT = /-\d{5}-of-\d{5}\.gguf$/i;

/** @returns the quantization that a GGUF's name tells, in capitals, or undefined */
export function fileType(path: string): string | undefined {
  const word = /(?:^|[-._])((?:IQ|Q)\d_\w+|B?F16|F32)\.gguf$/i.exec(path)?.[1];
  return word?.toUpperCase();
}

/** Files that the load of a folder opens, where they are there. */
const FOLDER_FILES: ReadonlySet<string> = new Set([
  "config.json",
  "generation_config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
]);

function folderChoice(files: readonly HubFile[]): HubChoice | undefined {
  const has = (path: string): HubFile | undefined => files.find((f) => f.path === path);
  // the index alone: whoever opens the folder says what to do about shards
  const file = has("model.safetensors") ?? has("model.safetensors.index.json");
  if (!file || !has("config.json")) return undefined;
  // a template of its own makes tokenizer_config.json superfluous
  const isRead = ({ path }: HubFile): boolean =>
    FOLDER_FILES.has(path) && !(path === "tokenizer_config.json" && has("chat_template.jinja"));
  const downloadBytes = files.filter(isRead).reduce((sum, f) => sum + f.sizeBytes, 0);
  return { kind: "folder", file, downloadBytes };
}

const ggufChoice = (file: HubFile): HubChoice => ({ kind: "gguf", file, downloadBytes: file.sizeBytes });

/** @returns whether the repository has a GGUF that is a whole model */
export function hasGguf(files: readonly HubFile[]): boolean {
  return files.some(({ path }) => GGUF.test(path) && !SPLIT.test(path));
}

/**
 * @param files of the repository
 * @param wish the element type that is asked for, or a quantization by its name
 * @returns what to take; undefined when nothing is there, or not that
 */
export function chooseFile(
  files: readonly HubFile[],
  wish: { readonly dtype?: DType | undefined; readonly type?: string | undefined; readonly file?: string | undefined },
): HubChoice | undefined {
  const folder = folderChoice(files);
  if (wish.file !== undefined) {
    const file = files.find((f) => f.path === wish.file);
    if (file?.path.endsWith(".gguf")) return ggufChoice(file);
    return file?.path === "model.safetensors" ? folder : undefined;
  }
  const byDepth = (a: HubFile, b: HubFile): number => a.path.split("/").length - b.path.split("/").length || (a.path < b.path ? -1 : 1);
  const ggufs = files.filter(({ path }) => GGUF.test(path) && !SPLIT.test(path)).sort(byDepth);
  const ofType = (type: string): HubChoice | undefined => {
    if (type === FOLDER) return folder;
    const file = ggufs.find(({ path }) => fileType(path) === type);
    return file && ggufChoice(file);
  };
  if (wish.type !== undefined) return ofType(wish.type.toUpperCase());
  const order = ORDER[wish.dtype ?? "any"];
  const isLoadable = (type: string): boolean => type === FOLDER || (FILE_TYPES.get(type)?.every(isReadable) ?? false);
  const first = (types: readonly string[]): HubChoice | undefined => types.map(ofType).find((choice) => choice !== undefined);
  const untold = ggufs.find(({ path }) => !FILE_TYPES.has(fileType(path) ?? ""));
  // what cannot be loaded comes last: its own error says why
  return first(order.filter(isLoadable)) ?? (untold && ggufChoice(untold)) ?? first(order) ?? (ggufs[0] && ggufChoice(ggufs[0]));
}
