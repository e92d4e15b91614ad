// What `lfm2 quantize` needs beside the package's public names: loaded by that command alone.
import { nodePlatform } from "../adapters/node/platform.ts";
import type { Platform } from "../lfm2.ts";

export { createFile } from "../adapters/node/sink.ts";
export { quantizeTo } from "../quantize/quantize.ts";

export const platform: Platform = nodePlatform({ runtime: "node", variable: (name) => process.env[name] });
