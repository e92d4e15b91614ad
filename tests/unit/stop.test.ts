// Stop strings: the same outcome however the text is cut, and nothing held back without need.
import assert from "node:assert/strict";
import { InputError } from "../../src/errors.ts";
import { checkStop, MAX_STOP_LENGTH, MAX_STOP_STRINGS, StopFinder } from "../../src/generate/stop.ts";
import { pick } from "../scale.ts";

interface Outcome {
  readonly shown: string;
  readonly hit: string | undefined;
}

/** What must come out, character by character and without cleverness. */
function reference(text: string, stops: readonly string[]): Outcome {
  for (let end = 1; end <= text.length; end++) {
    const [hit] = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (hit !== undefined) return { shown: text.slice(0, end - hit.length), hit };
  }
  return { shown: text, hit: undefined };
}

function feed(pieces: readonly string[], stops: readonly string[]): Outcome {
  const finder = new StopFinder(stops);
  let shown = "";
  for (const piece of pieces) shown += finder.push(piece);
  if (finder.hit === undefined) shown += finder.flush();
  return { shown, hit: finder.hit };
}

/** Seeded numbers below n, good enough to vary the cases. */
function generator(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

function randomPieces(text: string, next: (n: number) => number): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    const length = next(5);
    pieces.push(text.slice(at, at + length));
    at += length;
  }
  return pieces;
}

describe("stop strings", () => {
  it("cuts the text before the stop string, split at every position", () => {
    const text = "one two\n\nUser: three";
    const stops = ["\n\nUser:", "three"];
    for (let i = 0; i <= text.length; i++) {
      for (let j = i; j <= text.length; j++) {
        assert.deepEqual(feed([text.slice(0, i), text.slice(i, j), text.slice(j)], stops), { shown: "one two", hit: "\n\nUser:" });
      }
    }
  });

  it("finds what a plain search finds, in random texts cut at random", () => {
    const next = generator(7);
    const word = (length: number, letters: string) => Array.from({ length }, () => letters[next(letters.length)]).join("");
    const rounds = pick({ gate: 3000, full: 60_000 });
    let hits = 0;
    for (let round = 0; round < rounds; round++) {
      const stops = Array.from({ length: 1 + next(4) }, () => word(1 + next(6), "ab c"));
      const text = word(next(40), "ab cd");
      const expected = reference(text, stops);
      if (expected.hit !== undefined) hits++;
      assert.deepEqual(feed(randomPieces(text, next), stops), expected, JSON.stringify({ stops, text }));
    }
    assert.ok(hits > rounds / 4 && hits < rounds, `${hits} hits`);
  });

  it("holds back the longest end that may become a stop string, and no more", () => {
    const next = generator(11);
    const stops = ["abac", "cab", "bbbb"];
    for (let round = 0; round < 500; round++) {
      const text = Array.from({ length: 30 }, () => "abc"[next(3)]).join("");
      const finder = new StopFinder(stops);
      let shown = "";
      let seen = "";
      for (const piece of randomPieces(text, next)) {
        shown += finder.push(piece);
        seen += piece;
        if (finder.hit !== undefined) break;
        const tails = Array.from(seen, (_, i) => seen.slice(i)).filter((tail) => stops.some((stop) => stop.startsWith(tail)));
        assert.equal(seen.slice(shown.length), tails[0] ?? "", JSON.stringify(seen));
      }
    }
  });

  it("shows nothing after a hit and keeps characters whole", () => {
    const finder = new StopFinder(["🦊!"]);
    assert.equal(finder.push("a🦊"), "a");
    assert.equal(finder.push("🦁"), "🦊🦁");
    assert.equal(finder.push("🦊!b"), "");
    assert.equal(finder.hit, "🦊!");
    assert.equal(finder.push("more"), "");
    assert.equal(finder.flush(), "");
  });

  it("checks its option", () => {
    assert.deepEqual(checkStop(undefined), []);
    assert.deepEqual(checkStop("x"), ["x"]);
    assert.deepEqual(checkStop(["x", "y"]), ["x", "y"]);
    const longest = "x".repeat(MAX_STOP_LENGTH);
    assert.equal(checkStop(new Array(MAX_STOP_STRINGS).fill(longest)).length, MAX_STOP_STRINGS);
    const many = new Array(MAX_STOP_STRINGS + 1).fill("x");
    for (const stop of [[""], "", [`${longest}x`], many, [3], 3, null, {}, ["\ud83e"], ["ok", undefined]]) {
      const isRight = (error: unknown) => error instanceof InputError && /^\[lfm2\] stop: expected .*\.$/.test(error.message);
      assert.throws(() => checkStop(stop), isRight, JSON.stringify(stop));
    }
  });
});
