// What several lists of cases share.
export const F = "FormatError";
export const U = "UnsupportedError";
export const OK = "accept";
export const LFS =
  "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 708973568\n";
export const HTML = "<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>\n";
export const Q = "model.layers.1.self_attn.q_proj.weight";
export const N0 = "model.layers.0.operator_norm.weight";
export const E0 = "model.embed_tokens.weight";
