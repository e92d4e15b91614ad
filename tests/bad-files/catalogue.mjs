// Malformed model files, each with what is wrong and how a careful loader answers, built one at a time.
import { CONFIG } from "./config.mjs";
import { GGUF, truncations } from "./gguf.mjs";
import { INDEX } from "./index.mjs";
import { MEMORY } from "./memory.mjs";
import { SAFETENSORS } from "./safetensors.mjs";
import { SPLIT } from "./split.mjs";
import { TEMPLATES } from "./template.mjs";
import { TOKENIZER } from "./tokenizer.mjs";
import { validGguf, validRepo, validSharded, validSplit } from "./valid.mjs";

export { validGguf, validRepo, validSharded, validSplit };

/** Every case; the type declarations say what its fields mean. */
export function* cases() {
  const list = function* (format, target, rows, folder, defaultStage) {
    for (const [id, expect, field, wrong, build, stage = defaultStage] of rows) {
      yield {
        id,
        format,
        target,
        wrong,
        expect,
        field,
        stage,
        get files() {
          return folder(build);
        },
      };
    }
  };
  const inRepo = (name) => (build) => ({ ...validRepo(), [name]: build() });
  yield* list("safetensors", "model.safetensors", SAFETENSORS, inRepo("model.safetensors"), "open");
  yield* list("index", "model.safetensors.index.json", INDEX, validSharded, "open");
  yield* list("config", "config.json", CONFIG, inRepo("config.json"), "open");
  yield* list("tokenizer", "tokenizer.json", TOKENIZER, inRepo("tokenizer.json"), "open");
  yield* list("template", "chat_template.jinja", TEMPLATES, inRepo("chat_template.jinja"), "chat");
  yield* list("gguf", "model.gguf", [...GGUF, ...truncations()], (build) => ({ "model.gguf": build() }), "open");
  yield* list("split", "model-00001-of-00002.gguf", SPLIT, (build) => build(), "open");
  for (const [id, format, target, wrong, build] of MEMORY) {
    yield {
      id,
      format,
      target,
      wrong,
      expect: "MemoryError",
      field: "GiB|MiB|bytes",
      stage: "open",
      get files() {
        return build();
      },
    };
  }
}
