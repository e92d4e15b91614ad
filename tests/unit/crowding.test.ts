// When helpers are left out, on simulated machines: what counts is the number of steps spent the slower way.
import assert from "node:assert/strict";
import { Crowding } from "../../src/kernels/crowding.ts";

interface Machine {
  /** ms of a step by all threads, and by one. */
  readonly all: number;
  readonly one: number;
  /** How often a step's threads sleep. */
  readonly sleeps: number;
}

const FREE: Machine = { all: 6, one: 10, sleeps: 1 };
const CROWDED: Machine = { all: 80, one: 20, sleeps: 60 };
/** Threads hold each other up, and yet gain. */
const BUSY: Machine = { all: 12, one: 15, sleeps: 30 };

/** Steps on a machine. @returns how many of them one thread computed */
function steps(crowding: Crowding, count: number, { all, one, sleeps }: Machine, kind = 1): number {
  let alone = 0;
  for (let i = 0; i < count; i++) {
    const { isAlone } = crowding;
    if (isAlone) alone++;
    crowding.took(kind, isAlone ? one : all, isAlone ? 0 : sleeps);
  }
  return alone;
}

describe("crowding", () => {
  it("on free cores helpers always take part", () => {
    assert.equal(steps(new Crowding(), 1000, FREE), 0);
  });

  it("where threads only wait for each other, one computes alone from the fifth step on, but for short trials", () => {
    const crowding = new Crowding();
    assert.equal(steps(crowding, 4, CROWDED), 0);
    assert.equal(steps(crowding, 12, CROWDED), 12);
    const alone = steps(crowding, 1000, CROWDED);
    assert.ok(alone >= 960 && alone < 1000, `${alone} of 1000`);
  });

  it("goes back to all threads soon after the cores are free again", () => {
    const crowding = new Crowding();
    steps(crowding, 1000, CROWDED);
    assert.ok(steps(crowding, 200, FREE) <= 140);
    assert.equal(steps(crowding, 200, FREE), 0);
  });

  it("where threads gain in spite of waiting, trials become rare", () => {
    const crowding = new Crowding();
    const alone = steps(crowding, 1000, BUSY);
    assert.ok(alone > 0 && alone <= 36, `${alone} of 1000`);
  });

  it("does not compare steps of two kinds, nor short ones; a trial that they cut off leaves things as they were", () => {
    const crowding = new Crowding();
    for (let i = 0; i < 100; i++) assert.equal(steps(crowding, 1, CROWDED, 1 + (i % 2)), 0);
    assert.equal(steps(crowding, 100, { all: 1, one: 0.5, sleeps: 100 }, 3), 0);
    steps(crowding, 4, CROWDED);
    assert.equal(crowding.isAlone, true); // a trial
    crowding.took(7, 100, 0);
    assert.equal(crowding.isAlone, false);
  });
});
