/** A file: its bytes, or its beginning and a size up to which there are zeros. */
export type FileContent = Uint8Array | { readonly head: Uint8Array; readonly size: number };
export type Files = Readonly<Record<string, FileContent>>;

export interface Case {
  readonly id: string;
  readonly format: "safetensors" | "index" | "config" | "tokenizer" | "template" | "gguf" | "split";
  /** The file that is wrong; the others are valid, so that each case is a complete folder. */
  readonly target: string;
  /** What is wrong, in words. */
  readonly wrong: string;
  /** The class of the error; "accept" loads, and gives the greedy tokens of the valid folder. */
  readonly expect: "FormatError" | "UnsupportedError" | "MemoryError" | "InputError" | "accept";
  /** A regular expression (flag i) that the message must match: the place, or the offending value. */
  readonly field: string;
  /** The latest moment at which the error may come: headers, config and tokenizer; weights; template; first token. */
  readonly stage: "open" | "load" | "chat" | "generate";
  /** Built anew at every access. */
  readonly files: Files;
}
export function cases(): Generator<Case>;
export function validRepo(): Files;
export function validSharded(): Files;
export function validGguf(): Uint8Array;
export function validSplit(): Files;
