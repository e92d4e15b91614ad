"""data/kernels/dequantize_ggml.*: blocks of the GGUF types that data/kernels/dequantize.* lacks, dequantized by ggml itself.

    python3 tests/golden/makers/dequantize_ggml.py PATH/libggml-base.so      (from the npm package @node-llama-cpp/linux-x64, 3.22.1: llama.cpp release v0.5.0)

raw: random blocks with random and extreme scales → y. x_float: normal numbers → x_quantized_by_ggml (llama.cpp's own quantizer) → x_dequantized.
With the Python package gguf at hand, its numpy code is compared too: it must give the same bits.
"""
import ctypes
import json
import os
import struct
import sys

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "kernels", "dequantize_ggml")
# type, ggml's number, values and bytes of a block, where its halves are, ggml's function
TYPES = [("Q4_1", 3, 32, 20, (0, 2), "q4_1"), ("Q5_0", 6, 32, 22, (0,), "q5_0"), ("Q5_1", 7, 32, 24, (0, 2), "q5_1"),
         ("Q2_K", 10, 256, 84, (80, 82), "q2_K"), ("Q3_K", 11, 256, 110, (108,), "q3_K"), ("IQ4_NL", 20, 32, 18, (0,), "iq4_nl")]
EXTREME = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0x1419]


def call(lib, name, *args):
    getattr(lib, name)(*args)


def main(path):
    lib = ctypes.CDLL(path)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize as by_numpy
    except ImportError:
        by_numpy = None
    pointer = lambda a: a.ctypes.data_as(ctypes.c_void_p)
    rng = np.random.default_rng(5)
    arrays, cases = {}, []
    for name, number, block, size, halves, fn in TYPES:
        blocks = 64 if block == 32 else 12
        raw = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
        for at in halves:
            scales = rng.normal(0, 0.05, blocks).astype(np.float16)
            scales.view(np.uint16)[: len(EXTREME)] = rng.permutation(EXTREME)
            raw[:, at : at + 2] = scales.view(np.uint8).reshape(blocks, 2)

        def dequantized(bytes_):
            y = np.zeros(bytes_.size // size * block, np.float32)
            call(lib, f"dequantize_row_{fn}", pointer(bytes_), pointer(y), ctypes.c_int64(y.size))
            if by_numpy:
                other = by_numpy(bytes_, GGMLQuantizationType(number)).reshape(-1)
                assert np.array_equal(other.view(np.uint32), y.view(np.uint32)), name
            return y

        x = rng.normal(0, 0.03, 16 * block if block == 256 else 512).astype(np.float32)
        quantized = np.zeros(x.size // block * size, np.uint8)
        lib.ggml_quantize_chunk(number, pointer(x), pointer(quantized), ctypes.c_int64(0), ctypes.c_int64(1), ctypes.c_int64(x.size), None)
        flat = raw.reshape(-1)
        back = dequantized(quantized)
        for key, a in (("raw", flat), ("y", dequantized(flat)), ("x_float", x), ("x_quantized_by_ggml", quantized), ("x_dequantized", back)):
            arrays[f"{name}.{key}"] = a
        rms = float(np.sqrt(np.mean((x.astype(np.float64) - back) ** 2)))
        cases.append({"type": name, "gguf_type": number, "block": block, "bytes": size, "blocks": blocks, "ggml_quantization_rms_error": rms})
    header, at = {}, 0
    for key, a in arrays.items():
        header[key] = {"dtype": "U8" if a.dtype == np.uint8 else "F32", "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{OUT}.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values()))
    with open(f"{OUT}.json", "w") as f:
        f.write("[\n  " + ",\n  ".join(json.dumps(c) for c in cases) + "\n]\n")


main(sys.argv[1])
