import type { Shape } from "./make-checkpoint.mjs";

/** Weights by name, wherever they come from. */
export interface WeightSource {
  readonly shape: Shape;
}
export function fromPreset(name: string, seed: number): WeightSource;
export function fromFolder(dir: string): WeightSource;
export function writeGguf(
  source: WeightSource,
  options: {
    type: string;
    out: string;
    head?: string;
    name?: string;
    tokenizer?: string;
    template?: string;
    finalNorm?: string;
    encoders?: Readonly<Record<string, (values: Float32Array) => Uint8Array>>;
  },
): void;
