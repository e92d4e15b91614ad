// A chat with a model in this page. `?model=` takes an address of a GGUF, or a hub's id; without it the bundled model answers.
import { load } from "lfm2-wasm";
import { mini } from "lfm2-wasm/mini";

const [info, progress, messages, error, form, input, send, stop] = ["info", "progress", "messages", "error", "form", "input", "send", "stop"].map(
  (id) => document.getElementById(id),
);

function showError(what) {
  error.textContent = what?.message ?? String(what);
  error.hidden = false;
}

function add(kind, text = "") {
  const element = document.createElement("div");
  element.className = kind === "note" ? kind : `message ${kind}`;
  element.textContent = text;
  messages.append(element);
  element.scrollIntoView({ block: "end" });
  return element;
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function onProgress({ loadedBytes, totalBytes }) {
  if (!totalBytes) return;
  progress.value = loadedBytes / totalBytes;
  info.textContent = `Loading ${megabytes(loadedBytes)} of ${megabytes(totalBytes)}`;
}

function tell({ name, dtypes, memoryBytes, threads, engine, warnings }) {
  const where = engine === "worker" ? "a worker" : "this thread";
  info.textContent = `${name} · ${dtypes.join("+")} · ${megabytes(memoryBytes)} · ${threads} ${threads === 1 ? "thread" : "threads"} in ${where}`;
  info.title = warnings.join("\n");
  progress.hidden = true;
}

async function answer(chat, question) {
  const control = new AbortController();
  stop.onclick = () => control.abort();
  [send.hidden, stop.hidden, error.hidden] = [true, false, true];
  add("user", question);
  const reply = add("assistant");
  try {
    for await (const part of chat.stream(question, { signal: control.signal, onAbort: "return" })) {
      if (part.type === "text-delta") {
        reply.textContent += part.delta;
        reply.scrollIntoView({ block: "end" });
      } else if (part.type === "finish") {
        const { usage, timings, finishReason } = part.reply;
        const speed = usage.outputTokens / (timings.decodeMs / 1000);
        add("note", `${usage.outputTokens} tokens · ${speed.toFixed(0)} a second · ${finishReason}`);
      }
    }
  } catch (what) {
    showError(what);
  } finally {
    [send.hidden, stop.hidden] = [false, true];
    input.focus();
  }
}

try {
  const model = await load(new URLSearchParams(location.search).get("model") ?? mini, { onProgress });
  tell(model.info);
  const chat = model.chat();
  send.disabled = false;
  form.onsubmit = (event) => {
    event.preventDefault();
    const question = input.value.trim() || input.placeholder;
    if (!stop.hidden) return;
    input.value = "";
    void answer(chat, question);
  };
  input.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  };
} catch (what) {
  info.textContent = "No model";
  progress.hidden = true;
  showError(what);
}
