import type { Shape } from "./make-checkpoint.mjs";

/** Weights by name, wherever they come from. */
export interface WeightSource {
  readonly shape: Shape;
}
export function fromPreset(name: string, seed: number): WeightSource;
export function fromFolder(dir: string): WeightSource;
interface GgufOptions {
  readonly type: string;
  readonly head?: string;
  readonly name?: string;
  readonly tokenizer?: string;
  readonly template?: string;
  readonly finalNorm?: string;
  readonly encoders?: Readonly<Record<string, (values: Float32Array) => Uint8Array>>;
}
/** A file's header, and how long the whole file is. */
export function layOut(source: WeightSource, options: GgufOptions): { readonly header: Uint8Array; readonly bytes: number };
export function writeGguf(source: WeightSource, options: GgufOptions & { readonly out: string }): void;
