#!/usr/bin/env node
// Writes a random LFM2 checkpoint (safetensors + config.json) that is the same on every machine, from a preset and a seed.
//
//   node make-checkpoint.mjs --preset tiny-deep --seed 1 --dtype bf16 --out DIR [--max-shard-bytes N] [--dialect original|hf]
//
// The values. Let u32 arithmetic wrap, mix(h) be murmur3's finalizer (h ^= h>>>16; h *= 0x85ebca6b; h ^= h>>>13;
// h *= 0xc2b2ae35; h ^= h>>>16) and fnv(name) the 32-bit FNV-1a hash of the tensor's name. Then
//   keyA = mix(fnv(name) ^ seed * 0x9e3779b1)        keyB = mix(keyA + 0x6d2b79f5)
//   a(i) = mix(keyA + i * 0x9e3779b1)                b(i) = mix(a(i) ^ keyB)
//   s(i) = lo16(a) + hi16(a) + lo16(b) + hi16(b) - 131070                     an integer, nearly normal
//   value(i) = f32( centre + s(i) * (std / 37837.2) )        computed in f64, then rounded once to f32, then to the dtype (nearest, ties to even)
// with `std` and `centre` from presets.mjs and i the row-major index. Any slice of any tensor can be made on its own.
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { configJson, effectiveFf, presets, tensorList } from "./presets.mjs";

const CHUNK = 1 << 20; // elements written at a time
export const bytesOf = { f32: 4, bf16: 2, f16: 2 };
const longName = { f32: "float32", bf16: "bfloat16", f16: "float16" };

function mix(h) {
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function fnv(text) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  return h;
}

/** Fills `out` (Float32Array) with the values of tensor `t` from index `start` on. */
export function fillTensor(seed, t, start, out) {
  const keyA = mix(fnv(t.name) ^ Math.imul(seed, 0x9e3779b1));
  const keyB = mix((keyA + 0x6d2b79f5) | 0);
  const scale = t.std / 37837.2;
  for (let j = 0; j < out.length; j++) {
    const a = mix((keyA + Math.imul(start + j, 0x9e3779b1)) | 0);
    const b = mix(a ^ keyB);
    const s = (a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16) - 131070;
    out[j] = t.centre + s * scale;
  }
  return out;
}

const bits = new Uint32Array(1);
const asFloat = new Float32Array(bits.buffer);

/** f32 → bf16 bits, nearest, ties to even; NaN stays a quiet NaN. */
export function toBf16(x) {
  asFloat[0] = x;
  const b = bits[0];
  if ((b & 0x7fffffff) > 0x7f800000) return (b >>> 16) | 0x40;
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff;
}

/** f32 → IEEE half bits, nearest, ties to even; overflow → infinity, tiny → subnormal or zero. */
export function toF16(x) {
  asFloat[0] = x;
  const b = bits[0];
  const sign = (b >>> 16) & 0x8000;
  const mag = b & 0x7fffffff;
  if (mag > 0x7f800000) return sign | 0x7e00 | ((mag >>> 13) & 0x3ff);
  if (mag >= 0x47800000) return sign | 0x7c00;
  if (mag < 0x38800000) {
    // subnormal half: value / 2^-24, rounded to even by the f64 → integer step below
    const scaled = Math.abs(asFloat[0]) * 16777216;
    const floor = Math.floor(scaled);
    const rest = scaled - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && floor & 1) ? floor + 1 : floor);
  }
  const odd = (mag >>> 13) & 1;
  return sign | ((mag - 0x38000000 + 0xfff + odd) >>> 13);
}

