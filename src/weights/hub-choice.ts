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

/** What is taken: a GGUF, or the folder. */
export interface HubChoice {
  readonly kind: "gguf" | "folder";
  /** The file that holds the weights; of several the first, of a folder in shards their index. */
  readonly file: HubFile;
  /** All that a load reads. */
  readonly files: readonly HubFile[];
}

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
/** A part of a split file; the first stands for all. */
const PART = /-(\d{5})-of-(\d{5})(?=\.gguf$)/i;

/** @returns the quantization that a GGUF's name tells, in capitals, or undefined */
export function fileType(path: string): string | undefined {
  const word = /(?:^|[-._])((?:IQ|Q)\d_\w+|B?F16|F32)\.gguf$/i.exec(path.replace(PART, ""))?.[1];
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
const INDEX = "model.safetensors.index.json";
const SHARD = /^[^/]+-\d{5}-of-\d{5}\.safetensors$/;
/** Any of these means the folder. */
const FOLDER_WEIGHTS = /^model(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?$/;

function folderChoice(files: readonly HubFile[]): HubChoice | undefined {
  const has = (path: string): HubFile | undefined => files.find((f) => f.path === path);
  const file = has("model.safetensors") ?? has(INDEX);
  if (!file || !has("config.json")) return undefined;
  // a template of its own makes tokenizer_config.json superfluous, one file of weights the index
  const isRead = ({ path }: HubFile): boolean =>
    (FOLDER_FILES.has(path) && !(path === "tokenizer_config.json" && has("chat_template.jinja"))) ||
    (file.path === INDEX && (path === INDEX || SHARD.test(path)));
  return { kind: "folder", file, files: files.filter(isRead) };
}

/** A GGUF, or all parts of a split one, whichever of them is named. @returns undefined where parts are missing */
function ggufChoice(file: HubFile, files: readonly HubFile[]): HubChoice | undefined {
  const count = Number(PART.exec(file.path)?.[2] ?? 1);
  if (count === 1) return { kind: "gguf", file, files: [file] };
  const parts = files.filter(({ path }) => PART.exec(path)?.[2] !== undefined && path.replace(PART, "") === file.path.replace(PART, ""));
  parts.sort((a, b) => (a.path < b.path ? -1 : 1));
  const [first] = parts;
  return first && parts.length === count ? { kind: "gguf", file: first, files: parts } : undefined;
}

/** GGUFs that are whole models, those that lie highest first. */
function wholeGgufs(files: readonly HubFile[]): HubChoice[] {
  const byDepth = (a: HubFile, b: HubFile): number => a.path.split("/").length - b.path.split("/").length || (a.path < b.path ? -1 : 1);
  const isFirst = (path: string): boolean => Number(PART.exec(path)?.[1] ?? 1) === 1;
  return files
    .filter(({ path }) => GGUF.test(path) && isFirst(path))
    .sort(byDepth)
    .flatMap((file) => ggufChoice(file, files) ?? []);
}

/** @returns whether the repository has a GGUF that is a whole model */
export function hasGguf(files: readonly HubFile[]): boolean {
  return wholeGgufs(files).length > 0;
}

/** What is asked of a repository. */
export interface HubWish {
  readonly dtype?: DType | undefined;
  /** A quantization by its name. */
  readonly type?: string | undefined;
  readonly file?: string | undefined;
}

/**
 * @param files of the repository
 * @returns what to take; undefined when nothing is there, or not that
 */
export function chooseFile(files: readonly HubFile[], wish: HubWish): HubChoice | undefined {
  const folder = folderChoice(files);
  if (wish.file !== undefined) {
    const file = files.find((f) => f.path === wish.file);
    if (file?.path.endsWith(".gguf")) return ggufChoice(file, files);
    return file && FOLDER_WEIGHTS.test(file.path) ? folder : undefined;
  }
  const ggufs = wholeGgufs(files);
  const ofType = (type: string): HubChoice | undefined =>
    type === FOLDER ? folder : ggufs.find(({ file }) => fileType(file.path) === type);
  if (wish.type !== undefined) return ofType(wish.type.toUpperCase());
  const order = ORDER[wish.dtype ?? "any"];
  const isLoadable = (type: string): boolean => type === FOLDER || (FILE_TYPES.get(type)?.every(isReadable) ?? false);
  const first = (types: readonly string[]): HubChoice | undefined => types.map(ofType).find((choice) => choice !== undefined);
  const untold = ggufs.find(({ file }) => !FILE_TYPES.has(fileType(file.path) ?? ""));
  // what cannot be loaded comes last: its own error says why
  return first(order.filter(isLoadable)) ?? untold ?? first(order) ?? ggufs[0];
}
