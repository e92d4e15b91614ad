// Our own SHA-256 and SHA-1 against node:crypto: every length around a block, every way to cut the stream, several at once.
import assert from "node:assert/strict";
import { createHash as oracle } from "node:crypto";
import { createHash } from "../../src/weights/hash.ts";
import { pick } from "../scale.ts";
import { random } from "./fuzz.ts";
import { noise } from "./network.ts";

const PARTS = pick({ gate: 3, full: 513 });

for (const algorithm of ["sha256", "sha1"] as const) {
  describe(`our own ${algorithm}`, () => {
    const right = (bytes: Uint8Array): string => oracle(algorithm).update(bytes).digest("hex");
    const bytes = noise(200_000);

    it("agrees with the reference on every length around its blocks and its buffer", async () => {
      const lengths = [
        ...Array.from({ length: 260 }, (_, i) => i),
        ...[-65, -64, -9, -8, -1, 0, 1, 55, 56, 64].map((d) => 16_384 + d),
        200_000,
      ];
      for (const length of lengths) {
        const hash = createHash(algorithm);
        hash.update(bytes.subarray(0, length));
        assert.equal(await hash.digest(), right(bytes.subarray(0, length)), `${length} bytes`);
      }
    });

    it("does not care how the stream is cut, and several do not disturb each other", async () => {
      const next = random(3);
      const [one, other] = [createHash(algorithm), createHash(algorithm)];
      other.update(bytes.subarray(0, 100));
      for (let at = 0; at < bytes.length; ) {
        const count = next() % (next() % 8 === 0 ? 40_000 : 200);
        one.update(bytes.subarray(at, at + count));
        at += count;
      }
      assert.equal(await one.digest(), right(bytes));
      assert.equal(await other.digest(), right(bytes.subarray(0, 100)));
    });
  });
}

describe("our own sha256 of a long stream", () => {
  // from 512 MiB on the length in bits needs more than 32
  it(`agrees after ${PARTS} MiB`, async () => {
    const part = noise(1 << 20);
    const [ours, theirs] = [createHash("sha256"), oracle("sha256")];
    for (let i = 0; i < PARTS; i++) {
      ours.update(part);
      theirs.update(part);
    }
    assert.equal(await ours.digest(), theirs.digest("hex"));
  });
});
