"""Quantization of GGUF files: which type each tensor gets, importances, and the files themselves.

Imports `engine.ggml` and `engine.gguf`; used by `engine.convert` and `ggserve quantize`.
"""
