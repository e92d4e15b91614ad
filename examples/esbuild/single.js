// The kernels are within the bundle; the weights come from an address.
import { load } from "lfm2-wasm/inline";

const out = document.querySelector("#out");
const model = await load("./mini.gguf");
for await (const text of model.stream("What is 3 + 4?").textStream) out.textContent += text;
document.title = "done";
