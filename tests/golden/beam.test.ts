// Beam search against the reference's: the same sequences in the same number of steps, with the same scores.

import assert from "node:assert/strict";
import type { BeamRequest, GenerateEvent, GenerateRequest } from "../../src/generate/engine.ts";
import { generate } from "../../src/generate/generate.ts";
import { random } from "../../src/generate/philox.ts";
import type { ProcessorOptions } from "../../src/generate/processors.ts";
import { Scheduler } from "../../src/generate/scheduler.ts";
import { Session } from "../../src/generate/session.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { sampleBeams } from "../reference/beam-sampling.ts";
import { pick } from "../scale.ts";
import { checkpointFolder, goldenJson, withModel } from "./support.ts";

/** Searches whose continuations are drawn, of each variant. */
const SEEDS = pick({ gate: 3, full: 60 });

interface Case {
  readonly model: string;
  readonly prompt: readonly number[];
  readonly max_new_tokens: number;
  readonly eos_token_id: readonly number[];
  readonly num_beams: number;
  readonly num_return_sequences: number;
  readonly length_penalty?: number;
  readonly early_stopping?: boolean | "never";
  readonly processors?: {
    readonly repetition_penalty?: number;
    readonly no_repeat_ngram_size?: number;
    readonly min_new_tokens?: number;
    readonly suppress_tokens?: readonly number[];
  };
  readonly sequences: readonly (readonly number[])[];
  readonly scores: readonly number[];
  readonly steps: number;
}

const cases = goldenJson<readonly Case[]>("processors", "beam.json");

function requestOf(c: Case): GenerateRequest {
  const { repetition_penalty = 1, no_repeat_ngram_size, min_new_tokens, suppress_tokens } = c.processors ?? {};
  const processing: ProcessorOptions = {
    noRepeatNgramSize: no_repeat_ngram_size,
    minTokens: min_new_tokens,
    suppressTokens: suppress_tokens,
  };
  const beams: BeamRequest = {
    count: c.num_beams,
    lengthPenalty: c.length_penalty ?? 1,
    earlyStopping: c.early_stopping ?? false,
    returned: c.num_return_sequences,
  };
  const sampling = { temperature: 0, repetitionPenalty: repetition_penalty };
  return { ids: Uint32Array.from(c.prompt), maxTokens: c.max_new_tokens, stop: [], stopIds: c.eos_token_id, sampling, processing, beams };
}

/** @returns the last event, and the steps that were run */
async function search(model: LanguageModel, request: GenerateRequest): Promise<{ finish: GenerateEvent; ids: number[]; steps: number }> {
  const session = new Session(model.openCache());
  let steps = 0;
  const counting = new Proxy(model, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      if (name === "step") steps++; // one access a call
      return value.bind(target);
    },
  });
  const ids: number[] = [];
  let finish: GenerateEvent | undefined;
  for await (const event of generate({
    scheduler: new Scheduler(() => counting),
    begin: async () => ({ session, isCancelled: () => undefined, end: () => {} }),
    request,
    table: undefined,
    takeSupplied: () => undefined,
  })) {
    if (event.type === "token") ids.push(event.id);
    finish = event;
  }
  session.cache.dispose();
  assert.equal(model.caches.pages.used, 0, "every fork is disposed of");
  assert.ok(finish);
  return { finish, ids, steps };
}

describe("beam search goldens", () => {
  it("has cases", () => assert.equal(cases.length, 60));

  for (const name of new Set(cases.map((c) => c.model))) {
    it(`${name}, drawn: as float64 draws with the same numbers`, () =>
      withModel(checkpointFolder(name), { dtype: "f32", kvDtype: "f32" }, async (model) => {
        const stepLogits = async (ids: readonly number[]): Promise<Float32Array> => {
          const cache = model.openCache();
          model.step([{ cache, ids }], { logitsOf: [ids.length - 1] });
          const logits = model.logits().copy();
          cache.dispose();
          return logits;
        };
        const variants = [
          { numBeams: 2, temperature: 0.7, topK: 0, topP: 1, lengthPenalty: 1, earlyStopping: false },
          { numBeams: 3, temperature: 1.8, topK: 12, topP: 0.9, lengthPenalty: 0.5, earlyStopping: true },
          { numBeams: 4, temperature: 1, topK: 1, topP: 0.1, lengthPenalty: 2, earlyStopping: false },
        ];
        const texts = new Set<string>();
        for (const variant of variants)
          for (let seed = 1; seed <= SEEDS; seed++) {
            const { prompt, eos_token_id: endIds } = cases.find((c) => c.model === name)!;
            const uniform = (position: number, draw: number): number => random(seed, position, draw);
            const want = await sampleBeams(stepLogits, { ...variant, prompt, endIds, maxNewTokens: 6, uniform });
            const { numBeams: count, temperature, topK, topP, ...beams } = variant;
            const { finish } = await search(model, {
              ...{ ids: Uint32Array.from(prompt), maxTokens: 6, stop: [], stopIds: endIds },
              sampling: { temperature, topK, topP, seed },
              beams: { ...beams, count, returned: count, isSampled: true },
            });
            assert.ok(finish.type === "finish" && finish.sequences);
            assert.deepEqual(
              finish.sequences.map((s) => s.ids),
              want.map((s) => s.ids),
              `${JSON.stringify(variant)}, seed ${seed}`,
            );
            for (const [i, { score }] of want.entries())
              assert.ok(Math.abs(score - finish.sequences[i]!.score) < 1e-4 * Math.max(1, Math.abs(score)));
            texts.add(String(finish.sequences[0]?.ids));
          }
        assert.ok(texts.size > SEEDS, "several texts were drawn");
      }));

    it(name, () =>
      withModel(checkpointFolder(name), { dtype: "f32", kvDtype: "f32" }, async (model) => {
        for (const [i, c] of cases.entries()) {
          if (c.model !== name) continue;
          const { finish, ids, steps } = await search(model, requestOf(c));
          assert.ok(finish.type === "finish" && finish.sequences);
          assert.deepEqual(
            finish.sequences.map((s) => s.ids),
            c.sequences,
            `case ${i}`,
          );
          assert.deepEqual(ids, c.sequences[0], `case ${i}: the tokens are those of the best`);
          assert.equal(steps, c.steps, `case ${i}: steps`);
          for (const [k, { score }] of finish.sequences.entries())
            assert.ok(
              Math.abs(score - c.scores[k]!) <= 1e-4 * Math.max(1, Math.abs(c.scores[k]!) / 10),
              `case ${i}: ${score}, expected ${c.scores[k]}`,
            );
        }
      }),
    );
  }
});
