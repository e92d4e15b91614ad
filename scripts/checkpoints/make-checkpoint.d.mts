/** A shape from presets.mjs. */
export interface Shape {
  readonly D: number;
  readonly H: number;
  readonly G: number;
  readonly F: number;
  readonly V: number;
  readonly layers: string;
}
export function presetOf(name: string): Shape;
export function writeCheckpoint(
  shape: Shape,
  options: { seed: number; dtype: "f32" | "bf16" | "f16"; dir: string; dialect?: "original" | "hf"; maxShardBytes?: number },
): void;
