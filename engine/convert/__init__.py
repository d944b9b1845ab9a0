"""Hugging Face folders and pre-GGUF files to GGUF. Used by `ggserve convert` only."""
