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
    const isAlone = crowding.next(kind);
    assert.equal(crowding.isAlone, isAlone);
    if (isAlone) alone++;
    crowding.took(isAlone ? one : all, isAlone ? 0 : sleeps);
  }
  return alone;
}

describe("crowding", () => {
  it("on free cores helpers always take part", () => {
    assert.equal(steps(new Crowding(), 1000, FREE), 0);
  });

  it("where threads only wait for each other, one computes alone from the fourth step on, but for single steps once a second", () => {
    const crowding = new Crowding();
    assert.equal(steps(crowding, 3, CROWDED), 0);
    assert.equal(steps(crowding, 14, CROWDED), 14);
    const alone = steps(crowding, 1000, CROWDED);
    assert.ok(alone >= 975 && alone < 990, `${alone} of 1000`);
  });

  it("goes back to all threads within a second after the cores are free again, and stays", () => {
    for (const [all, one] of [
      [6, 10],
      [42, 70],
    ] as const) {
      const crowding = new Crowding();
      steps(crowding, 1000, { all: 4 * one, one, sleeps: 60 });
      const free = { all, one, sleeps: 1 };
      const alone = steps(crowding, 200, free);
      assert.ok(alone <= Math.max(5, 1000 / one), `${alone} of 200 steps of ${one} ms`);
      assert.equal(steps(crowding, 200, free), 0);
    }
  });

  it("a step that something else held up decides nothing", () => {
    const crowding = new Crowding();
    let alone = 0;
    for (let i = 0; i < 1000; i++) {
      const isAlone = crowding.next(1);
      if (isAlone) alone++;
      const isHeldUp = i % 3 === 1;
      crowding.took((isAlone ? 70 : 42) + (isHeldUp && !isAlone ? 160 : 0), isAlone ? 0 : 20);
    }
    assert.ok(alone > 0 && alone < 60, `${alone} of 1000`);
  });

  it("where most steps are held up and some are not, one computes alone", () => {
    const crowding = new Crowding();
    let alone = 0;
    for (let i = 0; i < 1000; i++) {
      const isAlone = crowding.next(1);
      if (isAlone) alone++;
      const isHeldUp = i % 3 !== 2;
      crowding.took(isAlone ? 70 : isHeldUp ? 160 : 42, isAlone || !isHeldUp ? 0 : 20);
    }
    assert.ok(alone > 600, `${alone} of 1000`);
  });

  it("a lucky step with helpers is soon seen through", () => {
    const crowding = new Crowding();
    steps(crowding, 100, CROWDED);
    let alone = 0;
    for (let i = 0; i < 1000; i++) {
      const isAlone = crowding.next(1);
      if (isAlone) alone++;
      crowding.took(isAlone ? 20 : alone % 2 === 0 ? 15 : 80, isAlone ? 0 : 60); // every other trial says that helpers are worth having
    }
    assert.ok(alone > 800, `${alone} of 1000`);
  });

  it("a kind that comes once in a while is tried again as soon as others have taken the time", () => {
    const crowding = new Crowding();
    const rare = (machine: Machine): number => steps(crowding, 1, machine, 2);
    for (let i = 0; i < 20; i++) {
      steps(crowding, 100, CROWDED);
      rare({ all: 200, one: 100, sleeps: 60 });
    }
    let alone = 0;
    for (let i = 0; i < 20; i++) {
      steps(crowding, 100, FREE);
      alone += rare({ all: 50, one: 100, sleeps: 1 });
    }
    assert.ok(alone <= 4, `${alone} of 20`);
  });

  it("where threads gain in spite of waiting, trials become rare", () => {
    const crowding = new Crowding();
    assert.ok(steps(crowding, 1000, BUSY) <= 24);
    const alone = steps(crowding, 4000, BUSY);
    assert.ok(alone > 0 && alone <= 24, `${alone} of 4000`);
  });

  it("goes by kinds: a prompt's steps have helpers while those of replies have none; short and long ones always", () => {
    const crowding = new Crowding();
    assert.ok(steps(crowding, 100, CROWDED) > 90);
    assert.equal(steps(crowding, 100, { all: 150, one: 260, sleeps: 2 }, 2), 0);
    assert.equal(steps(crowding, 100, { all: 1900, one: 3500, sleeps: 60 }, 4), 0);
    assert.equal(steps(crowding, 100, { all: 1, one: 0.5, sleeps: 100 }, 3), 0);
    assert.ok(steps(crowding, 100, CROWDED) > 90);
    for (let kind = 10; kind < 80; kind++) steps(crowding, 1, FREE, kind); // as many as are remembered, and more
    assert.equal(steps(crowding, 3, CROWDED), 0);
  });
});
