// GET /?q=… answers with the bundled model's text as it comes. The model lives as long as the isolate does; requests that overlap take turns token by token.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

let model;

export default {
  async fetch(request) {
    const question = new URL(request.url).searchParams.get("q") ?? "Tell me a story about a fox.";
    model ??= load(mini).catch((error) => {
      model = undefined; // the next request tries again
      throw error;
    });
    const texts = (await model).stream(question).textStream[Symbol.asyncIterator]();
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(controller) {
        const { value, done } = await texts.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(value));
      },
      // the client has gone
      cancel: () => texts.return?.(),
    });
    return new Response(body, { headers: { "content-type": "text/plain; charset=utf-8" } });
  },
};
