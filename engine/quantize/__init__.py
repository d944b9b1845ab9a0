"""Quantization of GGUF files: the type of each tensor, importance matrices, and the files themselves.

Imports `engine.ggml` and `engine.gguf`; used by `engine.convert` and `ggserve quantize`.
"""
