// Plain `fetch` that reads a file and keeps nothing: what a download could reach at most.
import { serve } from "./worker.mjs";

serve({
  async load({ path }) {
    const reader = (await fetch(path)).body.getReader();
    let bytes = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) bytes += part.value.length;
    return { bytes };
  },
});
