// Sessions as values: whatever is rewound, forked, saved, restored and interleaved, the logits are those of a run that never paused, bit for bit.
import assert from "node:assert/strict";
import { openPath } from "../../src/adapters/node/files.ts";
import { restoreSession, saveSession } from "../../src/generate/saved-session.ts";
import { Session } from "../../src/generate/session.ts";
import { TokenList } from "../../src/generate/tokens.ts";
import { KV_DTYPES } from "../../src/memory/dtype.ts";
import { KEPT_ROWS } from "../../src/models/cache.ts";
import { openCheckpoint } from "../../src/models/checkpoint.ts";
import type { LanguageModel } from "../../src/models/language-model.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { Random, seedOf } from "../bits/random.ts";
import { checkpointFolder, feed, kernels, miniGguf, sameBits } from "../golden/support.ts";
import { pick } from "../scale.ts";

const PROGRAMS = pick({ gate: 300, full: 2000 });
/** Deep, so that a replay is long; Kc 4 and attention first; Kc 2 and no attention; no convolution; a bias. */
const PRESETS = ["tiny-deep", "tiny-attn-first", "tiny-conv-only", "tiny-attn-only", "tiny-gqa3"];
/** Each preset has each of them once, and so has each type of keys and values. */
const WEIGHTS = ["bf16", "q8", "q4"] as const;
const OPERATIONS = 14;
/** So that programs cross pages and chunks. */
const LONGEST = 230;

/** A session with the logits that it gave, by position. */
class Recorded {
  session: Session;
  readonly ids: number[];
  readonly logits: Float32Array[];

  constructor(session: Session, ids: number[] = [], logits: Float32Array[] = []) {
    this.session = session;
    this.ids = ids;
    this.logits = logits;
  }
}

const modelOf = (preset: string, options: Parameters<typeof loadModel>[2]): Promise<LanguageModel> =>
  modelAt(checkpointFolder(preset), options);

async function modelAt(path: string, options: Parameters<typeof loadModel>[2]): Promise<LanguageModel> {
  const checkpoint = await openCheckpoint(await openPath(path));
  const { model } = await loadModel(checkpoint, kernels, options);
  await checkpoint.close();
  return model;
}

/** One step for several sessions: each replays what it must and takes its new ids; every row from the first new one is recorded. */
function append(model: LanguageModel, parts: readonly { on: Recorded; ids: readonly number[] }[]): void {
  const inputs = parts.map(({ on, ids }) => {
    const { cache, tokens } = on.session;
    const from = cache.statePosition;
    const again = Array.from({ length: tokens.length - from }, (_, i) => tokens.at(from + i) ?? -1); // after a rewind or a restore
    return { from, replayed: again.length, cache, ids: [...again, ...ids] };
  });
  model.step(inputs);
  let row = 0;
  for (const [i, { from, replayed, ids }] of inputs.entries()) {
    const { on } = parts[i]!;
    on.session.follow(from, ids);
    for (let t = replayed; t < ids.length; t++) {
      model.head([row + t]);
      on.ids.push(ids[t]!);
      on.logits.push(model.logits().copy());
    }
    row += ids.length;
  }
}

/** Runs one random program. @returns operations by name */
function program(model: LanguageModel, r: Random, count: Map<string, number>): void {
  let sessions = [new Recorded(new Session(model.openCache()))];
  const all = [...sessions];
  const V = model.config.vocabSize;
  const fresh = (n: number): number[] => Array.from({ length: n }, () => r.below(V));
  const room = (s: Recorded): number => LONGEST - s.ids.length;
  const did = (name: string): unknown => count.set(name, (count.get(name) ?? 0) + 1);
  for (let n = 0; n < OPERATIONS; n++) {
    const on = sessions[r.below(sessions.length)]!; // switch
    const what = r.below(12);
    if (what < 4 || on.ids.length === 0) {
      const ids = fresh(1 + r.below([1, 3, 40, 80][r.below(4)]!)).slice(0, room(on));
      if (ids.length > 0) append(model, [{ on, ids }]);
      did("append");
    } else if (what < 5) {
      const parts = sessions.filter((s) => room(s) > 0).map((s) => ({ on: s, ids: fresh(1 + r.below(Math.min(3, room(s)))) }));
      if (parts.length > 0) append(model, parts);
      did("append to all");
    } else if (what < 8) {
      const position = r.below(3) === 0 ? Math.max(0, on.ids.length - r.below(4)) : r.below(on.ids.length + 1);
      on.session.rewind(position);
      on.ids.length = position;
      on.logits.length = position;
      did("rewind");
    } else if (what === 11) {
      keepAndRewind(model, on, r, fresh);
      did("keep and rewind");
    } else if (what === 8) {
      const { session, note } = restoreSession(model, saveSession(on.session, model, `after ${n}`));
      assert.equal(note, `after ${n}`);
      on.session.cache.dispose();
      on.session = session;
      did("save and restore");
    } else if (sessions.length < 4) {
      const copy = new Recorded(on.session.fork(), [...on.ids], [...on.logits]);
      sessions.push(copy);
      all.push(copy);
      did("fork");
    } else {
      sessions = sessions.filter((s) => s !== on);
      did("close");
      check(model, on);
    }
  }
  for (const s of sessions) check(model, s);
  assert.equal(model.caches.pages.used, 0, "pages left behind");
  assert.equal(model.caches.blocks.used, 0, "blocks left behind");
  assert.equal(model.caches.kept.used, 0, "kept states left behind");
}

