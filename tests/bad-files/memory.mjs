// Consistent files that no single linear memory can hold.
import {
  DIM,
  GGML,
  ggufFile,
  ggufParts,
  json,
  product,
  safetensorsEntries,
  safetensorsFile,
  setKv,
  tensor,
  validConfig,
  validRepo,
} from "./valid.mjs";
import { E0 } from "./words.mjs";

/** Consistent sparse files that no single wasm memory can hold, even packed to 4.5 bits a weight: refused before a byte of data is read. */
const HUGE_ROWS = (40 * 2 ** 30) / (DIM.D * 2);
const hugeSafetensors = () => {
  const h = {};
  let at = 0;
  for (const [n, i] of safetensorsEntries()) {
    const shape = n === E0 ? [HUGE_ROWS, DIM.D] : i.shape,
      size = 2 * product(shape);
    h[n] = { ...i, shape, data_offsets: [at, at + size] };
    at += size;
  }
  const head = safetensorsFile(JSON.stringify(h), new Uint8Array(0));
  return {
    ...validRepo(),
    "config.json": json({ ...validConfig(), vocab_size: HUGE_ROWS }),
    "model.safetensors": { head, size: head.length + at },
  };
};
const hugeGguf = () => {
  const p = ggufParts(),
    rows = Math.floor((5 * 2 ** 30) / 72),
    t = tensor(p, "token_embd.weight"); // Q4_0: 18 bytes for 32 values
  t.type = GGML.Q4_0;
  t.dims = [DIM.D, rows];
  t.data = { length: rows * 72 };
  setKv(p, "lfm2.vocab_size", rows);
  p.headOnly = true;
  return { "model.gguf": ggufFile(p) };
};
export const MEMORY = [
  ["mem-safetensors-40gib", "safetensors", "model.safetensors", "a consistent file with an embedding of 40 GiB", hugeSafetensors],
  ["mem-gguf-5gib", "gguf", "model.gguf", "a consistent file with a Q4_0 embedding of 5 GiB", hugeGguf],
];
