// The tokenizer against the reference's ids, and the same tokenizer read from a GGUF.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { InputError } from "../../src/errors.ts";
import { tokensOfTable } from "../../src/text/byte-level.ts";
import { tokenizerFromGguf } from "../../src/text/gguf-tokenizer.ts";
import { StreamDecoder } from "../../src/text/stream-decoder.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { readGguf } from "../../src/weights/gguf.ts";
import { bytesSource } from "../../src/weights/source.ts";

const folder = "tests/golden/data/text";
const json: unknown = JSON.parse(readFileSync(`${folder}/tokenizer.json`, "utf8"));
const golden = JSON.parse(readFileSync(`${folder}/tokenizer_cases.json`, "utf8")) as {
  cases: { text: string; ids: number[]; ids_with_bos: number[] }[];
  streams: { ids: number[]; pieces_without_special: string[]; text_without_special: string }[];
  invalid_utf8: { ids: number[]; bytes: number[]; text: string };
};

/** The tokenizer of a GGUF that the repository's own writer makes. */
async function fromGguf(args: readonly string[]): Promise<{ tokenizer: Tokenizer; gguf: ReturnType<typeof tokenizerFromGguf> }> {
  const dir = mkdtempSync(join(tmpdir(), "lfm2-gguf-"));
  try {
    const out = join(dir, "x.gguf");
    execFileSync(process.execPath, ["scripts/checkpoints/make-gguf.mjs", ...args, "--out", out]);
    const file = await readGguf(bytesSource(readFileSync(out), "x.gguf"));
    const gguf = tokenizerFromGguf(file.metadata);
    return { gguf, tokenizer: Tokenizer.fromJson(gguf.tokenizer, { vocabularySize: gguf.tokenCount }) };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function sameAsReference(tokenizer: Tokenizer): void {
  for (const { text, ids, ids_with_bos } of golden.cases) {
    assert.deepEqual(tokenizer.encode(text, { controlTokens: true }), ids, JSON.stringify(text));
    assert.deepEqual(tokenizer.encode(text, { controlTokens: true, addSpecialTokens: true }), ids_with_bos, JSON.stringify(text));
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), text);
    if (!tokenizer.addedTokens.some((t) => text.includes(t.content))) assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
  }
}

describe("golden tokenizer", () => {
  const tokenizer = Tokenizer.fromJson(json);

  it("gives the reference's ids and texts", () => sameAsReference(tokenizer));

  it("has cases with control tokens and cases without", () => {
    const withTokens = golden.cases.filter((c) => tokenizer.addedTokens.some((t) => c.text.includes(t.content)));
    assert.ok(withTokens.length > 0 && withTokens.length < golden.cases.length / 2, `${withTokens.length}`);
  });

  it("streams the reference's pieces, from the tokenizer and from its table alone", () => {
    for (const tokens of [tokenizer, tokensOfTable(structuredClone(tokenizer.byteTable()))]) {
      for (const { ids, pieces_without_special, text_without_special } of golden.streams) {
        const decoder = new StreamDecoder(tokens);
        const pieces = ids.map((id) => decoder.push(id));
        assert.deepEqual(pieces, pieces_without_special);
        assert.equal(pieces.join("") + decoder.flush(), text_without_special);
        assert.equal(tokenizer.decode(ids), text_without_special);
      }
    }
  });

  it("replaces invalid UTF-8 as the reference does", () => {
    const { ids, bytes, text } = golden.invalid_utf8;
    const plain = ids.filter((id) => !tokenizer.isSpecial(id));
    assert.deepEqual(
      plain.flatMap((id) => [...tokenizer.tokenBytes(id)]),
      bytes,
    );
    assert.equal(tokenizer.decode(ids), text);
    assert.equal(new TextDecoder().decode(Uint8Array.from(bytes)), text);
  });

  it("is the same when it comes from a GGUF", async () => {
    const args = [
      "--preset",
      "tiny-quant",
      "--type",
      "F32",
      "--tokenizer",
      `${folder}/tokenizer.json`,
      "--template",
      `${folder}/template-lfm2.jinja`,
    ];
    const { tokenizer: other, gguf } = await fromGguf(args);
    sameAsReference(other);
    assert.deepEqual([gguf.bosId, gguf.eosIds, gguf.padId, gguf.bosToken, gguf.eosToken], [1, [7], 0, "<|startoftext|>", "<|im_end|>"]);
    assert.equal(gguf.chatTemplate, readFileSync(`${folder}/template-lfm2.jinja`, "utf8"));
    for (let id = 0; id < tokenizer.vocabularySize; id++) {
      assert.deepEqual(other.tokenBytes(id), tokenizer.tokenBytes(id), `${id}`);
      assert.equal(other.isSpecial(id), tokenizer.isSpecial(id), `${id}`);
      assert.equal(other.idToToken(id), tokenizer.idToToken(id), `${id}`);
    }
    assert.throws(() => tokenizer.tokenBytes(tokenizer.vocabularySize), InputError);
  });
});

describe("the bundled checkpoint's tokenizer", () => {
  const mini = "models/lfm2-mini";
  const { examples } = JSON.parse(readFileSync(`${mini}/examples.json`, "utf8")) as {
    examples: { prompt: string; prompt_ids: number[]; output: string; output_ids: number[] }[];
  };
  const check = (tokenizer: Tokenizer): void => {
    for (const { prompt, prompt_ids, output, output_ids } of examples) {
      assert.deepEqual(tokenizer.encode(prompt, { controlTokens: true }), prompt_ids);
      assert.equal(tokenizer.decode(output_ids, { skipSpecialTokens: false }), output);
    }
  };

  it("gives the ids of examples.json", () => {
    assert.ok(examples.length > 0);
    check(Tokenizer.fromJson(JSON.parse(readFileSync(`${mini}/tokenizer.json`, "utf8"))));
  });

  it("is the same when it comes from a GGUF", async () => {
    check((await fromGguf(["--from", mini, "--type", "Q4_0", "--tokenizer", `${mini}/tokenizer.json`])).tokenizer);
  });
});
