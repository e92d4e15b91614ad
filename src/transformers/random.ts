// A checkpoint that nobody trained: weights as the reference draws them, made as they are read. Each number is a function of seed, tensor and place.
import type { ByteSource, Folder } from "lfm2-wasm";
import { philox4x32 } from "../generate/philox.ts";
import { ln } from "../math.ts";
import { bytesSource, sourceOf } from "../weights/source.ts";
import type { Lfm2Config } from "./config.ts";

type Kind = "normal" | "one" | "zero";
type Entry = readonly [name: string, kind: Kind, shape: readonly number[]];

/** What a model of this configuration is made of. */
function entriesOf({ checked: c }: Lfm2Config): Entry[] {
  const [D, F, hd] = [c.hiddenSize, c.intermediateSize, c.headDim];
  const linear = (name: string, ...shape: number[]): Entry => [`${name}.weight`, "normal", shape];
  const norm = (name: string, size: number): Entry => [`${name}.weight`, "one", [size]];
  const bias = (name: string, size: number): Entry[] => (c.convBias ? [[`${name}.bias`, "zero", [size]]] : []);
  const layers = c.layerTypes.flatMap((type, i): Entry[] => {
    const p = `model.layers.${i}`;
    const [q, kv] = [c.numAttentionHeads * hd, c.numKeyValueHeads * hd];
    const operator =
      type === "conv"
        ? [
            linear(`${p}.conv.in_proj`, 3 * D, D),
            ...bias(`${p}.conv.in_proj`, 3 * D),
            linear(`${p}.conv.conv`, D, 1, c.convLCache),
            ...bias(`${p}.conv.conv`, D),
            linear(`${p}.conv.out_proj`, D, D),
            ...bias(`${p}.conv.out_proj`, D),
          ]
        : [
            linear(`${p}.self_attn.q_proj`, q, D),
            linear(`${p}.self_attn.k_proj`, kv, D),
            linear(`${p}.self_attn.v_proj`, kv, D),
            norm(`${p}.self_attn.q_layernorm`, hd),
            norm(`${p}.self_attn.k_layernorm`, hd),
            linear(`${p}.self_attn.out_proj`, D, q),
          ];
    const ffn = [linear(`${p}.feed_forward.w1`, F, D), linear(`${p}.feed_forward.w2`, D, F), linear(`${p}.feed_forward.w3`, F, D)];
    return [norm(`${p}.operator_norm`, D), ...operator, norm(`${p}.ffn_norm`, D), ...ffn];
  });
  const head = c.tieWordEmbeddings ? [] : [linear("lm_head", c.vocabSize, D)];
  return [linear("model.embed_tokens", c.vocabSize, D), ...layers, norm("model.embedding_norm", D), ...head];
}

const WORD = 0x1_0000_0000;
const centred = (a: number, b: number): number => ((a >>> 5) * 0x400_0000 + (b >>> 6)) / 0x10_0000_0000_0000 - 1;

/** @returns two numbers of the normal distribution, by the polar method: ln and a root, the same in every engine */
function normalPair(seed: number, tensor: number, pair: number): readonly [number, number] {
  for (let attempt = 0; ; attempt++) {
    const [a, b, c, d] = philox4x32([pair >>> 0, (pair / WORD) >>> 0, tensor, attempt], [seed >>> 0, (seed / WORD) >>> 0]);
    const [x, y] = [centred(a, b), centred(c, d)];
    const s = x * x + y * y;
    if (s >= 1 || s === 0) continue;
    const scale = Math.sqrt((-2 * ln(s)) / s);
    return [x * scale, y * scale];
  }
}

/** Elements [from, to) of tensor number `index`. */
type Fill = (from: number, to: number) => Float32Array;

function fillOf([name, kind, shape]: Entry, index: number, { initializerRange, padTokenId }: Lfm2Config, seed: number): Fill {
  if (kind !== "normal") return (from, to) => new Float32Array(to - from).fill(kind === "one" ? 1 : 0);
  const columns = shape[1] ?? 1;
  const zero = name === "model.embed_tokens.weight" && padTokenId !== null ? padTokenId * columns : Number.POSITIVE_INFINITY;
  return (from, to) => {
    const out = new Float32Array(to - from);
    for (let pair = Math.floor(from / 2); 2 * pair < to; pair++) {
      const values = normalPair(seed, index, pair);
      for (const [half, value] of values.entries()) {
        const i = 2 * pair + half;
        if (i >= from && i < to && !(i >= zero && i < zero + columns)) out[i - from] = value * initializerRange;
      }
    }
    return out;
  };
}

interface Placed {
  readonly begin: number;
  readonly end: number;
  readonly fill: Fill;
}

function copyRange({ begin, end, fill }: Placed, offset: number, target: Uint8Array): void {
  const [from, to] = [Math.max(begin, offset), Math.min(end, offset + target.length)];
  if (from >= to) return;
  const first = Math.floor((from - begin) / 4);
  const bytes = new Uint8Array(fill(first, Math.ceil((to - begin) / 4)).buffer);
  const skipped = from - begin - 4 * first;
  target.set(bytes.subarray(skipped, skipped + to - from), from - offset);
}

/** Bytes that are made at once: a load can be ended between two parts. */
const PART_BYTES = 1 << 20;

/** The weights as a safetensors file in f32, of which nothing is kept. */
function weightsSource(config: Lfm2Config, seed: number): ByteSource {
  const header: Record<string, unknown> = {};
  const placed: Placed[] = [];
  let at = 0;
  for (const [index, entry] of entriesOf(config).entries()) {
    const [name, , shape] = entry;
    const end = at + 4 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [at, end] };
    placed.push({ begin: at, end, fill: fillOf(entry, index, config, seed) });
    at = end;
  }
  const text = JSON.stringify(header);
  const json = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8)); // names are ASCII
  const head = new Uint8Array(8 + json.length);
  new DataView(head.buffer).setBigUint64(0, BigInt(json.length), true);
  head.set(json, 8);
  const part = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    if (offset < head.length) bytes.set(head.subarray(offset, offset + length));
    for (const tensor of placed) copyRange(tensor, offset - head.length, bytes);
    return bytes;
  };
  return sourceOf("model.safetensors", head.length + at, part, PART_BYTES);
}

/** @returns a new model as a folder: config.json and weights of normal(0, initializerRange), norms of one, biases and the pad token's row of zero */
export function randomCheckpoint(config: Lfm2Config, seed: number): Folder {
  const weights = weightsSource(config, seed);
  const json = new TextEncoder().encode(JSON.stringify(config));
  const open = async (path: string): Promise<ByteSource | undefined> =>
    path === "config.json" ? bytesSource(json, path) : path === weights.name ? weights : undefined;
  return { name: "random-lfm2", open };
}
