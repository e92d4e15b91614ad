import type { Shape } from "./make-checkpoint.mjs";
import type { WeightSource } from "./make-gguf.mjs";

/** See larger.mjs. */
export function larger(source: WeightSource, shape: Shape): WeightSource;
