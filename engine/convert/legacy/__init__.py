"""Conversion of pre-GGUF files (ggml, ggmf, ggjt). Used by `ggserve convert` only."""
