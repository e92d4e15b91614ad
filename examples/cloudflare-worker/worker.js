// POST /v1/chat/completions at the edge, whole or as server-sent events. The model is loaded by the first request and serves all that come to its isolate; requests
// that overlap take turns token by token, and a client that leaves ends its reply.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { createHandler } from "lfm2-wasm/server";

/** From an R2 bucket by ranges, from the worker's static assets as they come, or the bundled model: by what wrangler.jsonc binds. */
function model({ MODELS, ASSETS, MODEL }) {
  if (MODEL && MODELS) return load({ bucket: MODELS, key: MODEL });
  if (MODEL && ASSETS) return load(`https://assets.local/${MODEL}`, { fetch: (url, init) => ASSETS.fetch(url, init) });
  return load(mini);
}

let handle;

export default {
  fetch(request, env, context) {
    handle ??= createHandler(() => model(env), { apiKey: env.API_KEY, onError: console.error });
    return handle(request, env, context); // the context, so that a client's leaving is heard of
  },
};
