// POST /v1/chat/completions, whole or as server-sent events: the model is loaded by the first request and serves all.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";
import { createHandler } from "lfm2-wasm/server";

export const dynamic = "force-dynamic";
export const POST = createHandler(() => load(mini), { onError: console.error });