/** f32 values → bytes of the dtype. */
export function encode(values, dtype) {
  if (dtype === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const out = new Uint16Array(values.length);
  const to = dtype === "bf16" ? toBf16 : toF16;
  for (let i = 0; i < values.length; i++) out[i] = to(values[i]);
  return new Uint8Array(out.buffer);
}

export const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** Groups tensors into shards of at most `maxBytes` each (one tensor is never split). */
function shards(tensors, dtype, maxBytes) {
  const groups = [[]];
  let used = 0;
  for (const t of tensors) {
    const size = count(t.shape) * bytesOf[dtype];
    if (used > 0 && used + size > maxBytes) {
      groups.push([]);
      used = 0;
    }
    groups.at(-1).push(t);
    used += size;
  }
  return groups;
}

function writeSafetensors(path, tensors, seed, dtype) {
  const header = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const t of tensors) {
    const end = offset + count(t.shape) * bytesOf[dtype];
    header[t.name] = { dtype: dtype.toUpperCase(), shape: t.shape, data_offsets: [offset, end] };
    offset = end;
  }
  let json = JSON.stringify(header);
  json = json.padEnd(Math.ceil(Buffer.byteLength(json) / 8) * 8, " ");
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(Buffer.byteLength(json)));
  const fd = openSync(path, "w");
  writeSync(fd, size);
  writeSync(fd, json);
  for (const t of tensors) {
    const n = count(t.shape);
    for (let start = 0; start < n; start += CHUNK) {
      const bytes = encode(fillTensor(seed, t, start, new Float32Array(Math.min(CHUNK, n - start))), dtype);
      writeSync(fd, bytes);
    }
  }
  closeSync(fd);
}

/**
 * Writes a checkpoint folder.
 * @param {import("./presets.mjs").Shape} shape
 * @param {{seed: number, dtype: "f32"|"bf16"|"f16", dir: string, dialect?: "original"|"hf", maxShardBytes?: number}} options
 */
export function writeCheckpoint(shape, { seed, dtype, dir, dialect, maxShardBytes = Infinity }) {
  if (effectiveFf(shape.ff) !== shape.F) throw new Error(`ffn: config gives ${effectiveFf(shape.ff)}, shape has ${shape.F}`);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "config.json"), `${JSON.stringify(configJson(shape, longName[dtype], dialect), null, 2)}\n`);
  const groups = shards(tensorList(shape), dtype, maxShardBytes);
  if (groups.length === 1) return writeSafetensors(join(dir, "model.safetensors"), groups[0], seed, dtype);
  const weightMap = {};
  let total = 0;
  const pad = (n) => String(n).padStart(5, "0");
  groups.forEach((tensors, i) => {
    const file = `model-${pad(i + 1)}-of-${pad(groups.length)}.safetensors`;
    for (const t of tensors) {
      weightMap[t.name] = file;
      total += count(t.shape) * bytesOf[dtype];
    }
    writeSafetensors(join(dir, file), tensors, seed, dtype);
  });
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  writeFileSync(join(dir, "model.safetensors.index.json"), `${JSON.stringify(index, null, 2)}\n`);
}

/** `--name value` pairs → object. */
export function parseArgs(argv) {
  const out = {};
  for (let i = 0; i < argv.length; i += 2) out[argv[i].replace(/^--/, "")] = argv[i + 1];
  return out;
}

export function presetOf(name) {
  const shape = presets[name];
  if (!shape) throw new Error(`unknown preset ${name}; known: ${Object.keys(presets).join(", ")}`);
  return shape;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const a = parseArgs(process.argv.slice(2));
  if (!a.preset || !a.out) {
    console.error(
      "usage: make-checkpoint.mjs --preset NAME --out DIR [--seed 1] [--dtype bf16|f16|f32] [--dialect original|hf] [--max-shard-bytes N]",
    );
    console.error(`presets: ${Object.keys(presets).join(" ")}`);
    process.exit(2);
  }
  const options = { seed: Number(a.seed ?? 1), dtype: a.dtype ?? "bf16", dir: a.out, dialect: a.dialect };
  if (a["max-shard-bytes"]) options.maxShardBytes = Number(a["max-shard-bytes"]);
  writeCheckpoint(presetOf(a.preset), options);
}
