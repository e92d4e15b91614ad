// lfm2-wasm/server: the model as a fetch handler. An entry of its own, so that nobody carries it along who does not serve.
export { createHandler, type HandlerOptions, type ModelProvider } from "./handler.ts";
