// ln and e^x from plain arithmetic, against the engine's own, which is right to the last bits though not the same everywhere.
import assert from "node:assert/strict";
import { random } from "../../src/generate/philox.ts";
import { exp, ln, power } from "../../src/math.ts";
import { pick } from "../scale.ts";

const COUNT = pick({ gate: 20_000, full: 2_000_000 });

const isNear = (got: number, right: number, what: string, bound = 1e-15): void =>
  assert.ok(Math.abs(got - right) <= bound * Math.max(1, Math.abs(right)), `${what}: expected ${right}, got ${got}`);

describe("math", () => {
  it("ln within 1e-15 over all magnitudes, and exact at 1", () => {
    assert.equal(ln(1), 0);
    for (let i = 0; i < COUNT; i++) {
      const x = (1 + random(1, i)) * 2 ** Math.floor(random(2, i) * 600 - 300);
      isNear(ln(x), Math.log(x), `ln ${x}`);
    }
  });

  it("e^x within 1e-14 relative, and exact at 0", () => {
    assert.equal(exp(0), 1);
    for (let i = 0; i < COUNT; i++) {
      const x = (random(3, i) - 0.5) * 1200;
      const right = Math.exp(x);
      assert.ok(Math.abs(exp(x) - right) <= 1e-14 * right + Number.MIN_VALUE, `exp ${x}: expected ${right}, got ${exp(x)}`);
    }
  });

  it("powers", () => {
    for (const [x, y] of [
      [12, 0.7],
      [3, -1.5],
      [1, 9],
      [512, 0],
    ] as const)
      isNear(power(x, y) / x ** y, 1, `${x}^${y}`, 1e-13);
  });
});
