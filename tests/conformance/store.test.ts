// Stores in Node against what every store must do; a browser's run in tests/runtimes/browser-cache.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { diskStore } from "../../src/adapters/node/store.ts";
import { storeChecks } from "./store.ts";

describe("the store on a disk", () => {
  const dir = mkdtempSync(join(tmpdir(), "lfm2-store-"));
  after(() => rmSync(dir, { recursive: true, force: true }));
  for (const { name, run } of storeChecks(async () => diskStore(dir), 700_001)) it(name, run);
});
