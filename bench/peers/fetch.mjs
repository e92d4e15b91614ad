// Plain `fetch` of a file: what a download could reach at most, and what it reaches where the bytes are kept, as a load keeps them.
import { serve } from "./worker.mjs";

serve({
  async load({ path, isKept }) {
    const response = await fetch(path);
    const kept = new Uint8Array(isKept ? Number(response.headers.get("content-length")) : 0);
    const reader = response.body.getReader();
    let bytes = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (isKept) kept.set(part.value, bytes);
      bytes += part.value.length;
    }
    return { bytes };
  },
});
