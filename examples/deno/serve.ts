// POST /v1/chat/completions, whole or as server-sent events: the core of examples/cloudflare-worker behind Deno.serve.
import { load } from "npm:lfm2-wasm";
import { mini } from "npm:lfm2-wasm/mini";
import { createHandler } from "npm:lfm2-wasm/server";

const handle = createHandler(() => load(mini), { onError: console.error });
Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 8000) }, (request) => handle(request));
