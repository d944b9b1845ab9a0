"""LoRA adapters: low-rank changes to a model's matrices, checked against the model and placed on its devices.

Imports `engine.nn`, `engine.ggml` and `engine.gguf`. Used by `engine.model`.
"""
