"""Conversion of Hugging Face folders and pre-GGUF files to GGUF.

`huggingface/` has the mapping of each architecture, `legacy/` the pre-GGUF formats. Imports
`engine.architectures`, `engine.tokenizer`, `engine.quantize` and `engine.ggml`.
Used by `ggserve convert` only.
"""
