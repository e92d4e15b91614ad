// Names of the parts of a split GGUF.

/** What a part of a split GGUF is called: `model-00001-of-00003.gguf`. */
const PART_NAME = /^(?:.*[/\\])?([^/\\]+)-(\d{5})-of-(\d{5})\.gguf$/s;

/** @returns whether a file name is that of a part of a split GGUF, and which (from 1) */
export function ggufPart(name: string): { stem: string; part: number; parts: number } | undefined {
  const [, stem, part, parts] = PART_NAME.exec(name) ?? [];
  return stem === undefined ? undefined : { stem, part: Number(part), parts: Number(parts) };
}