/** What speculation does: some rows whose states are kept, and back by some of them, at once where they have been. */
function keepAndRewind(model: LanguageModel, on: Recorded, r: Random, fresh: (n: number) => number[]): void {
  const { cache } = on.session;
  for (let rounds = 1 + r.below(3); rounds > 0 && on.ids.length < LONGEST; rounds--) {
    const keeps = r.below(4) > 0;
    if (keeps) cache.keepStates();
    const [from, begin] = [on.ids.length, cache.statePosition];
    for (let steps = 1 + r.below(3); steps > 0 && on.ids.length < LONGEST; steps--)
      append(model, [{ on, ids: fresh(Math.min(1 + r.below(10), LONGEST - on.ids.length)) }]);
    const isKept = keeps && on.ids.length - begin <= KEPT_ROWS;
    const position = from + r.below(on.ids.length - from + 1);
    on.session.rewind(position);
    on.ids.length = position;
    on.logits.length = position;
    if (isKept) assert.equal(cache.statePosition, position, "nothing to replay");
  }
  if (r.below(2) === 0) cache.dropStates();
}

/** The recorded logits are those of the whole sequence in one go; then the session is closed. */
function check(model: LanguageModel, { session, ids, logits }: Recorded): void {
  assert.deepEqual([...session.tokens.toArray()], ids);
  if (ids.length > 0) {
    const V = model.config.vocabSize;
    const whole = feed(model, ids, [128]);
    logits.forEach((row, t) => {
      assert.ok(sameBits(row, whole.subarray(t * V, (t + 1) * V)), `position ${t} of ${ids.length}`);
    });
  }
  session.cache.dispose();
}

