// The bundled checkpoint: its examples word for word in f32, its text the same in the GGUF. What its quantized forms cost is in quality.test.ts.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ChatTemplate } from "../../src/text/chat-template.ts";
import type { Message } from "../../src/text/messages.ts";
import { greedy, tried, withModel } from "./support.ts";

interface Example {
  readonly task: string;
  /** Absent where the example is a raw prompt. */
  readonly messages?: Message[];
  readonly tools?: unknown[];
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly output: string;
  readonly output_ids: number[];
}

const folder = join("models", "lfm2-mini");
const { examples } = JSON.parse(readFileSync(join(folder, "examples.json"), "utf8")) as { examples: Example[] };
const asMessages = examples.flatMap(({ messages, tools, ...rest }) => (messages ? [{ messages, tools, ...rest }] : []));
const f32 = { dtype: "f32", kvDtype: "f32", chunkTokens: 256 } as const;

describe("the bundled checkpoint", () => {
  for (const variant of tried) {
    it(`gives every example's ids in f32 (${variant})`, () =>
      withModel(folder, { ...f32, variant }, (model) => {
        for (const e of examples) assert.deepEqual(greedy(model, e.prompt_ids, e.output_ids.length), e.output_ids, e.prompt);
      }));
  }

  it("renders and encodes every example's messages to its prompt ids, decodes its output", () =>
    withModel(folder, f32, (_, { tokenizer, template }) => {
      assert.ok(tokenizer && template);
      const chat = ChatTemplate.of(template);
      assert.ok(asMessages.length > 40);
      for (const e of asMessages) {
        const segments = chat.render(e.messages, { addGenerationPrompt: true, ...(e.tools ? { tools: e.tools } : {}) });
        assert.equal(segments.map((s) => s.text).join(""), e.prompt);
        assert.deepEqual([...tokenizer.encodeSegments(segments)], e.prompt_ids);
        assert.equal(tokenizer.decode(e.output_ids, { skipSpecialTokens: false }), e.output);
      }
    }));

  it("its tokenizer and template are the same in the GGUF", async () => {
    await withModel(join("dist", "mini.gguf"), {}, (_, gguf) =>
      withModel(folder, f32, (__, original) => {
        for (const e of asMessages) {
          assert.ok(gguf.template);
          const prompt = ChatTemplate.of(gguf.template).render(e.messages, {
            addGenerationPrompt: true,
            ...(e.tools ? { tools: e.tools } : {}),
          });
          assert.deepEqual([...(gguf.tokenizer?.encodeSegments(prompt) ?? [])], e.prompt_ids);
        }
        assert.deepEqual({ ...gguf.config, intermediateSize: 0, normEps: 0 }, { ...original.config, intermediateSize: 0, normEps: 0 });
      }),
    );
  });
});
