import type { Shape } from "./make-checkpoint.mjs";

/** See presets.mjs. */
export function configJson(shape: Shape, dtype: string, dialect?: "original" | "hf"): Record<string, unknown>;
export function tensorList(shape: Shape): { readonly name: string; readonly shape: readonly number[] }[];
