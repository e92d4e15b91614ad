// Turbopack copies the files that new URL("./file", import.meta.url) names, for pages and for the server, but wants to know what kind a .gguf is.
export default {
  turbopack: { root: import.meta.dirname, rules: { "*.gguf": { type: "asset" } } },
};
