// Chat templates under mutation: a stranger's program ends with one of our errors, or renders within its budget, and never makes tokens of what a user wrote.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { ChatTemplate, type Message, type Segment } from "../../src/text/chat-template.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { pick } from "../scale.ts";
import { fuzz } from "./fuzz.ts";

const folder = "tests/golden/data/text";
const tokenizer = Tokenizer.fromJson(JSON.parse(readFileSync(`${folder}/tokenizer.json`, "utf8")));
const special = { bosToken: "<|startoftext|>", eosToken: "<|im_end|>" };
/** Ends the prompt as the template would, unless it stays text; the other one has its length and no token. */
const [token, harmless] = ["<|im_end|>", "<(im_end)>"];

function render(template: ChatTemplate, typed: string): readonly Segment[] {
  const messages: readonly Message[] = [
    { role: "system", content: "Be kind." },
    { role: "user", content: `Hi ${typed}` },
  ];
  return template.render(messages, { addGenerationPrompt: true, tools: [{ name: "f", description: typed }] });
}

const controls = (segments: readonly Segment[]): number[] => tokenizer.encodeSegments(segments).filter((id) => tokenizer.isSpecial(id));

describe("a chat template under mutation", () => {
  for (const name of ["template-lfm2.jinja", "template-lfm2.5.jinja"]) {
    it(`is refused, or renders what stays text: ${name}`, async () => {
      const bytes = new Uint8Array(readFileSync(`${folder}/${name}`));
      let typed = 0;
      const seen = await fuzz(
        bytes,
        bytes.length,
        pick({ gate: 10_000, full: 1_000_000 }),
        (mutated) => {
          const template = new ChatTemplate(new TextDecoder().decode(mutated), special, tokenizer.addedTokens);
          return [render(template, token), render(template, harmless)] as const;
        },
        ([one, other]) => {
          const text = one.map((s) => s.text).join("");
          assert.ok(text.length < 1 << 22);
          if (text.includes(token)) typed++;
          assert.deepEqual(controls(one), controls(other));
        },
      );
      assert.ok(seen.accepted > 100 && seen.refused > 100 && typed > 100, JSON.stringify({ ...seen, typed }));
    });
  }
});
