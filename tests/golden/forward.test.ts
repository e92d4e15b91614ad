// forward() against the reference: padding on both sides, positions, packed rows, embeddings, hidden states, attention, loss, kept columns, a cache that goes on.
import assert from "node:assert/strict";
import { type ForwardOutput, type KeyValueCache, load, type Model, type Tensor } from "lfm2-wasm";
import { checkpointFolder, distance, goldenArrays, goldenJson } from "./support.ts";

interface Layout {
  readonly input_ids: number[][];
  readonly attention_mask: number[][];
  readonly position_ids: number[][];
  readonly default_position_ids: number[][];
}

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly model: string;
  readonly rows: number[][];
  readonly label_rows: number[][];
  readonly labels?: Record<string, number[][]>;
  readonly layouts: Record<"left" | "right", Layout>;
  readonly greedy: number[][];
  readonly input_ids: number[];
  readonly position_ids: number[];
  readonly attention_mask: number[] | null;
  readonly use_cache?: boolean;
  readonly attention_groups: number[] | null;
  readonly inputs_embeds: string;
  readonly logits: string;
  readonly logits_to_keep: number | number[];
  readonly kept_positions: number[];
  readonly loss: number | null;
  readonly count: number;
  readonly hidden_states: number;
  readonly attentions: number;
  readonly attention_layers: number[];
  readonly first: number;
}

const cases = goldenJson<readonly Case[]>("forward", "cases.json");
const arrays = goldenArrays("forward", "cases.safetensors");
const golden = (name: string): Float32Array => {
  const found = arrays.get(name);
  assert.ok(found, `${name} is among the goldens`);
  return found;
};

const LOGITS = 1e-4;
const near = (got: Float32Array, want: Float32Array, what: string, bound = LOGITS): void => {
  assert.equal(got.length, want.length, `${what}: length`);
  const d = distance(got, want);
  assert.ok(d <= bound, `${what}: ${d} apart`);
};
const row = ({ data, dims }: Tensor, b: number, columns: readonly number[]): Float32Array => {
  const [, T = 0, n = 0] = dims;
  return Float32Array.from(columns.flatMap((t) => Array.from(data.subarray((b * T + t) * n, (b * T + t + 1) * n))));
};
const realColumns = (mask: readonly number[]): number[] => mask.flatMap((m, t) => (m === 1 ? [t] : []));