describe("sessions as values", () => {
  for (const [i, preset] of PRESETS.entries())
    for (const [j, kvDtype] of KV_DTYPES.entries()) {
      const dtype = WEIGHTS[(i + j) % WEIGHTS.length]!;
      it(`${preset}, ${dtype}, kv ${kvDtype}: random programs`, async () => {
        const model = await modelOf(preset, { dtype, kvDtype });
        const r = new Random(seedOf(`${preset} ${kvDtype}`));
        const count = new Map<string, number>();
        for (let n = 0; n < PROGRAMS / (PRESETS.length * KV_DTYPES.length); n++) program(model, r, count);
        for (const name of ["append", "append to all", "rewind", "keep and rewind", "fork", "save and restore"])
          assert.ok((count.get(name) ?? 0) >= 10, `${name}: ${count.get(name)}`);
        model.dispose();
      });
    }

  it("the bundled model as Q4_K_M, whose kernels take other numbers of rows at a time: random programs", async () => {
    const model = await modelAt(miniGguf("Q4_K_M"), {});
    const r = new Random(seedOf("Q4_K_M"));
    const count = new Map<string, number>();
    for (let n = 0; n < PROGRAMS / 30; n++) program(model, r, count);
    for (const name of ["append", "append to all", "rewind", "keep and rewind", "fork", "save and restore"])
      assert.ok(count.has(name), name);
    model.dispose();
  });

  it("a replay that is one token short does not bring the state back: the test above can fail", async () => {
    const model = await modelOf("tiny-deep", { kvDtype: "f32" });
    const ids = Array.from({ length: 60 }, (_, i) => (i * 37 + 5) % model.config.vocabSize);
    const { replayTokens } = model.caches.size;
    assert.equal(replayTokens, 16); // 8 convolutions of 3 taps
    const V = model.config.vocabSize;
    const whole = feed(model, ids);
    const differences = [0, 1].map((missing) => {
      const session = new Session(model.openCache());
      append(model, [{ on: new Recorded(session), ids: ids.slice(0, 50) }]);
      session.rewind(40);
      session.cache.advance(missing); // as if these rows had been replayed
      const on = new Recorded(session);
      append(model, [{ on, ids: ids.slice(40) }]);
      session.cache.dispose();
      return on.logits.filter((row, t) => !sameBits(row, whole.subarray((40 + t) * V, (41 + t) * V))).length;
    });
    assert.equal(differences[0], 0);
    assert.ok(differences[1]! > 0, `${differences[1]} rows differ`);
    model.dispose();
  });

  it("a fork copies no page until one of the two writes to it, and then that page alone", async () => {
    const model = await modelOf("tiny-attn-first", {});
    const { pages } = model.caches;
    const on = new Recorded(new Session(model.openCache()));
    append(model, [{ on, ids: Array.from({ length: 100 }, (_, i) => i) }]);
    assert.equal(pages.used, 4);
    const forks = Array.from({ length: 10 }, () => on.session.fork());
    assert.equal(pages.used, 4);
    const one = new Recorded(forks[0]!);
    append(model, [{ on: one, ids: [1] }]);
    assert.equal(pages.used, 5);
    append(model, [{ on: one, ids: [2] }]);
    assert.equal(pages.used, 5);
    for (const fork of forks) fork.cache.dispose();
    assert.equal(pages.used, 4);
    forks[1] = on.session.fork();
    forks[1].rewind(64); // at a page's end: what comes next goes to a page of its own
    append(model, [{ on: new Recorded(forks[1]), ids: [3] }]);
    assert.equal(pages.used, 5);
    forks[1].cache.dispose();
    on.session.cache.dispose();
    assert.equal(pages.used, 0);
    model.dispose();
  });

  it("a fork touches no page, however many there are; the first write of either takes a list of its own", async () => {
    const model = await modelOf("tiny-attn-first", {});
    const { pages, memory } = model.caches;
    const table = ({ session: { cache } }: Recorded): number[] => [...new Uint32Array(memory.buffer, cache.pageTable, cache.pages.length)];
    let retained = 0;
    const retain = pages.retain.bind(pages);
    pages.retain = (id) => {
      retained++;
      retain(id);
    };
    for (const length of [40, 120]) {
      const on = new Recorded(new Session(model.openCache()));
      append(model, [{ on, ids: Array.from({ length }, (_, i) => i % 50) }]);
      const count = Math.ceil(length / 32);
      retained = 0;
      const between = on.session.fork();
      const forks = [on.session.fork(), between.fork()].map((session) => new Recorded(session, [...on.ids], [...on.logits]));
      between.cache.dispose();
      assert.equal(retained, 0, "nothing is counted page by page");
      assert.equal(pages.used, count);
      const [before, kept] = [table(on), [...on.session.cache.pages]];
      for (const fork of forks) assert.deepEqual(table(fork), before);
      append(model, [{ on: forks[0]!, ids: [7] }]);
      assert.equal(retained, count, "one list was copied");
      assert.deepEqual([table(on), [...on.session.cache.pages]], [before, kept]);
      assert.deepEqual(table(forks[0]!).slice(0, -1), before.slice(0, -1));
      assert.notEqual(table(forks[0]!).at(-1), before.at(-1));
      on.session.rewind(20); // cuts a list that a fork holds
      assert.deepEqual([...forks[1]!.session.cache.pages], kept);
      on.session.cache.dispose();
      append(model, [{ on: forks[1]!, ids: [7] }]);
      assert.ok(sameBits(forks[1]!.logits.at(-1)!, forks[0]!.logits.at(-1)!));
      for (const { session } of forks) session.cache.dispose();
      assert.equal(pages.used, 0);
    }
    model.dispose();
  });

  it("refuses positions that it does not hold", async () => {
    const model = await modelOf("tiny-conv-only", {});
    const on = new Recorded(new Session(model.openCache()));
    append(model, [{ on, ids: [1, 2, 3] }]);
    for (const position of [4, -1, 1.5, Number.NaN]) {
      assert.throws(() => on.session.rewind(position), { name: "InputError", message: /expected a position from 0 to 3.*got/ });
    }
    assert.equal(on.session.tokens.length, 3);
    model.dispose();
  });
});

describe("a list of tokens", () => {
  it("is a value: copies never see what another appends", () => {
    const r = new Random(7);
    const lists: [TokenList, number[]][] = [[new TokenList(), []]];
    for (let n = 0; n < 5000; n++) {
      const [list, model] = lists[r.below(lists.length)]!;
      const what = r.below(6);
      if (what < 4) {
        const id = r.below(1000);
        list.push(id);
        model.push(id);
      } else if (what === 4) {
        const length = r.below(model.length + 2);
        list.truncate(length);
        model.length = Math.min(length, model.length);
      } else if (lists.length < 12) lists.push([list.copy(), [...model]]);
      const [other, expected] = lists[r.below(lists.length)]!;
      assert.deepEqual([...other.toArray()], expected);
      assert.equal(other.at(expected.length), undefined);
      assert.equal(other.commonPrefix([...expected, 1]), expected.length);
    }
  });
});
