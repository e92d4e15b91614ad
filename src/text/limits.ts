// Limits on what a tokenizer or a chat template may claim or cost. Each is far above every real one.

/** Most token ids: eight times the largest vocabulary, 128,000. */
export const MAX_TOKEN_IDS: number = 1024 * 1024;

/** Longest token in UTF-8: the longest real ones are runs of spaces below 300. */
export const MAX_TOKEN_BYTES = 4096;

/** Most characters of all added tokens together, each a step in a tree that finds them: real ones have some ten thousand. */
export const MAX_ADDED_CHARACTERS: number = 256 * 1024;

/** Most special tokens that a tokenizer puts around a text: real ones put one. */
export const MAX_AROUND_IDS = 64;

/** Longest chat template: real ones have less than 16 KB. */
export const MAX_TEMPLATE_BYTES: number = 64 * 1024;

/** Longest run of white space in a template: the lexer of @huggingface/jinja is quadratic in it (40,000 newlines take 4 s). */
export const MAX_TEMPLATE_WHITESPACE_RUN = 1024;

/** Most evaluated nodes and loop turns of one rendering, and what each message or tool adds: a turn costs about 20 µs. */
export const MAX_TEMPLATE_STEPS = 50_000;
export const MAX_TEMPLATE_STEPS_PER_ITEM = 1000;

/** Characters of a value that cost a step more each time it is evaluated, an item as much as eight: what a filter does takes as long as its text is. */
export const TEMPLATE_CHARACTERS_PER_STEP = 512;

/** Longest `range`: the library builds it as a list. */
export const MAX_TEMPLATE_RANGE = 10_000;

/** Longest string, longest list and largest nested value that a template may make: doubling stops here. */
export const MAX_TEMPLATE_CHARACTERS: number = 4 * 1024 * 1024;
export const MAX_TEMPLATE_ITEMS = 100_000;
export const MAX_TEMPLATE_NODES = 1_000_000;

/** Most parts into which one call may take a text apart before it puts them together: characters of a slice, lines, places of a replacement; each costs some 32 bytes. */
export const MAX_TEMPLATE_PARTS: number = 512 * 1024;

/** Most characters of all texts together that filters, calls and slices of one rendering make anew. */
export const MAX_TEMPLATE_BUILT: number = 16 * 1024 * 1024;

/** Longest format of a time: real ones have some ten characters. */
export const MAX_TIME_FORMAT = 256;

/** Deepest nesting of what is rendered: messages, tool definitions, arguments. */
export const MAX_VALUE_DEPTH = 64;
