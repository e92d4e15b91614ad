import { load } from "npm:lfm2-wasm";
import { mini } from "npm:lfm2-wasm/mini";

const model = await load(mini);
for await (const text of model.stream("What is 3 + 4?").textStream) await Deno.stdout.write(new TextEncoder().encode(text));
console.log();
