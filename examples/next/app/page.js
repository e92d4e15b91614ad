"use client";
// The model in the browser; the same model on the server is app/v1/chat/completions/route.js.
import { useEffect, useState } from "react";

export default function Page() {
  const [text, setText] = useState("");
  useEffect(() => {
    const gone = new AbortController();
    answer(setText, gone.signal).catch((error) => {
      if (!gone.signal.aborted) console.error(error);
    });
    return () => gone.abort();
  }, []);
  return <pre id="out">{text}</pre>;
}

/** @param {(text: string) => void} show what there is so far */
async function answer(show, signal) {
  const { load } = await import("lfm2-wasm"); // in the browser alone: a page is rendered on the server, too
  const { mini } = await import("lfm2-wasm/mini");
  const model = await load(mini, { signal });
  let text = "";
  for await (const part of model.stream("What is 3 + 4?", { signal }).textStream) show((text += part));
  document.title = "done";
}
