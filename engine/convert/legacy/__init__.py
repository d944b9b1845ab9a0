"""ggml, ggmf and ggjt files, from before GGUF."""
