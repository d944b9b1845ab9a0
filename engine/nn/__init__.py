"""The parts of architectures: attention, feed-forward, mixture of experts, frames of decoders and encoders.

Imports `engine.graph`, `engine.ggml`, `engine.gguf` and `engine.hparams`. Used by `engine.architectures` and
by `engine.model`, which binds the loaded tensors.
"""
