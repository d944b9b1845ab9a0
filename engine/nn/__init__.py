"""The building blocks of architectures: attention, feed-forward, mixture of experts, decoder and encoder
frames.

Imports `engine.graph`, `engine.ggml`, `engine.gguf` and `engine.hparams`. Used by `engine.architectures` and
by `engine.model`, which binds the loaded tensors.
"""
