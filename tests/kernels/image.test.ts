// checksum and q8_flip: what reading a packed image needs.
import assert from "node:assert/strict";
import { imageChecksum } from "../reference/checksum.ts";
import { suite } from "./harness.ts";

/** Bytes that look random. */
const noise = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => Math.imul(Math.imul(i + 1, 0x9e3779b1) ^ seed, 0x85ebca6b) >>> 24);

suite(
  "packed image",
  (lab) => {
    lab.it("checksum: as the reference's, whatever the length, piece after piece; every flipped bit shows", () => {
      const digest = (pieces: readonly Uint8Array[]): string => {
        const state = lab.put(new Uint32Array(16));
        for (const piece of pieces) {
          const at = lab.put(piece);
          lab.kernels.checksum(state, at, piece.length);
        }
        return Array.from(new Uint32Array(lab.memory.buffer, state, 16), (w) => w.toString(16).padStart(8, "0")).join("");
      };
      for (const lengths of [[0], [16], [48], [64], [80, 16], [272, 144, 1024], [4096 + 32, 64]]) {
        const pieces = lengths.map((length, i) => noise(length, i));
        assert.equal(digest(pieces), imageChecksum(pieces), String(lengths));
        lab.check();
        lab.reset();
      }
      const whole = noise(144, 9);
      const right = digest([whole]);
      for (let bit = 0; bit < 8 * whole.length; bit += 7) {
        const wrong = whole.slice();
        wrong[bit >> 3]! ^= 1 << (bit & 7);
        assert.notEqual(digest([wrong]), right, `bit ${bit}`);
        lab.reset();
      }
      const twice = whole.slice(); // the top bits of two words of one chain: plain sums would not see them
      twice[3]! ^= 0x80;
      twice[67]! ^= 0x80;
      assert.notEqual(digest([twice]), right);
    });

    lab.it("q8_flip says how this engine reads int8", () => {
      const isUnsigned = lab.variant.name === "relaxed" && lab.kernels.dot_operand_kind() >= 0;
      assert.equal(lab.kernels.q8_flip(), isUnsigned ? 0x80 : 0);
    });
  },
  true,
);
