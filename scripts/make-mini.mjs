// Writes the bundled checkpoint as the GGUF that the package carries: node scripts/make-mini.mjs OUT
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromFolder, writeGguf } from "./checkpoints/make-gguf.mjs";

const folder = fileURLToPath(new URL("../models/lfm2-mini", import.meta.url));
const [out] = process.argv.slice(2);
if (!out) throw new Error("usage: node scripts/make-mini.mjs OUT");
writeGguf(fromFolder(folder), {
  type: "Q4_0",
  head: "Q8_0",
  out,
  name: "lfm2-mini",
  tokenizer: join(folder, "tokenizer.json"),
  template: join(folder, "chat_template.jinja"),
});
