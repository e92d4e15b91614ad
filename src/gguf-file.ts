// The type of lfm2-wasm/mini.gguf: what a bundler or runtime makes of such an import, an address or bytes.
declare const gguf: string | ArrayBuffer | Uint8Array;
export default gguf;
