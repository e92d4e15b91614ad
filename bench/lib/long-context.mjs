// A long context in seconds: the pages of a short one again and again. How long a step takes does not depend on what they hold.
import { build } from "esbuild";
import { continued, newSession } from "./stepper.mjs";

/** Where a saved session has its header (src/models/saved-state.ts). */
const HEADER_AT = 16;
const PAGE_POSITIONS = 32;

// no part of the package; Node 20 runs no TypeScript
const entry = new URL("../../src/models/saved-state.ts", import.meta.url).pathname;
const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
const { decodeState, encodeState } = await import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);

/** @returns a state of `tokens` tokens and all whole pages for them, made of the saved state `bytes`; and the ids that it holds */
function lengthened(bytes, tokens) {
  const headerBytes = new DataView(bytes.buffer, bytes.byteOffset).getUint32(HEADER_AT - 4, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER_AT, HEADER_AT + headerBytes)));
  const short = decodeState(bytes, header);
  const again = (list, count) => Array.from({ length: count }, (_, i) => list[i % list.length]);
  const ids = Uint32Array.from(again(short.tokens, tokens));
  const pages = again(short.pages, Math.floor(tokens / PAGE_POSITIONS));
  return { ids, state: encodeState(header, { tokens: ids, pages, note: "" }) };
}

/**
 * Greedy ids behind a context of `tokens` tokens, computed as they are pulled: what the engine computed for `ids`, repeated.
 * @param ids fill a page or more
 */
export async function* greedyBehind({ engine }, ids, tokens) {
  const [short, long] = [newSession(), newSession()];
  await engine.open(short);
  try {
    const beginning = continued(engine, short, ids);
    await beginning.next();
    await beginning.return();
    const made = lengthened(await engine.save(short, ""), tokens);
    await engine.restore(long, made.state);
    yield* continued(engine, long, [...made.ids, ids[0]]);
  } finally {
    await engine.close(short);
    await engine.close(long);
  }
}
