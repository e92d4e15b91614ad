// Beam search against the reference's: the same sequences in the same number of steps, with the same scores.

import assert from "node:assert/strict";
import type { BeamRequest, GenerateEvent, GenerateRequest } from "../../src/generate/engine.ts";
import { generate } from "../../src/generate/generate.ts";
import type { ProcessorOptions } from "../../src/generate/processors.ts";
import { Scheduler } from "../../src/generate/scheduler.ts";
import { Session } from "../../src/generate/session.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { checkpointFolder, goldenJson, withModel } from "./support.ts";

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
  for await (const event of generate(
    new Scheduler(() => counting),
    session,
    request,
    undefined,
    () => undefined,
    () => undefined,
  )) {
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
