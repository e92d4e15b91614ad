// The stores' own suite over a browser's storages, as a job for whichever browser.
import { cacheStorage } from "../../src/adapters/browser/cache-storage.ts";
import { opfs } from "../../src/adapters/browser/opfs.ts";
import { ShelfStore } from "../../src/weights/shelf-store.ts";
import { storeChecks } from "../conformance/store.ts";

/** @returns what failed */
export async function run(_files, { kind, sizeBytes }) {
  const name = `suite-${Math.random().toString(36).slice(2)}`;
  const failed = [];
  const open = async () => {
    const shelf = await (kind === "opfs" ? opfs : cacheStorage)(name);
    if (!shelf) throw new Error(`no ${kind}`);
    return new ShelfStore(shelf);
  };
  for (const { name, run } of storeChecks(open, sizeBytes)) await run().catch((error) => failed.push(`${name}: ${error.stack}`));
  return failed;
}
