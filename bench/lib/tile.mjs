// A whole step against the tile of its products by itself.
import { readFileSync } from "node:fs";
import { presetOf } from "../../scripts/checkpoints/make-checkpoint.mjs";
import { tileRate } from "../suites/kernels.mjs";
import { Lab } from "./lab.mjs";

/** The machine is shared: the best of so many is the tile's rate. */
const ROUNDS = 3;

const sum = (list) => list.reduce((a, b) => a + b, 0);

/** Multiply-adds of a token in the layers. */
export function macsPerToken(shape) {
  const { D, H, G, F, layers } = presetOf(shape);
  const hd = D / H;
  return sum([...layers].map((kind) => (kind === "c" ? 4 * D * D : (2 * H + 2 * G) * hd * D) + 3 * D * F));
}

/** Multiply-adds of a row of logits. */
export function headMacs(shape) {
  const { D, V } = presetOf(shape);
  return D * V;
}

/** GMAC/s of a dtype's tile by itself, one thread; the build that this engine runs, if none is named. */
export function tileOf(dtype, variant = WebAssembly.validate(readFileSync("dist/kernels.relaxed.wasm")) ? "relaxed" : "plain") {
  const lab = new Lab(variant);
  return Math.max(...Array.from({ length: ROUNDS }, () => tileRate(lab, dtype)));
}
