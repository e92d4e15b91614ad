import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

const out = document.querySelector("#out");
const model = await load(mini);
for await (const text of model.stream("What is 3 + 4?").textStream) out.textContent += text;
document.title = "done";
