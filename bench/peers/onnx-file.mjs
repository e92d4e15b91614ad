// Writes an LFM2 as ONNX with int8 products, the form that transformers.js takes for WebAssembly: DynamicQuantizeLinear and MatMulInteger for each matrix, with a scale
// for each column, attention and norms as onnxruntime's own operators, caches as inputs and outputs. ONNX: https://onnx.ai/onnx/repo-docs/IR.html and onnx.proto.
import { closeSync, openSync, renameSync, writeFileSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { tensorList } from "../../scripts/checkpoints/presets.mjs";

/** The part of onnx.proto that is written here. */
const SCHEMA = `
syntax = "proto2";
message Entry { optional string key = 1; optional string value = 2; }
message Tensor {
  repeated int64 dims = 1; optional int32 data_type = 2; optional string name = 8; optional bytes raw_data = 9;
  repeated Entry external_data = 13; optional int32 data_location = 14;
}
message Attribute { optional string name = 1; optional float f = 2; optional int64 i = 3; repeated int64 ints = 8; optional int32 type = 20; }
message Node { repeated string input = 1; repeated string output = 2; optional string name = 3; optional string op_type = 4; repeated Attribute attribute = 5; optional string domain = 7; }
message Dimension { oneof value { int64 dim_value = 1; string dim_param = 2; } }
message Shape { repeated Dimension dim = 1; }
message TensorType { optional int32 elem_type = 1; optional Shape shape = 2; }
message Type { optional TensorType tensor_type = 1; }
message ValueInfo { optional string name = 1; optional Type type = 2; }
message Graph { repeated Node node = 1; optional string name = 2; repeated Tensor initializer = 5; repeated ValueInfo input = 11; repeated ValueInfo output = 12; }
message OperatorSet { optional string domain = 1; optional int64 version = 2; }
message Model { optional int64 ir_version = 1; optional string producer_name = 2; optional Graph graph = 7; repeated OperatorSet opset_import = 8; }
`;

const FLOAT = 1;
const INT8 = 3;
const INT32 = 6;
const INT64 = 7;
const MICROSOFT = "com.microsoft";
const [IR_VERSION, OPSET] = [8, 17];
/** Tensors of at least so many bytes go into the file of weights. */
const INLINE_BYTES = 1024;
/** Positions of the rotary tables. */
const POSITIONS = 4096;
const ROWS_AT_A_TIME = 256;
/** Rows and columns that are turned at a time: they stay in the first cache. */
const TURN = 64;

const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** The graph as it grows: every method that makes a node returns the name of its output. */
class Graph {
  nodes = [];
  initializers = [];
  inputs = [];
  outputs = [];
  #names = 0;
  #offset = 0;
  #file;
  #location;
  #quantized = new Map();
  #isFloat;

  constructor(dataPath, location, isFloat) {
    this.#isFloat = isFloat;
    this.#file = openSync(dataPath, "w");
    this.#location = location;
  }

  op(type, inputs, attributes = {}, { outputs = 1, domain = "" } = {}) {
    const names = typeof outputs === "number" ? Array.from({ length: outputs }, () => `t${this.#names++}`) : outputs;
    const attribute = Object.entries(attributes).map(([name, value]) => {
      if (Array.isArray(value)) return { name, ints: value, type: 7 };
      return name === "epsilon" ? { name, f: value, type: 1 } : { name, i: value, type: 2 };
    });
    this.nodes.push({ input: inputs, output: names, name: `${type}_${this.nodes.length}`, opType: type, attribute, domain });
    return names.length === 1 ? names[0] : names;
  }

  constant(dims, dataType, array, name = `c${this.#names++}`) {
    const data = bytesOf(array);
    const tensor = { dims, dataType, name };
    if (data.length < INLINE_BYTES) tensor.rawData = data;
    else {
      const at = { location: this.#location, offset: this.#offset, length: data.length };
      tensor.externalData = Object.entries(at).map(([key, value]) => ({ key, value: String(value) }));
      tensor.dataLocation = 1;
      this.#offset += writeSync(this.#file, data);
    }
    this.initializers.push(tensor);
    return name;
  }

  floats(dims, values, name) {
    return this.constant(dims, FLOAT, Float32Array.from(values), name);
  }

  integers(values) {
    return this.constant([values.length], INT64, BigInt64Array.from(values, BigInt));
  }

  input(name, elemType, dims) {
    this.inputs.push(valueInfo(name, elemType, dims));
    return name;
  }

  output(name, elemType, dims) {
    this.outputs.push(valueInfo(name, elemType, dims));
    return name;
  }

  /** x as bytes with one scale and zero point for the whole tensor, once for all products of it. */
  quantized(x) {
    if (!this.#quantized.has(x)) this.#quantized.set(x, this.op("DynamicQuantizeLinear", [x], {}, { outputs: 3 }));
    return this.#quantized.get(x);
  }

  /** Weights of a matrix as it is, (K, N) or (N, K). */
  weights(dims, array, name) {
    return this.constant(dims, this.#isFloat ? FLOAT : INT8, array, name);
  }

  /** x · Wᵀ, of (K, N) weights and N scales. */
  linear(x, { name, K, N, columns, scales }) {
    const w = this.weights([K, N], columns, `${name}_weights`);
    if (this.#isFloat) return this.op("Mul", [this.op("MatMul", [x, w]), this.constant([N], FLOAT, scales, `${name}_scale`)]);
    const [bytes, scale, zero] = this.quantized(x);
    const sums = this.op("MatMulInteger", [bytes, w, zero]);
    const factor = this.op("Mul", [scale, this.constant([N], FLOAT, scales, `${name}_scale`)]);
    return this.op("Mul", [this.op("Cast", [sums], { to: FLOAT }), factor]);
  }

  close() {
    closeSync(this.#file);
  }
}

function valueInfo(name, elemType, dims) {
  const dim = dims.map((d) => (typeof d === "number" ? { dimValue: d } : { dimParam: d }));
  return { name, type: { tensorType: { elemType, shape: { dim } } } };
}

/** (N, K) weights as bytes, symmetric, a scale for each row; as floats with scales of 1. @returns rows (N, K), columns (K, N) */
function quantize(source, tensor, isFloat) {
  const [N, K] = tensor.shape;
  const Weights = isFloat ? Float32Array : Int8Array;
  const [rows, columns, scales] = [new Weights(N * K), new Weights(N * K), new Float32Array(N)];
  for (let first = 0; first < N; first += ROWS_AT_A_TIME) {
    const count = Math.min(ROWS_AT_A_TIME, N - first);
    const values = source.read(tensor, first * K, count * K);
    if (isFloat) {
      rows.set(values, first * K);
      scales.fill(1);
      continue;
    }
    for (let r = 0; r < count; r++) {
      let most = 0;
      for (let k = 0; k < K; k++) most = Math.max(most, Math.abs(values[r * K + k]));
      const n = first + r;
      scales[n] = most / 127;
      for (let k = 0; k < K; k++) rows[n * K + k] = Math.round(values[r * K + k] / scales[n]);
    }
  }
  for (let n0 = 0; n0 < N; n0 += TURN)
    for (let k0 = 0; k0 < K; k0 += TURN)
      for (let n = n0; n < Math.min(N, n0 + TURN); n++)
        for (let k = k0; k < Math.min(K, k0 + TURN); k++) columns[k * N + n] = rows[n * K + k];
  return { name: tensor.name.replace(/\.weight$/, ""), K, N, rows, columns, scales };
}

/** cos and sin of every position and pair, (POSITIONS, hd / 2). */
function rotary(g, theta, hd) {
  const half = hd / 2;
  const table = (f) => Float32Array.from({ length: POSITIONS * half }, (_, i) => f(Math.floor(i / half) * theta ** (-(i % half) / half)));
  return ["cos", "sin"].map((name) => g.constant([POSITIONS, half], FLOAT, table(Math[name]), `${name}_cache`));
}

/**
 * Writes the graph to `path` and its weights to `path` + "_data". Inputs: input_ids (1, T), seqlens_k, total_sequence_length, past_conv.N, past_key.N, past_value.N;
 * outputs: logits (1, V) of the last position, present_….
 * @param source `{ shape, read }` as in scripts/checkpoints/make-gguf.mjs
 * @param protobuf the module protobufjs
 * @param isFloat weights and products in f32
 */
export function writeOnnx({ shape, read }, path, protobuf, { isFloat = false } = {}) {
  const { D, H, G, V, Kc, eps, theta, layers } = shape;
  const hd = D / H;
  const tensors = new Map(tensorList(shape).map((t) => [t.name, t]));
  const partial = `${path}.part`;
  const g = new Graph(`${path}_data`, `${basename(path)}_data`, isFloat);
  const matrix = (name) => quantize({ read }, tensors.get(`${name}.weight`), isFloat);
  const linear = (x, name) => g.linear(x, matrix(name));
  const vector = (name, dims) => {
    const t = tensors.get(`${name}.weight`);
    return g.floats(
      dims ?? t.shape,
      read(
        t,
        0,
        t.shape.reduce((a, b) => a * b, 1),
      ),
      name,
    );
  };
  const norm = (x, name) => g.op("SimplifiedLayerNormalization", [x, vector(name)], { axis: -1, epsilon: eps });
  /** h + y, and the norm of that. */
  const addNorm = (h, y, name) => {
    const [out, , , sum] = g.op(
      "SkipSimplifiedLayerNormalization",
      [h, y, vector(name)],
      { epsilon: eps },
      { outputs: 4, domain: MICROSOFT },
    );
    g.nodes.at(-1).output.splice(1, 2, "", "");
    return [sum, out];
  };

  const ids = g.input("input_ids", INT64, [1, "tokens"]);
  const lengths = g.input("seqlens_k", INT32, [1]);
  const total = g.input("total_sequence_length", INT32, []);
  const [cos, sin] = rotary(g, theta, hd);
  const heads = (n) => g.integers([0, 0, n, hd]);
  const [manyQ, manyK, flat] = [heads(H), heads(G), g.integers([0, 0, -1])];
  const [from, to, axis] = [[-(Kc - 1)], [2 ** 31 - 1], [2]].map((list) => g.integers(list));

  const shortConv = (x, i) => {
    const name = `model.layers.${i}.conv`;
    const past = g.input(`past_conv.${i}`, FLOAT, [1, D, Kc - 1]);
    const turned = g.op("Transpose", [linear(x, `${name}.in_proj`)], { perm: [0, 2, 1] });
    const [b, c, u] = g.op("Split", [turned, g.integers([D, D, D])], { axis: 1 }, { outputs: 3 });
    const row = g.op("Concat", [past, g.op("Mul", [b, u])], { axis: 2 });
    g.op("Slice", [row, from, to, axis], {}, { outputs: [g.output(`present_conv.${i}`, FLOAT, [1, D, Kc - 1])] });
    const taps = g.op("Conv", [row, vector(`${name}.conv`, [D, 1, Kc])], { group: D, kernel_shape: [Kc] });
    return linear(g.op("Transpose", [g.op("Mul", [c, taps])], { perm: [0, 2, 1] }), `${name}.out_proj`);
  };

  const attention = (x, i) => {
    const name = `model.layers.${i}.self_attn`;
    const past = ["key", "value"].map((each) => g.input(`past_${each}.${i}`, FLOAT, [1, G, "past", hd]));
    const present = ["key", "value"].map((each) => g.output(`present_${each}.${i}`, FLOAT, [1, G, "total", hd]));
    const normed = (letter, many) =>
      g.op("Reshape", [norm(g.op("Reshape", [linear(x, `${name}.${letter}_proj`), many]), `${name}.${letter}_layernorm`), flat]);
    const [q, k, v] = [normed("q", manyQ), normed("k", manyK), linear(x, `${name}.v_proj`)];
    const out = `attention.${i}`;
    const attributes = { num_heads: H, kv_num_heads: G, do_rotary: 1, rotary_interleaved: 0 };
    g.op("GroupQueryAttention", [q, k, v, ...past, lengths, total, cos, sin], attributes, {
      outputs: [out, ...present],
      domain: MICROSOFT,
    });
    return linear(out, `${name}.out_proj`);
  };

  const feedForward = (x, i) => {
    const name = `model.layers.${i}.feed_forward`;
    const [gate, up] = [linear(x, `${name}.w1`), linear(x, `${name}.w3`)];
    return linear(g.op("Mul", [g.op("Mul", [gate, g.op("Sigmoid", [gate])]), up]), `${name}.w2`);
  };

  const embedding = quantize({ read }, tensors.get("model.embed_tokens.weight"), isFloat);
  const rows = g.op("Gather", [g.weights([V, D], embedding.rows, "embed_tokens"), ids]);
  const scales = g.op("Gather", [g.constant([V, 1], FLOAT, embedding.scales, "embed_tokens_scale"), ids]);
  let h = g.op("Mul", [g.op("Cast", [rows], { to: FLOAT }), scales]);
  let x = norm(h, "model.layers.0.operator_norm");
  for (const [i, kind] of [...layers].entries()) {
    [h, x] = addNorm(h, kind === "A" ? attention(x, i) : shortConv(x, i), `model.layers.${i}.ffn_norm`);
    const isLast = i + 1 === layers.length;
    [h, x] = addNorm(h, feedForward(x, i), isLast ? "model.embedding_norm" : `model.layers.${i + 1}.operator_norm`);
  }
  const last = g.op("Gather", [x, g.constant([], INT64, BigInt64Array.of(-1n))], { axis: 1 });
  const logits = g.linear(last, { ...embedding, name: "lm_head" });
  g.op("Identity", [logits], {}, { outputs: [g.output("logits", FLOAT, [1, V])] });
  g.close();

  const Model = protobuf.parse(SCHEMA).root.lookupType("Model");
  const opsets = [
    { domain: "", version: OPSET },
    { domain: MICROSOFT, version: 1 },
  ];
  const graph = { node: g.nodes, name: "lfm2", initializer: g.initializers, input: g.inputs, output: g.outputs };
  const model = Model.fromObject({ irVersion: IR_VERSION, producerName: "lfm2-wasm bench", graph, opsetImport: opsets });
  writeFileSync(partial, Model.encode(model).finish());
  renameSync(partial, path);
}