describe("forward goldens", () => {
  const models = new Map<string, Model>();
  before(async () => {
    for (const name of new Set(cases.map((c) => c.model)))
      models.set(name, await load(checkpointFolder(name), { dtype: "f32", kvDtype: "f32" }));
  });
  after(() => {
    for (const model of models.values()) model.dispose();
  });

  it("has cases", () => assert.equal(cases.length, 60));

  const checks: Record<string, (c: Case, model: Model) => Promise<void>> = {
    batch: async (c, model) => {
      for (const [side, layout] of Object.entries(c.layouts)) {
        for (const positionIds of [undefined, layout.position_ids, layout.default_position_ids]) {
          const { logits } = await model.forward({ inputIds: layout.input_ids, attentionMask: layout.attention_mask, positionIds });
          for (const [b, mask] of layout.attention_mask.entries()) {
            const real = realColumns(mask);
            near(row(logits, b, real), golden(`${c.name}.row.${b}.logits`), `${side}, row ${b}`);
            const padding = mask.flatMap((m, t) => (m === 0 ? [t] : []));
            assert.ok(
              row(logits, b, padding).every((x) => x === 0),
              `${side}, row ${b}: padding is zero`,
            );
            if (positionIds) continue;
            const alone = await model.forward({ inputIds: c.rows[b]! });
            assert.deepEqual(row(logits, b, real), alone.logits.data, `${side}, row ${b}: the bits of the row alone`);
          }
        }
      }
    },
    batch_greedy: async (c, model) => {
      for (const layout of Object.values(c.layouts)) {
        let out: ForwardOutput = await model.forward({ inputIds: layout.input_ids, attentionMask: layout.attention_mask, useCache: true });
        const cache = out.pastKeyValues as KeyValueCache;
        let columns = layout.attention_mask.map((mask) => mask.lastIndexOf(1));
        const ids = c.rows.map((): number[] => []);
        const next = (): number[] =>
          columns.map((t, b) => {
            const logits = row(out.logits, b, [t]);
            return logits.indexOf(logits.reduce((x, y) => Math.max(x, y)));
          });
        for (let n = 0; n < 12; n++) {
          const chosen = next();
          for (const [b, id] of chosen.entries()) ids[b]!.push(id);
          out = await model.forward({ inputIds: chosen.map((id) => [id]), pastKeyValues: cache });
          assert.equal(out.pastKeyValues, cache);
          columns = columns.map(() => 0);
        }
        assert.deepEqual(ids, c.greedy);
        cache.dispose();
      }
    },
    outputs: async (c, model) => {
      const out = await model.forward({ inputIds: c.input_ids, outputHiddenStates: true, outputAttentions: true });
      near(out.logits.data, golden(`${c.name}.logits`), "logits");
      assert.equal(out.hiddenStates?.length, c.hidden_states);
      for (const [i, hidden] of (out.hiddenStates ?? []).entries()) near(hidden.data, golden(`${c.name}.hidden.${i}`), `hidden ${i}`);
      near(out.lastLayerOutput!.data, golden(`${c.name}.last_layer_before_norm`), "last layer");
      assert.deepEqual(out.attentionLayerIndices, c.attention_layers);
      assert.equal(out.attentions?.length, c.attentions);
      const T = c.input_ids.length;
      for (const [i, { data, dims }] of (out.attentions ?? []).entries()) {
        assert.deepEqual(dims, [1, model.config.numAttentionHeads, T, T]);
        near(data, golden(`${c.name}.attention.${i}`), `attention ${i}`, 1e-5);
      }
      // in two parts, the second with the first's keys
      const first = await model.forward({ inputIds: c.input_ids.slice(0, 4), useCache: true });
      const second = await model.forward({ inputIds: c.input_ids.slice(4), pastKeyValues: first.pastKeyValues, outputAttentions: true });
      for (const [i, { data, dims }] of (second.attentions ?? []).entries()) {
        assert.deepEqual(dims, [1, model.config.numAttentionHeads, T - 4, T]);
        const whole = golden(`${c.name}.attention.${i}`);
        const rows = Array.from({ length: model.config.numAttentionHeads }, (_, h) =>
          Array.from(whole.subarray((h * T + 4) * T, (h + 1) * T * T)),
        );
        near(data, Float32Array.from(rows.flat()), `attention ${i} over a past`, 1e-5);
      }
      second.pastKeyValues?.dispose();
    },
    inputs_embeds: async (c, model) => {
      const data = golden(c.inputs_embeds);
      const D = model.config.hiddenSize;
      const { logits } = await model.forward({ inputsEmbeds: { data, dims: [1, data.length / D, D] } });
      near(logits.data, golden(c.logits), "logits");
    },
    position_ids: async (c, model) => {
      const { logits } = await model.forward({
        inputIds: c.input_ids,
        positionIds: c.position_ids,
        attentionMask: c.attention_mask ?? undefined,
      });
      near(logits.data, golden(c.logits), "logits");
    },
    packed_positions: async (c, model) => {
      const out = await model.forward({
        inputIds: c.input_ids,
        positionIds: c.position_ids,
        useCache: c.use_cache,
        outputAttentions: true,
      });
      near(out.logits.data, golden(c.logits), "logits");
      const T = c.input_ids.length;
      for (const { data } of out.attentions ?? []) {
        for (let t = 0; t < T; t++) {
          const seen = Array.from(data.subarray(t * T, (t + 1) * T));
          assert.ok(Math.abs(seen.reduce((a, b) => a + b) - 1) < 1e-5, "a row of probabilities");
          const groups = c.attention_groups;
          if (groups)
            assert.ok(
              seen.every((p, s) => p === 0 || groups[s] === groups[t]),
              "nothing crosses the border",
            );
        }
      }
      out.pastKeyValues?.dispose();
    },
    logits_to_keep: async (c, model) => {
      const { logits } = await model.forward({ inputIds: c.input_ids, logitsToKeep: c.logits_to_keep });
      assert.deepEqual(logits.dims, [1, c.kept_positions.length, model.config.vocabSize]);
      const whole = { data: golden(c.logits), dims: [1, c.input_ids.length, model.config.vocabSize] };
      near(logits.data, row(whole, 0, c.kept_positions), "kept logits");
    },
    loss: async (c, model) => {
      const loss = async (input: Parameters<Model["forward"]>[0]) => (await model.forward(input)).loss ?? Number.POSITIVE_INFINITY;
      const check = (got: number, what: string): void => {
        if (c.loss === null) assert.ok(Number.isNaN(got), `${what}: ${got}`);
        else assert.ok(Math.abs(got - c.loss) < 1e-5 * Math.max(1, c.loss), `${what}: ${got}, expected ${c.loss}`);
      };
      if (c.rows.length === 1) {
        const labels = c.label_rows[0];
        check(await loss({ inputIds: c.rows[0], labels }), "alone");
        const sum = await loss({ inputIds: c.rows[0], labels, numItemsInBatch: 2 });
        if (c.loss !== null) assert.ok(Math.abs(sum - (c.loss * c.count) / 2) < 1e-4);
        return;
      }
      const layouts = cases.find((other) => other.name === c.name.replace("_loss", ""))!.layouts;
      for (const side of ["left", "right"] as const) {
        const { input_ids, attention_mask } = layouts[side];
        check(await loss({ inputIds: input_ids, attentionMask: attention_mask, labels: c.labels![side] }), side);
      }
    },
    past_key_values: async (c, model) => {
      const parts: number[] = [];
      const { logits, pastKeyValues } = await model.forward({ inputIds: c.input_ids.slice(0, c.first), useCache: true });
      parts.push(...logits.data);
      for (const [i, id] of c.input_ids.slice(c.first).entries()) {
        const at = c.first + i;
        parts.push(...(await model.forward({ inputIds: [id], pastKeyValues, cachePosition: [at] })).logits.data);
      }
      assert.deepEqual(pastKeyValues?.lengths, [c.input_ids.length]);
      near(Float32Array.from(parts), golden(c.logits), "logits");
      await assert.rejects(model.forward({ inputIds: [1], pastKeyValues, cachePosition: [0] }), /cachePosition: expected 1 places from/);
      pastKeyValues?.dispose();
    },
  };

  it("a row of a padded batch has every output that it has alone, bit for bit, from a cache of unequal rows, too", async () => {
    for (const model of models.values()) {
      const rows = [
        [1, 20, 21, 22, 23, 24],
        [1, 33],
        [1, 40, 41, 42],
      ];
      const [T, more] = [
        6,
        [
          [50, 51],
          [52, 53],
          [54, 55],
        ],
      ];
      const asked = { outputHiddenStates: true, outputAttentions: true } as const;
      for (const side of ["left", "right"] as const) {
        const place = (row: readonly number[], value: number): number[] => {
          const padding = new Array<number>(T - row.length).fill(value);
          return side === "left" ? [...padding, ...row] : [...row, ...padding];
        };
        const attentionMask = rows.map((row) =>
          place(
            row.map((): number => 1),
            0,
          ),
        );
        const batch = await model.forward({ inputIds: rows.map((row) => place(row, 0)), attentionMask, useCache: true, ...asked });
        const lengths = batch.pastKeyValues?.lengths.slice();
        const next = await model.forward({ inputIds: more, pastKeyValues: batch.pastKeyValues, ...asked });
        assert.deepEqual(
          lengths,
          rows.map((row) => row.length),
        );
        const inputIds = rows.map((row) => place(row, 0));
        for (const [logitsToKeep, columns] of [
          [2, [4, 5]],
          [
            [0, -1, 3, 3],
            [0, 5, 3, 3],
          ],
        ] as const) {
          const { logits } = await model.forward({ inputIds, attentionMask, logitsToKeep });
          assert.deepEqual(logits.dims, [3, columns.length, model.config.vocabSize]);
          const whole = rows.map((_, b) => row(batch.logits, b, columns));
          rows.forEach((_, b) => {
            assert.deepEqual(row(logits, b, [...columns.keys()]), whole[b], `${side}, row ${b}: kept ${logitsToKeep}`);
          });
        }
        // the same as embeddings, with anything at padding: alike with labels, before ids on one cache and after them
        const { dims, data } = batch.hiddenStates![0]!;
        const [, , D = 0] = dims;
        const noisy = data.map((x, i) => (attentionMask[Math.floor(i / (T * D))]![Math.floor(i / D) % T] === 1 ? x : 7));
        const labels = inputIds.map((row, b) => row.map((id, t) => (attentionMask[b]![t] === 1 ? id : -100)));
        const byIds = await model.forward({ inputIds, attentionMask, labels });
        const embedded = await model.forward({ inputsEmbeds: { data: noisy, dims }, attentionMask, labels, useCache: true });
        assert.ok(byIds.loss! > 0 && embedded.loss === byIds.loss, `${side}: ${embedded.loss}, expected ${byIds.loss}`);
        assert.deepEqual(embedded.logits, batch.logits, `${side}: embeddings`);
        const idsBehind = await model.forward({ inputIds: more, pastKeyValues: embedded.pastKeyValues });
        assert.deepEqual(idsBehind.logits, next.logits, `${side}: ids behind embeddings`);
        const begun = await model.forward({ inputIds, attentionMask, useCache: true });
        const embedsBehind = await model.forward({ inputsEmbeds: next.hiddenStates![0]!, pastKeyValues: begun.pastKeyValues });
        assert.deepEqual(embedsBehind.logits, next.logits, `${side}: embeddings behind ids`);
        for (const { pastKeyValues } of [embedded, begun]) pastKeyValues?.dispose();
        for (const [b, ids] of rows.entries()) {
          const first = await model.forward({ inputIds: ids, useCache: true, ...asked });
          const second = await model.forward({ inputIds: more[b]!, pastKeyValues: first.pastKeyValues, ...asked });
          const real = realColumns(attentionMask[b]!);
          for (const [got, alone, columns, past] of [
            [batch, first, real, 0],
            [next, second, [0, 1], ids.length],
          ] as const) {
            const tensors = (o: ForwardOutput): Tensor[] => [o.logits, ...(o.hiddenStates ?? []), o.lastLayerOutput!];
            for (const [i, tensor] of tensors(got).entries()) {
              assert.deepEqual(row(tensor, b, columns), tensors(alone)[i]!.data, `${side}, row ${b}, tensor ${i}`);
              const [, width = 0] = tensor.dims;
              const others = Array.from({ length: width }, (_, t) => t).filter((t) => !(columns as readonly number[]).includes(t));
              assert.ok(
                row(tensor, b, others).every((x) => x === 0),
                "zero at padding",
              );
            }
            // of the cache's columns a shorter row has the last ones
            const longest = got === batch ? 0 : T;
            const seen = [...Array.from({ length: past }, (_, s) => longest - past + s), ...columns.map((t) => longest + t)];
            for (const [j, { data, dims }] of (got.attentions ?? []).entries()) {
              const [, H = 0, N = 0, S = 0] = dims;
              const part: number[] = [];
              for (let h = 0; h < H; h++) for (const t of columns) for (const s of seen) part.push(data[((b * H + h) * N + t) * S + s]!);
              assert.deepEqual(Float32Array.from(part), alone.attentions![j]!.data, `${side}, row ${b}, attention ${j}`);
              const total = data.subarray(b * H * N * S, (b + 1) * H * N * S).reduce((x, y) => x + y, 0);
              assert.ok(Math.abs(total - H * columns.length) < 1e-4, "nothing but these");
            }
          }
          first.pastKeyValues?.dispose();
        }
        batch.pastKeyValues?.dispose();
      }
    }
  });

  it("useCache: false gives no cache, and one that came in goes on all the same", async () => {
    const model = models.get("tiny-conv-first")!;
    assert.equal((await model.forward({ inputIds: [1, 20] })).pastKeyValues, undefined);
    const { pastKeyValues } = await model.forward({ inputIds: [1, 20], useCache: true });
    const out = await model.forward({ inputIds: [21], pastKeyValues, useCache: false });
    assert.deepEqual([out.pastKeyValues, pastKeyValues?.lengths], [undefined, [3]]);
    const { logits } = await model.forward({ inputIds: [1, 20, 21], logitsToKeep: [-1] });
    assert.deepEqual(out.logits.data, logits.data);
    // a mask over the past and the new columns: of those the second is padding
    const attentionMask = [[1, 1, 1, 1, 0]];
    const padded = await model.forward({ inputIds: [[22, 0]], attentionMask, pastKeyValues });
    const whole = await model.forward({ inputIds: [1, 20, 21, 22], logitsToKeep: [-1] });
    assert.deepEqual([pastKeyValues?.lengths, padded.logits.data.slice(0, whole.logits.data.length)], [[4], whole.logits.data]);
    pastKeyValues?.dispose();
  });

  it("no prompt takes over the keys of embeddings", async () => {
    const model = models.get("tiny-conv-first")!;
    const inputIds = [20, 20, 20, 20];
    const { hiddenStates } = await model.forward({ inputIds, outputHiddenStates: true });
    const { pastKeyValues } = await model.forward({ inputsEmbeds: hiddenStates![0]!, useCache: true });
    assert.equal((await model.generate(Uint32Array.from(inputIds), { maxTokens: 1 })).usage.cachedTokens, 0);
    pastKeyValues?.dispose();
  });

  for (const c of cases) {
    it(c.name, async () => {
      const model = models.get(c.model)!;
      assert.ok(checks[c.kind], c.kind);
      await checks[c.kind]!(c, model);
      await new Promise((resolve) => setTimeout(resolve, 1)); // a cache that was disposed of closes its sessions
      assert.deepEqual([(await model.status()).openSessions, (await model.status()).usedPages], [0, 0]);
    });
  }

  it("refuses what does not fit", async () => {
    const model = models.get("tiny-conv-first")!;
    const refused = (input: Parameters<Model["forward"]>[0], message: RegExp): Promise<void> =>
      assert.rejects(model.forward(input), (error: Error) => error.name === "InputError" && message.test(error.message));
    const ids = [1, 20, 21];
    await refused({}, /either inputIds or inputsEmbeds, got none/);
    await refused({ inputIds: ids, inputsEmbeds: { data: new Float32Array(3), dims: [1, 1, 3] } }, /got both/);
    await refused({ inputIds: [ids, [1]] }, /rows of 3 numbers, as the first, got 1/);
    await refused({ inputIds: [-1] }, /inputIds: expected whole numbers from 0/);
    await refused({ inputIds: ids, attentionMask: [1, 1] }, /attentionMask: expected \(1,3\), got \(1,2\)/);
    await refused({ inputIds: ids, attentionMask: [1, 1, 0.5] }, /attentionMask/);
    for (const name of ["attention_mask", "logits_to_keep", "maxTokens"])
      await refused({ inputIds: ids, [name]: 1 } as object, new RegExp(`names that ForwardInput lists, got "${name}"`));
    await refused({ inputIds: ids, positionIds: [0, 1] }, /positionIds/);
    await refused({ inputIds: ids, labels: [1, 2, -7] }, /labels/);
    await refused({ inputIds: ids, labels: ids, logitsToKeep: 1 }, /logitsToKeep: expected all columns where there are labels/);
    await refused({ inputIds: ids, logitsToKeep: [3] }, /logitsToKeep/);
    await refused({ inputsEmbeds: { data: new Float32Array(3), dims: [1, 1, 3] } }, /inputsEmbeds: expected a tensor/);
    await refused({ inputsEmbeds: null as never }, /inputsEmbeds: expected a tensor .* got null\. Pass/);
    for (const items of ["x" as never, 0, Number.NaN])
      await refused({ inputIds: ids, labels: ids, numItemsInBatch: items }, /numItemsInBatch: expected a number above 0, got (x|0|NaN)\./);
    const { pastKeyValues } = await model.forward({ inputIds: ids, useCache: true });
    await refused({ inputIds: [ids, ids], pastKeyValues }, /an open cache of 2 sequences, got one of 1/);
    await refused({ inputIds: [4], pastKeyValues, cachePosition: [2] }, /cachePosition: expected 1 places from 3 on/);
    await refused(
      { inputIds: [4], pastKeyValues, attentionMask: [0, 1, 1, 1] },
      /attentionMask: expected 3 ones over the past of row 0.*got 2/,
    );
    await refused({ inputIds: [4], pastKeyValues, attentionMask: [1, 1, 1] }, /expected \(1,1\) or, with the columns of the past, \(1,4\)/);
    await refused({ inputIds: [4], pastKeyValues, attentionMask: new Array(51).fill(1) }, /\(1,4\), got \(1,51\)/);
    await refused({ inputIds: [4], pastKeyValues, attentionMask: [1, 1, 2, 1] }, /attentionMask/);
    await refused({ inputIds: [4], pastKeyValues, cachePosition: [] }, /cachePosition: expected 1 places from 3 on.*got 0/);
    await refused({ inputIds: ids, cachePosition: [0, 1] }, /cachePosition: expected 3 places from 0 on.*got 2: 0,1/);
    await refused({ inputIds: ids, cachePosition: 0 as never }, /cachePosition.*got number/);
    const other = await load(checkpointFolder("tiny-conv-first"), { dtype: "f32", kvDtype: "f32" });
    const chat = other.chat();
    await assert.rejects(other.forward({ inputIds: ids, pastKeyValues }), { name: "InputError", message: /a cache that this model gave/ });
    assert.deepEqual([chat.position, pastKeyValues?.lengths], [0, [3]]);
    other.dispose();
    pastKeyValues?.dispose();
    await refused({ inputIds: ids, pastKeyValues }, /disposed/);
  });

  it("cachePosition counts columns, as the reference does, or tokens where none is padding", async () => {
    const model = models.get("tiny-gqa3") ?? assert.fail();
    const rows = [
      [1, 20, 21],
      [1, 22, 0],
    ];
    for (const [inputIds, attentionMask, next] of [
      [
        rows,
        [
          [1, 1, 1],
          [1, 1, 0],
        ],
        [3],
      ],
      [
        rows.map((ids) => ids.toReversed()),
        [
          [1, 1, 1],
          [0, 1, 1],
        ],
        [3],
      ],
      [rows.map((ids) => ids.slice(0, 2)), undefined, [2]],
      [[rows[1]!], [[1, 1, 0]], [2]],
      [[rows[1]!], [[1, 1, 0]], [3]],
    ] as const) {
      const first = await model.forward({ inputIds, attentionMask, cachePosition: inputIds[0]!.map((_, t) => t), useCache: true });
      const { pastKeyValues } = first;
      const ids = inputIds.map(() => [30]);
      await model.forward({ inputIds: ids, cachePosition: next, pastKeyValues });
      await assert.rejects(model.forward({ inputIds: ids, cachePosition: [next[0] + 5], pastKeyValues }), { message: /cachePosition/ });
      await model.forward({ inputIds: ids, cachePosition: [next[0] + 1], pastKeyValues });
      pastKeyValues?.dispose();
    }
  });

  it("keys at other positions than a prompt's are no prefix of it, open or closed", async () => {
    const ids = Array.from({ length: 40 }, (_, i) => 20 + (i % 30));
    const likely = async (model: Model): Promise<readonly [number, number]> => {
      const { usage, logprobs } = await model.generate(Uint32Array.from(ids), { maxTokens: 1, temperature: 0, logprobs: true });
      return [logprobs?.[0]?.logprob ?? assert.fail(), usage.cachedTokens];
    };
    for (const [positionIds, cached] of [
      [ids.map((_, t) => 7 * t), 1],
      [ids.map((_, t) => (t < 20 ? t : t + 1)), 20],
      [ids.map((_, t) => t), 39],
    ] as const) {
      const model = await load(checkpointFolder("tiny-attn-first"), { dtype: "f32", kvDtype: "f32" });
      const [right] = await likely(model);
      const warm = await load(checkpointFolder("tiny-attn-first"), { dtype: "f32", kvDtype: "f32" });
      const { pastKeyValues } = await warm.forward({ inputIds: ids, positionIds, useCache: true });
      assert.deepEqual(await likely(warm), [right, cached]);
      pastKeyValues?.dispose();
      warm.dispose();
      const again = await load(checkpointFolder("tiny-attn-first"), { dtype: "f32", kvDtype: "f32" });
      (await again.forward({ inputIds: ids, positionIds, useCache: true })).pastKeyValues?.dispose();
      await new Promise((resolve) => setTimeout(resolve, 5)); // the session closes by itself
      assert.deepEqual(await likely(again), [right, cached]);
      for (const each of [model, again]) each.dispose();
    }
  });
});
