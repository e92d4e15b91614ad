// A GGUF as a checkpoint: config, tokenizer and template are in its metadata.
import { tokenizerFromGguf } from "../text/gguf-tokenizer.ts";
import { Tokenizer } from "../text/tokenizer.ts";
import { type GgufParts, readGgufParts } from "../weights/gguf-parts.ts";
import { licenseOf } from "../weights/license.ts";
import { closeAll, rightError, verifyAll } from "../weights/opened.ts";
import type { ByteSource } from "../weights/source.ts";
import { type Checkpoint, ffnRows, templateOf, textOf } from "./checkpoint-common.ts";
import { checkArchitecture, checkRopeTensors, configFromGguf, hfNames } from "./names.ts";

const EMBEDDING = "model.embed_tokens.weight";
/** @throws FormatError, UnsupportedError */
export async function openGguf(source: ByteSource, signal?: AbortSignal, sibling?: ByteSource["sibling"]): Promise<Checkpoint> {
  const file = await readGgufParts(source, signal, sibling);
  try {
    return gguf(source, file);
  } catch (error) {
    const others = file.sources.filter((part) => part !== source); // `source` is closed by whoever gave it
    const right = await rightError(error, others, signal);
    await closeAll(others).catch(() => {});
    throw right;
  }
}

function gguf(source: ByteSource, file: GgufParts): Checkpoint {
  const { metadata } = file;
  checkArchitecture(metadata);
  checkRopeTensors(file);
  const { tensors, unsupported, nameInFile } = hfNames(file);
  const kind = metadata.get("tokenizer.ggml.model");
  const text = kind === undefined || kind === "none" ? undefined : tokenizerFromGguf(metadata);
  const config = configFromGguf(metadata, text ?? {}, {
    intermediateSize: ffnRows(tensors),
    vocabSize: tensors.get(EMBEDDING)?.shape[0] ?? text?.tokenCount,
    tied: !tensors.has("lm_head.weight") && !unsupported.has("lm_head.weight"),
  });
  const tokenizer = text && Tokenizer.fromJson(text.tokenizer, { vocabularySize: config.vocabSize });
  return {
    format: "gguf",
    names: [...textOf(metadata.get("general.name")), source.name],
    config,
    tensors,
    unsupported,
    nameInFile,
    tokenizer,
    template: tokenizer && text?.chatTemplate !== undefined ? templateOf(text.chatTemplate, tokenizer, config) : undefined,
    generationConfig: undefined,
    license: licenseOf({ license: metadata.get("general.license"), name: metadata.get("general.license.name") }),
    sources: file.sources,
    verify: (signal) => verifyAll(file.sources, signal),
    close: () => closeAll(file.sources),
  };
}
