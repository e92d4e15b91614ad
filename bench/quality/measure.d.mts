/** See measure.mjs. */
export interface Text {
  readonly ids: readonly number[];
  readonly isReply: readonly boolean[];
}
export interface Divergence {
  readonly tokens: number;
  readonly kl: number;
  readonly top1: number;
  readonly perplexity: number;
}
export interface Row {
  readonly name: string;
  readonly kv: string;
  readonly activations: "f32" | "int8";
  readonly replies: Divergence | undefined;
  readonly all: Divergence;
  readonly activationsAlone?: { readonly replies: Divergence | undefined; readonly all: Divergence };
}
export function encodeDocuments(
  tokenizer: { encode(text: string, options: { controlTokens: boolean }): ArrayLike<number> },
  documents: readonly (readonly (readonly [string, boolean])[])[],
): Text[];
export function quantizedFile(folder: string, type: string, head: string, out: string): void;
export function measure(o: {
  // biome-ignore lint/suspicious/noExplicitAny: the package's own load and model, which this file does not import
  readonly load: (source: any, options: any) => Promise<any>;
  readonly file?: (type: string, head: string) => string;
  readonly folder?: string;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly texts: (model: any) => readonly Text[];
}): Promise<Row[]>;
