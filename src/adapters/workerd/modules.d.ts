// What files are where modules are imported: a compiled module, and a Data module.
declare module "*.wasm" {
  const module: object;
  export default module;
}
declare module "*.gguf" {
  const bytes: ArrayBuffer;
  export default bytes;
}
