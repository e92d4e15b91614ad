// The bundled checkpoint as a source for `load`. An entry of its own, so that nobody carries it along who does not ask for it.

/** lfm2-mini, a GGUF of 4.27 M parameters (Q4_0): short stories, small sums, facts of a small world. */
export const mini: URL = new URL("./mini.gguf", import.meta.url);
