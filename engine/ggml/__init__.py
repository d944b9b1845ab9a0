"""Owning handles on ggml: devices, buffers, tensors, graphs, its scheduler; shape-checked operations.

Imports `engine.libggml` and `engine.errors`. Imported by cache, graph, nn, quantize, convert and model.
"""
