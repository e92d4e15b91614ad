// A checkpoint in one file, which is a GGUF or none. How a GGUF is read is a part of the package that folders do without.
import { FormatError } from "../errors.ts";
import { part } from "../part.ts";
import { type ByteSource, commonMistake, readExactly } from "../weights/source.ts";
import type { Checkpoint } from "./checkpoint-common.ts";

/**
 * @param sibling opens the other files of a split one, where the source itself does not
 * @throws FormatError, UnsupportedError; PlatformError without the part
 */
export async function openFile(source: ByteSource, signal?: AbortSignal, sibling?: ByteSource["sibling"]): Promise<Checkpoint> {
  const head = await readExactly(source, 0, Math.min(64, source.size), signal);
  const magic = new TextDecoder().decode(head.subarray(0, 4));
  if (magic !== "GGUF") {
    const got = commonMistake(head) ?? `one that begins with ${JSON.stringify(magic)}`;
    throw new FormatError(
      `${source.name}: expected a GGUF file, got ${got}. Pass a .gguf file, or the folder that holds config.json and model.safetensors.`,
    );
  }
  const { openGguf } = await part("gguf", () => import("./gguf-checkpoint.ts"));
  return openGguf(source, signal, sibling);
}
