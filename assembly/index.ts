// What the module exports: the command switch, helpers that the host calls by name, and the numbers that both sides must agree on.
export { COMMAND_BYTES, Op, run, run_all, serve } from "./run";
export { attention_scratch_bytes, attention_slot_bytes, SEGMENT } from "./attention/attention";
export { divide_f32, penalize_f32 } from "./elementwise";
export { checksum, q8_flip } from "./image";
export { BF16, F16, F32, packed_block_bytes, Q4, Q8, qd8_row_bytes, stored_row_bytes } from "./lib/blocks";
export { IQ4_NL, Q2_K, Q3_K, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K } from "./lib/blocks";
export { PAGE, ROW_ENTRY_BYTES } from "./lib/rows";
export { dot_operand_kind, IS_RELAXED } from "./lib/simd";
export { dismiss, fail, ready, recover, sleeps, wake } from "./lib/threads";
export { decode_rows, pack_rows } from "./pack";
export { rope_frequencies } from "./rope";
export { all_finite_f32, argmax_f32, softmax_f32, topk_f32 } from "./sample";
