// llama.cpp through node-llama-cpp, as a worker of peers.mjs. Runs from a copy in the scratch folder, where the package is.
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { serve } from "./worker.mjs";

let sequence;

serve({
  async load({ path, threads, contextTokens }) {
    const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error });
    const model = await llama.loadModel({ modelPath: path });
    const context = await model.createContext({ contextSize: contextTokens, batchSize: 512, threads: { ideal: threads, min: threads } });
    sequence = context.getSequence();
    return { system: llama.systemInfo, threads: context.currentThreads };
  },
  async generator(ids) {
    await sequence.clearHistory();
    return sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })[Symbol.asyncIterator]();
  },
});
