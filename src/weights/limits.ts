// Limits on what a weight file, an index or a JSON text may claim. Each is far above every real file and far below what would hurt a small machine.

/** Largest safetensors header: the 266 tensors of LFM2-2.6B need some 35 KB; the format's own 100 MB is too much for a 128 MB isolate. */
export const MAX_SAFETENSORS_HEADER_BYTES: number = 8 * 1024 * 1024;

/** Most tensors in one file: the largest LFM2 has a few thousand. */
export const MAX_TENSORS = 65_536;

/** Most dimensions of a tensor in safetensors; LFM2 needs three. */
export const MAX_RANK = 8;

/** Most dimensions of a tensor in GGUF: the format's own limit. */
export const MAX_GGUF_RANK = 4;

/** Longest tensor name in UTF-8: GGUF allows 64 bytes, the longest name of the reference has 46. */
export const MAX_NAME_BYTES = 256;

/** Most keys of a GGUF: files have about 40. */
export const MAX_GGUF_KEYS = 4096;

/** Longest key of a GGUF: the format's own limit. */
export const MAX_GGUF_KEY_BYTES = 65_535;

/** Longest string in a GGUF: a whole tokenizer.json may be one string. */
export const MAX_GGUF_STRING_BYTES: number = 16 * 1024 * 1024;

/** Most items of one GGUF array: eight times the largest vocabulary. */
export const MAX_GGUF_ARRAY_ITEMS: number = 1024 * 1024;

/** Most items of all GGUF arrays together: tokens, types and merges of the largest vocabulary are 400 thousand. */
export const MAX_GGUF_TOTAL_ITEMS: number = 2 * 1024 * 1024;

/** Most bytes of a GGUF before its tensor data: twice a 17 MB tokenizer beside a 128,000-token vocabulary. */
export const MAX_GGUF_HEADER_BYTES: number = 64 * 1024 * 1024;

/** Alignments that a GGUF may declare; the format asks for a multiple of 8, writers use 32. */
export const MIN_GGUF_ALIGNMENT = 8;
export const MAX_GGUF_ALIGNMENT = 65_536;

/** First and largest range that is asked for at once while a header is read: real headers are 30 KB (safetensors) and 3–8 MB (GGUF). */
export const MIN_HEADER_WINDOW_BYTES: number = 64 * 1024;
export const MAX_HEADER_WINDOW_BYTES: number = 1024 * 1024;

/** Longest config.json and its like: real ones have 2 KB. */
export const MAX_CONFIG_BYTES: number = 1024 * 1024;

/** What is read of a model's card: its head comes first. */
export const MAX_CARD_BYTES: number = 64 * 1024;

/** Longest index of shards: real ones have 100 KB. */
export const MAX_INDEX_BYTES: number = 4 * 1024 * 1024;

/** Most files that one checkpoint is cut into: LFM2 needs three at most. */
export const MAX_SHARDS = 1024;

/** Longest tokenizer.json: real ones have 5–17 MB. */
export const MAX_TOKENIZER_BYTES: number = 32 * 1024 * 1024;

/** Deepest nesting of a JSON text; real files have less than ten levels. Checked on the text, before anything walks it by recursion. */
export const MAX_JSON_DEPTH = 64;

/** Most redirects of one request: a hub needs one or two. */
export const MAX_REDIRECTS = 5;

/** Silence after which a connection counts as dead. */
export const STALL_MS = 30_000;

/** Retries in a row that gain nothing before a transfer gives up. */
export const MAX_RETRIES = 5;

/** First wait before a retry; it doubles, with jitter, up to the longest. */
export const BACKOFF_MS = 500;
export const MAX_BACKOFF_MS = 30_000;

/** Longest `Retry-After` that is waited for; a server that asks for more gets an error that says so. */
export const MAX_RETRY_AFTER_MS = 60_000;

/** Bytes of a remote file in memory at a time, brought by requests for an eighth of it each; an isolate of 128 MB asks for fewer. */
export const NETWORK_WINDOW_BYTES: number = 32 * 1024 * 1024;
export const REQUESTS_PER_WINDOW = 8;

/** Requests for one file at a time: browsers allow six to a host, Workers six in all. */
export const MAX_CONNECTIONS = 4;

/**
 * What files whose length no server tells may take together, for each is kept in memory as a whole: a window's worth, so that a load stays within its bound, and
 * so much where a caller asks for a smaller window.
 */
export const MIN_UNSIZED_BYTES: number = 4 * 1024 * 1024;

/** Longest answer of a hub's API: a listing of a thousand files takes some 300 KB. */
export const MAX_LISTING_BYTES: number = 4 * 1024 * 1024;

/** Most files of a repository, and most pages of its listing. */
export const MAX_LISTED_FILES = 10_000;
export const MAX_LISTING_PAGES = 20;

/** Bytes that go from the network into a cache at a time: what a kill may cost. */
export const CACHE_STEP_BYTES: number = 256 * 1024;

/** Silence after which a hub counts as out of reach where a cache can answer in its place. */
export const UNREACHABLE_MS = 10_000;

/** Largest file that is brought to its end only to learn whether a refused header came damaged: a larger one takes longer than an answer should. */
export const MAX_PROOF_BYTES: number = 64 * 1024 * 1024;
